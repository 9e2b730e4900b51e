"""`surpass evaluate`: the table, the picture and the JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from surpass.errors import InputError, atomic
from surpass.evaluation.policies import evaluate
from surpass.evaluation.results import Evaluation

__all__ = ["forest", "run"]


def run(
    policy: str,
    *,
    logs: str | None = None,
    env: str | None = None,
    compare: Sequence[str] = (),
    episodes: int = 100,
    level: float = 0.95,
    seed: int = 0,
    picture: Path | None = None,
    as_json: bool = False,
) -> None:
    """Evaluate policy folders on logs and print the table.

    Raises:
        InputError: without logs, or when something cannot be read.
    """
    if env is not None:
        raise InputError(
            f"--env {env}: a policy folder of decisions is evaluated on logs; give --logs LOGS"
        )
    if logs is None:
        raise InputError("nothing to evaluate on; give --logs LOGS")
    if not 0 < level < 1:
        raise InputError(f"--level lies between 0 and 1, not {level}; 0.95 is a 95 % interval")
    del episodes  # belongs to rollouts
    names = [policy, *compare]
    if len(set(names)) < len(names):
        raise InputError("--compare names a policy twice; leave one out")
    found = evaluate({name: name for name in names}, logs, level=1 - level, seed=seed)
    if picture is not None:
        forest(found, picture)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        Console().print(found.table())


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
