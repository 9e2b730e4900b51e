"""A2PR: which of two actions is imitated, how often it counts, and whom the density takes after."""

import pytest
import torch
from training_logs import bandit, random_log

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.methods.offline.advantage_guided import a2pr
from surpass.methods.offline.behavior_regularized import td3_bc
from surpass.objectives.advantage_guided import better_of_two, clone_better
from surpass.objectives.bellman import lowest_of_both, state_td
from surpass.objectives.rows import Rows
from surpass.objectives.value import clone
from surpass.parts import from_json, to_json
from surpass.policies.variational import action_vae
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, spaces_of

SMALL = {"hidden": (16,), "wide": (16,), "batch": 32, "lr": 3e-3, "vae_lr": 3e-3}


class Table(dict):
    __getattr__ = dict.__getitem__


class Constant(torch.nn.Module):
    """The action 0.5 in every state."""

    def __init__(self):
        super().__init__()
        self.at = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, obs):
        return self.at.expand(len(obs), 1)

    def imitation(self, obs, action):
        return (self(obs) - action).square().mean(-1)


class Makes:
    """A density whose action is given, whatever goes in."""

    def __init__(self, action):
        self.action = action

    def reconstructed(self, obs, action, samples=1):
        return torch.full((1, len(obs), 1), self.action), torch.full((len(obs),), 0.3)


def highest(obs, action, first=None):
    """Q = a, of one critic or two."""
    return action[None, :, 0].expand(first or 2, -1)


def nets(v, made=-0.2):
    return Table(pi=Constant(), q=highest, v=lambda obs: torch.full((1, len(obs)), v),
                 density=Makes(made))  # fmt: skip


LOGGED = Rows({"obs": torch.zeros(3, 1), "action": torch.tensor([[-0.6], [-0.2], [0.8]])})


@pytest.mark.parametrize(
    ("v", "count"),
    [(-1.0, [2, 2, 2]), (-0.4, [1, 2, 2]), (-0.2, [1, 1, 2]), (0.0, [0, 0, 1]), (0.9, [0, 0, 0])],
)
def test_the_better_action_counts_as_often_as_the_two_are_good(v, count):
    """Of -0.2, which the density makes, and the logged one; a tie goes to the density."""
    table = nets(v)
    loss = better_of_two(0.5)(table, LOGGED)
    target = torch.tensor([-0.2, -0.2, 0.8])
    want = 0.5 * torch.tensor(count) * (0.5 - target).square()
    torch.testing.assert_close(loss, want)
    slope = torch.autograd.grad(loss.sum(), table.pi.at)[0]  # through pi(s) alone
    torch.testing.assert_close(slope, (torch.tensor(count) * (0.5 - target)).sum())


def test_without_the_density_and_above_every_expectation_it_is_the_term_of_td3_bc():
    table = nets(-torch.inf)
    found = better_of_two(0.5, generate=False)(table, LOGGED)
    torch.testing.assert_close(found, clone()(table, LOGGED))


def test_the_density_is_fitted_to_what_was_better_than_expected():
    table = nets(-0.4)
    found = clone_better(2.0, 0.5)(table, LOGGED)
    want = 2.0 * torch.tensor([0.0, 0.0, 1.0]) + 0.5 * 0.3  # (-0.2 - a)^2; -0.6 is below V
    torch.testing.assert_close(found, want)
    density = action_vae((8,))(Spaces(1, 1))
    for v, want in ((-torch.inf, "imitation"), (torch.inf, "reconstructed")):
        held = Table(table, density=density, v=lambda obs, v=v: torch.full((1, len(obs)), v))
        torch.manual_seed(2)
        found = clone_better()(held, LOGGED)
        torch.manual_seed(2)
        whole = getattr(density, want)(LOGGED.obs, LOGGED.action)
        torch.testing.assert_close(found, whole if v < 0 else 0.5 * whole[1])


def test_the_value_is_led_to_the_lowest_of_critics_and_targets_by_hand():
    rows = Rows({
        "obs": torch.zeros(2, 1), "next_obs": torch.zeros(2, 1),
        "reward": torch.tensor([1.0, 1.0]), "terminated": torch.tensor([0.0, 1.0]),
    })  # fmt: skip
    held = Table(q=lambda obs, a: torch.tensor([[4.0, 0.0], [3.0, 0.0]]),
                 q_target=lambda obs, a: torch.tensor([[2.5, 0.0], [9.0, 0.0]]),
                 pi_target=Constant())  # fmt: skip
    assert lowest_of_both()(held, rows).tolist() == [2.5, 0.0]
    seen = []
    held["v"] = Table(fit=lambda obs, y: seen.append(y) or y[None])
    state_td(lowest_of_both(), gamma=0.5)(held, rows)
    assert seen[0].tolist() == [1.0 + 0.5 * 2.5, 1.0]


def engine_of(form, **more):
    rows = random_log()
    stream = open_stream(form.source, {"log": rows}, spaces_of(rows), ())
    return Engine(form, stream, spaces_of(rows), **{"compile": False, **more})


def test_critics_learn_as_in_td3_bc_whatever_stands_beside_them():
    plain = engine_of(td3_bc(hidden=(16,), batch=32, lr=3e-3))
    ours = engine_of(a2pr(**SMALL))
    for name, tensor in plain.state.items():
        assert torch.equal(ours.state[name], tensor), name
    for engine in (plain, ours):
        engine.advance(1)  # the actor moves at the second update
    for name, tensor in plain.state.items():
        if name.startswith("net.q."):
            torch.testing.assert_close(ours.state[name], tensor, msg=name)


def test_the_traced_update_equals_the_eager_one():
    eager, by_graph = engine_of(a2pr(**SMALL)), engine_of(a2pr(**SMALL), compile=True)
    by_graph.compiler = traced
    for engine in (eager, by_graph):
        engine.advance(4)
    for name, tensor in eager.state.items():
        torch.testing.assert_close(by_graph.state[name], tensor, rtol=1e-5, atol=1e-7, msg=name)


def test_where_most_of_the_log_is_poor_it_finds_what_is_worth_most():
    """Even actions, Q = -3 - (a - 0.4)^2: V is -3.49, the density keeps to (-0.3, 1) about 0.4,
    and the policy with it; TD3+BC of the same constraint stays at the mean action."""
    rows = bandit()
    rows.reward = rows.reward - 3.0
    wide = {**SMALL, "hidden": (32,), "wide": (32,), "batch": 64}
    ours = train(a2pr(alpha=0.1, **wide), rows, steps=800, compile=False)
    theirs = train(td3_bc(0.1, hidden=(32,), batch=64, lr=3e-3), rows, steps=800, compile=False)
    with torch.no_grad():
        v = float(ours.nets.v(torch.zeros(1, 1))[0])  # observations are standardized
    assert v == pytest.approx(float(rows.reward.mean()), abs=0.1)
    assert abs(theirs.predict([1.0])[0]) < 0.1
    assert ours.predict([1.0])[0] == pytest.approx(0.37, abs=0.1)


def test_the_recipe_comes_back_from_json_and_says_what_cannot_be():
    assert from_json(to_json(a2pr())) == a2pr()
    for wrong in ({"mask": -1.0}, {"vae_weight": 0.0}):
        with pytest.raises(InputError, match=r"mask=.*vae_weight="):
            a2pr(**wrong)
