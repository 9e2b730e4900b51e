"""What a policy is worth on logged episodes of another: scores per episode, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from surpass.critics.rewards import cross_fitted
from surpass.data.records import Sequences, Transitions
from surpass.errors import InputError
from surpass.evaluation.intervals import interval
from surpass.evaluation.results import Evaluation, Result
from surpass.forms import Estimator
from surpass.objectives.views import TrajectoryQuery
from surpass.registry import build

__all__ = ["DEFAULT", "evaluate_trajectories", "padded", "trajectory_query"]

DEFAULT = ("tis", "pdis", "snpdis", "drt", "sndrt", "fqe")
Act = Callable[[Tensor], Tensor]


def padded(log: Transitions) -> Sequences:
    """Rows of episodes as sequences [N, T], padded behind their ends.

    Raises:
        InputError: when the log has no behavior log-probs.
    """
    if log.behavior_logp is None:
        raise InputError(
            "off-policy evaluation needs the behavior policy's log-prob of every action; log it as "
            "behavior_logp, or fit it by cloning the log"
        )
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
        reward=spread(log.reward), behavior_logp=spread(log.behavior_logp), obs=spread(log.obs),
        next_obs=spread(log.next_obs), terminated=spread(log.terminated),
        truncated=spread(log.truncated), extras=TensorDict(extras, batch_size=shape),
        batch_size=[shape[0]],  # type: ignore[call-arg]
    ).described(log.about)  # fmt: skip


def trajectory_query(
    policy: Act | Float[Tensor, "N T A"], log: Sequences | Transitions, gamma: float = 1.0
) -> TrajectoryQuery:
    """Logged episodes, asked about a policy: observations [M, d] to probabilities [M, A], or the
    probabilities [N, T, A] in the logged states.

    Raises:
        InputError: when the log has no log-probs, or the probabilities do not fit it.
    """
    found = padded(log) if isinstance(log, Transitions) else log
    if found.behavior_logp is None or found.reward is None or found.obs is None:
        raise InputError("episodes need obs, reward and behavior_logp to be evaluated on")
    n, T = found.action.shape[:2]
    if isinstance(policy, Tensor):
        target = policy
    else:
        target = torch.as_tensor(policy(found.obs.flatten(0, 1))).view(n, T, -1)
    wrong = ((target.sum(-1) - 1).abs() > 1e-4) & (found.mask > 0)
    if target.shape[:2] != (n, T) or bool(wrong.any()):
        raise InputError(
            f"the policy gave {tuple(target.shape)} for {n} episodes of {T} steps, or rows that do "
            "not sum to 1; give one probability per action in every logged state"
        )
    extras = {} if found.extras is None else dict(found.extras.items())
    return TrajectoryQuery(
        action=found.action.to(torch.int64),
        reward=found.reward.to(torch.float64) * found.mask.to(torch.float64),
        propensity=found.behavior_logp.to(torch.float64).exp(),
        target=target.to(torch.float64),
        mask=found.mask.to(torch.float64),
        gamma=gamma,
        context=found.obs,
        extras=extras,
    )


def fitted(
    query: TrajectoryQuery, form: Estimator, folds: int = 2, seed: int = 0
) -> TrajectoryQuery:
    """The query with the form's nuisances in it: each episode's by models that did not see it.

    What does not learn from rewards (bins of states) is fitted to all episodes at once, so that
    its numbers mean the same everywhere.
    """
    from dataclasses import replace

    for column, nuisance in form.nuisances.items():
        if column == "bin":
            found = nuisance.learn(query)(query)
        else:
            found = cross_fitted(nuisance, query, folds=folds, seed=seed).column  # type: ignore[arg-type]
        if column == "q":
            query = replace(query, q=found)
        else:
            query = replace(query, extras={**query.extras, column: found})
    return query


def evaluate_trajectories(
    policy: Act | Mapping[str, Act],
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

    Args:
        policy: observations [M, d] to action probabilities [M, A]; or several, by name.
        log: episodes with the behavior policy's log-probs. gamma: discount of the return.
        estimators: keys such as "pdis", or estimators by name.
        level: what an interval leaves out. method: "bootstrap" or "normal".
        folds: of the models. seed: of folds and resamples.

    Raises:
        InputError: on unknown estimators, or logs without what an estimator needs.
    """
    policies = dict(policy) if isinstance(policy, Mapping) else {"policy": policy}
    forms = (
        dict(estimators) if isinstance(estimators, Mapping) else {k: build(k) for k in estimators}
    )
    rows, paid = [], torch.zeros(0)
    for name, act in policies.items():
        query = trajectory_query(act, log, gamma)
        paid, whole = query.paid, query.ratio.prod(1)
        ess = float(whole.sum() ** 2 / whole.square().sum()) if bool((whole > 0).any()) else 0.0
        for key, form in forms.items():
            score = form.score(fitted(query, form, folds, seed))
            value = interval(method, score, level=level)
            gain = interval(method, score - paid, level=level)
            rows.append(
                Result(
                    policy=name, estimator=key, value=value.value, low=value.low, high=value.high,
                    error=value.error, gain=gain.value, gain_low=gain.low, gain_high=gain.high,
                    gain_error=gain.error, reference=float(paid.mean()), ess=ess, support=1.0,
                    mean_weight=float(whole.mean()), max_weight=float(whole.max()),
                    biased=form.biased, interval=value.method, score=repr(form.score),
                    assumptions=form.assumptions,
                )
            )  # fmt: skip
    error = float(paid.std() / math.sqrt(len(paid)))
    return Evaluation(tuple(rows), len(paid), float(paid.mean()), error, level)
