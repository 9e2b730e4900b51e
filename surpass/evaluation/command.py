"""`surpass evaluate`: the table, the picture and the JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from surpass.errors import InputError, atomic
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
) -> None:
    """Evaluate policies on logs or in an environment, and print the table.

    Args:
        named: opens a policy by its name in the zoo, or gives None.

    Raises:
        InputError: with neither or both, or when something cannot be read or does not fit.
    """
    if (logs is None) == (env is None):
        which = "nothing to evaluate on" if logs is None else "logs and an environment are two jobs"
        raise InputError(f"{which}; give --logs LOGS or --env ID")
    if not 0 < level < 1:
        raise InputError(f"--level lies between 0 and 1, not {level}; 0.95 is a 95 % interval")
    names = [policy, *compare]
    if len(set(names)) < len(names):
        raise InputError("--compare names a policy twice; leave one out")
    if env is not None:
        found = _in_environment(names, env, episodes, seeds, level, seed, picture, video, named)
    else:
        if video is not None:
            raise InputError("--video films an episode; give --env ID instead of --logs")
        assert logs is not None
        found = evaluate({name: name for name in names}, logs, level=1 - level, seed=seed)
        if picture is not None:
            forest(found, picture)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        Console().print(found.table())


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


def forest(found: Evaluation, path: Path) -> None:
    """Draw every gain with its interval; estimators with a bias are hollow."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    policies = list(dict.fromkeys(r.policy for r in found))
    colors = dict(zip(policies, pyplot.get_cmap("tab10").colors, strict=False))  # type: ignore[attr-defined]
    figure, axes = pyplot.subplots(figsize=(7, 0.8 + 0.3 * len(found)), layout="constrained")
    for place, r in enumerate(reversed(found.results)):
        axes.plot([r.gain_low, r.gain_high], [place, place], color=colors[r.policy], linewidth=2)
        face = "white" if r.biased else colors[r.policy]
        axes.plot(r.gain, place, "o", color=colors[r.policy], markerfacecolor=face)
    several = len(policies) > 1
    labels = [f"{r.policy}: {r.estimator}" if several else r.estimator for r in found]
    axes.set_yticks(range(len(found)), labels[::-1])
    axes.axvline(0, color="gray", linewidth=0.8)
    axes.set_xlabel(f"gain over the logging policy, {100 * (1 - found.level):g} % intervals "
                    "(hollow: biased)")  # fmt: skip
    try:
        with atomic(path) as temporary:
            figure.savefig(temporary, format=path.suffix.lstrip(".") or "png", dpi=150)
    except ValueError as error:
        raise InputError(f"{path}: {error}; end the name in .png, .svg or .pdf") from error
    finally:
        pyplot.close(figure)
