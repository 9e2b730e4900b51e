"""What preference training does to the order of answers."""

from __future__ import annotations

from surpass.forms import Study
from surpass.objectives.rankings import ranking_accuracies
from surpass.registry import system

__all__ = ["ranking_accuracy"]


@system("ranking-accuracy")
def ranking_accuracy(
    beta: float = 0.1, proportions: tuple[float, ...] = (0.6, 0.75, 0.9, 0.99)
) -> Study:
    """How many pairs a policy ranks right, how many the optimum would, and how hard each is.

    `measure` takes `RankedPairs`; `surpass.evaluation.rankings.ranked_pairs` makes them from a
    language model, its reference and a log of pairs.

    Args:
        beta: of the training. proportions: how often the chosen answer is preferred, where the log
            does not say: hard labels leave that open.
    """
    return Study(ranking_accuracies(beta, proportions))
