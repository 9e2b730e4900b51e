"""RSO: pairs of answers that are distributed as those of the optimal policy."""

from __future__ import annotations

from dataclasses import replace

import torch

from surpass.errors import InputError
from surpass.forms import Adam, Pairwise, rollouts
from surpass.objectives.preference import hinge, logistic
from surpass.objectives.rejection import rejection_sampled
from surpass.parts import Number, part
from surpass.registry import system
from surpass.training.language_rollouts import Fresh

__all__ = ["accepted", "rso"]


@part
def accepted(fresh: Fresh, /, count: int = 8, beta: float = 0.5) -> Fresh:
    """Of each group, whose answers must differ, at most `count` by statistical rejection, paired in
    the random order of their acceptance; every pair becomes a group of its own."""
    seq = fresh.sequences
    assert seq.group is not None
    rows: list[int] = []
    for group in seq.group.unique().tolist():
        known: dict[tuple[int, ...], int] = {}
        for i in (seq.group == group).nonzero()[:, 0].tolist():
            known.setdefault(tuple(seq.action[i][seq.mask[i] > 0].tolist()), i)
        differing = list(known.values())
        wanted = min(count, len(differing)) // 2 * 2
        if wanted:
            rows += [differing[i] for i in rejection_sampled(seq.total[differing], wanted, beta)]
    if not rows:  # every prompt had one answer only, and one answer makes no pair
        rows = [0, 0]
    out = seq[rows]
    out.group = torch.arange(len(rows), device=seq.mask.device) // 2
    return replace(fresh, sequences=out, rows=[fresh.rows[i] for i in rows] if fresh.rows else [])


@system("rso")
def rso(
    beta: float = 0.5, gamma: float = 0.05, loss: str = "logistic", count: int = 8,
    group: int = 64, lr: Number = 1e-6, batch: int = 512, horizon: int = 256,
) -> Pairwise:  # fmt: skip
    """DPO (or, with loss="hinge", SLiC) on pairs of answers of pi_sft exp(r / beta), drawn by
    rejection from `group` answers of the policy to each prompt.

    Raises:
        InputError: for another loss.
    """
    losses = {"logistic": logistic(gamma), "hinge": hinge(gamma)}
    if loss not in losses:
        raise InputError(f"loss={loss!r}: {' or '.join(losses)}")
    return Pairwise(
        losses[loss], source=rollouts(batch, horizon, group, then=(accepted(count, beta),)),
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
