"""Sequence policies: the scan against its loop, what must not leak, and what memory holds."""

import pytest
import torch

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.objectives.rows import Rows
from surpass.objectives.sequence import self_evolved
from surpass.parts import run
from surpass.policies.mamba import SelectiveMixer, selective_scan
from surpass.policies.sequence import CodedPolicy, SequencePolicy, sequence_net

SPACES = Spaces(3, 2, 0, (-1.0, -1.0), (1.0, 1.0))


@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_the_scan_is_the_loop(length):
    torch.manual_seed(0)
    x, dt = torch.randn(2, length, 3), torch.rand(2, length, 3)
    a, skip = -torch.rand(3, 4), torch.randn(3)
    b, c = torch.randn(2, length, 4), torch.randn(2, length, 4)
    h, expected = torch.zeros(2, 3, 4), []
    for t in range(length):
        h = torch.exp(dt[:, t, :, None] * a) * h
        h = h + (dt[:, t] * x[:, t])[..., None] * b[:, t, None]
        expected.append((h * c[:, t, None]).sum(-1) + skip * x[:, t])
    torch.testing.assert_close(selective_scan(x, dt, a, b, c, skip), torch.stack(expected, 1))


def test_a_mixer_sees_only_what_stands_before():
    torch.manual_seed(0)
    mixer, x = SelectiveMixer(8, 4), torch.randn(1, 9, 8)
    other = x.clone()
    other[:, 5:] += 1.0
    before, after = mixer(x), mixer(other)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


@pytest.mark.parametrize("backbone", ["mamba", "attention"])
def test_an_action_is_predicted_without_itself_or_anything_later(backbone):
    """Changing a_t, R_{t+1}, s_{t+1} and so on leaves the prediction at t; changing s_t, R_t or
    a_{t-1} does not. Two layers, so that a leak through another token would show."""
    torch.manual_seed(0)
    net = sequence_net(16, 2, backbone, context=6)(SPACES)
    seen = [torch.randn(1, 6), torch.randn(1, 6, 3), torch.randn(1, 6, 2)]
    age, t = torch.arange(6)[None], 3

    def predicted(which, at):
        moved = [x.clone() for x in seen]
        moved[which][:, at] += 1.0
        return net(*moved, age)[0][:, t]

    base = net(*seen, age)[0][:, t].detach()
    for which, at in ((2, t), (0, t + 1), (1, t + 1), (2, t + 1)):
        torch.testing.assert_close(predicted(which, at), base)
    for which, at in ((1, t), (0, t), (2, t - 1), (1, 0)):
        assert float((predicted(which, at) - base).abs().max()) > 1e-5


def test_acting_step_by_step_is_the_net_on_the_whole_window():
    torch.manual_seed(0)
    net = sequence_net(16, 1, context=4)(SPACES)
    policy, memory = SequencePolicy(net, 5.0, 2.0), None
    seen, played, left, reward = torch.randn(7, 1, 3), [], [], torch.tensor([0.5])
    with torch.no_grad():
        for t in range(7):
            acted = policy.act(seen[t], memory)
            played.append(acted.action)
            left.append((5.0 - 0.5 * t) / 2.0)
            memory = policy.remember(acted.memory, reward, torch.tensor([False]))
        window = slice(3, 7)
        action = torch.stack(played, 1)[:, window]
        whole = net(torch.tensor([left[3:7]]), seen[window, 0][None], action,
                    torch.arange(3, 7)[None])[0]  # fmt: skip
    torch.testing.assert_close(whole[:, -1], played[-1], rtol=1e-4, atol=1e-5)


def test_a_new_episode_begins_with_the_whole_target_and_no_past():
    torch.manual_seed(0)
    net = sequence_net(8, 1, context=3)(SPACES)
    policy = SequencePolicy(net, 5.0, 1.0)
    obs = torch.randn(2, 3)
    with torch.no_grad():
        first = policy.act(obs)
        memory = policy.remember(
            first.memory, torch.tensor([1.0, 1.0]), torch.tensor([True, False])
        )
        assert memory["left"].tolist() == [5.0, 4.0]
        assert memory["count"].tolist() == [0, 1]
        again = policy.act(obs, memory).action
    torch.testing.assert_close(again[0], first.action[0])
    assert not torch.allclose(again[1], first.action[1])


def test_the_loss_by_hand_and_that_a_teacher_which_agrees_changes_nothing():
    torch.manual_seed(0)
    net = sequence_net(8, 1, context=2)(SPACES)
    rows = Rows({
        "return_to_go": torch.tensor([[4.0, 3.0]]), "obs": torch.randn(1, 2, 3),
        "next_obs": torch.randn(1, 2, 3), "action": torch.rand(1, 2, 2),
        "age": torch.arange(2)[None],
        "reward": torch.tensor([[1.0, 1.0]]), "mask": torch.tensor([[1.0, 0.0]]),
    })  # fmt: skip
    nets = {"pi": net, "teacher": lambda *seen: (rows.action, None)}
    action, after = net(rows.return_to_go / 2, rows.obs, rows.action, rows.age)

    def smooth(x):
        return torch.where(x.abs() < 1, 0.5 * x.square(), x.abs() - 0.5)

    expected = (
        0.9 * (action - rows.action)[0, 0].square().mean()
        + 0.05 * smooth(after[0, 0, :3] - rows.next_obs[0, 0]).mean()
        + 0.05 * smooth(after[0, 0, 3] - 1.5)
    )
    for beta in (0.0, 0.5):
        found, _ = run(self_evolved(beta, 2.0), (nets, rows))
        torch.testing.assert_close(found, expected[None])


def test_half_belief_in_a_teacher_moves_the_target_half_way():
    torch.manual_seed(0)
    net = sequence_net(8, 1, context=1)(SPACES)
    rows = Rows({"return_to_go": torch.zeros(1, 1), "obs": torch.zeros(1, 1, 3), "next_obs":
                 torch.zeros(1, 1, 3), "action": torch.ones(1, 1, 2), "reward": torch.zeros(1, 1),
                 "age": torch.zeros(1, 1, dtype=torch.long), "mask": torch.ones(1, 1)})  # fmt: skip
    nets = {"pi": net, "teacher": lambda *seen: (-torch.ones(1, 1, 2), None)}
    found, _ = run(self_evolved(0.5, shares=(1.0, 0.0, 0.0)), (nets, rows))
    action = net(rows.return_to_go, rows.obs, rows.action, rows.age)[0]
    torch.testing.assert_close(found, action.square().mean()[None])


def test_an_unknown_backbone_is_named():
    with pytest.raises(InputError, match="no backbone 'lstm'"):
        sequence_net(backbone="lstm")(SPACES)


def test_a_code_is_told_at_every_step_of_the_window():
    torch.manual_seed(0)
    net = sequence_net(16, 1, "attention", context=4, code=2)(SPACES)
    policy, memory = CodedPolicy(net, torch.tensor([0.3, -1.0])), None
    seen, played = torch.randn(6, 1, 3), []
    with torch.no_grad():
        for t in range(6):
            acted = policy.act(seen[t], memory)
            played.append(acted.action)
            memory = policy.remember(acted.memory, torch.tensor([1.0]), torch.tensor([False]))
        code = torch.tensor([0.3, -1.0]).expand(1, 4, 2)
        whole = net(code, seen[2:, 0][None], torch.stack(played, 1)[:, 2:],
                    torch.arange(2, 6)[None])[0]  # fmt: skip
        other = policy.given(code=torch.tensor([1.0, 1.0])).act(seen[0]).action
    torch.testing.assert_close(whole[:, -1], played[-1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(other, played[0])


def test_belief_in_a_teacher_that_is_the_net_itself_halves_the_gradient():
    """The target is held fixed: the slope of |a^ - (a + a^*) / 2|^2 at a^* = a^ is half that of
    |a^ - a|^2, where one that flowed through the teacher would be a quarter."""
    torch.manual_seed(0)
    net = sequence_net(8, 1, context=2)(SPACES)
    rows = Rows({"return_to_go": torch.zeros(3, 2), "obs": torch.randn(3, 2, 3), "next_obs":
                 torch.zeros(3, 2, 3), "action": torch.rand(3, 2, 2), "reward": torch.zeros(3, 2),
                 "age": torch.arange(2).expand(3, 2), "mask": torch.ones(3, 2)})  # fmt: skip
    slopes = []
    for beta in (0.0, 0.5):
        part = self_evolved(beta, shares=(1.0, 0.0, 0.0))
        found, _ = run(part, ({"pi": net, "teacher": net}, rows))
        slopes.append(torch.autograd.grad(found.sum(), net.action.weight)[0])
    torch.testing.assert_close(slopes[1], 0.5 * slopes[0])
    assert float(slopes[0].abs().max()) > 1e-3
