"""Classification data as logged decisions: the log says what the truth says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surpass.data import from_classification, open_log
from surpass.errors import InputError

X = np.random.default_rng(1).normal(size=(500, 4))
Y = np.array(["u", "v", "w"])[(X[:, :3]).argmax(1)]


@pytest.mark.parametrize("quality", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("exploration", [0.1, 0.5, 1.0])
def test_quality_exploration_and_value(quality: float, exploration: float) -> None:
    log, truth = from_classification(X, Y, quality=quality, exploration=exploration, rows=200)
    # The favorite is right in a share `quality`; exploring is right once in three.
    wanted = (1 - exploration) * quality + exploration / 3
    assert truth.value() == pytest.approx(wanted, abs=1.1 / 500)
    assert truth.best == 1.0
    assert truth.logging.min() == pytest.approx(exploration / 3)
    assert log.about.actions == ("u", "v", "w")


def test_the_log_follows_its_propensities_and_pays_the_truth() -> None:
    log, truth = from_classification(X, Y, rows=60_000, noise=0.1, seed=3)
    assert log.propensities is not None
    own = log.propensities.gather(1, log.action[:, None])[:, 0]
    assert torch.equal(own, log.propensity)
    counts = torch.bincount(log.action, minlength=3).double()
    expected = log.propensities.sum(0)
    sd = (log.propensities * (1 - log.propensities)).sum(0).sqrt()
    assert bool(((counts - expected).abs() < 4 * sd).all())
    mean, error = float(log.reward.mean()), float(log.reward.std()) / 60_000**0.5
    assert abs(mean - truth.value()) < 4 * error
    # Importance weighting gives the value of the policy that is always right: 0.9 with noise.
    label = torch.tensor([["u", "v", "w"].index(y) for y in Y])
    place = {tuple(c.tolist()): int(k) for c, k in zip(truth.contexts, label, strict=True)}
    right = torch.tensor([place[tuple(c.tolist())] for c in log.context])
    scores = (log.action == right) / log.propensity * log.reward
    assert truth.best == pytest.approx(0.9)
    assert abs(float(scores.mean()) - 0.9) < 4 * float(scores.std()) / 60_000**0.5


def test_a_seed_is_a_log() -> None:
    one, two, other = (open_log(f"iris:rows=300,seed={s}").read() for s in (5, 5, 6))
    assert torch.equal(one.action, two.action) and torch.equal(one.context, two.context)
    assert not torch.equal(one.action, other.action)


def test_policies_in_every_form() -> None:
    _, truth = from_classification(X, Y, rows=100)
    uniform = torch.full((500, 3), 1 / 3)
    assert truth.value(uniform) == pytest.approx(1 / 3)
    assert truth.value(lambda x: torch.full((len(x), 3), 1 / 3)) == pytest.approx(1 / 3)
    with pytest.raises(InputError, match=r"probabilities \(500, 2\), \(500, 3\) are expected"):
        truth.value(torch.full((500, 2), 0.5))
    with pytest.raises(InputError, match="do not sum to 1"):
        truth.value(uniform * 2)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"quality": 1.5}, "quality=1.5 is out of range; give a number from 0 to 1"),
        ({"exploration": 0.0}, "exploration=0 is out of range; give a number from 1e-06 to 1"),
        ({"rows": 10}, "rows=10: at least 100 rows are needed; give more"),
    ],
)
def test_bad_options(options: dict[str, float], wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        from_classification(X, Y, **options)  # type: ignore[arg-type]
    assert str(caught.value) == wanted


def test_bad_data() -> None:
    with pytest.raises(InputError, match="y holds only one class, 1; give at least two"):
        from_classification(X, np.ones(500, dtype=int))
    with pytest.raises(InputError, match="X: column 2, row 8 is not a finite number"):
        bad = X.copy()
        bad[7, 2] = np.nan
        from_classification(bad, Y)
    with pytest.raises(InputError, match="cannot be reached on these data; give one from 0"):
        from_classification(X, np.random.default_rng(0).integers(0, 3, 500), quality=0.95)
