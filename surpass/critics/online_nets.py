"""Neural regression that learns from every reward at once, with small random perturbations of its
output: the oracle of neural bandits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surpass.errors import InputError
from surpass.forms import Outlook

__all__ = ["OnlineNet"]

CONSTANT = 0.2  # beside contexts of length 1


@dataclass(frozen=True)
class OnlineNet:
    """A net of one hidden layer per action, trained by one projected gradient step a reward.

    It regresses losses y = 1 - reward in [0, 1]. With theta the weights, theta_0 their start and
    f(theta; x) = w' tanh(W_a x) / sqrt(m), action a has its own W_a (which is what the usual block
    features give). The prediction is the mean over s of

        f_s = f + perturbation sum_j (theta - theta_0)_j e_sj / m^(1/4),   e_sj = +1 or -1 at
        random,

    for "kl" inside a sigmoid; the step goes down the gradient of the mean over s of (y - f_s)^2 /
    2,
    or of the cross-entropy, and back into the ball of `radius` around theta_0 in each layer. No
    matrix is inverted. Contexts are scaled to unit length, beside a constant of 0.2. `mean` of the
    outlook
    is 1 - prediction.

    With `ridge`, `spread` is NeuralUCB's (g' diag(Z)^-1 g)^(1/2), Z = ridge + the sum of squared
    gradients of the actions taken.

    Contextual Bandits with Online Neural Regression (2023); Neural Contextual Bandits with
    UCB-based
    Exploration (2020) for the spread.

    Args:
        loss: "square" or "kl". width: m. rate: of the steps. perturbation: 0 for none.
        draws: how many perturbations. radius: of the balls. ridge: None for no spread.

    Raises:
        InputError: for another loss.
    """

    loss: str = "square"
    width: int = 100
    rate: float = 1.0
    perturbation: float = 0.01
    draws: int = 8
    radius: float = 10.0
    ridge: float | None = None

    def __post_init__(self) -> None:
        if self.loss not in ("square", "kl"):
            raise InputError(f"the loss is 'square' or 'kl', not {self.loss!r}")

    def begin(self, rows: int, features: int, actions: int, seed: int) -> _OnlineNet:
        """A net at its start; decisions of a batch are learned in their order."""
        return _OnlineNet(self, features, actions, seed)


class _OnlineNet:
    def __init__(self, how: OnlineNet, features: int, actions: int, seed: int) -> None:
        rng = np.random.default_rng((seed, 17))
        self.how, m = how, how.width
        inside = actions * m * (features + 1)
        self.start = rng.normal(size=inside + m).astype(np.float32)
        self.theta = self.start.copy()
        self.W = self.theta[:inside].reshape(actions, m, -1)  # views of theta
        self.w = self.theta[inside:]
        self.layers = (slice(0, inside), slice(inside, inside + m))
        signs = 2 * rng.integers(2, size=(how.draws, inside + m)) - 1
        self.sides = np.float32(how.perturbation / m**0.25) * signs.astype(np.float32)
        self.added = np.zeros(how.draws, np.float32)  # what each perturbation adds now
        self.Z = None if how.ridge is None else np.full(self.W.shape, how.ridge, np.float32)
        self.z = None if how.ridge is None else np.full(m, how.ridge, np.float32)

    def _unit(self, context: Tensor) -> np.ndarray:
        x = context.numpy().astype(np.float32)
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-8)
        return np.concatenate((x, np.full_like(x[:, :1], CONSTANT)), 1)

    def _raw(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hidden units [A, m] and outputs [A] of one context."""
        hidden = np.tanh(self.W @ x)
        return hidden, hidden @ self.w / np.float32(self.how.width**0.5)

    def _read(self, raw: np.ndarray) -> np.ndarray:
        both = raw[:, None] + self.added
        return (_sigmoid(both) if self.how.loss == "kl" else both).mean(1)

    def outlook(self, context: Tensor) -> Outlook:
        found, spreads = [], []
        for x in self._unit(context):
            hidden, raw = self._raw(x)
            found.append(self._read(raw))
            if self.Z is not None and self.z is not None:
                inside, outside = self._squares(hidden, x)
                total = (inside / self.Z).sum((1, 2)) + (outside / self.z).sum(1)
                spreads.append(np.sqrt(total))
        mean = torch.from_numpy(1.0 - np.stack(found).astype(np.float64))
        if not spreads:
            return Outlook(mean)
        return Outlook(mean, torch.from_numpy(np.stack(spreads).astype(np.float64)))

    def _squares(self, hidden: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Squared gradients of all outputs, by W_a [A, m, d] and w [A, m]."""
        m = self.how.width
        slope = (self.w * (1 - hidden**2)) ** 2 / m
        return slope[:, :, None] * (x**2), hidden**2 / m

    def learn(self, batch: Any) -> None:
        losses = 1.0 - batch.reward.numpy()
        for x, a, y in zip(self._unit(batch.context), batch.action.numpy(), losses, strict=True):
            self._step(x, int(a), float(y))

    def _step(self, x: np.ndarray, a: int, y: float) -> None:
        how, m = self.how, np.float32(self.how.width**0.5)
        hidden = np.tanh(self.W[a] @ x)
        raw = hidden @ self.w / m + self.added
        # Slopes of the loss: f - y for both losses (the sigmoid's slope cancels in the second).
        error = (_sigmoid(raw) if how.loss == "kl" else raw) - np.float32(y)
        mean = error.mean()
        mean, step = error.mean(), np.float32(how.rate)
        inner, outer = np.outer(self.w * (1 - hidden**2) / m, x), hidden / m
        if self.Z is not None and self.z is not None:
            self.Z[a] += inner**2
            self.z += outer**2
        self.W[a] -= step * mean * inner
        self.w -= step * mean * outer
        if how.perturbation:
            self.theta -= step * ((error / how.draws) @ self.sides)
        moved = self.theta - self.start
        for layer in self.layers:
            length = float(np.linalg.norm(moved[layer]))
            if length > how.radius:
                moved[layer] *= np.float32(how.radius / length)
                self.theta[layer] = self.start[layer] + moved[layer]
        if how.perturbation:
            self.added = self.sides @ moved


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))
