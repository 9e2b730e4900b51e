"""The main job on decision logs: what its report says beside the verdict."""

from __future__ import annotations

import pytest
import torch

from surpass.data.records import About, Decisions
from surpass.data.truth import Truth
from surpass.errors import InputError
from surpass.improve.decisions import _with_fitted_propensities, improve_decisions
from surpass.improve.job import improve


def test_values_stand_on_the_given_reference_and_not_on_the_log():
    """Uniform logging of two actions, of which the second pays 1: the log earns 0.5, a reference
    that takes it with 0.1 earns 0.1."""
    g = torch.Generator().manual_seed(0)
    action = (torch.rand(600, generator=g) < 0.5).long()
    half = torch.full((600, 2), 0.5).double()
    log = Decisions(
        context=torch.rand(600, 2, generator=g), action=action, reward=action.double(),
        propensity=half[:, 0], propensities=half, batch_size=[600],
    ).described(About(actions=("0", "1")))  # fmt: skip
    truth = Truth(log.context, torch.tensor([[0.0, 1.0]]).expand(600, 2).double(), half)
    found = improve_decisions(log, torch.tensor([0.9, 0.1]), "tilt", truth=truth)
    paid = 0.2 * action.double()  # rho / mu of the second action is 0.1 / 0.5
    assert found.reference.value == pytest.approx(float(paid.mean()))
    assert found.reference_name == "given"
    assert found.best.gain > 0.05
    for c in found.candidates:
        assert c.value - c.gain == pytest.approx(0.1, abs=0.02)
        assert c.truth is None  # the known gain is that over the logging policy
    own = improve_decisions(log, methods="tilt", truth=truth)
    assert own.best.value - own.best.gain == pytest.approx(0.5, abs=0.1)
    assert 0.1 < own.best.truth <= 0.5


def offered_in_halves(logged_only: bool) -> Decisions:
    """Uniform over what is on offer: all of four actions, or the first two, by a coin that the
    context does not show."""
    g = torch.Generator().manual_seed(1)
    few = torch.rand(2000, 1, generator=g) < 0.5
    available = ~few | (torch.arange(4) < 2)
    mu = available.double() / available.sum(1, keepdim=True)
    action = torch.multinomial(mu, 1, generator=g)[:, 0]
    return Decisions(
        context=torch.rand(2000, 2, generator=g), action=action,
        reward=(torch.rand(2000, generator=g) < 0.3).double(),
        propensity=mu.gather(1, action[:, None])[:, 0],
        propensities=None if logged_only else mu, available=available, batch_size=[2000],
    ).described(About(actions=tuple("abcd")))  # fmt: skip


def test_actions_that_were_not_on_offer_are_no_sign_of_wrong_propensities():
    found = improve_decisions(offered_in_halves(logged_only=True), methods="tilt")
    (check,) = (c for c in found.checks if c.name == "logged propensities")
    assert check.passed, check.reason


def test_fitted_propensities_are_zero_where_an_action_was_not_on_offer():
    log = offered_in_halves(logged_only=False)
    fitted = _with_fitted_propensities(log)
    assert bool((fitted.propensities[~log.available] == 0).all())
    assert torch.allclose(fitted.propensities.sum(1), torch.ones(2000))


def test_the_reference_of_a_grouped_log_has_bounds_at_the_verdicts_level():
    g = torch.Generator().manual_seed(2)
    half = torch.full((600, 2), 0.5).double()
    reward = (torch.rand(200, generator=g) < 0.4).double().repeat_interleave(3)  # alike in a group
    log = Decisions(
        context=torch.rand(600, 2, generator=g), action=torch.arange(600) % 2, reward=reward,
        propensity=half[:, 0], propensities=half, group=torch.arange(600) // 3, batch_size=[600],
    ).described(About(actions=("0", "1")))  # fmt: skip
    found = improve_decisions(log, methods="tilt", level=0.01).reference
    error = float(reward.std(unbiased=False)) / 200**0.5  # of 200 groups
    assert found.value == pytest.approx(float(reward.mean()))
    assert found.high - found.value == pytest.approx(2.3263 * error, rel=1e-3)
    assert found.value - found.low == pytest.approx(2.3263 * error, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"accept_estimated_behavior": True}, "--propensity-model fitted"),
        ({"propensity_model": "fited"}, "logged or fitted, not 'fited'"),
    ],
)
def test_options_that_decisions_do_not_know_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        improve("digits", **options)
