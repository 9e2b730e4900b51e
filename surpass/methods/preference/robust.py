"""rDPO: an unbiased DPO loss when labels flip at a known rate."""

from __future__ import annotations

from surpass.forms import Adam, Pairwise
from surpass.methods.preference.pairs import pairs
from surpass.objectives.preference import robust
from surpass.parts import Number
from surpass.registry import system

__all__ = ["rdpo"]


@system("rdpo")
def rdpo(rate: float = 0.1, beta: float = 0.1, lr: Number = 1e-6, batch: int = 32) -> Pairwise:
    """[(1 - e) l(z) - e l(-z)] / (1 - 2 e): on average over flips at the rate e, DPO on the clean
    labels. It is unbounded below: stop early, or share features between pairs."""
    return Pairwise(robust(beta, rate), source=pairs(batch), optimizer=Adam(lr, max_norm=1.0))
