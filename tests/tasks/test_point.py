"""POINT: its dynamics by hand, its scores, and the log-probs of its controllers."""

import math

import pytest
import torch

from surpass.errors import InputError
from surpass.tasks.point import CONTROLLERS, Controller, PointMass, point_log

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mean_return(log) -> float:
    return float(log.reward.reshape(-1, 60).sum(1).mean())


def test_one_step_by_hand():
    env = PointMass(dtype=F64, hazard=(0.5, 0.5, 0.1, -5.0))
    x = torch.tensor([[0.3, -0.4, 0.5, 1.0], [0.5, 0.45, 0.0, 0.0]], dtype=F64)
    state = {"x": x, "t": torch.tensor([0, 59])}
    after = env.step(state, torch.tensor([[0.5, 2.0], [0.0, 0.0]], dtype=F64))
    # v = .95 * .5 + .2 * .5 = .575; .95 + .2 (clipped action 1) = 1.15 -> 1
    torch.testing.assert_close(
        after.obs[0], torch.tensor([0.3 + 0.0575, -0.4 + 0.1, 0.575, 1.0], dtype=F64)
    )
    assert float(after.reward[0]) == pytest.approx(-math.hypot(0.3575, -0.3))
    assert float(after.reward[1]) == pytest.approx(-math.hypot(0.5, 0.45) - 5)
    assert after.truncated.tolist() == [False, True] and not after.terminated.any()


def test_scores_are_those_of_the_definition():
    got = {k: mean_return(point_log(k, 60 * 2000)) for k in CONTROLLERS}
    score = {k: 100 * (v - got["random"]) / (got["expert"] - got["random"]) for k, v in got.items()}
    assert got["expert"] == pytest.approx(-6, abs=0.5)
    assert got["random"] == pytest.approx(-70, abs=2)
    for name, about in {"medium": 60, "bimodal": 26, "zero": 38, "weak-reference": 55}.items():
        assert score[name] == pytest.approx(about, abs=3), name


def test_mixtures_count_episodes_and_name_their_sources():
    log = point_log({"random": 0.8, "expert": 0.2}, 6000, seed=1)
    assert len(log) == 6000 and log.behavior_logp is None
    source = log.source.reshape(100, 60)
    assert (source == source[:, :1]).all()
    assert torch.bincount(source[:, 0]).tolist() == [80, 20]
    assert torch.equal(log.episode, torch.arange(100).repeat_interleave(60))
    expert = log[log.source == 1]
    torch.testing.assert_close(
        expert.action, (-(2 * expert.obs[:, :2] + 1.5 * expert.obs[:, 2:])).clamp(-1, 1)
    )
    assert point_log({"random": 0.5, "medium": 0.5}, 600).behavior_logp is not None
    again = point_log({"random": 0.8, "expert": 0.2}, 6000, seed=1)
    assert torch.equal(again.action, log.action)


@pytest.mark.parametrize(
    "who",
    [Controller(noise=0.3), Controller(noise=0.3, flip=0.4), Controller(noise=0.5, uniform=0.3)],
)
def test_log_probs_integrate_to_one(who):
    obs = torch.tensor([[0.2, -0.1, 0.1, 0.05]], dtype=F64)
    grid = torch.linspace(-1, 1, 801, dtype=F64)[1:-1]
    values = torch.cat([torch.tensor([-1.0], dtype=F64), grid, torch.tensor([1.0], dtype=F64)])
    a = torch.cartesian_prod(values, values)
    weight = torch.full((801,), float(grid[1] - grid[0]), dtype=F64)
    weight[0] = weight[-1] = 1.0  # on the bounds there is mass, inside density
    logp = who.logp(obs.expand(len(a), -1), a, torch.zeros(len(a), 2, dtype=F64))
    total = (logp.exp() * torch.outer(weight, weight).flatten()).sum()
    assert float(total) == pytest.approx(1.0, abs=0.01)


def test_importance_weights_of_the_log_probs_are_unbiased():
    behavior, target = Controller(noise=0.4), Controller(gain=0.5, noise=0.4)
    log = point_log(behavior, 60 * 20_000, seed=2)
    first = log[torch.arange(20_000) * 60]  # one decision: its reward under the target by weighting
    aim = first.extras["aim"]
    weight = (target.logp(first.obs, first.action, aim) - first.behavior_logp).exp()
    assert float(weight.mean()) == pytest.approx(1.0, abs=4 * float(weight.std()) / 20_000**0.5)
    a = target.act(first.obs, aim, seeded(3))
    direct = -(first.obs[:, :2] + 0.02 * a).norm(dim=1)
    scores = weight * first.reward
    error = (scores.var() / 20_000 + direct.var() / 20_000) ** 0.5
    assert abs(float(scores.mean() - direct.mean())) < 4 * float(error)


def test_kicks_come_as_often_and_as_strong_as_said():
    env = PointMass(kick=0.1, dtype=F64)
    n = 50_000
    state, _obs = env.reset(n, seeded())
    still = PointMass(dtype=F64).step(state, torch.zeros(n, 2, dtype=F64)).obs
    noise = torch.rand(n, 5, generator=seeded(1), dtype=F64)
    pushed = env.step(state, torch.zeros(n, 2, dtype=F64), noise).obs - still
    hit = pushed.abs().sum(1) > 0
    assert float(hit.double().mean()) == pytest.approx(0.1, abs=0.006)
    torch.testing.assert_close(
        pushed[hit].std(0), torch.full((4,), 0.3, dtype=F64), atol=0.02, rtol=0
    )


def test_bad_mixtures():
    with pytest.raises(InputError, match="no controller named 'expart'"):
        point_log("expart")
    with pytest.raises(InputError, match="sum to one"):
        point_log({"expert": 0.4, "random": 0.4})
