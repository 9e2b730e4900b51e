"""Classification data as logged decisions: exact propensities, and a known truth beside every
estimate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surpass.data.records import About, Decisions
from surpass.errors import InputError

__all__ = ["Truth", "from_classification"]


@dataclass(frozen=True)
class Truth:
    """The population that a log was drawn from: M equally likely contexts, and what every action
    pays in each.

    Attributes:
        contexts: [M, d].
        rewards: the expected reward of every action, [M, A].
        logging: the logging policy's probabilities, [M, A].
    """

    contexts: Float[Tensor, "M d"]
    rewards: Float[Tensor, "M A"]
    logging: Float[Tensor, "M A"]

    def value(self, policy: Callable[[Tensor], Tensor] | Tensor | None = None) -> float:
        """The true value of a policy, (1/M) sum_x sum_a pi(a|x) r(x, a).

        Args:
            policy: probabilities [M, A] in the contexts of this truth, or a function from
                contexts [M, d] to them; the logging policy by default.

        Raises:
            InputError: when the probabilities are for other actions, or do not sum to 1.
        """
        pi = self.logging if policy is None else policy
        table = pi if isinstance(pi, Tensor) else pi(self.contexts)
        if table.shape != self.rewards.shape:
            raise InputError(
                f"the policy gives probabilities {tuple(table.shape)}, "
                f"{tuple(self.rewards.shape)} are expected: "
                "a row per context and a column per action"
            )
        table = table.to(torch.float64)
        if bool((table.sum(1) - 1).abs().max() > 1e-4) or bool(table.min() < 0):
            raise InputError(
                "the policy's probabilities do not sum to 1 in every context; normalize them"
            )
        return float((table * self.rewards).sum(1).mean())

    def draw(
        self, rows: int, *, noise: float | None = None, seed: Any = 0, about: About | None = None
    ) -> Decisions:
        """A log of this population: contexts with replacement, actions by the logging policy.

        Args:
            rows: how many decisions.
            noise: spread of Gaussian noise on the rewards; None where the expected reward is the
                probability of a reward of 1.
            seed: of the draws, or a numpy generator. about: describes the log.
        """
        rng = np.random.default_rng(seed)
        drawn = rng.integers(len(self.contexts), size=rows)
        edges = self.logging.numpy().cumsum(1)[drawn]
        action = np.minimum((rng.random((rows, 1)) >= edges).sum(1), edges.shape[1] - 1)
        paid = self.rewards.numpy()[drawn, action]
        if noise is None:
            reward = (rng.random(rows) < paid).astype(np.float64)
        else:
            reward = paid + noise * rng.normal(size=rows)
        place = torch.from_numpy(drawn)
        return Decisions(
            context=self.contexts[place],
            action=torch.from_numpy(action),
            reward=torch.from_numpy(reward),
            propensity=self.logging[place, torch.from_numpy(action)],
            propensities=self.logging[place],
            batch_size=[rows],  # type: ignore[call-arg]
        ).described(about or About(name="truth"))

    @property
    def best(self) -> float:
        """The value of the best policy."""
        return float(self.rewards.max(1).values.mean())


def from_classification(
    X: Any,
    y: Any,
    *,
    quality: float = 0.6,
    exploration: float = 0.3,
    noise: float = 0.0,
    rows: int = 10_000,
    seed: int = 0,
    name: str = "classification",
    columns: tuple[str, ...] = (),
) -> tuple[Decisions, Truth]:
    """Logged decisions from features and labels: choosing the right class pays 1.

    The population is the M rows of `X`, each equally likely; `rows` contexts are drawn from it
    with replacement. The logging policy takes a favorite class with probability 1 - exploration +
    exploration / A and every other with exploration / A. Its favorite is the prediction of a
    logistic regression, except on one side of a random hyperplane that is placed so that the
    favorite is right in a share `quality` of the population. With `noise`, the reward is flipped
    with that probability. (Beygelzimer and Langford, "The Offset Tree for Learning with Partial
    Labels", 2009.)

    Raises:
        InputError: when X and y do not fit, an option is out of range, or `quality` cannot be
            reached.
    """
    features = np.asarray(X, dtype=np.float64)
    classes, label = np.unique(np.asarray(y), return_inverse=True)
    _check_options(features, label, classes, quality, exploration, noise, rows)
    rng = np.random.default_rng(seed)
    favorite = _favorite(features, label, len(classes), quality, rng)
    m, a = len(features), len(classes)
    logging = np.full((m, a), exploration / a)
    logging[np.arange(m), favorite] += 1 - exploration
    paid = np.full((m, a), noise)
    paid[np.arange(m), label] = 1 - noise
    contexts = torch.from_numpy(features).float()
    names = columns or tuple(f"x{j}" for j in range(features.shape[1]))
    about = About(
        name=name,
        actions=tuple(str(c) for c in classes),
        names={"context": names, "columns": names},
        encoder=_identity(names),
        provenance={
            "source": name, "rows": rows, "seed": seed, "quality": quality,
            "exploration": exploration, "noise": noise, "population": m,
        },
    )  # fmt: skip
    truth = Truth(contexts, torch.from_numpy(paid), torch.from_numpy(logging))
    return truth.draw(rows, seed=rng, about=about), truth


def _check_options(
    features: np.ndarray, label: np.ndarray, classes: np.ndarray,
    quality: float, exploration: float, noise: float, rows: int,
) -> None:  # fmt: skip
    if features.ndim != 2 or len(features) != len(label):
        raise InputError(
            f"X is {features.shape} and y has {len(label)} labels; "
            "give X [N, d] and one label per row"
        )
    if not np.isfinite(features).all():
        i, j = np.argwhere(~np.isfinite(features))[0]
        raise InputError(f"X: column {j}, row {i + 1} is not a finite number; fill or drop it")
    if len(classes) < 2:
        raise InputError(f"y holds only one class, {classes[0]}; give at least two")
    for name, value, low, high in (
        ("quality", quality, 0.0, 1.0), ("exploration", exploration, 1e-6, 1.0),
        ("noise", noise, 0.0, 0.499),
    ):  # fmt: skip
        if not low <= value <= high:
            raise InputError(
                f"{name}={value:g} is out of range; give a number from {low:g} to {high:g}"
            )
    if rows < 100:
        raise InputError(f"rows={rows}: at least 100 rows are needed; give more")


def _favorite(
    features: np.ndarray, label: np.ndarray, classes: int, quality: float, rng: np.random.Generator
) -> np.ndarray:
    """A classifier that is right in a share `quality` of the rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=300))
    predicted = model.fit(features, label).predict(features)
    side = features @ rng.normal(size=features.shape[1]) + 1e-9 * rng.normal(size=len(features))
    order = np.argsort(-side)
    # Right answers when the first k rows in this order take the class after the predicted one.
    shifted = (predicted + 1) % classes
    gains = (shifted == label)[order].astype(int) - (predicted == label)[order].astype(int)
    right = (predicted == label).sum() + np.concatenate(([0], np.cumsum(gains)))
    wanted = quality * len(label)
    if not right.min() - 1 <= wanted <= right.max() + 1:
        low, high = right.min() / len(label), right.max() / len(label)
        raise InputError(
            f"quality={quality:g} cannot be reached on these data; "
            f"give one from {low:.3f} to {high:.3f}"
        )
    k = int(np.abs(right - wanted).argmin())
    predicted = predicted.copy()
    predicted[order[:k]] = shifted[order[:k]]
    return predicted


def _identity(names: tuple[str, ...]) -> Any:
    from surpass.data.encoders import Encoder, Number

    return Encoder(tuple(Number(n, 0.0, False) for n in names))
