"""What is looked at before a verdict: each check can only turn PROMOTE into HOLD, with a reason.

All take numpy arrays of the scored units and give a `Check`. The duplicate check comes first: it
decides what a unit
is.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from surpass.improve.results import Check

__all__ = [
    "duplicates", "effective_sample_size", "fading_gain", "groups", "propensities_full",
    "propensities_logged", "serial_dependence", "support",
]  # fmt: skip

Rows = Float[np.ndarray, "N"]
Table = Float[np.ndarray, "N A"]
Numbers = Int[np.ndarray, "N"]

MERGE_BELOW = 50.0
CALIBRATION_P = 0.001
STICKY_Z = 3.1
LEAST_ESS = 50.0
LEAST_GROUPS = 50
UNSUPPORTED = 0.01
BLOCKS = 30
SERIAL_P = 0.01
FADING_Z = -2.33


def _sum_by(values: np.ndarray, unit: np.ndarray | None) -> np.ndarray:
    """Sums within units, [U, ...]; the rows themselves where every row is a unit."""
    if unit is None:
        return values
    _, number = np.unique(unit, return_inverse=True)
    out = np.zeros((number.max() + 1, *values.shape[1:]))
    np.add.at(out, number, values)
    return out


def _merged(expected: Table, action: Numbers) -> tuple[Table, Numbers]:
    """Actions whose expected count is below 50 become one, which stands last."""
    rare = expected.sum(0) < MERGE_BELOW
    if rare.sum() < 2:
        return expected, action
    kept = np.flatnonzero(~rare)
    table = np.column_stack([expected[:, kept], expected[:, rare].sum(1)])
    number = np.full(expected.shape[1], len(kept))
    number[kept] = np.arange(len(kept))
    return table, number[action]


def _standardized(context: np.ndarray, columns: int) -> np.ndarray:
    """1 and the first columns of the context that vary, standardized: [N, <= columns]."""
    ones = np.ones((len(context), 1))
    if context.size == 0 or columns <= 1:
        return ones
    sd = context.std(0)
    varying = np.flatnonzero(sd > 1e-12)[: columns - 1]
    z = (context[:, varying] - context[:, varying].mean(0)) / sd[varying]
    return np.column_stack([ones, z])


def _moment_test(h: np.ndarray, unit: np.ndarray | None) -> tuple[float, int, float]:
    """Whether the mean of independent moment vectors is zero: s' S^- s against chi-square(rank
    S)."""
    h = _sum_by(h, unit)
    s, second = h.sum(0), h.T @ h
    values, vectors = np.linalg.eigh(second)
    rounding = 1e-18 * len(h)  # moments that vanish identically, as those of one merged action do
    keep = values > max(values[-1] * 1e-10, rounding) if values.size else np.zeros(0, bool)
    if not keep.any():
        return 0.0, 0, 1.0
    projected = vectors[:, keep].T @ s
    statistic = float((projected**2 / values[keep]).sum())
    return statistic, int(keep.sum()), float(stats.chi2.sf(statistic, keep.sum()))


def _calibration(statistic: float, df: int, p: float, table: list[dict[str, float]]) -> Check:
    passed = p >= CALIBRATION_P
    reason = (
        f"The logged propensities agree with the actions that were taken "
        f"(chi-square {statistic:.1f} on {df} degrees of freedom, p = {p:.3f})."
        if passed
        else "The logged propensities do not match the actions "
        f"(chi-square {statistic:.1f} on {df} degrees of freedom, p = {p:.1e}). "
        "Mend the logging, or give --propensity-model fitted; the claim then rests on that."
    )
    return Check("logged propensities", passed, p, CALIBRATION_P, reason, details={"table": table})


def propensities_full(
    action: Numbers, propensities: Table, context: np.ndarray, unit: np.ndarray | None = None
) -> Check:
    """Logged propensity rows against the actions: h_kj = (1{a = k} - mu_k(x)) z_j has mean zero if
    they are true.

    Args:
        action: [N]. propensities: of every action, [N, A]. context: encoded, [N, d].
        unit: the number of each row's unit, where rows are not independent.
    """
    mu, taken = _merged(propensities, action)
    n, k = mu.shape
    z = _standardized(context, max(1, int(n / (100 * k))))
    h = ((taken[:, None] == np.arange(k)) - mu)[:, :, None] * z[:, None, :]
    return _calibration(
        *_moment_test(h.reshape(n, -1), unit), calibration_table(action, propensities)
    )


def propensities_logged(
    action: Numbers,
    propensity: Rows,
    fitted: Table,
    context: np.ndarray,
    unit: np.ndarray | None = None,
) -> Check:
    """Logged propensities of the taken actions alone: h_kj = fit_k(x) (1{a = k}/p - 1) z_j has
    mean zero.

    Args:
        fitted: a multinomial model of the action from learning rows, [N, A]; without it the
            statistic is useless.
    """
    n, k = fitted.shape
    rare = fitted.sum(0) < MERGE_BELOW
    z = _standardized(context, max(1, int(n / (100 * max((~rare).sum() + rare.any(), 1)))))
    inverse = (action[:, None] == np.arange(k)) / propensity[:, None] - 1.0
    h = fitted * inverse
    if rare.sum() >= 2:
        h = np.column_stack([h[:, ~rare], h[:, rare].sum(1)])
    h = h[:, :, None] * z[:, None, :]
    table = _binned(propensity, fitted[np.arange(n), action])
    return _calibration(*_moment_test(h.reshape(n, -1), unit), table)


def calibration_table(
    action: Numbers, propensities: Table, bins: int = 10
) -> list[dict[str, float]]:
    """Predicted against observed frequencies, over all (row, action) pairs in bins of the
    predicted propensity."""
    taken = (action[:, None] == np.arange(propensities.shape[1])).ravel()
    return _binned(propensities.ravel(), taken, bins)


def _binned(predicted: np.ndarray, observed: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)))
    which = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, max(len(edges) - 2, 0))
    out = []
    for b in range(max(len(edges) - 1, 1)):
        here = which == b
        count = int(here.sum())
        if count:
            mean = float(observed[here].mean())
            out.append(
                {
                    "predicted": float(predicted[here].mean()),
                    "observed": mean,
                    "error": 1.96 * float(np.sqrt(max(mean * (1 - mean), 0.0) / count)),
                    "count": count,
                }
            )
    return out


def support(mass: float, worst_case_passes: bool | None, where: str = "") -> Check:
    """The candidate's mean action mass where the reference never acts; above 1 % the worst case
    must pass.

    Args:
        worst_case_passes: the verdict's test with the lowest reward on that mass (None: there is
            no such mass).
        where: the actions and contexts concerned, in words.
    """
    passed = mass <= UNSUPPORTED or bool(worst_case_passes)
    if mass <= 1e-12:
        reason = "The policy never takes an action that the reference never takes."
    elif passed:
        reason = f"{mass:.1%} of its actions have no data; at the lowest reward the gain stands."
    else:
        reason = (
            f"{mass:.1%} of its actions have no data{where and ': ' + where}. "
            "Log them with some probability, or take them out of the policy."
        )
    return Check("support", passed, mass, UNSUPPORTED, reason)


def effective_sample_size(weights: Rows) -> Check:
    """(sum w)^2 / sum w^2 on the scored rows; below 50 there is too little overlap to say
    anything."""
    total = float(weights.sum())
    ess = total**2 / float((weights**2).sum()) if total > 0 else 0.0
    passed = ess >= LEAST_ESS
    reason = (
        f"The scored rows speak for the policy like {ess:,.0f} rows of its own would."
        if passed
        else f"Poor overlap: the scored rows are worth only {ess:.0f} of the policy's own. "
        "A policy closer to the reference, or more exploration in the log, would help."
    )
    return Check("effective sample size", passed, ess, LEAST_ESS, reason)


def groups(count: int | None, column: str | None) -> Check:
    """Enough independent groups, where rows come in groups."""
    if count is None:
        reason = (
            "Every row is its own unit; no column for a user or another group was named or found."
        )
        return Check("groups", True, None, LEAST_GROUPS, reason, ran=False)
    passed = count >= LEAST_GROUPS
    reason = f"Rows of one {column or 'group'} count as one unit; there are {count:,} of them" + (
        "." if passed else f", and at least {LEAST_GROUPS} are needed to tell chance from gain."
    )
    return Check("groups", passed, count, LEAST_GROUPS, reason)


def duplicates(
    context: np.ndarray, action: Numbers, propensity: Rows, propensities: Table | None = None
) -> tuple[Check, Numbers | None]:
    """Repeated rows and sticky assignment: does the next row of the same context repeat its action
    too often?

    Returns:
        The check (which never fails: it mends), and the context's number as each row's group where
        it fired.
    """
    n = len(action)
    _, number = (
        np.unique(context, axis=0, return_inverse=True)
        if context.size
        else (None, np.zeros(n, int))
    )
    number = number.reshape(-1)
    order = np.lexsort((np.arange(n), number))
    first, second = order[:-1], order[1:]
    same = number[first] == number[second]
    first, second = first[same], second[same]
    if len(first) < 10:
        return Check(
            "duplicated rows", True, None, STICKY_Z, "No context repeats.", ran=False
        ), None
    p = propensities[second, action[first]] if propensities is not None else propensity[first]
    spread = float(np.sqrt((p * (1 - p)).sum()))
    z = float(((action[first] == action[second]) - p).sum() / spread) if spread > 0 else 0.0
    repeated = float((action[first] == action[second]).mean())
    details = {"pairs": len(first), "repeated": repeated, "expected": float(p.mean())}
    if z <= STICKY_Z:
        reason = f"Rows with equal contexts repeat actions as often as chance says (z = {z:.1f})."
        return Check("duplicated rows", True, z, STICKY_Z, reason, details=details), None
    reason = (
        f"Rows with equal contexts repeat the action in {repeated:.0%} of pairs where chance says "
        f"{p.mean():.0%} (z = {z:.1f}): duplicates, or an assignment that sticks to the user. "
        "Rows with one context are counted as one unit from here on."
    )
    return Check("duplicated rows", True, z, STICKY_Z, reason, details=details), number


def serial_dependence(x: Rows, level: float) -> Check:
    """30 consecutive blocks of scores in time order: 29 n_b Var(block means) / Var(x) against
    chi-square(29).

    Where it fires (p < 0.01), the t test on the block means must pass too.
    """
    size = len(x) // BLOCKS
    if size < 2 or x.var() <= 0:
        return Check(
            "serial dependence", True, None, SERIAL_P, "Too few rows in time order.", ran=False
        )
    means = x[: size * BLOCKS].reshape(BLOCKS, size).mean(1)
    statistic = (BLOCKS - 1) * size * means.var(ddof=1) / x.var(ddof=1)
    p = float(stats.chi2.sf(statistic, BLOCKS - 1))
    t = means.mean() / max(means.std(ddof=1) / np.sqrt(BLOCKS), 1e-300)
    t_p = float(stats.t.sf(t, BLOCKS - 1))
    details = {"block_means": means.tolist(), "t_p": t_p}
    if p >= SERIAL_P:
        reason = f"Scores near in time are no more alike than others (p = {p:.2f})."
        return Check("serial dependence", True, p, SERIAL_P, reason, details=details)
    passed = t_p <= level
    reason = (
        f"Scores near in time are alike (p = {p:.1e}), so 30 blocks of time were tested too: "
        + (
            f"the gain stands (p = {t_p:.3f})."
            if passed
            else f"the gain does not stand (p = {t_p:.3f})."
        )
    )
    return Check("serial dependence", passed, p, SERIAL_P, reason, details=details)


def fading_gain(x: Rows, time: Rows) -> Check:
    """A gain that shrinks over time and is gone in the last quarter."""
    n = len(x)
    centered = time - time.mean()
    spread = float((centered**2).sum())
    if n < 40 or spread <= 0:
        return Check("fading gain", True, None, FADING_Z, "Time does not vary.", ran=False)
    slope = float((centered * x).sum() / spread)
    residual = x - x.mean() - slope * centered
    error = float(np.sqrt((residual**2).sum() / (n - 2) / spread))
    z = slope / error if error > 0 else 0.0
    last = float(x[np.argsort(time, kind="stable")][-max(n // 4, 1) :].mean())
    passed = not (z < FADING_Z and last <= 0)
    reason = (
        f"The gain does not fade over time (slope z = {z:.1f})."
        if passed
        else f"The gain fades: it shrinks over time (z = {z:.1f}) and is gone in the last quarter. "
        "Log a newer period, or learn on recent rows only."
    )
    return Check("fading gain", passed, z, FADING_Z, reason, details={"last_quarter": last})
