"""Pairs that do not count alike: by how likely the current policy would have written them (WPO), by
how close the chosen answer stays to the meaning of the prompt (Sem-DPO)."""

from __future__ import annotations

from surpass.errors import InputError
from surpass.forms import Adam, Pairwise
from surpass.methods.preference.pairs import pairs
from surpass.objectives.meaning import closeness
from surpass.objectives.preference import alignment, logistic
from surpass.parts import Number, stop
from surpass.registry import system

__all__ = ["sem_dpo", "wpo"]


@system("wpo")
def wpo(
    beta: float = 0.01, smoothing: float = 0.0, cap: float = 1.0, lr: Number = 5e-7,
    batch: int = 32,
) -> Pairwise:  # fmt: skip
    """w l(beta z), w = min(1, exp(m_w + m_l)) stopped and computed anew at every step."""
    return Pairwise(stop(alignment(cap)) * logistic(beta, smoothing), source=pairs(batch),
                    optimizer=Adam(lr, max_norm=1.0))  # fmt: skip


@system("sem-dpo")
def sem_dpo(
    beta: float = 0.1, alpha: float = 2.0, normalize: bool = False, lr: Number = 1e-6,
    batch: int = 32,
) -> Pairwise:  # fmt: skip
    """exp(-alpha d) l(beta z), d = 1 - cos of prompt and chosen answer under a frozen encoder: for
    rewritten prompts, which are to please and still to say the same. alpha = 0 is DPO.

    Pairs need a column `distance`, which `surpass.critics.meaning.with_distance` adds. The default
    of alpha is ours.
    """
    if alpha < 0:
        raise InputError(f"alpha={alpha:g}: far pairs would count more; give 0 (DPO) or more")
    return Pairwise(stop(closeness(alpha, normalize)) * logistic(beta), source=pairs(batch),
                    optimizer=Adam(lr, max_norm=1.0))  # fmt: skip
