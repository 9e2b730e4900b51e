"""Explorers whose logs go straight back into `improve`."""

from __future__ import annotations

import math
from typing import Any

from surpass.critics.arms import Trends
from surpass.critics.online_nets import OnlineNet
from surpass.critics.rewards import Boosting
from surpass.errors import InputError
from surpass.forms import Explorer
from surpass.policies.exploring import inverse_gap, optimistic, relative_inverse_gap, sliced
from surpass.registry import system

__all__ = ["neural_cb", "squarecb", "ti_ucb"]


@system("adyen-squarecb")
def squarecb(gamma: float = 100.0, memory: int | None = 1, model: Any = None) -> Explorer:
    """Inverse-gap weighting over a supervised model that is refitted to the last batch only.

    Args:
        gamma: 0 is uniform, large is greedy.
        memory: batches that the model remembers, None for all: a longer memory is the remedy for
            generations that undo each other.
        model: of the reward; boosted trees of depth 3 when None.
    """
    return Explorer(inverse_gap(gamma), model or Boosting(trees=50, leaves=8), memory)


@system("neu-online-regression-cb")
def neural_cb(gamma: float = 100.0, loss: str = "kl", **net: Any) -> Explorer:
    """NeuFastCB, and with `loss="square"` NeuSquareCB: inverse gaps over online neural regression.

    Args:
        gamma: 0 is uniform, large is greedy.
        loss: "kl" explores less where the best loss is small; "square" always as gaps say.
        net: options of `OnlineNet`, such as `rate` and `perturbation`.

    Raises:
        InputError: for another loss.
    """
    choose = relative_inverse_gap(gamma) if loss == "kl" else inverse_gap(gamma)
    return Explorer(choose, OnlineNet(loss, **net))


@system("ti-ucb")
def ti_ucb(
    horizon: int = 5000, alpha: float = 1.0, window: int = 100, change: float | None = 0.3,
    share: float = 0.0,
) -> Explorer:  # fmt: skip
    """Choose among models that improve as they are used: the optimistic next point of each model's
    trend, which starts anew when its plateau is detected.

    The bonus is alpha / 2 (log horizon)^(1/2) times the trend's standard error, for rewards in
    [0, 1].

    Args:
        horizon: decisions in all. alpha: of the bonus. window, change: of the detector.
        share: of uniform decisions. The index alone is deterministic: its log can judge nothing but
            itself; with a share above 0 the log goes into `improve`.

    Raises:
        InputError: when the share does not lie in [0, 1).
    """
    if not 0 <= share < 1:
        raise InputError(f"the share of uniform decisions lies in [0, 1), not {share}")
    index = optimistic(0.5 * alpha * math.sqrt(math.log(horizon)))
    return Explorer(sliced(index, share) if share else index, Trends(window, change))
