"""A streaming mixture of linear experts with a fairness penalty, which grows when it drifts and
explains itself by exact Shapley values.

FEAMOE: Fair, Explainable and Adaptive Mixture of Experts (2023). Penalty weights, the threshold of
growth and the start of a new gate are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError

__all__ = ["FairExperts", "Measure", "fairness_gap"]

Measure = Literal["parity", "odds", "burden"]


def _mean_gap(value: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Difference of means over two groups; zero when one is empty."""
    n, m = one.sum(), other.sum()
    gap = (value * one).sum() / n.clamp_min(1) - (value * other).sum() / m.clamp_min(1)
    return torch.where((n > 0) & (m > 0), gap, torch.zeros_like(gap))


def fairness_gap(
    measure: Measure, f: Float[Tensor, "n"], y: Tensor, z: Tensor, distance: Tensor | None = None
) -> Tensor:
    """The gap between the groups z = 1 and z = 0.

    "parity": of mean f (signed). "odds": the sum over labels y of the absolute gaps of mean f.
    "burden": of the mean distance to acceptance among those rejected (f < 1/2), signed.

    Raises:
        InputError: for another measure, or a burden without distances.
    """
    one, other = (z == 1).to(f.dtype), (z == 0).to(f.dtype)
    if measure == "parity":
        return _mean_gap(f, one, other)
    if measure == "odds":
        gaps = [_mean_gap(f, one * (y == v), other * (y == v)).abs() for v in (0, 1)]
        return gaps[0] + gaps[1]
    if measure == "burden" and distance is not None:
        out = (f < 0.5).to(f.dtype)
        return _mean_gap(distance, one * out, other * out)
    raise InputError(f"the measure is parity, odds or burden (with distances), not {measure!r}")


@dataclass
class FairExperts:
    """f(x) = sum_k g_k(x) sigma(w_k'x + b_k), g = softmax(V x + c); one pass of stochastic gradient
    descent on cross-entropy + penalty gap^2 + decay (|w|^2 + |V|^2).

    `watch` calls it drift when the mean over the last `patience` windows of the penalized loss, of
    the error or of the gap's size lies `alarm` standard errors above that of the windows before;
    `grow` then adds an expert, the old ones learn ten times slower, and the statistics begin anew.

    Args:
        features: d. measure, penalty: of fairness. rate, size: of the steps. window: rows.
        most: experts at most, 1: no growth.
    """

    features: int
    measure: Measure = "parity"
    penalty: float = 2.0
    rate: float = 0.5
    size: int = 64
    window: int = 500
    alarm: float = 4.0
    patience: int = 3
    most: int = 8
    decay: float = 1e-4
    slow: float = 0.1
    w: Tensor = field(init=False)
    b: Tensor = field(init=False)
    V: Tensor = field(init=False)
    c: Tensor = field(init=False)
    rates: Tensor = field(init=False)
    mean: Tensor = field(init=False)
    history: list[tuple[float, float, float]] = field(default_factory=list)
    recent: list[tuple[float, float, float]] = field(default_factory=list)
    age: int = 1  # how many of the last windows stand out

    def __post_init__(self) -> None:
        d = self.features
        self.w, self.b = torch.zeros(1, d), torch.zeros(1)
        self.V, self.c = torch.zeros(1, d), torch.zeros(1)
        self.rates, self.mean = torch.ones(1), torch.zeros(d)

    @property
    def experts(self) -> int:
        """K."""
        return len(self.b)

    def gates(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n K"]:
        """How much each expert has to say."""
        return (x @ self.V.T + self.c).softmax(1)

    def logits(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n K"]:
        """Each expert's logit."""
        return x @ self.w.T + self.b

    def predict(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """f(x)."""
        return (self.gates(x) * self.logits(x).sigmoid()).sum(1)

    def distance(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """Gate-weighted distance to each expert's boundary, 0 on the accepting side."""
        norm = self.w.norm(dim=1).clamp_min(1e-2)
        return (self.gates(x) * (-self.logits(x)).clamp_min(0) / norm).sum(1)

    def shapley(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Exact Shapley values of the gated logit sum_k g_k(x) (w_k'x + b_k), gates as at x, absent
        features at their running mean: sum_k g_k(x) w_kj (x_j - mean_j)."""
        return (self.gates(x) @ self.w) * (x - self.mean)

    # ------------------------------------------------------------------------------------ learning

    def losses(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and the fairness gap."""
        f = self.predict(x).clamp(1e-6, 1 - 1e-6)
        far = self.distance(x) if self.measure == "burden" else None
        entropy = -(y * f.log() + (1 - y) * (1 - f).log()).mean()
        return entropy, fairness_gap(self.measure, f, y, z, far)

    def learn(self, x: Tensor, y: Tensor, z: Tensor) -> None:
        """One pass over a window, batch by batch."""
        for at in torch.arange(len(x)).split(self.size):
            theta = [t.requires_grad_() for t in (self.w, self.b, self.V, self.c)]
            entropy, gap = self.losses(x[at], y[at], z[at])
            ridge = self.w.square().sum() + self.V.square().sum()
            loss = entropy + self.penalty * gap.square() + self.decay * ridge
            grads = torch.autograd.grad(loss, theta)
            scale = self.rate * self.rates
            self.w, self.b, self.V, self.c = (
                (t - (scale[:, None] if t.dim() == 2 else scale) * g).detach()
                for t, g in zip(theta, grads, strict=True)
            )
        self.mean = 0.95 * self.mean + 0.05 * x.mean(0) if self.history else x.mean(0)

    def watch(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[float, float, float, bool]:
        """Score a window before learning from it: error, gap, how many standard errors the last
        windows lie above those before (in loss, error or gap), and whether that is drift."""
        with torch.no_grad():
            entropy, gap = self.losses(x, y, z)
            wrong = float(((self.predict(x) >= 0.5) != (y >= 0.5)).float().mean())
        row = (float(entropy + self.penalty * gap.square()), wrong, abs(float(gap)))
        self.recent.append(row)
        if len(self.recent) > self.patience or len(self.history) < 5:
            self.history = [*self.history, self.recent.pop(0)][-30:]
        if len(self.recent) < self.patience:
            return wrong, float(gap), 0.0, False
        before = np.array(self.history)
        spread = np.maximum(before.std(0, ddof=1), 1e-3) / self.patience**0.5
        z_score = float(((np.mean(self.recent, axis=0) - before.mean(0)) / spread).max())
        alone = (np.array(self.recent) - before.mean(0)) / (spread * self.patience**0.5)
        self.age = int((alone.max(1) > 2.0)[::-1].cumprod().sum())
        drifted = z_score > self.alarm
        return wrong, float(gap), z_score, drifted

    def grow(self, x: Tensor, y: Tensor, z: Tensor) -> None:
        """A new expert that starts as a logistic regression on the recent rows, with gate weight
        1 / (K + 1); experts that lost their say are dropped."""
        self.history, self.recent = [], []
        if self.most < 2:
            return
        share = self.gates(x).mean(0)
        if self.experts >= self.most or bool((share < 0.01).any()):
            keep = share >= 0.01
            if bool(keep.all()):
                keep[share.argmin()] = False
            self.w, self.b, self.V, self.c = (t[keep] for t in (self.w, self.b, self.V, self.c))
        new = FairExperts(self.features, self.measure, self.penalty, self.rate, self.size, most=1)
        for _ in range(3):
            new.learn(x, y, z)
        level = (x @ self.V.T + self.c).logsumexp(1).mean() - np.log(self.experts)
        self.w, self.b = torch.cat((self.w, new.w)), torch.cat((self.b, new.b))
        self.V = torch.cat((self.V, torch.zeros(1, self.features)))
        self.c = torch.cat((self.c, level[None]))
        self.rates = torch.full((self.experts,), self.slow)
        self.rates[-1] = 1.0
