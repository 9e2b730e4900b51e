"""What would settle a HOLD: how many more rows, or which exploration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from surpass.improve.results import Settlement

__all__ = ["exploration_rows", "rows_to_settle", "settlement"]

POWER_Z = 0.84
SCORED_SHARE = 0.7
SHARES = (0.1, 0.3, 1.0)


def rows_to_settle(gain: float, sd: float, guard: float, level: float = 0.05) -> float:
    """Scored rows m* for 80 % power: sqrt(m*) = [b s + sqrt(b^2 s^2 + 4 g |L|)] / (2 g), b =
    z_level + 0.84.

    Args:
        gain: the true gain per row, g > 0. sd: of the paired scores, s. guard: the scores' lower
            limit L.

    Returns:
        m*, infinite where the gain is not positive.
    """
    if gain <= 0:
        return float("inf")
    b = float(stats.norm.isf(level)) + POWER_Z
    return ((b * sd + np.sqrt(b**2 * sd**2 + 4 * gain * abs(guard))) / (2 * gain)) ** 2


def promising_gain(gain: float, sd: float, m: int) -> float:
    """The observed gain where it stands above its noise, t = g sqrt(m)/s > 1; else 0.

    The raw gain flatters, but policies also improve with more rows: on logs of 3,000 rows with
    learnable effects the
    rows that it names ended in PROMOTE in 81 to 89 % of simulated logs, and those of the shrunk
    gain g (1 - 1/t^2)
    in 98 %, at five times as many rows.
    """
    t = gain * np.sqrt(m) / sd if sd > 0 else 0.0
    return gain if t > 1 else 0.0


def exploration_rows(
    target: np.ndarray, reference: np.ndarray, noise: np.ndarray, rows: float
) -> tuple[list[dict[str, float]], np.ndarray]:
    """Rows that logging with exploration would need instead of `rows` under the reference.

    Variance per row under logger e: V(e) = E sum_a (pi - rho)^2 sigma^2 / e; the best e* is
    proportional to
    |pi - rho| sigma; with a share eps, e = (1 - eps) rho + eps e*.

    Args:
        target, reference: probabilities pi and rho, [N, A]. noise: sd of the reward per action,
        [N, A].

    Returns:
        One entry per share, and e*, [N, A].
    """
    pull = np.abs(target - reference) * noise
    total = pull.sum(1, keepdims=True)
    best = np.where(total > 0, pull / np.maximum(total, 1e-300), reference)
    needed = (target - reference) ** 2 * noise**2

    def variance(e: np.ndarray) -> float:
        return float(np.where(needed > 0, needed / np.maximum(e, 1e-12), 0.0).sum(1).mean())

    now = variance(reference)
    out = []
    for share in SHARES:
        then = variance((1 - share) * reference + share * best)
        out.append({"share": share, "rows": rows * then / now if now > 0 else rows})
    return out, best


def settlement(
    gain: float, sd: float, guard: float, scored: int, reference_value: float, level: float,
    target: np.ndarray | None = None, reference: np.ndarray | None = None,
    noise: np.ndarray | None = None, actions: Sequence[str] = (),
) -> Settlement:  # fmt: skip
    """What a HOLD prints: about how many rows in all, its range, and what exploration would save.

    Args:
        gain, sd, guard: of the nominated policy's paired scores on `scored` rows, after the margin.
        reference_value: V(rho), for the effect size named when there is no promising candidate.
    """
    likely = promising_gain(gain, sd, scored)
    promising = likely > 0
    effect = likely if promising else 0.05 * abs(reference_value)
    rows = rows_to_settle(effect, sd, guard, level) / SCORED_SHARE
    error = 1.2816 * sd / np.sqrt(max(scored, 1))
    low = rows_to_settle(gain + error, sd, guard, level) / SCORED_SHARE if promising else None
    high = rows_to_settle(gain - error, sd, guard, level) / SCORED_SHARE if promising else None
    explored: list[dict[str, float]] = []
    shown: list[dict[str, object]] = []
    if target is not None and reference is not None and noise is not None and np.isfinite(rows):
        explored, best = exploration_rows(target, reference, noise, rows)
        more = best.mean(0) - reference.mean(0)
        for k in np.argsort(-more)[:5]:
            if more[k] > 1e-6:
                name = actions[k] if len(actions) > k else str(k)
                shown.append(
                    {"action": name, "now": reference[:, k].mean(), "best": best[:, k].mean()}
                )
    return Settlement(
        rows=_finite(rows),
        rows_low=_finite(low),
        rows_high=_finite(high),
        sentence=_sentence(promising, rows, high, effect, explored),
        exploration=tuple(explored),
        actions=tuple(shown),
    )


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def _about(rows: float) -> str:
    digits = 10 ** max(int(np.floor(np.log10(max(rows, 1)))) - 1, 0)
    return f"{int(round(rows / digits) * digits):,}"


def _sentence(
    promising: bool, rows: float, high: float | None, effect: float, explored: list
) -> str:
    if not np.isfinite(rows):
        return "No promising candidate, and a reference that earns nothing: no rows can be named."
    if not promising:
        text = (
            "No promising candidate; to detect a gain of 5 % of the reference's value "
            f"takes about {_about(rows)} rows."
        )
    else:
        top = "" if high is None or not np.isfinite(high) else f" (perhaps up to {_about(high)})"
        text = (
            f"If the gain is about {effect:.4g}, about {_about(rows)} rows of this kind{top} "
            "would prove it four times in five."
        )
    full = next((e for e in explored if e["share"] == 0.3), None)
    if full is not None and full["rows"] < 0.9 * rows:
        text += (
            f" Logging 30 % of decisions for exploration would need about {_about(full['rows'])}."
        )
    return text
