"""What a target policy would do on logged decisions: probabilities [N, A] from whatever the caller
has."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.data.records import Decisions
from surpass.errors import InputError
from surpass.policies.categorical import probabilities

__all__ = ["target_probabilities"]


@torch.no_grad()
def target_probabilities(
    policy: Any,
    batch: Decisions,
    reference: Float[Tensor, "N A"] | None,
    start: int = 0,
    name: str = "policy",
) -> Float[Tensor, "N A"]:
    """The policy's probability of every action on every row, in double precision.

    A policy is a module with `forward(context, reference)`, an object with
    `probabilities(context)` (which may take `reference` and `available` too), a function of the
    context, or numbers: [A], [rows of the whole log, A] (rows from `start` on are taken) or Open
    Bandit Pipeline's `action_dist` [rows, A, positions]
    (the logged position is taken).
    Mass on actions that were not on offer is spread over the others in proportion.

    Raises:
        InputError: when rows are missing, are negative, or do not sum to 1, or the actions are not
            the log's.
    """
    own: Any = getattr(policy, "probabilities", None)
    if callable(own):
        offered = {"reference": reference, "available": batch.available}
        wanted = inspect.signature(own).parameters
        found = torch.as_tensor(
            own(batch.context, **{k: v for k, v in offered.items() if k in wanted})
        )
    elif isinstance(policy, nn.Module):
        if reference is None:
            raise InputError(
                f"{name} needs the reference's probabilities of all actions, and the log has the "
                "propensity of the logged action only; give reference="
            )
        found = probabilities(policy, batch.context, reference, batch.available)
    elif callable(policy) and not isinstance(policy, Tensor | np.ndarray):
        found = torch.as_tensor(policy(batch.context))
    else:
        found = _given(torch.as_tensor(policy), batch, start, name)
    return _checked(found.to(torch.float64), batch, start, name)


def _given(values: Tensor, batch: Decisions, start: int, name: str) -> Tensor:
    n = len(batch)
    if values.dim() == 1:
        return values.expand(n, -1)
    if values.dim() not in (2, 3) or len(values) < start + n:
        raise InputError(
            f"{name} has shape {list(values.shape)}, but the log has {start + n} rows or more; "
            "give one row of action probabilities per logged decision"
        )
    rows = values[start : start + n]
    if values.dim() == 2:
        return rows
    if values.shape[2] == 1:
        return rows[:, :, 0]
    if batch.position is None:
        raise InputError(f"{name} has {values.shape[2]} positions, but the log has no position")
    if int(batch.position.min()) < 0 or int(batch.position.max()) >= values.shape[2]:
        raise InputError(f"positions run from 0 to {values.shape[2] - 1} in {name}, not in the log")
    place = batch.position.to(torch.int64)[:, None, None].expand(-1, values.shape[1], 1)
    return rows.gather(2, place)[:, :, 0]


def _checked(found: Tensor, batch: Decisions, start: int, name: str) -> Tensor:
    n = len(batch)
    if found.dim() != 2 or len(found) != n:
        raise InputError(f"{name} gave shape {list(found.shape)} for {n} contexts, not [N, A]")
    actions, known = batch.n_actions, bool(batch.about.actions) or batch.propensities is not None
    if found.shape[1] < actions or (known and found.shape[1] != actions):
        raise InputError(f"{name} is for {found.shape[1]} actions, but the log has {actions}")
    if batch.available is not None:
        found = found * batch.available
        found = found / found.sum(-1, keepdim=True)
    wrong = (found < -1e-9).any(-1) | ~((found.sum(-1) - 1).abs() < 1e-4)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0, 0])
        raise InputError(
            f"{name}: the probabilities of row {start + row + 1} sum to "
            f"{float(found[row].sum()):g}, the least is {float(found[row].min()):g}; "
            "give non-negative numbers that sum to 1"
        )
    return found
