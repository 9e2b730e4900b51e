"""What a policy is worth on logged episodes of another: scores per episode, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from scipy import stats
from tensordict import TensorDict
from torch import Tensor

from surpass.critics.fitted_q import Bootstrapped, FittedQ, Fourier
from surpass.critics.rewards import cross_fitted
from surpass.data.records import Sequences, Transitions
from surpass.errors import InputError
from surpass.evaluation.acting import Target, target_of
from surpass.evaluation.intervals import Interval, interval
from surpass.evaluation.results import Evaluation, Result
from surpass.evaluation.trained import Trainable, start_values
from surpass.forms import Estimator
from surpass.objectives.views import TrajectoryQuery
from surpass.registry import build

__all__ = [
    "DEFAULT", "evaluate_trajectories", "fitted", "going_on", "model_of", "padded", "rows_of",
    "trajectory_query",
]  # fmt: skip

COUNTABLE = 300  # observations that count as numbered states
DEFAULT = ("tis", "pdis", "snpdis", "drt", "sndrt", "fqe")


# ----------------------------------------------------------------------------------------------
# logs


def padded(log: Transitions) -> Sequences:
    """Rows of episodes as sequences [N, T], padded behind their ends."""
    number, length = torch.unique_consecutive(log.episode, return_inverse=True, return_counts=True)[
        1:
    ]
    starts = torch.cumsum(length, 0) - length
    step = torch.arange(len(number)) - starts[number]
    shape = (len(length), int(length.max()))

    def spread(column: Tensor) -> Tensor:
        out = column.new_zeros((*shape, *column.shape[1:]))
        out[number, step] = column
        return out

    extras = {} if log.extras is None else {k: spread(v) for k, v in log.extras.items()}
    if log.instrument is not None:
        extras["instrument"] = spread(log.instrument)
    return Sequences(
        action=spread(log.action), mask=spread(torch.ones_like(log.reward)),
        reward=spread(log.reward),
        behavior_logp=None if log.behavior_logp is None else spread(log.behavior_logp),
        obs=spread(log.obs.reshape(len(log.obs), -1)),
        next_obs=spread(log.next_obs.reshape(len(log.obs), -1)), terminated=spread(log.terminated),
        truncated=spread(log.truncated), extras=TensorDict(extras, batch_size=shape),
        batch_size=[shape[0]],  # type: ignore[call-arg]
    ).described(log.about)  # fmt: skip


def rows_of(log: Sequences | Transitions) -> Transitions:
    """Episodes as one row per step, in order.

    Raises:
        InputError: when the episodes do not say what came next, or where they ended.
    """
    if isinstance(log, Transitions):
        return log
    if log.obs is None or log.next_obs is None or log.reward is None or log.terminated is None:
        raise InputError("episodes need obs, next_obs, reward and terminated for this estimator")
    keep = log.mask > 0
    episode = keep.nonzero()[:, 0]
    truncated = torch.zeros_like(log.terminated) if log.truncated is None else log.truncated
    return Transitions(
        obs=log.obs[keep], action=log.action[keep], reward=log.reward[keep],
        next_obs=log.next_obs[keep], terminated=log.terminated[keep], truncated=truncated[keep],
        episode=episode, batch_size=[len(episode)],  # type: ignore[call-arg]
    ).described(log.about)  # fmt: skip


def trajectory_query(
    policy: Any, log: Sequences | Transitions, gamma: float = 1.0
) -> TrajectoryQuery:
    """Logged episodes, asked about a policy.

    Args:
        policy: anything of which `target_of` makes a target, such as a function from observations
            [M, d] to probabilities [M, A]; or the probabilities [N, T, A] in the logged states
            (then cuts of episodes count as ends, since nothing is known behind them).
        log: episodes. gamma: discount.

    Raises:
        InputError: when the log lacks a column, or the probabilities do not fit it.
    """
    found = padded(log) if isinstance(log, Transitions) else log
    if found.reward is None or found.obs is None:
        raise InputError("episodes need obs and reward to be evaluated on")
    n, T = found.action.shape[:2]
    discrete = found.action.dim() == 2
    mask = found.mask.to(torch.float64)
    cut, last = _cut(found)
    extras = {} if found.extras is None else dict(found.extras.items())
    logp = found.behavior_logp
    asked: dict[str, Any] = {
        "action": found.action.to(torch.int64) if discrete else found.action,
        "reward": found.reward.to(torch.float64) * mask,
        "propensity": None if logp is None else logp.to(torch.float64).exp(),
        "mask": mask, "gamma": gamma, "context": found.obs, "extras": extras,
    }  # fmt: skip
    if isinstance(policy, Tensor):
        return TrajectoryQuery(target=_probable(policy, found), **asked)
    actor = _target(policy, found)
    if cut is not None:
        asked |= {"cut": cut, "beyond": found.next_obs[torch.arange(n), last]}  # type: ignore[index]
    if not discrete:
        target = None
        if actor.logp is not None:
            flat = actor.logp(found.obs.flatten(0, 1), found.action.flatten(0, 1))
            target = flat.view(n, T).to(torch.float64).exp()
        return TrajectoryQuery(target=target, **asked)
    target = torch.as_tensor(actor.choose(found.obs.flatten(0, 1))).view(n, T, -1)
    if cut is not None:
        asked["beyond_target"] = torch.as_tensor(actor.choose(asked["beyond"])).to(torch.float64)
    return TrajectoryQuery(target=_probable(target, found), **asked)


def _target(policy: Any, log: Sequences | Transitions, name: str = "policy") -> Target:
    if isinstance(policy, Target):
        return policy
    if log.action.is_floating_point():
        return target_of(policy, 0, name)
    stated = int(log.about.spaces.get("n_actions", 0)) or len(log.about.actions)
    return target_of(policy, stated or int(log.action.max()) + 1, name)


def _probable(target: Tensor, log: Sequences) -> Tensor:
    n, T = log.action.shape[:2]
    wrong = ((target.sum(-1) - 1).abs() > 1e-4) & (log.mask > 0)
    if target.shape[:2] != (n, T) or bool(wrong.any()):
        raise InputError(
            f"the policy gave {tuple(target.shape)} for {n} episodes of {T} steps, or rows that do "
            "not sum to 1; give one probability per action in every logged state"
        )
    return target.to(torch.float64)


def _cut(log: Sequences) -> tuple[Tensor | None, Tensor]:
    """1 where the last step was cut [N] (None where none was, or what follows is unknown), and the
    number of the last step."""
    last = log.mask.sum(1).long() - 1
    if log.truncated is None or log.next_obs is None:
        return None, last
    cut = log.truncated[torch.arange(len(last)), last]
    if log.terminated is not None:
        cut = cut & ~log.terminated[torch.arange(len(last)), last]
    return (cut.to(torch.float64), last) if bool(cut.any()) else (None, last)


# ----------------------------------------------------------------------------------------------
# nuisances


def fitted(
    query: TrajectoryQuery, form: Estimator, folds: int = 2, seed: int = 0
) -> TrajectoryQuery:
    """The query with the form's nuisances in it: each episode's by models that did not see it.

    What does not learn from rewards (bins of states) is fitted to all episodes at once, so that
    its numbers mean the same everywhere.
    """
    for column, nuisance in form.nuisances.items():
        if isinstance(nuisance, Bootstrapped):
            found, weight = nuisance.starts(query)
            query = replace(query, extras={**query.extras, "multiplier": weight})
        elif column == "bin":
            found = nuisance.learn(query)(query)
        else:
            found = cross_fitted(nuisance, query, folds=folds, seed=seed).column  # type: ignore[arg-type]
        if column != "q":
            query = replace(query, extras={**query.extras, column: found})
        elif found.shape[1] > query.reward.shape[1]:
            query = replace(query, q=found[:, :-1], beyond_q=found[:, -1])
        else:
            query = replace(query, q=found)
    return query


def _trained_of(form: Estimator) -> Any:
    """The nuisance of a form that is nets to train, if it has one."""
    return next((n for n in form.nuisances.values() if isinstance(n, Trainable)), None)


# ----------------------------------------------------------------------------------------------
# the table


def evaluate_trajectories(
    policy: Any,
    log: Sequences | Transitions,
    *,
    gamma: float = 1.0,
    estimators: Sequence[str] | Mapping[str, Estimator] = DEFAULT,
    level: float = 0.05,
    method: str = "bootstrap",
    folds: int = 2,
    seed: int = 0,
) -> Evaluation:
    """Every policy under every estimator: value, gain over the logging policy on the same episodes,
    intervals.

    Where episodes were cut and the discount is below 1, models and marginal weights go on behind
    the cut, and so does what they are compared with (`going_on`); products of ratios value the
    returns up to the cut.

    Args:
        policy: a function of observations [M, d] to action probabilities [M, A], or to continuous
            actions [M, k]; a policy folder's policy; what training gives; or several, by name.
        log: episodes, with the behavior policy's log-probs where estimators weigh by them.
        gamma: discount of the return. estimators: keys such as "pdis", or estimators by name.
        level: what an interval leaves out. method: "bootstrap" or "normal".
        folds: of the models. seed: of folds, nets and resamples.

    Raises:
        InputError: on unknown estimators, or logs without what an estimator needs.
    """
    policies = dict(policy) if isinstance(policy, Mapping) else {"policy": policy}
    forms = (
        dict(estimators) if isinstance(estimators, Mapping) else {k: build(k) for k in estimators}
    )
    rows, paid = [], torch.zeros(0)
    for name, given in policies.items():
        actor = given if isinstance(given, Tensor) else _target(given, log, name)
        query = trajectory_query(actor, log, gamma)
        paid, overlap = query.paid, _overlap(query)
        if len(paid) < 2:
            raise InputError(
                "a single episode says nothing of how far a value may be off; give more episodes"
            )
        endless = going_on(query)
        for key, form in forms.items():
            _suits(key, form, query)
            net = _trained_of(form)
            if net is not None:
                asked = _with_nets(net, rows_of(log), actor, query, seed)
            else:
                asked = fitted(query, form, folds, seed)
            score, against = form.score(asked), endless if _endless(form) else paid
            if "returns" in form.nuisances:  # the mean, or the tail, of what was logged
                logged = {**query.extras, "returns": against[:, None]}
                against = form.score(replace(query, extras=logged))
            if form.unit == "member":
                value, gain = _by_members(score, asked, against, level)
            else:
                value = interval(method, score, level=level)
                gain = interval(method, score - against, level=level)
            rows.append(
                Result(
                    policy=name, estimator=key, value=value.value, low=value.low, high=value.high,
                    error=value.error, gain=gain.value, gain_low=gain.low, gain_high=gain.high,
                    gain_error=gain.error, reference=float(against.mean()), support=1.0,
                    ess=overlap["ess"], mean_weight=overlap["mean_weight"],
                    max_weight=overlap["max_weight"],
                    biased=form.biased, interval=value.method, score=repr(form.score),
                    assumptions=form.assumptions,
                )
            )  # fmt: skip
    error = float(paid.std() / math.sqrt(len(paid)))
    return Evaluation(tuple(rows), len(paid), float(paid.mean()), error, level, "episode")


def _endless(form: Estimator) -> bool:
    """Whether an estimator goes on behind a cut: models and marginal weights do, products of
    ratios and models of a horizon stop there."""
    if getattr(form.nuisances.get("returns"), "iterations", None) is not None:
        return True
    return form.unit == "member" or bool({"marginal", "bin", "iv"} & set(form.nuisances))


def going_on(query: TrajectoryQuery) -> Float[Tensor, "N"]:
    """The discounted return of every logged episode, with what the logging policy would have earned
    behind a cut: gamma^T v(s_T), v by least squares temporal differences on the log. Without cuts,
    and at a discount of 1, the logged return."""
    if query.cut is None or query.gamma == 1:
        return query.paid
    n, T = query.reward.shape
    alone = TrajectoryQuery(
        action=torch.zeros(n, T, dtype=torch.int64), reward=query.reward, propensity=None,
        target=torch.ones(n, T, 1, dtype=torch.float64), mask=query.mask, gamma=query.gamma,
        context=query.context, cut=query.cut, beyond=query.beyond,
        beyond_target=torch.ones(n, 1, dtype=torch.float64),
    )  # fmt: skip
    model = model_of(query.context, float(query.mask.sum()))
    behind = model.learn(alone)(alone)[:, -1, 0]
    low, high = (float(r) / (1 - query.gamma) for r in (query.reward.min(), query.reward.max()))
    factor = query.gamma ** query.mask.sum(1)
    return query.paid + query.cut * factor * behind.clamp(min(low, 0.0), max(high, 0.0))


def model_of(obs: Tensor, rows: float) -> FittedQ:
    """Fitted Q evaluation on the observation itself where there are few (numbered states), else on
    random features with a ridge that keeps them apart."""
    few = len(torch.unique(obs.reshape(-1, obs.shape[-1])[: 50 * COUNTABLE], dim=0)) <= COUNTABLE
    return FittedQ() if few else FittedQ(Fourier(40), ridge=max(1e-3, 2e-4 * rows))


def _overlap(query: TrajectoryQuery) -> dict[str, float]:
    """Effective episodes and ratios of whole episodes; nan where there are no ratios."""
    if query.target is None or query.propensity is None:
        return dict.fromkeys(("ess", "mean_weight", "max_weight"), math.nan)
    whole = query.ratio.prod(1)
    square = float(whole.square().sum())
    return {
        "ess": float(whole.sum()) ** 2 / square if square > 0 else 0.0,
        "mean_weight": float(whole.mean()),
        "max_weight": float(whole.max()),
    }


def _suits(key: str, form: Estimator, query: TrajectoryQuery) -> None:
    """Refuse an estimator whose columns the log or the policy lacks."""
    if "behavior_logp" in form.needs and query.propensity is None:
        raise InputError(
            f"{key} weighs by the behavior policy's log-prob of every action; log it as "
            "behavior_logp, fit it by cloning the log, or take an estimator without (fqe-nets)"
        )
    if "behavior_logp" in form.needs and query.target is None:
        raise InputError(
            f"{key} weighs by the policy's density of the logged actions, and this policy has none "
            "(it is deterministic); take an estimator without (fqe-nets)"
        )
    if _trained_of(form) is None and not query.discrete and "behavior_logp" not in form.needs:
        raise InputError(f"{key} is for discrete actions; take fqe-nets or model-based")


def _with_nets(
    net: Any, log: Transitions, actor: Any, query: TrajectoryQuery, seed: int
) -> TrajectoryQuery:
    """The query with what trained nets think of the starts."""
    if isinstance(actor, Tensor):
        raise InputError("nets need the policy itself, not its probabilities in the logged states")
    found = start_values(net, log, actor, query.gamma, seed)
    asked = {"start": found.values, "multiplier": found.multiplier}
    return replace(query, extras={**query.extras, **asked})


def _by_members(
    value: Tensor, query: TrajectoryQuery, paid: Tensor, level: float
) -> tuple[Interval, Interval]:
    """Value and gain by members [n], each an estimate from its own weighting of the episodes:
    Student's interval of their mean, as wide as they are apart."""
    weight = query.extras["multiplier"]
    gain = value - (weight * paid[:, None]).sum(0) / weight.sum(0)
    t = float(stats.t.ppf(1 - level / 2, max(len(value) - 1, 1)))
    out = []
    for members in (value, gain):
        mean, error = float(members.mean()), float(members.std())
        out.append(Interval(mean, mean - t * error, mean + t * error, level, "ensemble", error))
    return out[0], out[1]
