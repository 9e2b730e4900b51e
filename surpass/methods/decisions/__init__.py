"""Learners on decision logs: recipes that turn learning rows into candidate policies.

Each recipe is a function without arguments that must be given; `LEARNERS` names them all, `AUTO`
those that a job uses when none is named (beside the closed-form tilts, which nomination brings).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from surpass.errors import InputError, nearest
from surpass.methods.decisions.ascent import Ascent
from surpass.methods.decisions.budgeted import ad_load
from surpass.methods.decisions.candidate import Learner
from surpass.methods.decisions.certified import exp_smoothing, pac_bayes
from surpass.methods.decisions.hierarchical import hier_opo
from surpass.methods.decisions.seeking import (
    BoostedTrees,
    LogisticRewards,
    RewardSeeking,
    RidgeRewards,
)
from surpass.methods.decisions.semi_pessimistic import semi_pessimistic_decisions
from surpass.objectives.counterfactual import (
    counterfactual_risk,
    doubly_robust_gain,
    importance_gain,
    self_normalized_gain,
    standardized_gain,
)

__all__ = [
    "AUTO", "LEARNERS", "ad_load", "boosting", "dr", "dr_mlp", "exp_smoothing", "hier_opo", "ips",
    "learners", "logistic", "pac_bayes", "poem", "provable", "provable_mlp", "ridge",
    "snips", "snips_mlp",
]  # fmt: skip


def ridge(penalty: tuple[float, float] = (300.0, 300.0)) -> Learner:
    """Follow a linear reward model, in closed form."""
    return RewardSeeking("ridge", RidgeRewards(penalty))


def logistic(intercept: float = 3.0, slopes: float = 30.0) -> Learner:
    """Follow a logistic reward model."""
    return RewardSeeking("logistic", LogisticRewards(intercept, slopes))


def boosting(
    trees: int = 40, leaves: int = 8, strengths: tuple[float, ...] = (1.0, 4.0)
) -> Learner:
    """Follow gradient-boosted trees, not to the point of greed unless `strengths` has 1000: the
    sharpest tilts of a flexible model look better on the learning rows than they are."""
    return RewardSeeking("boosting", BoostedTrees(trees, leaves), strengths)


def ips(decay: float = 1e-4) -> Learner:
    """Climb the importance-weighted reward; linear."""
    return Ascent("ips", counterfactual_risk(importance_gain()), decay=decay)


def poem(penalty: float = 1.0, decay: float = 1e-4) -> Learner:
    """Climb the importance-weighted reward less `penalty` standard errors; linear.

    Swaminathan and Joachims, Batch learning from logged bandit feedback through counterfactual
    risk minimization (2015).
    """
    return Ascent("poem", counterfactual_risk(importance_gain(), penalty), decay=decay)


def snips(penalty: float = 1.0, decay: float = 1e-4) -> Learner:
    """Climb the self-normalized estimate less `penalty` standard errors; linear.

    Swaminathan and Joachims, The self-normalized estimator for counterfactual learning (2015).
    """
    return Ascent("snips", counterfactual_risk(self_normalized_gain(), penalty), decay=decay)


def snips_mlp(penalty: float = 1.0, passes: int = 20) -> Learner:
    """Climb the self-normalized estimate with a small network.

    Joachims, Swaminathan and de Rijke, Deep learning with logged bandit feedback (2018).
    """
    objective = counterfactual_risk(self_normalized_gain(), penalty)
    return Ascent("snips-mlp", objective, hidden=(32,), iterations=passes)


def dr(penalty: float = 1.0, decay: float = 1e-4) -> Learner:
    """Climb the doubly robust estimate less `penalty` standard errors; linear.

    Dudik, Langford and Li, Doubly robust policy evaluation and learning (2011).
    """
    return Ascent("dr", counterfactual_risk(doubly_robust_gain(), penalty), decay=decay)


def dr_mlp(penalty: float = 1.0, passes: int = 20) -> Learner:
    """Climb the doubly robust estimate less `penalty` standard errors with a small network."""
    objective = counterfactual_risk(doubly_robust_gain(), penalty)
    return Ascent("dr-mlp", objective, hidden=(32,), iterations=passes)


def provable(decay: float = 1e-4) -> Learner:
    """Climb gain over standard error, doubly robust: what the verdict's test sees; linear."""
    return Ascent("provable", standardized_gain(doubly_robust_gain()), decay=decay)


def provable_mlp(passes: int = 10) -> Learner:
    """Climb gain over standard error, doubly robust, with a small network."""
    return Ascent("provable-mlp", standardized_gain(doubly_robust_gain()), (32,), iterations=passes)


LEARNERS: dict[str, Callable[..., Learner]] = {
    "ridge": ridge, "logistic": logistic, "boosting": boosting, "ips": ips, "poem": poem,
    "snips": snips, "snips-mlp": snips_mlp, "dr": dr, "dr-mlp": dr_mlp, "provable": provable,
    "provable-mlp": provable_mlp, "exp-smoothing": exp_smoothing, "pac-bayes-opl": pac_bayes,
    "hier-opo": hier_opo, "semi-pessimistic": semi_pessimistic_decisions,
    "ad-load": ad_load,
}  # fmt: skip
"""Every learner's recipe, by name."""

AUTO = ("logistic", "boosting", "provable", "provable-mlp")
"""What `methods="auto"` adds to the closed-form tilts: one of each kind, and no more, since every
further candidate makes the choice among them noisier."""


def learners(names: str | Iterable[str] = "auto") -> tuple[Learner, ...]:
    """The learners of these names, with their defaults; "auto" stands for `AUTO`.

    Raises:
        InputError: for an unknown name, with the nearest known one.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    flat = [each for name in wanted for each in (AUTO if name == "auto" else (name,))]
    for name in flat:
        if name not in LEARNERS:
            known = ("auto", "tilt", *LEARNERS)
            raise InputError(
                f"there is no learner {name!r}{nearest(name, known)}; there are {', '.join(known)}"
            )
    return tuple(LEARNERS[name]() for name in dict.fromkeys(flat))
