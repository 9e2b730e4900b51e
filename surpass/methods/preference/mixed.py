"""Own answers and expert traces in one update: HPT and CHORD, presets of the unified estimator."""

from __future__ import annotations

from dataclasses import replace

from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.methods.preference.luffy import add_expert
from surpass.objectives.advantage import (
    group_centered,
    group_standardized,
    imitating,
    success_gate,
)
from surpass.objectives.divergence import entropy_bonus
from surpass.objectives.reduce import of_source, sum_over, token_mean
from surpass.objectives.trust import unclipped
from surpass.objectives.unified import anchored, current, uncertain, unified
from surpass.parts import Number, Schedule, by_source, cosine
from surpass.registry import system

__all__ = ["chord", "hpt"]


@system("hpt")
def hpt(
    gate: float = 0.0, sft: float = 1.0, bonus: float = 0.001, group: int = 8, lr: Number = 5e-6,
    batch: int = 64, horizon: int = 256, minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """Imitate the trace of a prompt where at most a share `gate` of the policy's answers succeed,
    reinforce its answers where more do."""
    return PolicyGradient(
        imitating(group_centered()),
        by_source(own=unified(denominator=anchored()), expert=unified(denominator=current()))
        + bonus * entropy_bonus(),
        reduce=of_source("own", sum_over(float(horizon))) + sft * of_source("expert", token_mean()),
        select=success_gate(gate), minibatches=minibatches,
        source=rollouts(batch, horizon, group, then=(add_expert(),)),
        optimizer=Adam(lr, max_norm=80.0),
    )  # fmt: skip


@system("chord")
def chord(
    mu: Number = 0.1, phi: bool = True, eps: float = 0.2, group: int = 8, lr: Number = 1e-6,
    batch: int = 64, horizon: int = 256, minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """(1 - mu) GRPO + mu imitation, each averaged over its own tokens; with `phi` a trace's token
    counts p (1 - p). CHORD-mu is `chord(cosine(0.9, 0.05, steps=200), phi=False)`."""
    rest = mu if isinstance(mu, Schedule) else cosine(float(mu), float(mu), steps=1)
    rest = replace(rest, start=1 - rest.start, end=1 - rest.end)
    return PolicyGradient(
        imitating(group_standardized()),
        by_source(own=unified(unclipped(eps, eps), anchored()),
                  expert=unified(denominator=uncertain() if phi else current())),
        reduce=rest * of_source("own", token_mean()) + mu * of_source("expert", token_mean()),
        minibatches=minibatches, source=rollouts(batch, horizon, group, then=(add_expert(),)),
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
