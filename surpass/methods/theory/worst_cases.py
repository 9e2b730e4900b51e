"""Robust to a model that is fixed but unknown: a sequence of ordinary problems, each the worst for
the policy so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.forms import Planner
from surpass.objectives.worst_models import greedy_on_least
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.tabular import TabularMDP

__all__ = ["WorstCases", "incremental_worst_cases", "iwocs", "worths"]


class WorstCases(NamedTuple):
    """A policy [S, A], the return it has in the worst model, and the models that were solved, in
    order; `least` is the return in the worst model of the policy of each round."""

    pi: Tensor
    value: float
    solved: list[int]
    least: list[float]


def worths(models: Sequence[TabularMDP], pi: Tensor) -> Float[Tensor, "M"]:
    """The exact return of a policy in each model."""
    return torch.stack([m.evaluate(pi).value for m in models])


@part
def incremental_worst_cases(
    models: Sequence[TabularMDP], /, nominal: int = 0, eps: float = 1e-6, most: int = 8
) -> WorstCases:
    """Solve the nominal model; then, again and again, act greedily on the least of the solved
    models' values, find the model that is worst for that policy, and solve it as well, until the
    worst is among the solved or their number is `most`. The policy with the best worst case of all
    rounds is returned, since rounds need not improve."""
    if not models or not 0 <= nominal < len(models):
        raise InputError(f"model {nominal} is the nominal one, of {len(models)} models")
    if any(m.horizon is not None for m in models):
        raise InputError("these models are discounted; give them gamma < 1 and no horizon")
    solved, values, rounds = [nominal], [models[nominal].solve().q], []
    while True:
        pi = greedy_on_least(torch.stack(values))
        found = worths(models, pi)
        rounds.append((pi, float(found.min())))
        worst = int(found.argmin())
        if float(found[worst]) >= float(found[solved].min()) - eps or len(solved) >= most:
            break
        solved.append(worst)
        values.append(models[worst].solve().q)
    pi, value = max(rounds, key=lambda one: one[1])
    return WorstCases(pi, value, solved, [one[1] for one in rounds])


@system("iwocs")
def iwocs(nominal: int = 0, eps: float = 1e-6, most: int = 8) -> Planner:
    """argmax_a min_j Q_j(s, a) over the models that were worst so far, each solved alone.

    Solving robust MDPs as a sequence of static RL problems (2024). This is the exact form, for
    models given by their tables; the deep one, whose values count only where their own replay has
    been, is not here.

    Args:
        nominal: the model that is solved first. eps: how much worse another model must be to be
            solved. most: models that are solved.
    """
    return Planner(incremental_worst_cases(nominal, eps, most))
