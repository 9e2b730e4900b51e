"""Is a series of binary choices a fair coin's? Tests of rate, memory and streaks, each exact or
asymptotic under independent fair bits (the rate's: independent bits of one half)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int
from scipy import stats

__all__ = ["Tested", "battery", "holm", "longest_run_law", "streak_slope", "variance_ratio"]


@dataclass(frozen=True)
class Tested:
    """A property: what was measured, what a fair coin gives, and the p-value; `flagged` after
    Holm's correction over the battery."""

    name: str
    value: float
    fair: float
    p: float
    flagged: bool = False


def holm(p: list[float], level: float) -> list[bool]:
    """Which hypotheses Holm's step-down procedure rejects. A simple sequentially rejective multiple
    test procedure (1979)."""
    out, order = [False] * len(p), np.argsort(p)
    for k, i in enumerate(order):
        if p[i] > level / (len(p) - k):
            break
        out[i] = True
    return out


def battery(bits: Int[np.ndarray, "M L"], level: float = 0.05) -> tuple[Tested, ...]:
    """Nine properties of M series of L bits.

    rate of ones (exact binomial); order 1 against 0 and order 2 against 1 (likelihood ratios); the
    halves of the series; runs (Wald and Wolfowitz, combined over series); alternation; the slope of
    switching in the length of the streak; the longest run against its exact law; patterns of three
    bits (non-overlapping, likelihood ratio).
    """
    M, L = bits.shape
    ones = int(bits.sum())
    found = [
        Tested("rate", ones / bits.size, 0.5, float(stats.binomtest(ones, bits.size).pvalue)),
        _markov(bits, 1),
        _markov(bits, 2),
        _halves(bits),
        _runs(bits),
    ]
    switch = int((bits[:, 1:] != bits[:, :-1]).sum())
    chance = float(stats.binomtest(switch, M * (L - 1)).pvalue)
    found.append(Tested("alternation", switch / (M * (L - 1)), 0.5, chance))
    slope, error = streak_slope(bits)
    p = 2 * stats.norm.sf(abs(slope) / error) if error > 0 else 1.0
    found.append(Tested("streaks", slope, 0.0, float(p)))
    found += [_longest(bits), _patterns(bits)]
    flags = holm([t.p for t in found], level)
    return tuple(Tested(t.name, t.value, t.fair, t.p, f) for t, f in zip(found, flags, strict=True))


def _gain(counts: np.ndarray) -> float:
    """Twice the log-likelihood gained by one rate per row [..., 2] over one for all."""

    def fit(n: np.ndarray) -> float:
        total = n.sum(-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.where(n > 0, n * np.log(n / total), 0.0).sum())

    return 2 * (fit(counts) - fit(counts.sum(-2, keepdims=True)))


def _markov(bits: np.ndarray, order: int) -> Tested:
    """Whether the bit `order` places back matters, given those between."""
    columns = [bits[:, i : bits.shape[1] - order + i] for i in range(order + 1)]
    code = sum(c.astype(np.int64) << (order - i) for i, c in enumerate(columns))
    counts = np.bincount(np.asarray(code).ravel(), minlength=2 ** (order + 1))
    table = counts.reshape(2, 2 ** (order - 1), 2).swapaxes(0, 1)  # between, back, now
    value = sum(_gain(t) for t in table)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = table[..., 1] / table.sum(-1)
    apart = share[:, 1] - share[:, 0]
    apart = apart[np.isfinite(apart)]
    gap = float(apart.mean()) if apart.size else 0.0  # a series without change shows no memory
    return Tested(f"order {order}", gap, 0.0, float(stats.chi2.sf(value, 2 ** (order - 1))))


def _halves(bits: np.ndarray) -> Tested:
    half = bits.shape[1] // 2
    table = np.array([[(~p.astype(bool)).sum(), p.sum()] for p in (bits[:, :half], bits[:, half:])])
    gap = float(bits[:, half:].mean() - bits[:, :half].mean())
    return Tested("halves", gap, 0.0, float(stats.chi2.sf(_gain(table), 1)))


def _runs(bits: np.ndarray) -> Tested:
    """The sum of the series' standardized numbers of runs, given their ones and zeros."""
    L = bits.shape[1]
    one = bits.sum(1)
    zero = L - one
    runs = 1 + (bits[:, 1:] != bits[:, :-1]).sum(1)
    mean = 1 + 2 * one * zero / L
    spread = (mean - 1) * (mean - 2) / (L - 1)
    total = float(np.sqrt(max(spread.sum(), 1e-12)))
    z = float((runs - mean).sum()) / total
    return Tested("runs", z, 0.0, float(2 * stats.norm.sf(abs(z))))


def streak_slope(bits: Int[np.ndarray, "M L"], longest: int = 5) -> tuple[float, float]:
    """The slope of logit P(switch | streak of length s) in s = 1 to `longest` (longer count as
    that), and its standard error; positive: the gambler's fallacy."""
    streak = np.ones(len(bits), dtype=np.int64)
    n, k = np.zeros(longest), np.zeros(longest)
    for t in range(1, bits.shape[1]):
        switched = bits[:, t] != bits[:, t - 1]
        at = np.minimum(streak, longest) - 1
        np.add.at(n, at, 1)
        np.add.at(k, at, switched)
        streak = np.where(switched, 1, streak + 1)
    X = np.stack([np.ones(longest), np.arange(1, longest + 1)], 1)
    beta = np.zeros(2)
    for _ in range(30):
        p = 1 / (1 + np.exp(-X @ beta))
        H = X.T @ (X * (n * p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(H, X.T @ (k - n * p))
        beta = np.clip(beta + step, -30, 30)
        if np.abs(step).max() < 1e-10:
            break
    return float(beta[1]), float(np.sqrt(np.linalg.inv(H)[1, 1]))


@lru_cache(maxsize=64)
def longest_run_law(length: int) -> tuple[float, ...]:
    """P(the longest run of equal bits among `length` fair bits is k), k = 0 to length."""

    def at_most(k: int) -> float:
        if k == 0:
            return 0.0
        ends = np.zeros(k)  # probability by the length of the run that is going on
        ends[0] = 1.0
        for _ in range(length - 1):
            ends = np.concatenate(([0.5 * ends.sum()], 0.5 * ends[:-1]))
        return float(ends.sum())

    total = [at_most(k) for k in range(length + 1)]
    return tuple(np.diff([0.0, *total]).tolist())


def _longest(bits: np.ndarray) -> Tested:
    M, L = bits.shape
    best, streak = np.ones(M, dtype=np.int64), np.ones(M, dtype=np.int64)
    for t in range(1, L):
        streak = np.where(bits[:, t] == bits[:, t - 1], streak + 1, 1)
        best = np.maximum(best, streak)
    law = M * np.array(longest_run_law(L))
    seen = np.bincount(best, minlength=L + 1).astype(float)
    wanted, counted = [0.0], [0.0]
    for e, o in zip(law, seen, strict=True):  # pool until five are expected
        wanted[-1] += e
        counted[-1] += o
        if wanted[-1] >= 5:
            wanted.append(0.0)
            counted.append(0.0)
    if len(wanted) > 2:
        wanted[-2] += wanted.pop()
        counted[-2] += counted.pop()
    e, o = np.array(wanted), np.array(counted)
    value = float(((o - e) ** 2 / np.maximum(e, 1e-9)).sum())
    fair = float(np.arange(L + 1) @ longest_run_law(L))
    return Tested(
        "longest run", float(best.mean()), fair, float(stats.chi2.sf(value, max(len(e) - 1, 1)))
    )


def _patterns(bits: np.ndarray, size: int = 3) -> Tested:
    """Entropy of patterns, in bits of the most there could be."""
    whole = bits[:, : bits.shape[1] // size * size].reshape(-1, size)
    count = np.bincount(whole @ (1 << np.arange(size)), minlength=2**size)
    p = count / max(count.sum(), 1)
    entropy = -float(np.where(p > 0, p * np.log2(np.maximum(p, 1e-300)), 0.0).sum())
    value = 2 * count.sum() * math.log(2) * (size - entropy)
    return Tested(
        "patterns", entropy / size, 1.0, float(stats.chi2.sf(max(value, 0.0), 2**size - 1))
    )


def variance_ratio(returns: np.ndarray, over: int = 5) -> float:
    """Var(sum of `over` returns) / (over x Var(return)): 1 for a random walk, below 1 where moves
    turn back; NaN where no return differs from another. Lo and MacKinlay, Stock market prices do
    not follow random walks (1988)."""
    x = returns - returns.mean()
    if not x.any():
        return math.nan
    sums = np.convolve(x, np.ones(over), "valid")
    return float((sums**2).mean() / (over * (x**2).mean()))
