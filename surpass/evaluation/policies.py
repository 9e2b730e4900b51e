"""`surpass.evaluate`: what a policy is worth on logs, both in whatever form the caller has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from surpass.data import open_log
from surpass.data.records import Decisions, Sequences, Transitions
from surpass.data.sources import is_source
from surpass.data.tables import TableLog
from surpass.data.trajectories import TrajectoryLog
from surpass.errors import InputError
from surpass.evaluation.choice import for_decisions, for_episodes, through_instrument
from surpass.evaluation.decisions import evaluate as on_decisions
from surpass.evaluation.instrumented import by_instrument
from surpass.evaluation.played import play
from surpass.evaluation.results import Evaluation
from surpass.evaluation.trajectories import evaluate_trajectories
from surpass.forms import Estimator
from surpass.policies.handover import HandedPolicy
from surpass.training.opening import load as open_folder

__all__ = ["evaluate", "loaded_policy", "opened_for"]


def evaluate(
    policy: Any,
    logs: Any = None,
    estimators: str | Sequence[str] | Mapping[str, Estimator] = "auto",
    *,
    env: Any = None,
    columns: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """The value of one or several policies on logged decisions or episodes, and their gain over the
    logging policy; or, with `env`, what they earn in an environment.

    Args:
        policy: a policy folder, probabilities [N, A] or [A] or [N, A, positions], anything with
            `probabilities(context)`, or a mapping of names to such; with `env`, what
            `surpass.evaluation.played.play` takes, or the folder of a trained policy.
        logs: a file or folder, a named source, a table, Open Bandit Pipeline's feedback, decisions,
            or batches of decisions. Files are read in constant memory.
        estimators: keys such as "dr", or estimators by name; "auto" takes those that fit the log,
            and the table's notes say why.
        columns: which column of a table is what, such as `{"action": "arm"}`.
        env: an environment's id, or a task, to play in.
        options: those of `surpass.evaluation.decisions.evaluate` (reference, interval, level and so
            on); for episodes those of `surpass.evaluation.trajectories.evaluate_trajectories`;
            with `env` those of `play`: episodes, seeds, level, seed.

    Returns:
        An `Evaluation`, a row per policy and estimator, or with `env` a `Played`; `print` shows the
        table.

    Raises:
        InputError: when policy and log do not fit each other, or one cannot be read.
    """
    named = dict(policy) if isinstance(policy, Mapping) else {"policy": policy}
    if env is not None:
        opened = {
            k: p if isinstance(p, str) and p == "random" else loaded_policy(p)
            for k, p in named.items()
        }
        return play(opened, env, **options)
    if logs is None:
        raise InputError("nothing to evaluate on; give logs, or env")
    loaded = {k: loaded_policy(p) for k, p in named.items()}
    groups: dict[str, dict[str, Any]] = {}  # policies that read the context alike
    for name, found in loaded.items():
        groups.setdefault(_reads(found), {})[name] = found
    parts = []
    for members in groups.values():
        log = opened_for(logs, next(iter(members.values())), columns or {})
        held = log.read() if isinstance(log, TrajectoryLog) else log
        if isinstance(held, Transitions | Sequences):
            return _on_episodes(loaded, held, estimators, options)
        parts.append(_on_decisions(members, log, estimators, options))
    first = parts[0]
    return replace(first, results=tuple(row for part in parts for row in part))


def loaded_policy(policy: Any) -> Any:
    """A policy, opened where it is a folder of `improve` or of `train`."""
    return open_folder(policy) if isinstance(policy, str | Path) else policy


def _on_decisions(
    policies: Mapping[str, Any], log: Any, estimators: Any, options: Mapping[str, Any]
) -> Evaluation:
    if estimators != "auto":
        return on_decisions(policies, log, estimators, **options)
    held: Any = log
    if isinstance(log, TableLog) and log.columns.instrument is not None:
        held = log.read()
    first = held if isinstance(held, Decisions) else _first_rows(held)
    chosen = for_decisions(first) if first is not None else None
    found = on_decisions(policies, held, **({"estimators": chosen.forms} if chosen else {}),
                         **options)  # fmt: skip
    why = chosen.why if chosen else ()
    if isinstance(held, Decisions) and held.instrument is not None:
        usable, said = through_instrument(held.n_actions, held.instrument)
        why = (*why, said)
        if usable:
            level = options.get("level", 0.05)
            found = replace(found, results=(*found, *by_instrument(policies, held, level=level)))
    return replace(found, notes=why)


def _first_rows(log: Any) -> Decisions | None:
    """Some rows of a log that can be read again; None of an iterator, which cannot."""
    batches = getattr(log, "batches", None)
    if batches is not None:
        return next(iter(batches()))
    return log[0] if isinstance(log, list | tuple) and log else None


def _on_episodes(
    policies: Mapping[str, Any], log: Transitions | Sequences, estimators: Any,
    options: Mapping[str, Any],
) -> Evaluation:  # fmt: skip
    gamma = options.get("gamma")
    if gamma is None:  # a return that a cut hid has no end, unless it is discounted
        cut = log.truncated is not None and bool(log.truncated.any())
        gamma = 0.99 if cut else 1.0
    rest = {k: v for k, v in options.items() if k != "gamma"}
    if estimators != "auto":
        return evaluate_trajectories(policies, log, gamma=gamma, estimators=estimators, **rest)
    chosen = for_episodes(log, gamma)
    found = evaluate_trajectories(policies, log, gamma=gamma, estimators=chosen.forms, **rest)
    note = "Returns are not discounted."
    if gamma < 1:
        note = f"Returns are discounted by {gamma:g}. Where episodes were cut, importance weights "
        note += "value them up to the cut; models go on behind it, and so do their references."
    return replace(found, notes=(note, *chosen.why))


def _reads(policy: Any) -> str:
    """What tells encoders apart; policies that are not from a folder read the log's own context."""
    encoder = policy.encoder if isinstance(policy, HandedPolicy) else None
    return "" if encoder is None else repr((encoder.to_json(), policy.actions))


def opened_for(logs: Any, policy: Any, columns: Mapping[str, Any]) -> Any:
    """The log, its context encoded as the policy reads it."""
    encoder = policy.encoder if isinstance(policy, HandedPolicy) else None
    if isinstance(logs, Decisions):
        if encoder is not None and not _alike(encoder, logs.about.encoder):
            raise InputError(
                "the log's context was encoded otherwise than this policy reads it; give the file "
                "or table itself"
            )
        return logs
    if isinstance(logs, Sequences):
        return logs
    if isinstance(logs, TableLog) and encoder is not None:
        return replace(logs, fixed=encoder, names=tuple(policy.actions))
    if isinstance(logs, Iterator) or (isinstance(logs, list | tuple) and not columns):
        return logs
    options: dict[str, Any] = dict(columns)
    if encoder is not None and not (is_source(str(logs)) and not Path(str(logs)).exists()):
        options |= {"encoder": encoder, "actions": list(policy.actions)}
    return open_log(logs, **options)


def _alike(encoder: Any, other: Any) -> bool:
    return other is not None and encoder.to_json() == other.to_json()
