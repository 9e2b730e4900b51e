"""LUFFY: groups that mix own answers with an expert's trace, whose rare tokens are weighted up."""

from __future__ import annotations

from typing import Any

from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.objectives.advantage import at_last, group_centered
from surpass.objectives.divergence import entropy_bonus
from surpass.objectives.reduce import sum_over
from surpass.objectives.unified import anchored, shaped, unified
from surpass.parts import Number, by_source, part
from surpass.registry import system
from surpass.training.language_rollouts import Fresh, with_expert

__all__ = ["add_expert", "luffy"]


@part
def add_expert(fresh: Fresh, /, count: int = 1) -> Fresh:
    """To each group of answers, `count` expert traces, judged by the same verifier."""
    group = fresh.sequences.group
    assert group is not None and fresh.expert is not None, "give expert=..., traces of the prompts"
    first = (group[:, None] == group[None, :]).int().argmax(-1).unique().repeat_interleave(count)
    rows = [fresh.rows[i] for i in first.tolist()] if fresh.rows else []
    traces: Any = fresh.expert(fresh.sequences[first], rows)
    score, _ = fresh.judge(traces, rows)
    traces.reward, traces.group = at_last(traces, score), group[first]
    traces.behavior_logp = traces.mask * 0.0  # an expert's tokens are taken as certain
    return with_expert(fresh, traces)


@system("luffy")
def luffy(
    gamma: float = 0.1, bonus: float = 0.001, group: int = 7, lr: Number = 1e-6, batch: int = 448,
    horizon: int = 256, minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """GRPO without clip and deviation, on groups of `group` own answers and one expert trace."""
    return PolicyGradient(
        group_centered(),
        by_source(own=unified(denominator=anchored()), expert=unified(denominator=shaped(gamma)))
        + bonus * entropy_bonus(),
        reduce=sum_over(float(horizon)), minibatches=minibatches,
        source=rollouts(batch, horizon, group, then=(add_expert(),)),
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
