"""Q-Evolve: its parts against values worked out by hand, and the loop where the answer is known."""

from functools import cache

import pytest
import torch
from tensordict import TensorDict

from surpass.critics.commands import command_critic, text_value
from surpass.critics.process_rewards import process_rewards
from surpass.data.records import Transitions
from surpass.data.selecting import only, successful
from surpass.data.trajectories import open_trajectories
from surpass.errors import InputError
from surpass.methods.agents.self_evolving import q_evolve
from surpass.objectives.advantage import gae, whitened
from surpass.objectives.rows import Rows
from surpass.objectives.text_turns import q_minus_v, step_outcome, text_feedback
from surpass.policies.commands import TextLayout, command_scorer
from surpass.registry import build
from surpass.tasks.recording import joined
from surpass.tasks.text import TextStep, TextTask, demonstrations
from surpass.training import run
from surpass.training.streams import COLUMNS


def log_of(rewards, ends, episode, **more):
    n = len(rewards)
    obs = torch.arange(2.0 * n).reshape(n, 2)
    return Transitions(
        obs=obs, action=torch.zeros(n, dtype=torch.long), reward=torch.tensor(rewards),
        next_obs=obs + 1.0, terminated=torch.tensor(ends), truncated=torch.zeros(n).bool(),
        episode=torch.tensor(episode), batch_size=[n], **more,
    )  # fmt: skip


TWO = log_of([0.0, 0.0, 0.0, 1.0, 0.0, 0.0], [False, False, False, True, False, True],
             [7, 7, 7, 7, 9, 9])  # fmt: skip


def column(name, log=TWO):
    return COLUMNS[name](log, {"reward": log.reward}, None)


# ------------------------------------------------------------------------------------------ parts


def test_step_outcome_weights_by_hand():
    assert column("progress").tolist() == [0.25, 0.5, 0.75, 1.0, 0.5, 1.0]
    assert column("earned").tolist() == [1.0] * 4 + [0.0] * 2
    rows = Rows({"progress": column("progress"), "earned": column("earned")})
    weight = step_outcome()({}, rows)
    assert weight.tolist() == [1.125, 1.25, 1.375, 1.5, 0.75, 1.0]


def test_text_feedback_prices_each_kind_once():
    rows = Rows({"reward": torch.tensor([1.0, 1.0, 1.0, 1.0]), "feedback": torch.arange(4)})
    found = text_feedback(-0.1, -0.2, -0.4)({}, rows)["reward"]
    torch.testing.assert_close(found, torch.tensor([1.0, 0.9, 0.8, 0.6]))


class Judge(torch.nn.Module):
    """V(s) = s_0 / 10, Q(s, a) = s_0 / 5, an ensemble of two whose second member is higher."""

    def forward(self, obs, action=None):
        value = obs[:, 0] / (10 if action is None else 5)
        return torch.stack([value, value + 3.0])


NETS = {"v": Judge(), "q": Judge()}


def deltas(log, gamma):
    after = log.next_obs[:, 0] / 10 * (~log.terminated)
    return log.reward + gamma * after - log.obs[:, 0] / 10


def test_process_rewards_without_lambda_are_td_errors():
    judged = process_rewards(gae(0.9, 0.0))(NETS, TWO)
    torch.testing.assert_close(judged.extras["advantage"], deltas(TWO, 0.9))
    assert torch.equal(judged.reward, TWO.reward) and TWO.extras is None


def test_process_rewards_sum_over_each_episode_alone():
    judged = process_rewards(gae(0.9, 0.5))(NETS, TWO).extras["advantage"]
    delta, want = deltas(TWO, 0.9), torch.zeros(6)
    for i in reversed(range(6)):
        goes_on = i < 5 and TWO.episode[i + 1] == TWO.episode[i]
        want[i] = delta[i] + (0.45 * want[i + 1] if goes_on else 0.0)
    torch.testing.assert_close(judged, want)
    cut = TWO[:3]  # an episode that stops in the middle is bootstrapped from
    torch.testing.assert_close(process_rewards(gae(0.9, 0.0))(NETS, cut).extras["advantage"],
                               deltas(cut, 0.9))  # fmt: skip


def test_the_text_shapes_the_critic_and_never_the_advantage():
    heard = TensorDict({"feedback": torch.full((6,), 2)}, batch_size=[6])
    told = log_of(TWO.reward.tolist(), TWO.terminated.tolist(), TWO.episode.tolist(), extras=heard)
    plain, after = (process_rewards(whitened(gae()))(NETS, log) for log in (TWO, told))
    assert torch.equal(plain.extras["advantage"], after.extras["advantage"])
    assert after.extras["feedback"].eq(2).all()
    assert abs(float(plain.extras["advantage"].mean())) < 1e-6


def test_q_minus_v_is_the_difference_of_the_lowest():
    judged = process_rewards(q_minus_v())(NETS, TWO).extras["advantage"]
    torch.testing.assert_close(judged, TWO.obs[:, 0] / 10)


def test_choosing_rows_and_episodes():
    assert successful()({}, TWO).episode.tolist() == [7] * 4
    with pytest.raises(InputError, match="no episode of the log earned more than 2"):
        successful(2.0)({}, TWO)
    assert only(1)({}, TWO).source.tolist() == [1] * 6  # a log without sources is one of them
    mixed = joined([only(1)({}, TWO), only(0)({}, TWO)])
    assert only(0)({}, mixed).episode.tolist() == [3] * 4 + [5] * 2
    with pytest.raises(InputError, match="no row of the log is of source 3"):
        only(3)({}, mixed)


# ----------------------------------------------------------------------------------------- the loop


class Fork:
    """One turn: "left" pays, "right" does not."""

    def __init__(self):
        self.goal, self.asked = "choose", 0

    def reset(self, task):
        self.task = task
        return "a fork"

    def admissible(self):
        return ("left", "right")

    def step(self, text):
        return TextStep("the end", float(text == "left"), True)

    def gold(self, task):
        return ["left" if task % 2 else "right"]  # an expert that knows no better


TASK = TextTask("fork", "", Fork, (0, 1), TextLayout(32, 3, 2, 2))
SMALL = {
    "policy": command_scorer(4, (4,)), "nets": (command_critic(2, 4, (4,)), text_value(1, 4, (4,))),
    "batch": 64, "cloning": 150, "critic": 60, "lr": 1e-2, "step": 5e-4,
}  # fmt: skip


def left(trained):
    obs = TASK.make(1).reset(0)
    return float(trained.nets["policy"].logits(obs).exp()[0, 0].detach())


@cache
def evolved(**changed):
    one = {"cycles": 1, "episodes": 64, "alpha": 0.0, "improve": 300}
    form = q_evolve(**{**SMALL, **one, **changed})
    return run.train(form, demonstrations(TASK), task=TASK.make(64), seed=0, compile=False)


def moved(p, low=0.3, high=0.2):
    """Where both bounds stop: "left" gains the share `high`, "right" loses the share `low`."""
    return max((1 + high) * p, 1 - (1 - low) * (1 - p))


def test_a_cycle_moves_as_far_as_the_wider_bound_lets_it():
    start = left(evolved(improve=0))
    assert start == pytest.approx(0.5, abs=0.05)  # the clone of its expert
    assert left(evolved()) == pytest.approx(moved(start), abs=0.035)
    narrow = left(evolved(low=0.1, high=0.2))
    assert narrow == pytest.approx(moved(start, 0.1, 0.2), abs=0.035)
    assert narrow < left(evolved()) - 0.02


def test_each_cycle_centers_trust_anew_and_keeps_the_clone_as_reference():
    start, two = left(evolved(improve=0)), evolved(cycles=2)
    assert left(two) == pytest.approx(moved(left(evolved())), abs=0.035)
    obs = TASK.make(1).reset(0)
    kept = float(two.nets["reference"].logits(obs).exp()[0, 0].detach())
    assert kept == pytest.approx(start, abs=1e-5)
    assert start < left(evolved(alpha=10.0)) < left(evolved()) - 0.05


def test_own_episodes_join_the_demonstrations_with_all_that_is_known_of_them(tmp_path):
    shown = demonstrations(TASK)
    run.train(q_evolve(**SMALL, cycles=1, episodes=6, improve=2), shown, task=TASK.make(6),
              compile=False, out=tmp_path)  # fmt: skip
    own = open_trajectories(next(tmp_path.glob("collected*.parquet"))).read()
    assert sorted(own.task.tolist()) == [0, 0, 0, 1, 1, 1] and (own.behavior_logp < 0).all()
    assert own.extras["feedback"].eq(0).all()
    assert own.reward.tolist() == [float(a == 0) for a in own.action.tolist()]
    own.source = torch.zeros(6, dtype=torch.long)
    both = joined([shown, own])
    assert both.source.tolist() == [1, 1] + [0] * 6 and both.episode.tolist() == list(range(8))
    assert both.behavior_logp[:2].eq(0).all() and set(both.extras.keys()) == {"feedback"}
    assert shown.episode.tolist() == [0, 1] and shown.about.name == "fork"  # left as it was


def test_what_is_missing_is_said_in_one_line():
    with pytest.raises(InputError, match="not of a text environment"):
        run.train("q-evolve", log_of([0.0, 1.0], [False, True], [0, 0]), compile=False)
    with pytest.raises(InputError, match="hand in the task too"):
        run.train(q_evolve(**SMALL), demonstrations(TASK), compile=False)
    with pytest.raises(InputError, match="needs the column 'feedback'"):
        plain = demonstrations(TASK)
        plain.extras = None
        run.train(q_evolve(**SMALL), plain, task=TASK.make(4), compile=False)


def test_the_key_builds_the_form():
    assert build("q-evolve", cycles=3).stages[1].times == 3
