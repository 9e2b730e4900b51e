"""The main job on decision logs: what its report says beside the verdict."""

from __future__ import annotations

import pytest
import torch

from surpass.data.records import About, Decisions
from surpass.data.truth import Truth
from surpass.improve.decisions import improve_decisions


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
