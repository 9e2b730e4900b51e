"""Values of policies on single decisions whose actions something unseen may have moved, through an
instrument: each decision is an episode of one step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from surpass.critics.fitted_q import Fourier
from surpass.data.records import Decisions, Sequences
from surpass.errors import InputError
from surpass.evaluation.results import Result
from surpass.evaluation.targets import target_probabilities
from surpass.evaluation.trajectories import evaluate_trajectories
from surpass.registry import build

__all__ = ["by_instrument", "single_steps"]


def single_steps(log: Decisions) -> Sequences:
    """Decisions as episodes of one step, the instrument in `extras`.

    Raises:
        InputError: without an instrument.
    """
    if log.instrument is None:
        raise InputError("the log has no instrument; name its column")
    found = log.sequences()
    n = len(log.action)
    found.action = found.action.long()
    instrument = log.instrument.long()[:, None]
    found.extras = TensorDict({"instrument": instrument}, batch_size=[n, 1])
    return found.described(log.about)


def by_instrument(
    policies: Mapping[str, Any], log: Decisions, *, level: float = 0.05, seed: int = 0
) -> tuple[Result, ...]:
    """Every policy's value and gain through the instrument, with normal intervals.

    Raises:
        InputError: when action or instrument take other values than 0 and 1.
    """
    targets: dict[str, Tensor] = {
        name: target_probabilities(policy, log, log.propensities, 0, name)[:, None]
        for name, policy in policies.items()
    }
    found = evaluate_trajectories(
        targets, single_steps(log), gamma=0.0, level=level, method="normal", seed=seed,
        estimators={"iv-ope": build("iv-ope", features=Fourier(0))},
    )  # fmt: skip
    return tuple(found)


def usable(log: Any) -> bool:
    """Whether a log in memory has an instrument that fits: two actions, values 0 and 1."""
    if not isinstance(log, Decisions) or log.instrument is None:
        return False
    return log.n_actions == 2 and set(torch.unique(log.instrument).tolist()) <= {0, 1}
