"""Humanline variants of DPO, KTO and GRPO: token ratios are held in a range before they are summed,
and the reference follows the policy one step behind."""

from __future__ import annotations

from surpass.forms import Adam, Copy, Pairwise, PolicyGradient, Scored, Source, copy, rollouts
from surpass.methods.preference.pairs import pairs
from surpass.objectives.advantage import group_standardized
from surpass.objectives.divergence import k3
from surpass.objectives.preference import kto, logistic
from surpass.objectives.ratio import clamped, perceived
from surpass.objectives.trust import clip
from surpass.parts import Number
from surpass.registry import system

__all__ = ["humanline", "humanline_grpo", "humanline_kto"]


def behind(every: int) -> Copy:
    """The policy as it was before the last step (with `every` > 1, before the last so many)."""
    return copy("policy", every=every, lag=1)


@system("humanline")
def humanline(
    beta: float = 0.1, low: float = -1.0, high: float = 1.5, sync: int = 1, lr: Number = 5e-6,
    batch: int = 32,
) -> Pairwise:  # fmt: skip
    """DPO on sums of clamped token ratios to a reference that is synced every `sync` steps."""
    return Pairwise(logistic(beta), ratio=perceived(low, high), nets={"reference": behind(sync)},
                    source=pairs(batch), optimizer=Adam(lr, max_norm=1.0))  # fmt: skip


@system("humanline:kto")
def humanline_kto(
    beta: float = 0.1, low: float = -1.0, high: float = 1.5, sync: int = 1, lr: Number = 5e-6,
    batch: int = 32,
) -> Scored:  # fmt: skip
    """KTO on the same clamped sums and synced reference."""
    return Scored(kto(beta), ratio=perceived(low, high), nets={"reference": behind(sync)},
                  source=Source("scored", batch), optimizer=Adam(lr, max_norm=1.0))  # fmt: skip


@system("humanline:grpo")
def humanline_grpo(
    low: float = -1.0, high: float = 1.5, eps: float = 0.01, penalty: float = 0.01, sync: int = 1,
    group: int = 8, lr: Number = 5e-6, batch: int = 64, horizon: int = 256,
) -> PolicyGradient:  # fmt: skip
    """GRPO whose ratio is that to the synced reference, clamped; the penalty's is not."""
    return PolicyGradient(
        group_standardized(eps=0.01), clip(eps, eps) + penalty * k3(), ratio=clamped(low, high),
        anchor=behind(sync), nets={"reference": behind(sync)},
        source=rollouts(batch, horizon, group), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
