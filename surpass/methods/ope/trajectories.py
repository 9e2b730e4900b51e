"""Estimators for logged episodes: one weight per step and one baseline each, and abstract reward
processes."""

from __future__ import annotations

from surpass.critics.dynamics import DynamicsNets
from surpass.critics.fitted_q import Bootstrapped, FittedQ, RandomBins
from surpass.critics.minimax_weights import MinimaxWeights
from surpass.critics.policy_values import ValueNets
from surpass.forms import Estimator
from surpass.objectives.scores import linearized
from surpass.objectives.trajectory_scores import (
    abstract_reward_process,
    at_end,
    averaged,
    cumulative,
    double_marginal,
    marginal,
    member_values,
    modeled_path,
    path_alone,
    per_step,
    trajectory,
)
from surpass.registry import system

__all__ = [
    "drl", "drt", "fqe", "fqe_nets", "model_based", "mwl", "pdis", "sndrt", "snpdis", "sntis",
    "star", "tis",
]  # fmt: skip

_WEIGHED = ("behavior_logp",)
_KNOWN = "the behavior policy's probabilities are those of the log and cover the target"
_RATIO = f"{_KNOWN}; bias of order 1/n"


@system("tis")
def tis() -> Estimator:
    """Importance sampling of whole episodes: mean of rho_{0:T-1} G."""
    return Estimator(trajectory(at_end()), unit="episode", needs=_WEIGHED, assumptions=_KNOWN)


@system("pdis")
def pdis() -> Estimator:
    """Per-decision importance sampling: mean of sum_t gamma^t rho_{0:t} r_t."""
    return Estimator(trajectory(cumulative()), unit="episode", needs=_WEIGHED, assumptions=_KNOWN)


@system("sntis")
def sntis() -> Estimator:
    """Weighted importance sampling: the weights of episodes divided by their mean."""
    score = linearized(averaged(trajectory(per_step(at_end()))))
    return Estimator(score, unit="episode", needs=_WEIGHED, biased=True, assumptions=_RATIO)


@system("snpdis")
def snpdis() -> Estimator:
    """Weighted per-decision importance sampling: the weights of each step divided by their mean."""
    score = linearized(averaged(trajectory(per_step(cumulative()))))
    return Estimator(score, unit="episode", needs=_WEIGHED, biased=True, assumptions=_RATIO)


@system("fqe")
def fqe(model: FittedQ = FittedQ(), members: int = 20) -> Estimator:
    """The direct method: fitted Q evaluation's value of the starts, by `members` fits, each to its
    own weighting of the episodes; with 0 members by one fit, whose interval is that of the starts
    alone."""
    if not members:
        return Estimator(
            path_alone(), {"q": model}, unit="episode", biased=True,
            assumptions="the model is right and free of noise",
        )  # fmt: skip
    return Estimator(
        member_values(), {"start": Bootstrapped(model, members)}, unit="member", biased=True,
        assumptions="the model is right; the interval holds what repeated logs would change",
    )  # fmt: skip


@system("drt")
def drt(model: FittedQ = FittedQ()) -> Estimator:
    """Doubly robust: fitted Q evaluation, corrected step by step."""
    score = trajectory(cumulative(), modeled_path())
    return Estimator(score, {"q": model}, unit="episode", needs=_WEIGHED, assumptions=_KNOWN)


@system("sndrt")
def sndrt(model: FittedQ = FittedQ()) -> Estimator:
    """Weighted doubly robust: the weights of each step divided by their mean."""
    score = linearized(averaged(trajectory(per_step(cumulative()), modeled_path())))
    return Estimator(
        score, {"q": model}, unit="episode", needs=_WEIGHED, biased=True, assumptions=_RATIO
    )


@system("star-arp")
def star(
    bins: int = 32, last: int | None = None, horizon: int | None = None, seed: int = 0
) -> Estimator:
    """STAR: an importance-weighted Markov reward process over bins of states, solved.

    Args:
        bins: how many random centers states are folded into.
        last: ratios that weigh a step, ending at it; all of them (None) are right for any bins,
            1 only where the bins keep the process Markov.
        horizon: sum that many steps instead of solving. seed: of the centers.
    """
    return Estimator(
        linearized(abstract_reward_process(last, horizon)),
        {"bin": RandomBins(bins, seed)},
        unit="episode",
        needs=_WEIGHED,
        biased=True,
        assumptions=f"{_KNOWN}; consistent for any bins when all ratios weigh a step",
    )


@system("fqe-nets")
def fqe_nets(model: ValueNets = ValueNets()) -> Estimator:
    """Fitted Q evaluation with an ensemble of nets, for any observations and actions. No behavior
    probabilities are needed; each member learned on its own weighting of the episodes."""
    return Estimator(
        member_values(), {"start": model}, unit="member", biased=True,
        assumptions="the nets found the values; the interval holds what repeated logs would "
        "change, not what they miss",
    )  # fmt: skip


@system("model-based")
def model_based(model: DynamicsNets = DynamicsNets()) -> Estimator:
    """The policy is played in an ensemble of Gaussian models of the world that were fitted to the
    log."""
    return Estimator(
        member_values(), {"start": model}, unit="member", biased=True,
        assumptions="the models are right where the policy leads; the interval holds what repeated "
        "logs would change, not what they miss",
    )  # fmt: skip


_MARGIN = "the features can express the ratio of the two policies' state-action frequencies"


@system("mwl")
def mwl(model: MinimaxWeights = MinimaxWeights()) -> Estimator:
    """Marginalized importance sampling: mean of sum_t gamma^t w(s_t, a_t) r_t, w by minimax weight
    learning. No behavior probabilities are needed."""
    score = trajectory(marginal())
    return Estimator(score, {"marginal": model}, unit="episode", biased=True, assumptions=_MARGIN)


@system("drl")
def drl(
    weight: MinimaxWeights = MinimaxWeights(), model: FittedQ = FittedQ()
) -> Estimator:  # fmt: skip
    """Double reinforcement learning: marginalized weights and fitted Q evaluation, right where
    either is."""
    return Estimator(
        double_marginal(), {"marginal": weight, "q": model}, unit="episode", biased=True,
        assumptions=f"{_MARGIN}, or the model of action values is right",
    )  # fmt: skip
