"""Had the first k candidates been sent to a test: portfolios by what chose them, judged by what did
not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from surpass.evaluation.compare import portfolios
from surpass.improve.procedure import Tested

__all__ = ["MOST", "of_decisions", "portfolio_of"]

MOST = 5  # the largest portfolio that is shown


def portfolio_of(
    chosen_by: Mapping[str, Mapping[str, float]], judged: Mapping[str, float], judge: str
) -> dict[str, Any]:
    """The table for the report's `diagnosis["portfolio"]`: rows by estimator and k, and rank
    correlations; {} where fewer than three candidates were judged.

    Args:
        chosen_by: gains by what chooses, then by candidate. judged: gains by what judges.
        judge: that in words.
    """
    judged = {k: v for k, v in judged.items() if math.isfinite(v)}
    if len(judged) < 3:
        return {}
    rows, ranks = portfolios(chosen_by, judged, 0.0)
    return {
        "judge": judge,
        "candidates": len(judged),
        "rows": [dict(vars(r)) for r in rows if r.k <= MOST],
        "ranks": ranks,
    }


def of_decisions(tested: tuple[Tested, ...]) -> dict[str, Any]:
    """Candidates by their cross-validated gains on learning rows, judged by the scored rows."""
    guessed, judged = {}, {}
    for t in tested:
        tried = [s.tried.gain for s in t.stages if s.tried is not None]
        if tried:
            guessed[t.key] = sum(tried) / len(tried)
            judged[t.key] = t.gain
    return portfolio_of(
        {"cross-validation on learning rows": guessed}, judged,
        "the paired score on rows that no candidate had seen",
    )  # fmt: skip
