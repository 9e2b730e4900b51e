"""The list of tasks, and the grids that Gymnasium has too."""

import pytest
import torch

from surpass.errors import InputError
from surpass.evaluation.rollouts import roll_out
from surpass.tasks.catalog import (
    normalized,
    opened,
    reference_scores,
    task,
    tasks,
    write_reference,
)
from surpass.tasks.control import Pendulum
from surpass.tasks.language import LanguageTask
from surpass.tasks.point import point_log
from surpass.tasks.preference import PreferenceBandit, PreferenceGame
from surpass.tasks.protocol import Task, VectorEnv
from surpass.tasks.tables import TableTask
from surpass.tasks.text import TextTask


def test_every_task_of_the_list_opens_and_runs():
    for name, line in tasks().items():
        one = task(name)
        assert isinstance(one, Task) and one.name == name and one.summary == line
        if isinstance(one, LanguageTask):
            prompts = one.prompts(4, torch.Generator().manual_seed(0))
            assert one.traces(prompts).total.min() == 1.0
        elif isinstance(one, TableTask):
            assert float(one.truth(one.uniform()).success.mean()) > 0
        elif isinstance(one, PreferenceBandit):
            assert float(one.truth(one.reference).win_rate) == pytest.approx(0.5)
        elif isinstance(one, PreferenceGame):
            assert float(one.truth(one.nash())) == pytest.approx(0.0, abs=1e-8)
        elif isinstance(one, TextTask):
            if name != "science-world":  # which needs Java; it has tests of its own
                env, again = one.make(3, seed=1), one.make(3, seed=1)
                obs = env.reset(1)
                assert torch.equal(obs, again.reset(1))
                for _ in range(5):  # the last command on offer is to wait
                    action = one.layout.offered(obs).sum(-1) - 1
                    a, b = env.step(action), again.step(action)
                    assert torch.equal(a.obs, b.obs) and not a.reward.any()
                    obs = a.obs
        else:
            env = one.make(3, seed=1)
            again = one.make(3, seed=1)
            assert isinstance(env, VectorEnv)
            generator = torch.Generator().manual_seed(2)
            for _ in range(5):
                action = env.spaces.sample(3, generator)
                a, b = env.step(action), again.step(action)
                assert torch.equal(a.obs, b.obs) and torch.equal(a.reward, b.reward)
                assert a.obs.shape == (3, one.spaces.obs_dim)


def test_settings_reach_the_physics_and_wrong_ones_are_named():
    assert task("pendulum", gravity=20.0).simulator.gravity == 20.0
    assert task("point-maze-u", scale=0.2).simulator.scale == 0.2
    with pytest.raises(InputError, match=r"task pendulum: .*'gravitation'"):
        task("pendulum", gravitation=20.0)
    with pytest.raises(InputError, match=r"no task 'pendulun' \(did you mean 'pendulum'\?\)"):
        task("pendulun")


def test_gymnasium_ids_are_tasks():
    pytest.importorskip("gymnasium")
    one = task("CartPole-v1")
    assert one.spaces.n_actions == 2 and one.spaces.horizon == 500
    assert one.make(2).reset(0).shape == (2, 4)


@pytest.mark.parametrize(
    ("ours", "theirs", "order"),
    [("grid-lake", "FrozenLake-v1", [3, 2, 1, 0]), ("grid-cliff", "CliffWalking-v1", [0, 1, 2, 3])],
)
def test_grids_have_the_tables_of_gymnasiums(ours, theirs, order):
    gymnasium = pytest.importorskip("gymnasium")
    mdp, table = task(ours).mdp, gymnasium.make(theirs).unwrapped.P
    for s in range(mdp.n_states):
        if mdp.terminal[s] or (ours == "grid-cliff" and 37 <= s <= 46):
            continue  # never left, never entered
        for a, b in enumerate(order):
            P, r = torch.zeros(mdp.n_states, dtype=torch.float64), 0.0
            for p, to, reward, _ in table[s][b]:
                P[to] += p
                r += p * reward
            torch.testing.assert_close(mdp.P[s, a], P)
            assert float(mdp.r[s, a]) == pytest.approx(r)


def test_the_best_policy_of_frozen_lake_is_worth_what_is_known():
    solution = task("grid-lake").mdp.solve()
    # undiscounted success within 100 steps; 0.8235 without a limit of steps
    assert 0.70 < float(solution.value) < 0.8236
    longer = task("grid-lake", horizon=3000).mdp.solve()
    assert float(longer.value) == pytest.approx(0.8235, abs=1e-3)


def test_normalized_scores(tmp_path):
    path = tmp_path / "scores.json"
    write_reference("a", -10.0, 30.0, path, episodes=5)
    write_reference("b", 0.0, 1.0, path)
    assert reference_scores(path)["a"] == {"random": -10.0, "expert": 30.0, "episodes": 5}
    assert normalized("a", torch.tensor([-10.0, 30.0, 10.0]), path).tolist() == [0, 100, 50]
    with pytest.raises(InputError, match="no reference returns for c"):
        normalized("c", torch.zeros(1), path)
    with pytest.raises(InputError, match="must beat random"):
        write_reference("c", 1.0, 1.0, path)


def test_the_stored_references_of_point_are_what_its_controllers_earn():
    for name in ("random", "expert"):
        returns = point_log(name, 60 * 1000, seed=5).reward.reshape(-1, 60).sum(1)
        score = task("point").score(returns)
        error = float(score.std()) / 1000**0.5
        assert float(score.mean()) == pytest.approx(
            {"random": 0, "expert": 100}[name], abs=5 * error
        )


def test_a_bare_simulator_is_a_task():
    """Playing it is playing the task that it is of; a task stays what it is."""

    def still(obs):
        return torch.zeros(len(obs), 1)

    known = task("pendulum")
    assert opened(known) is known and opened("pendulum").name == "pendulum"
    bare, named = (roll_out(still, place, 4, seed=3).returns for place in (Pendulum(), known))
    torch.testing.assert_close(bare, named)
