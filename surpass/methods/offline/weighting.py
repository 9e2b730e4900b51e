"""Trajectory weighting: any learner, on a log whose better episodes are drawn more often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from surpass.errors import InputError
from surpass.forms import Learner
from surpass.methods.offline.implicit import iql
from surpass.objectives.trajectory_weights import by_advantage, by_return, top_share
from surpass.registry import system

__all__ = ["trajectory_weighting"]


@system("trajectory-weighting")
def trajectory_weighting(
    learner: Any = None, rule: str = "advantage", alpha: float = 0.1
) -> Learner:
    """p(row) in proportion to exp(c / alpha), c the return ("return", RW) of the row's episode or
    its advantage over the start state ("advantage", AW), moved to [0, 1]; `learner` is any recipe
    that learns from a log, IQL where none is given. "top" draws from the best share alpha only."""
    form = iql() if learner is None else learner
    rules: dict[str, Any] = {"advantage": by_advantage, "return": by_return, "top": top_share}
    if rule not in rules:
        raise InputError(f"trajectory weighting has no rule {rule!r}; it has {', '.join(rules)}")
    if not isinstance(form, Learner) or form.source.kind != "log":
        raise InputError("trajectory weighting takes a recipe that learns from a log, such as iql")
    options = {**form.source.options, "weigh": rules[rule](alpha)}
    return replace(form, source=replace(form.source, options=options))
