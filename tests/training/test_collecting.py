"""What the replay and rollouts streams hold, row by row, on an environment that counts."""

from dataclasses import replace

import pytest
import torch
from training_counters import Counter, TaskOf

from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.forms import Spaces, mix, replay, rollouts
from surpass.methods.online.actor_critic import sac, td3
from surpass.methods.online.policy_gradients import ppo
from surpass.methods.rlvr.policy_gradients import grpo
from surpass.objectives.rows import discounted, span_of
from surpass.tasks.control import CartPole
from surpass.training.collecting import pack, unpack
from surpass.training.engine import Engine
from surpass.training.on_policy import lowered, updates_for
from surpass.training.run import train
from surpass.training.streams import open_stream


def replaying(source, simulator=None, needs=(), seed=0, roles=None):
    task = TaskOf(simulator or Counter())
    spaces = Spaces(1, 1, 0, (-2.0,), (6.0,))
    form = replace(sac(hidden=(8,)), source=source)
    roles = {"task": task, **(roles or {})}
    stream = open_stream(source, roles, spaces, needs)
    engine = Engine(form, stream, spaces, seed=seed, compile=False)
    stream.bind(engine, roles)
    return stream


def test_replay_keeps_true_next_observations_and_only_terminations_stop_the_value():
    for terminal in (False, True):
        stream = replaying(replay(4, 100, warm=7), Counter(3, terminal))
        stream.before(0)
        t = stream.tables
        assert t["obs"][:7, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
        assert t["next_obs"][:7, 0].tolist() == [1, 2, 3, 1, 2, 3, 1]
        assert t["reward"][:7].tolist() == [1, 2, 3, 1, 2, 3, 1]
        assert t["terminated"][:7].tolist() == [0, 0, terminal, 0, 0, terminal, 0]
        assert t["ended"][:7].tolist() == [False, False, True, False, False, True, False]


def test_so_many_updates_cost_so_many_steps_and_old_rows_go_first():
    stream = replaying(replay(4, 6, warm=4, per_step=0.5, envs=2))
    stream.before(3)  # 4 rows to warm up, then 2 rows a step that pay for 1 update
    assert stream.spent == 4 + 3 * 2 and stream.credit == 0
    assert stream.rows == 6
    # steps 2, 3 and 4 are left, and those observed 2, 0 and 1; step 3 began the ring again
    assert stream.tables["obs"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert int(stream.tables["head"]) == 4


def test_a_replay_that_would_act_for_ever_is_refused():
    with pytest.raises(InputError, match=r"waits for 7 rows .* room for 6"):
        replaying(replay(4, 7, warm=7, envs=2))
    with pytest.raises(InputError, match="per_step is above 0"):
        replaying(replay(4, 100, warm=7, per_step=0.0))


def test_n_step_windows_end_with_the_episode_and_at_the_newest_row():
    source = replay(400, 100, warm=16, view="n_step", n=3, envs=2)
    stream = replaying(source, Counter(4), ("next_action",))
    stream.before(0)  # 8 steps: two episodes of 4 per copy
    rows = stream.sample(stream.tables)
    seen = {}
    for i in range(400):
        x = int(rows.obs[i, 0])
        seen[x] = (rows.reward[i].tolist(), int(rows.span[i]), int(rows.next_obs[i, 0]))
    assert seen == {
        0: ([1, 2, 3], 3, 3),
        1: ([2, 3, 4], 3, 4),
        2: ([3, 4, 0], 2, 4),
        3: ([4, 0, 0], 1, 4),
    }
    # the action in the state that a window leads to, three steps on; behind an end the last again
    ahead = torch.tensor([3, 2, 1, 0])[rows.obs[:, 0].long()]
    follows = rows.index + 2 * ahead
    assert torch.equal(rows.next_action, stream.tables["action"][follows])
    g = 0.5
    at = int((rows.obs[:, 0] == 2).nonzero()[0])
    assert discounted(rows, g)[at] == 3 + g * 4 and span_of(rows, g)[at] == g**2


def test_an_unfinished_window_stops_at_the_newest_row():
    stream = replaying(replay(200, 100, warm=4, view="n_step", n=3, envs=2), Counter(9))
    stream.before(0)  # two steps: nothing has ended
    rows = stream.sample(stream.tables)
    first, second = rows.obs[:, 0] == 0, rows.obs[:, 0] == 1
    assert (rows.span[first] == 2).all() and (rows.next_obs[first] == 2).all()
    assert (rows.span[second] == 1).all() and (rows.next_obs[second] == 2).all()


def test_returns_to_go_and_next_actions_of_replay():
    source = replay(64, 100, warm=7, gamma=0.5)
    stream = replaying(source, Counter(3), ("return_to_go", "next_action"))
    stream.before(0)
    g = stream.tables["return_to_go"][:7].tolist()
    assert g == [1 + 0.5 * 2 + 0.25 * 3, 2 + 0.5 * 3, 3] * 2 + [-float("inf")]
    rows = stream.sample(stream.tables)
    actions = stream.tables["action"]
    for i, a in zip(rows.index.tolist(), rows.next_action, strict=True):
        last = i in (2, 5, 6)
        assert torch.equal(a, actions[i] if last else actions[i + 1])


class Unsaved(TaskOf):
    """A task whose environment cannot be saved."""

    def make(self, n, seed=0, **_):
        env = super().make(n, seed)

        def refuse():
            raise InputError("the state of this environment cannot be saved")

        env.state_dict = refuse
        return env


def test_episodes_break_off_where_a_run_goes_on_in_an_environment_that_cannot_be_saved():
    source, needs = replay(64, 100, warm=6, gamma=0.5), ("return_to_go", "next_action")
    first, again = (
        replaying(source, needs=needs, roles={"task": Unsaved(Counter(4))}) for _ in range(2)
    )
    first.before(0)  # an episode of four steps, and two of the next
    again.load_state_dict(first.state_dict())
    again.before(4)  # four steps from a fresh start
    whole = [1 + 0.5 * 2 + 0.25 * 3 + 0.125 * 4, 2 + 0.5 * 3 + 0.25 * 4, 3 + 0.5 * 4, 4.0]
    unknown = [-float("inf")] * 2
    assert again.tables["return_to_go"][:10].tolist() == [*whole, *unknown, *whole]
    rows = again.sample(again.tables)
    cut = rows.index == 5
    assert cut.any() and torch.equal(rows.next_action[cut], rows.action[cut])


def test_replay_that_begins_with_a_log_draws_from_both_and_lets_the_oldest_rows_go():
    log = Transitions(
        obs=torch.arange(5.0)[:, None], action=torch.full((5, 1), 4.0), reward=torch.ones(5),
        next_obs=torch.arange(1.0, 6.0)[:, None], terminated=torch.arange(5) == 2,
        truncated=torch.zeros(5, dtype=torch.bool), episode=torch.tensor([0, 0, 0, 1, 1]),
        batch_size=[5],
    )  # fmt: skip
    source = replay(64, 7, warm=3, begin_with="log", gamma=0.5)
    needs = ("return_to_go", "next_action")
    stream = replaying(source, needs=needs, roles={"log": log})
    t = stream.tables
    stream.before(0)  # the log has more rows than the 3 to warm up
    assert stream.rows == 5 and stream.spent == 0
    assert t["action"][:5, 0].tolist() == [0.5] * 5  # 4 within [-2, 6], in the unit box
    assert t["return_to_go"][:5].tolist() == [1.75, 1.5, 1.0, 1.5, 1.0]
    rows = stream.sample(t)
    last = (rows.index == 4) | (rows.index == 2)  # nothing follows the end of an episode
    assert torch.equal(rows.next_action[last], rows.action[last])
    stream.before(3)  # three steps of the environment, into a ring of seven
    assert stream.spent == 3 and stream.rows == 7
    assert t["obs"][:, 0].tolist() == [2, 1, 2, 3, 4, 0, 1]
    with pytest.raises(InputError, match="one environment only; this recipe asks for it with 2"):
        replaying(replay(4, begin_with="log", envs=2), needs=needs, roles={"log": log})
    with pytest.raises(InputError, match="handed in as 'logs'"):
        replaying(replay(4, begin_with="logs"))


def test_actions_live_in_the_unit_box_and_reach_the_environment_in_its_bounds():
    seen = []

    class Spy(Counter):
        def step(self, state, action, noise=None):
            seen.append(float(action[0, 0]))
            return super().step(state, action, noise)

    stream = replaying(replay(4, 100, warm=20), Spy())
    stream.before(0)
    kept = stream.tables["action"][:20, 0]
    assert kept.abs().max() <= 1
    assert torch.allclose(2.0 + 4.0 * kept, torch.tensor(seen))  # [-1, 1] to [-2, 6]


def counted(rows=12):
    """A log of the counting environment whose rewards are 100."""
    t = torch.arange(rows) % 3
    return Transitions(
        obs=t[:, None].float(), action=torch.linspace(-1, 1, rows)[:, None],
        reward=torch.full((rows,), 100.0), next_obs=(t + 1)[:, None].float(),
        terminated=torch.zeros(rows, dtype=torch.bool), truncated=t == 2,
        episode=torch.arange(rows) // 3, batch_size=[rows],
    )  # fmt: skip


def test_a_mix_draws_its_shares_and_marks_them():
    source = mix(8, log=0.25, replay=(0.75, replay(6, 50, warm=5)))
    spaces, roles = Spaces(1, 1, 0, (-2.0,), (6.0,)), {"task": TaskOf(Counter()), "log": counted()}
    stream = open_stream(source, roles, spaces)
    engine = Engine(replace(sac(hidden=(8,)), source=source), stream, spaces, compile=False)
    stream.bind(engine, roles)
    stream.before(1)
    rows = stream.sample(stream.tables)
    assert rows.source.tolist() == [0, 0, 1, 1, 1, 1, 1, 1] and rows.sources == ("log", "replay")
    assert (rows.reward[:2] == 100).all() and (rows.reward[2:] <= 3).all()
    assert stream.spent == 6  # 5 to warm up, 1 for the update


def test_rollouts_of_episodes_are_masked_after_their_end_and_groups_share_their_start():
    form = lowered(grpo(beta=0.0, batch=6, group=3, horizon=40))
    spaces = Spaces(4, n_actions=2)
    roles = {"task": TaskOf(CartPole())}
    stream = open_stream(form.source, roles, spaces)
    engine = Engine(form, stream, spaces, compile=False)
    stream.bind(engine, roles)
    stream.before(1)
    obs, mask = stream.tables["obs"], stream.tables["mask"]
    assert torch.equal(obs[0, 0], obs[1, 0]) and torch.equal(obs[3, 0], obs[5, 0])
    assert not torch.equal(obs[0, 0], obs[3, 0])
    length = mask.sum(1)
    for i in range(6):  # ones first, then zeros
        n = int(length[i])
        assert mask[i, :n].all() and not mask[i, n:].any()
    # anchor and behavior are the policy that collected
    own = mask > 0
    assert torch.allclose(stream.tables["anchor_logp"][own], stream.tables["behavior_logp"][own],
                          atol=1e-6)  # fmt: skip
    # the standardized advantage of a group sums to nothing
    a = stream.tables["advantage"][:, 0].reshape(2, 3)
    assert torch.allclose(a.sum(1), torch.zeros(2), atol=1e-4)
    total = length.reshape(2, 3)
    wanted = (total - total.mean(1, keepdim=True)) / (total.std(1, keepdim=True) + 1e-6)
    assert torch.allclose(a, wanted, atol=1e-4)


def test_every_decision_is_drawn_once_per_epoch():
    form = lowered(ppo(envs=4, horizon=6, epochs=2, minibatches=3, hidden=(8,)))
    spaces = Spaces(4, n_actions=2)
    roles = {"task": TaskOf(CartPole())}
    stream = open_stream(form.source, roles, spaces)
    engine = Engine(form, stream, spaces, compile=False)
    stream.bind(engine, roles)
    for _ in range(2):
        drawn = []
        for _ in range(3):
            stream.before(1)
            drawn += stream.tables["index"][0].tolist()
        assert sorted(drawn) == list(range(24))
    assert stream.batches == 1
    stream.before(1)
    assert stream.batches == 2 and stream.spent == 48


def test_a_truncated_step_is_bootstrapped_and_a_terminated_one_is_not():
    spaces = Spaces(1, n_actions=2)
    for terminal in (False, True):
        form = lowered(
            ppo(envs=1, horizon=6, epochs=1, minibatches=1, lam=0.0, gamma=0.5, hidden=(8,))
        )
        roles = {"task": TaskOf(Counter(3, terminal, discrete=True))}
        stream = open_stream(form.source, roles, spaces)
        engine = Engine(form, stream, spaces, compile=False)
        stream.bind(engine, roles)
        stream.before(1)
        value = engine.bank.value.of(torch.tensor([[[1.0], [2.0], [3.0]]])).flatten()
        wanted = torch.tensor([1.0, 2.0, 3.0]) + 0.5 * value
        if terminal:
            wanted[2] = 3.0
        found = stream.tables["value_target"].flatten()[:3]
        assert torch.allclose(found, wanted, atol=1e-5)


def test_steps_pay_for_updates():
    assert updates_for(sac(warm=1_000), 5_000) == 4_000
    assert updates_for(sac(warm=1_000, per_step=0.5), 5_000) == 2_000
    form = lowered(ppo(envs=8, horizon=128, epochs=10, minibatches=4))
    assert updates_for(form, 8 * 128 * 5) == 5 * 40
    assert rollouts(4, 16).options["horizon"] == 16


def test_packing_keeps_tensors_apart_from_plain_values():
    nested = {"a": {"b": torch.arange(3), "c": 2}, "d": [1, 2], "e": None}
    tensors, plain = pack(nested)
    assert list(tensors) == ["a.b"]
    again = unpack(tensors, plain)
    assert torch.equal(again["a"]["b"], torch.arange(3))
    assert (again["a"]["c"], again["d"], again["e"]) == (2, [1, 2], None)


@pytest.mark.parametrize(
    "recipe",
    [
        lambda: td3(warm=30, batch=16, hidden=(8,)),
        lambda: ppo(envs=2, horizon=8, epochs=2, minibatches=2, hidden=(8,), normalize=True),
    ],
)
def test_an_online_run_goes_on_bit_by_bit_the_same(tmp_path, recipe):
    def weights(trained):
        return torch.cat([p.flatten() for p in trained.nets.parameters()])

    steps = 60 if recipe().source.kind == "replay" else 48
    whole = train(recipe(), task="pendulum", steps=steps, out=tmp_path / "a", save_every=5)
    stop = {"callback": lambda step, m, p: step >= 10, "log_every": 5, "save_every": 5}
    train(recipe(), task="pendulum", steps=steps, out=tmp_path / "b", **stop)
    again = train(recipe(), task="pendulum", steps=steps, out=tmp_path / "b", resume=True,
                  save_every=5)  # fmt: skip
    assert torch.equal(weights(whole), weights(again))


def test_what_learns_by_acting_asks_for_a_task():
    with pytest.raises(InputError, match="give it a task"):
        train(sac(), counted(), steps=10)
