"""The main job on episodes: honest verdicts on logs whose truth is known by playing."""

from __future__ import annotations

import json

import pytest
import torch

from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.improve.episodes import split_episodes
from surpass.improve.job import improve
from surpass.improve.trajectories import improve_trajectories
from surpass.tasks.control import CartPole
from surpass.tasks.point import point_log
from surpass.tasks.protocol import Batched
from surpass.tasks.recording import record


@pytest.fixture(scope="module")
def cart_pole() -> Transitions:
    """A shaky stochastic policy, its log-probs exact, episodes of at most 60 steps."""
    generator = torch.Generator().manual_seed(0)

    def act(obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        p = 0.5 + 0.2 * torch.tanh(4 * obs[:, 2] + obs[:, 3])
        action = (torch.rand(len(obs), generator=generator) < p).long()
        return action, torch.where(action == 1, p, 1 - p).log()

    env = Batched(CartPole(horizon=60), 64, seed=0, name="cart-pole")
    return record(env, act, 14_000, seed=0)


@pytest.fixture(scope="module")
def result(cart_pole):
    return improve_trajectories(cart_pole, "tilt", seed=0)


def test_a_better_cart_pole_policy_is_proven_from_the_log_alone(result):
    assert result.verdict == "PROMOTE"
    assert result.best.p_value <= 0.05 and result.best.gain_low > 0
    assert result.best.key == "tilt" and result.per == "episode"
    assert "a step's reward is never other than 1" in " ".join(result.assumptions).lower()


def test_other_estimators_stand_beside_with_a_sentence_each(result):
    names = {e.name: e for e in result.best.agreement}
    assert {"STAR", "doubly robust", "weighted doubly robust"} <= set(names)
    assert names["STAR"].biased and not names["doubly robust"].biased
    robust = names["doubly robust"]
    assert robust.low < result.best.gain_high and result.best.gain_low < robust.high
    (why,) = result.diagnosis["estimators"]
    assert why.startswith("STAR is added: products of ratios grow with the length")
    table = result.diagnosis["portfolio"]
    assert table["judge"].startswith("the paired score of episodes") and table["candidates"] == 14
    assert [r["k"] for r in table["rows"]][:5] == [1, 2, 3, 4, 5]


def test_what_was_proven_is_true_when_it_is_played(cart_pole, result, tmp_path):
    from surpass.improve.on_policy import returns
    from surpass.policies.handover import load
    from surpass.tasks.catalog import ControlTask

    result.save(tmp_path / "report")
    policy = load(tmp_path / "report" / "policy")
    task = ControlTask("cart-pole", "", CartPole(horizon=60))
    played = returns(task, lambda obs: policy.sample(obs.double())[0], 1000)
    gain = float(played.mean()) - result.reference.value
    assert 0 < result.best.gain_low < gain
    text = (tmp_path / "report" / "verdict.md").read_text()
    assert "per episode" in text and "per decision" not in text
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert told["diagnosis"]["unit"] == "episode"
    assert "return per episode" in (tmp_path / "report" / "report.html").read_text()


def test_without_log_probs_the_same_log_holds_unless_that_is_accepted(cart_pole):
    log = cart_pole.clone()
    log.behavior_logp = None
    held = improve_trajectories(log, "tilt", seed=0)
    assert held.verdict == "HOLD" and "--accept-estimated-behavior" in held.reason
    assert any("estimated" in a for a in held.assumptions)
    accepted = improve_trajectories(log, "tilt", seed=0, accept_estimated_behavior=True)
    assert accepted.verdict == "PROMOTE"
    assert accepted.reason.endswith("for the true one, as accepted.")


def test_wrong_log_probs_are_noticed(cart_pole):
    log = cart_pole.clone()
    log.behavior_logp = log.behavior_logp - 0.4 * (log.action == 1)
    found = improve_trajectories(log, "tilt", seed=0)
    assert found.verdict == "HOLD"
    assert any(not c.passed and c.name == "logged propensities" for c in found.checks)


def test_a_policy_from_continuous_actions_holds_until_it_is_played():
    log = point_log("medium", 6_000)
    held = improve_trajectories(log, "td3-bc", steps=20, seed=0)
    assert held.verdict == "HOLD" and "which cannot promote; play it with --env ID" in held.reason
    assert held.best is not None and not held.best.tested


def test_tilts_alone_are_refused_where_actions_are_continuous():
    with pytest.raises(InputError, match="tilt is for discrete actions"):
        improve_trajectories(point_log("medium", 3_000), "tilt")


def test_with_an_environment_play_decides():
    log = point_log("medium", 15_000)
    for name, act, verdict in (
        ("expert", lambda obs: (-(2 * obs[:, :2] + 1.5 * obs[:, 2:])).clamp(-1, 1), "PROMOTE"),
        ("away", lambda obs: obs[:, :2].sign(), "REJECT"),
    ):
        found = play(log, act, name)
        assert found.verdict == verdict
        assert found.best.agreement, "the off-policy estimate is shown beside"


def play(log, act, name, **options):
    from surpass.improve import trajectories as job
    from surpass.improve.episode_candidates import EpisodeCandidate

    made = EpisodeCandidate(name, act, lambda folder: None)
    keep = job.learn
    job.learn = lambda key, part, **_: made
    try:
        return improve_trajectories(log, "td3-bc", env="point", seed=0, **options)
    finally:
        job.learn = keep


def test_a_reference_that_acts_plays_the_same_seeds():
    from surpass.improve.on_policy import confirm, returns
    from surpass.tasks.catalog import task

    point = task("point")
    expert = lambda obs: (-(2 * obs[:, :2] + 1.5 * obs[:, 2:])).clamp(-1, 1)  # noqa: E731
    same = confirm(point, expert, expert, (-9.9, 0.0), horizon=60, episodes=50)
    assert same.paired and torch.equal(same.returns, same.against)
    assert same.p > 0.3 and same.bounds.mean == 0.0
    assert torch.equal(returns(point, expert, 20, seed=3), returns(point, expert, 20, seed=3))


def test_a_given_reference_is_what_is_reported_and_needs_an_environment(cart_pole):
    from surpass.improve.on_policy import returns
    from surpass.tasks.catalog import task

    expert = lambda obs: (-(2 * obs[:, :2] + 1.5 * obs[:, 2:])).clamp(-1, 1)  # noqa: E731
    away = lambda obs: obs[:, :2].sign()  # noqa: E731
    found = play(point_log("medium", 6_000), away, "away", reference=expert)
    theirs, ours = (float(returns(task("point"), f, 200, seed=0).mean()) for f in (expert, away))
    assert found.verdict == "REJECT" and found.reference_name == "given"
    assert found.reference.value == pytest.approx(theirs)
    assert found.best.value == pytest.approx(ours)
    with pytest.raises(InputError, match="--env ID"):
        improve_trajectories(cart_pole, "tilt", reference=lambda obs: obs)


def test_parts_are_whole_episodes_without_overlap(cart_pole):
    parts = split_episodes(cart_pole, 3)
    sets = [set(p.episode.tolist()) for p in (parts.learning, parts.choosing, parts.judging)]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert len(set.union(*sets)) == len(torch.unique(cart_pole.episode))
    assert len(parts.learning.reward) + len(parts.choosing.reward) + len(
        parts.judging.reward
    ) == len(cart_pole.reward)


def test_options_that_do_not_fit_are_refused(cart_pole):
    with pytest.raises(InputError, match="at least 20 are needed"):
        improve_trajectories(cart_pole[cart_pole.episode < 10])
    with pytest.raises(InputError, match="pendulum has 3 observation numbers, the log 4"):
        improve_trajectories(cart_pole, env="pendulum")
    with pytest.raises(InputError, match=r"--reward-range LO HI"):
        improve_trajectories(cart_pole, reward_limits=(0.0, 0.5))
    with pytest.raises(InputError, match="--steps is 0"):
        improve(point_log("medium", 6_000), methods="bc", steps=0)
    with pytest.raises(InputError, match="--steps is for logs of episodes"):
        improve({"x": [0.1] * 200, "action": ["a", "b"] * 100, "reward": [0, 1] * 100,
                 "propensity": [0.5] * 200}, steps=10)  # fmt: skip
    with pytest.raises(InputError, match="--winsorize is for decision logs"):
        improve(cart_pole, winsorize=0.9)
    with pytest.raises(InputError, match="--env point is for logs of episodes"):
        improve({"x": [0.1] * 200, "action": ["a", "b"] * 100, "reward": [0, 1] * 100,
                 "propensity": [0.5] * 200}, env="point")  # fmt: skip


def test_rewards_of_many_values_need_a_stated_range():
    log = point_log("medium", 6_000)
    log.action = (log.action[:, 0] > 0).long()
    log.behavior_logp = None
    log = log.described(type(log.about)(name="two actions", spaces={"n_actions": 2}))
    found = improve_trajectories(log, "tilt", seed=0, accept_estimated_behavior=True)
    assert found.verdict == "HOLD"
    assert found.diagnosis["reward"]["range_source"] == "observed"
