"""`surpass evaluate`: the table, the picture and the JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from surpass.errors import InputError, refuse_unwritable
from surpass.evaluation.compare import Comparison
from surpass.evaluation.compare import compare as compare_policies
from surpass.evaluation.compared_picture import draw_comparison, forest
from surpass.evaluation.filming import film
from surpass.evaluation.played import Played, draw, play
from surpass.evaluation.policies import evaluate
from surpass.evaluation.results import Evaluation
from surpass.training.opening import load

__all__ = ["forest", "run"]


def run(
    policy: str,
    *,
    logs: str | None = None,
    env: str | None = None,
    compare: Sequence[str] = (),
    episodes: int = 100,
    seeds: int | None = None,
    level: float = 0.95,
    seed: int = 0,
    picture: Path | None = None,
    video: Path | None = None,
    as_json: bool = False,
    named: Callable[[str], Any] | None = None,
    estimators: str = "auto",
    columns: Mapping[str, Any] | None = None,
) -> None:
    """Evaluate policies on logs or in an environment, and print the table.

    Args:
        estimators: keys, separated by commas, or "auto". columns: which column is what.
        named: opens a policy by its name in the zoo, or gives None.

    Raises:
        InputError: with neither or both, or when something cannot be read or does not fit.
    """
    if (logs is None) == (env is None):
        which = "nothing to evaluate on" if logs is None else "logs and an environment are two jobs"
        raise InputError(f"{which}; give --logs LOGS or --env ID")
    if not 0 < level < 1:
        raise InputError(f"--level lies between 0 and 1, not {level}; 0.95 is a 95 % interval")
    if seed < 0:
        raise InputError(f"--seed is {seed}; give 0 or more")
    for place, option in ((picture, "--picture"), (video, "--video")):
        if place is not None:
            refuse_unwritable(place, option)
    names = [policy, *compare]
    if len(set(names)) < len(names):
        raise InputError("--compare names a policy twice; leave one out")
    if env is not None:
        if columns:
            raise InputError(f"--{next(iter(columns))} names a column of --logs; leave it out")
        found = _in_environment(names, env, episodes, seeds, level, seed, picture, video, named)
    else:
        if video is not None:
            raise InputError("--video films an episode; give --env ID instead of --logs")
        assert logs is not None
        found = _on_logs(names, logs, level, seed, picture, estimators, columns or {})
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
        return
    console = Console()
    if isinstance(found, Comparison):
        for table in (found.evaluation.table(), *found.tables()):
            console.print(table)
    else:
        console.print(found.table())
    for note in getattr(found, "notes", ()):
        console.print(note, highlight=False)


def _on_logs(
    names: Sequence[str], logs: str, level: float, seed: int, picture: Path | None,
    estimators: str, columns: Mapping[str, Any],
) -> Evaluation | Comparison:  # fmt: skip
    """The table; of several policies, what choosing among them by each estimator would lead to."""
    wanted: Any = estimators if estimators == "auto" else estimators.split(",")
    policies = dict(zip(_short(names), names, strict=True))
    options: dict[str, Any] = {"columns": columns, "level": 1 - level, "seed": seed}
    if len(names) == 1:
        found = evaluate(policies, logs, wanted, **options)
        if picture is not None:
            forest(found, picture)
        return found
    compared = compare_policies(policies, logs, wanted, **options)
    if picture is not None:
        draw_comparison(compared, picture)
    return compared


def _short(names: Sequence[str]) -> list[str]:
    """The shortest ends of paths that tell them apart."""
    parts = [Path(name).parts for name in names]
    for depth in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(p[-depth:]) for p in parts]
        if len(set(ends)) == len(ends):
            return ends
    return list(names)


def _in_environment(
    names: Sequence[str], env: str, episodes: int, seeds: int | None, level: float, seed: int,
    picture: Path | None, video: Path | None, named: Callable[[str], Any] | None,
) -> Played:  # fmt: skip
    policies = {name: _opened(name, named) for name in names}
    if video is not None:  # what cannot be drawn is said before anything plays
        first, player = next(iter(policies.items()))
        film(player, env, video, seed=seed, name=first)
    found = play(policies, env, episodes, seeds=seeds, level=level, seed=seed)
    if picture is not None:
        draw(found, picture)
    return found


def _opened(name: str, named: Callable[[str], Any] | None) -> Any:
    """ "random", a folder, or what the zoo has under that name."""
    if name == "random":
        return name
    if not Path(name).exists() and named is not None and (found := named(name)) is not None:
        return found
    return load(name)
