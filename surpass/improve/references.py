"""The reference policy's probabilities on a log, whatever form it was given in."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.data.records import Decisions
from surpass.errors import InputError

__all__ = ["reference_table"]


@torch.no_grad()
def reference_table(
    reference: Any, log: Decisions, opened: Any = None
) -> Float[Tensor, "N A"] | None:
    """Probabilities of every action in every row; None where the reference is the logging policy.

    Args:
        reference: None, a policy folder's policy, a module `forward(context, reference)`, or
            probabilities [N, A] or [A].
        log: the decisions.
        opened: where they were read from; a handed-over policy encodes its raw columns itself.

    Raises:
        InputError: when the reference was made for other actions.
    """
    if reference is None:
        return None
    n, k = len(log.action), log.n_actions
    if getattr(reference, "card", None) is not None:
        return _handed_over(reference, log, opened)
    if isinstance(reference, nn.Module):
        given = log.propensities if log.propensities is not None else torch.full((n, k), 1.0 / k)
        try:
            table = reference(log.context.double(), given.double())
        except RuntimeError as error:
            raise InputError(
                f"the reference policy cannot act on this log (context {list(log.context.shape)}, "
                f"{k} actions): {str(error).splitlines()[0]}"
            ) from error
    else:
        table = torch.as_tensor(np.asarray(reference), dtype=torch.float64)
        table = table.expand(n, -1) if table.dim() == 1 else table
    if tuple(table.shape) != (n, k):
        raise _other_actions(f"it gives probabilities of shape {list(table.shape)}", n, log)
    if bool((table < -1e-9).any()) or float((table.sum(1) - 1).abs().max()) > 1e-4:
        row = int(((table.sum(1) - 1).abs() + (table < 0).any(1)).argmax())
        raise InputError(f"the reference's probabilities in row {row} are not a distribution")
    return table.double()


def _handed_over(policy: Any, log: Decisions, opened: Any) -> Tensor:
    """A saved policy: its own encoder reads the raw columns, and its actions are put in the log's
    order."""
    names = log.about.actions or tuple(str(a) for a in range(log.n_actions))
    missing = [a for a in names if a not in policy.actions]
    if missing or len(policy.actions) != len(names):
        only = missing or [a for a in policy.actions if a not in names]
        raise _other_actions(
            f"it knows {', '.join(policy.actions[:6])}, not {only[0]!r}", None, log
        )
    order = torch.tensor([policy.actions.index(a) for a in names])
    back = None if log.propensities is None else log.propensities[:, torch.argsort(order)].double()
    raw = getattr(opened, "raw", None)
    if raw is None:
        table = policy.probabilities(log.context, back)
    else:
        parts, start = [], 0
        for batch in raw():
            stop = start + batch.num_rows
            parts.append(policy.probabilities(batch, None if back is None else back[start:stop]))
            start = stop
        table = torch.cat(parts)
    return table[:, order].double()


def _other_actions(found: str, rows: int | None, log: Decisions) -> InputError:
    k = log.n_actions
    names = ", ".join(log.about.actions[:6] or tuple(f"0..{k - 1}"))
    wanted = f"[{rows}, {k}] is needed: " if rows is not None else ""
    return InputError(
        f"the reference policy was made for other actions: {found}; {wanted}give one for {names}"
    )
