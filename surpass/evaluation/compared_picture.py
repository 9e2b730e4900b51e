"""Pictures of evaluations on logs: gains with their intervals, portfolios, distributions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from surpass.errors import InputError, atomic
from surpass.evaluation.compare import Comparison
from surpass.evaluation.results import Evaluation

__all__ = ["draw_comparison", "forest"]


def forest(found: Evaluation, path: Path) -> None:
    """Draw every gain with its interval; estimators with a bias are hollow."""
    figure, axes = _pyplot().subplots(
        figsize=(7, 0.8 + 0.3 * len(found)), layout="constrained", squeeze=False
    )
    _forest(axes[0, 0], found)
    _written(figure, path)


def draw_comparison(found: Comparison, path: Path) -> None:
    """Gains with intervals, SharpeRatio@k of every estimator, and every policy's distribution of
    rewards."""
    panels = 1 + bool(found.rows) + bool(found.risks)
    height = max(3.5, 0.8 + 0.22 * len(found.evaluation))
    figure, every = _pyplot().subplots(
        1, panels, figsize=(5.5 * panels, height), squeeze=False, layout="constrained"
    )
    places = iter(every[0])
    _forest(next(places), found.evaluation)
    if found.rows:
        _portfolios(next(places), found)
    if found.risks:
        _distributions(next(places), found)
    _written(figure, path)


def _forest(axes: Any, found: Evaluation) -> None:
    policies = list(dict.fromkeys(r.policy for r in found))
    colors = _colors(policies)
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


def _portfolios(axes: Any, found: Comparison) -> None:
    for name in dict.fromkeys(r.estimator for r in found.rows):
        mine = [r for r in found.rows if r.estimator == name and r.k > 1]
        axes.plot([r.k for r in mine], [r.sharpe for r in mine], "o-", label=name)
    axes.set_xticks(sorted({r.k for r in found.rows if r.k > 1}))
    axes.set_xlabel("k: policies sent to a test")
    axes.set_ylabel("SharpeRatio@k: gain of the best over the spread")
    axes.set_title(f"judged by {found.judge}", fontsize="small")
    axes.legend(fontsize="x-small")


def _distributions(axes: Any, found: Comparison) -> None:
    colors = _colors([r.policy for r in found.risks])
    for risk in found.risks:
        axes.step(risk.x, risk.F, where="post", color=colors[risk.policy], label=risk.policy)
    axes.set_xlabel("return" if found.evaluation.per == "episode" else "reward")
    axes.set_ylabel("share of at most that")
    axes.legend(fontsize="x-small")


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _colors(policies: Sequence[str]) -> dict[str, Any]:
    """A color per policy, in turn."""
    from matplotlib import colormaps

    listed = colormaps["tab10"].colors  # type: ignore[attr-defined]
    return {name: listed[i % len(listed)] for i, name in enumerate(policies)}


def _written(figure: Any, path: Path) -> None:
    try:
        with atomic(path) as temporary:
            figure.savefig(temporary, format=path.suffix.lstrip(".") or "png", dpi=150)
    except ValueError as error:
        raise InputError(f"{path}: {error}; end the name in .png, .svg or .pdf") from error
    finally:
        _pyplot().close(figure)
