"""Entropy that is neither to collapse nor to explode, over episodes of many turns."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError, nearest
from surpass.objectives.divergence import entropy
from surpass.objectives.ratio import kept
from surpass.objectives.reduce import decided, total
from surpass.objectives.views import Steps
from surpass.parts import State, part

__all__ = ["KINDS", "each_turn", "entropy_corridor"]

KINDS = ("hinge", "constant")


@part
def each_turn(s: Steps, /) -> Float[Tensor, "B T"]:
    """A factor with which the mean over all decisions becomes the mean over episodes of the mean
    over their turns of the mean over the decisions of a turn: each turn of an episode counts once.

        sum of m / (sum of w_n * K_n * n_t), K_n turns in episode n, n_t decisions in the turn

    with w_n the episode's weight in the mask m. For a form whose `reduce` is `token_mean`; where no
    turns are numbered, each decision is one.
    """
    own = decided(s.mask)
    place = torch.arange(own.shape[-1], device=own.device).expand(own.shape)
    turn = place if s.turn is None else s.turn.clamp_min(0)
    counts = torch.zeros_like(own).scatter_add(-1, turn, own)
    turns = (counts > 0).to(own.dtype).sum(-1, keepdim=True).clamp_min(1)
    of_turn = counts.gather(-1, turn).clamp_min(1)
    decisions, episodes = total(s.mask.sum()), total(s.mask.amax(-1).sum())
    return own * decisions / (episodes.clamp_min(1e-8) * turns * of_turn)


@part(state=lambda: {"sum": torch.zeros(()), "count": torch.zeros(())}, needs=(entropy,))
def entropy_corridor(
    state: State, s: Steps, /, low: float = 0.0, high: float = 2.0, alpha: float = 0.1,
    kind: str = "hinge",
) -> tuple[Float[Tensor, "B T"], State]:  # fmt: skip
    """alpha times how far the entropy H of a decision is outside (low Hbar, high Hbar), Hbar the
    mean over all earlier updates of the mean entropy of their decisions; 0 in the first update.

        hinge: [low Hbar - H]_+ + [H - high Hbar]_+      constant: 1 outside, 0 inside

    The constant is what the authors' code adds. It has no gradient: with it a policy is trained as
    without it. The hinge is the later text's. Beside an entropy bonus of weight 1 it turns a
    decision around only where its own weight times alpha is above 1; below that it makes the bonus
    smaller there. (Their code also keeps the history by the number of the turn.)

    "EPO: Entropy-regularized Policy Optimization for LLM Agents Reinforcement Learning" (2025).

    Raises:
        InputError: for another kind.
    """
    if kind not in KINDS:
        raise InputError(f"kind={kind!r}{nearest(kind, KINDS)}: {', '.join(KINDS)}")
    own = decided(s.mask)
    now = kept(s.entropy, own)
    usual = state["sum"] / state["count"].clamp_min(1)
    below, above = low * usual - now, now - high * usual
    if kind == "hinge":
        outside = below.clamp_min(0) + above.clamp_min(0)
    else:
        outside = ((below >= 0) | (above >= 0)).to(now.dtype)
    begun = (state["count"] > 0).to(now.dtype)
    mean = total(now.sum()) / total(own.sum()).clamp_min(1)
    after = {"sum": state["sum"] + mean, "count": state["count"] + 1}
    return alpha * begun * outside * own, after
