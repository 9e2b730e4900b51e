"""People who want to be accepted: three small populations, and one from measured tumors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.strategic import respond

__all__ = ["People", "clusters", "tumors"]


@dataclass(frozen=True)
class People:
    """A population: x = (x_c, x_r), the first `causal` columns change the outcome when they move.

    Attributes:
        draw: n people as they are, [n, d]. outcome: h*(x_c, x_r before the
            move, chance [n], standard normal), [n], +1 or -1.
        causal: number of causal columns. reach: how far a person moves at most.
    """

    draw: Callable[[int, np.random.Generator], Tensor]
    outcome: Callable[[Tensor, Tensor, Tensor], Tensor]
    causal: int
    reach: float

    def labeled(
        self, n: int, rng: np.random.Generator
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n"]]:
        """People as they are, and their outcome."""
        x = self.draw(n, rng)
        chance = torch.from_numpy(rng.normal(size=n))
        return x, self.outcome(x[:, : self.causal], x[:, self.causal :], chance)

    def answered(
        self, w: Float[Tensor, "d"], b: Tensor, n: int, rng: np.random.Generator
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n"], Tensor]:
        """New people after they answered a rule, their outcome then, and who moved."""
        x = self.draw(n, rng)
        after, moved = respond(x, w, b, self.reach)
        chance = torch.from_numpy(rng.normal(size=n))
        return after, self.outcome(after[:, : self.causal], x[:, self.causal :], chance), moved

    def accuracy(
        self, w: Float[Tensor, "d"], b: Tensor, n: int, rng: np.random.Generator,
        strategic: bool = True,
    ) -> float:  # fmt: skip
        """How often the rule is right about people after they moved (or as they are), in percent:
        who moved is accepted."""
        if not strategic:
            x, y = self.labeled(n, rng)
            return 100 * float((((x @ w + b) >= 0) == (y > 0)).double().mean())
        x, y, moved = self.answered(w, b, n, rng)
        accepted = moved | (x @ w + b >= 0)
        return 100 * float((accepted == (y > 0)).double().mean())


def clusters(kind: Literal["improve", "island", "xor"]) -> People:
    """Two columns, the first causal.

    improve: two clusters that touch; positive where x_c plus chance is above 0, so that a move to
    the right makes it true. island: positive only near the positive cluster, a move beyond it
    harms. xor: the sign of x_c x_r is the wrong way round, but far on the right, where nobody is,
    all are positive.
    """
    if kind == "xor":

        def draw(n: int, rng: np.random.Generator) -> Tensor:
            corner = 2 * rng.integers(2, size=(n, 2)) - 1
            return torch.from_numpy(corner + 0.2 * rng.normal(size=(n, 2)))

        def outcome(c: Tensor, r: Tensor, chance: Tensor) -> Tensor:
            right = (c[:, 0] * r[:, 0] < 0) | (c[:, 0] > 1.5)
            return torch.where(right, 1.0, -1.0).double()

        return People(draw, outcome, 1, 3.0)
    spread, center = (0.8, 0.8) if kind == "improve" else (0.25, 1.0)

    def pair(n: int, rng: np.random.Generator) -> Tensor:
        side = center * (2 * rng.integers(2, size=n) - 1)
        return torch.from_numpy(np.stack((
            side + spread * rng.normal(size=n), 0.5 * np.sign(side) + 0.5 * rng.normal(size=n)
        ), 1))  # fmt: skip

    def true(c: Tensor, r: Tensor, chance: Tensor) -> Tensor:
        good = c[:, 0] + 0.6 * chance > 0 if kind == "improve" else (c[:, 0] - 1).abs() < 0.8
        return torch.where(good, 1.0, -1.0).double()

    return People(pair, true, 1, 1.2 if kind == "improve" else 2.2)


def tumors(seed: int = 0) -> People:
    """scikit-learn's breast cancer data: the first 15 columns are causal, and the truth is a small
    network that was fitted on them; drawn with replacement. Nine in ten of
    those whom a linear rule rejects can reach it."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    data = load_breast_cancer(return_X_y=True)
    x, y = np.asarray(data[0]), np.asarray(data[1])
    x = (x - x.mean(0)) / x.std(0) / np.sqrt(x.shape[1])
    net = MLPClassifier((32, 16), max_iter=400, random_state=seed).fit(x[:, :15], y)
    rule = LogisticRegression(C=10.0).fit(x, y)
    far = -rule.decision_function(x) / np.linalg.norm(rule.coef_)
    rows = torch.from_numpy(x)

    def outcome(c: Tensor, r: Tensor, chance: Tensor) -> Tensor:
        return torch.from_numpy(2.0 * net.predict(c.numpy()) - 1.0)

    return People(
        lambda n, rng: rows[torch.from_numpy(rng.integers(len(rows), size=n))],
        outcome, 15, float(np.quantile(far[far > 0], 0.9)),
    )  # fmt: skip
