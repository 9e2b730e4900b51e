"""WPO: pairs count by how likely the current policy would have written them."""

from __future__ import annotations

from surpass.forms import Adam, Pairwise
from surpass.methods.preference.pairs import pairs
from surpass.objectives.preference import alignment, logistic
from surpass.parts import Number, stop
from surpass.registry import system

__all__ = ["wpo"]


@system("wpo")
def wpo(
    beta: float = 0.01, smoothing: float = 0.0, cap: float = 1.0, lr: Number = 5e-7,
    batch: int = 32,
) -> Pairwise:  # fmt: skip
    """w l(beta z), w = min(1, exp(m_w + m_l)) stopped and computed anew at every step."""
    return Pairwise(stop(alignment(cap)) * logistic(beta, smoothing), source=pairs(batch),
                    optimizer=Adam(lr, max_norm=1.0))  # fmt: skip
