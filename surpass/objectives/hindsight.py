"""Codes of behavior in hindsight: a policy that repeats a segment from its code, and preferences
that say which code is best.

Rows are segments [B, T] of a log, and beside them (`surpass.forms.beside`) pairs of segments of
which the first was preferred, in the columns `pairs.chosen.obs`, `pairs.rejected.obs` and so on.

"Beyond Reward: Offline Preference-guided Policy Optimization" (2023).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from surpass.objectives.reduce import weighted_mean
from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["code_triplet", "hindsight", "segment_preference", "triplet", "unit_codes"]

SIDES = ("chosen", "rejected")


def triplet(
    anchor: Float[Tensor, "... c"], near: Float[Tensor, "... c"], far: Float[Tensor, "... c"],
    margin: float = 1.0,
) -> Float[Tensor, "..."]:  # fmt: skip
    """max(0, |anchor - near| - |anchor - far| + margin), l2 norms."""
    return (_distance(anchor - near) - _distance(anchor - far) + margin).clamp(min=0.0)


def _distance(x: Float[Tensor, "... c"]) -> Float[Tensor, "..."]:
    return (x.square().sum(-1) + 1e-12).sqrt()  # differentiable at 0


def _side(rows: Rows, pairs: str, side: str, *names: str) -> list[Tensor]:
    return [getattr(rows, f"{pairs}.{side}.{name}") for name in names]


def _codes(nets: Nets, rows: Rows, pairs: str, encoder: str) -> list[Float[Tensor, "P c"]]:
    """The codes of the preferred segments, and those of the others."""
    seen = ("obs", "action", "mask")
    return [nets[encoder](*_side(rows, pairs, side, *seen)) for side in SIDES]


def _weight(rows: Rows, pairs: str) -> Tensor | None:
    return rows.columns.get(f"{pairs}.pair_weight")


@part(needs=("age",))
def hindsight(
    nets: Nets, rows: Rows, /, encoder: str = "encoder", pi: str = "pi"
) -> Float[Tensor, "B"]:
    """Hindsight matching: |pi(s_<=t, a_<t, z) - a_t|^2, z the code of the same segment: the mean
    over its steps and the action's dimensions."""
    z = nets[encoder](rows.obs, rows.action, rows.mask)
    wanted = z[:, None].expand(-1, rows.obs.shape[1], -1)
    action, _ = nets[pi](wanted, rows.obs, rows.action, rows.age)
    error = (action - rows.action).square().mean(-1)
    return (rows.mask * error).sum(1) / rows.mask.sum(1)


@part
def unit_codes(
    nets: Nets, rows: Rows, /, encoder: str = "encoder", pairs: str = "pairs"
) -> Float[Tensor, ""]:
    """(|z| - 1)^2, the mean over the log's segments plus those over either side of the pairs: codes
    neither collapse nor drift away."""
    own = nets[encoder](rows.obs, rows.action, rows.mask)
    every = [own, *_codes(nets, rows, pairs, encoder)]
    return torch.stack([(_distance(z) - 1.0).square().mean() for z in every]).sum()


@part
def code_triplet(
    nets: Nets, rows: Rows, /, margin: float = 1.0, encoder: str = "encoder", best: str = "best",
    pairs: str = "pairs",
) -> Float[Tensor, ""]:  # fmt: skip
    """max(0, |w - z+| - |w - z-| + margin): the best code w is nearer to what was preferred.

    A step that trains the encoder holds w, one that trains w holds the codes.
    """
    chosen, rejected = _codes(nets, rows, pairs, encoder)
    return weighted_mean(triplet(nets[best](), chosen, rejected, margin), _weight(rows, pairs))


@part
def segment_preference(
    nets: Nets, rows: Rows, /, reward: str = "reward", pairs: str = "pairs"
) -> Float[Tensor, ""]:
    """-log sigma(sum_t r(s_t, a_t) of the preferred segment - that of the other), for every member
    of an ensemble of rewards, summed: a Bradley-Terry model of preferences.

    "Deep Reinforcement Learning from Human Preferences" (2017).
    """
    totals = []
    for side in SIDES:
        obs, action, mask = _side(rows, pairs, side, "obs", "action", "mask")
        each = nets[reward](obs.flatten(0, 1), action.flatten(0, 1))
        totals.append((each.reshape(-1, *mask.shape) * mask).sum(-1))
    return weighted_mean(softplus(totals[1] - totals[0]).sum(0), _weight(rows, pairs))
