"""`surpass.evaluate`: what a policy is worth on logs, both in whatever form the caller has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from surpass.data import open_log
from surpass.data.records import Decisions
from surpass.data.sources import is_source
from surpass.data.tables import TableLog
from surpass.errors import InputError
from surpass.evaluation.decisions import DEFAULT
from surpass.evaluation.decisions import evaluate as on_decisions
from surpass.evaluation.played import play
from surpass.evaluation.results import Evaluation
from surpass.forms import Estimator
from surpass.policies.handover import HandedPolicy, load
from surpass.training.opening import load as open_folder

__all__ = ["evaluate"]


def evaluate(
    policy: Any,
    logs: Any = None,
    estimators: Sequence[str] | Mapping[str, Estimator] = DEFAULT,
    *,
    env: Any = None,
    columns: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """The value of one or several policies on logged decisions, and their gain over the logging
    policy; or, with `env`, what they earn in an environment.

    Args:
        policy: a policy folder, probabilities [N, A] or [A] or [N, A, positions], anything with
            `probabilities(context)`, or a mapping of names to such; with `env`, what
            `surpass.evaluation.played.play` takes, or the folder of a trained policy.
        logs: a file or folder, a named source, a table, Open Bandit Pipeline's feedback, decisions,
            or batches of decisions. Files are read in constant memory.
        estimators: keys such as "dr", or estimators by name.
        columns: which column of a table is what, such as `{"action": "arm"}`.
        env: an environment's id, or a task, to play in.
        options: those of `surpass.evaluation.decisions.evaluate`: reference, interval, level and
            so on; with `env` those of `play`: episodes, seeds, level, seed.

    Returns:
        An `Evaluation`, a row per policy and estimator, or with `env` a `Played`; `print` shows the
        table.

    Raises:
        InputError: when policy and log do not fit each other, or one cannot be read.
    """
    named = dict(policy) if isinstance(policy, Mapping) else {"policy": policy}
    if env is not None:
        opened = {k: _player(p) for k, p in named.items()}
        return play(opened, env, **options)
    if logs is None:
        raise InputError("nothing to evaluate on; give logs, or env")
    loaded = {k: load(p) if isinstance(p, str | Path) else p for k, p in named.items()}
    groups: dict[str, dict[str, Any]] = {}  # policies that read the context alike
    for name, found in loaded.items():
        groups.setdefault(_reads(found), {})[name] = found
    parts = []
    for members in groups.values():
        log = _opened(logs, next(iter(members.values())), columns or {})
        parts.append(on_decisions(members, log, estimators, **options))
    first = parts[0]
    return Evaluation(
        tuple(row for part in parts for row in part), first.rows, first.reward, first.reward_error,
        first.level,
    )  # fmt: skip


def _player(policy: Any) -> Any:
    folder = isinstance(policy, str | Path) and policy != "random"
    return open_folder(policy) if folder else policy


def _reads(policy: Any) -> str:
    """What tells encoders apart; policies that are not from a folder read the log's own context."""
    encoder = policy.encoder if isinstance(policy, HandedPolicy) else None
    return "" if encoder is None else repr((encoder.to_json(), policy.actions))


def _opened(logs: Any, policy: Any, columns: Mapping[str, Any]) -> Any:
    """The log, its context encoded as the policy reads it."""
    encoder = policy.encoder if isinstance(policy, HandedPolicy) else None
    if isinstance(logs, Decisions):
        if encoder is not None and not _alike(encoder, logs.about.encoder):
            raise InputError(
                "the log's context was encoded otherwise than this policy reads it; give the file "
                "or table itself"
            )
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
