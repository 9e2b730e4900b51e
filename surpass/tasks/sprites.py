"""Small colored pictures with twelve visual attributes, and content policies over them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from sklearn.datasets import load_digits
from torch import Tensor

__all__ = ["ATTRIBUTES", "Rule", "Sprites", "rules", "sprites"]

ATTRIBUTES = (
    "even", "large", "loop", "red", "green", "blue", "border", "corner", "row", "column",
    "inverted", "noisy",
)  # fmt: skip


class Sprites(NamedTuple):
    """Pictures [n, 192] (8 x 8 x 3, in [0, 1]) and what they show [n, 12]."""

    pictures: Float[Tensor, "n 192"]
    attributes: Float[Tensor, "n 12"]


class Rule(NamedTuple):
    """Violated when all (`every`), or any, of the attributes are shown."""

    attributes: tuple[int, ...]
    every: bool

    def violated(self, shown: Float[Tensor, "n 12"]) -> Float[Tensor, "n"]:
        """1 where the policy is violated."""
        part = shown[:, list(self.attributes)]
        return part.min(1).values if self.every else part.max(1).values


def rules(seed: int = 0, count: int = 10) -> list[Rule]:
    """Different rules over two or three attributes, half of them conjunctions of two, half
    disjunctions of two."""
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, ...], Rule] = {}
    while len(found) < count:
        chosen = tuple(sorted(rng.choice(len(ATTRIBUTES), 2, replace=False).tolist()))
        colors = [c for c in chosen if 3 <= c <= 5]
        if len(colors) < 2:
            found.setdefault(chosen, Rule(chosen, len(found) % 2 == 0))
    return list(found.values())


def sprites(n: int, seed: int = 0) -> Sprites:
    """Handwritten digits in one of three colors or gray, with overlays; every attribute is shown in
    about two fifths of the pictures."""
    rng = np.random.default_rng(seed)
    images, labels = load_digits(return_X_y=True)
    at = rng.integers(len(images), size=n)
    ink = images[at].reshape(n, 8, 8) / 16
    digit = labels[at]
    color = rng.integers(4, size=n)  # 3: gray
    tint = np.full((n, 3), 0.25)
    tint[np.arange(n)[color < 3], color[color < 3]] = 1.0
    tint[color == 3] = 0.7
    over = rng.random((n, 6)) < 0.4
    border, corner, row, column, inverted, noisy = over.T
    ink = np.where(inverted[:, None, None], 0.8 - 0.8 * ink, ink)
    picture = ink[..., None] * tint[:, None, None, :]
    picture[border, 0] = picture[border, -1] = 0.9
    picture[corner, :2, :2] = 1.0
    picture[row, 4] = 0.5
    picture[column, :, 5] = 0.5
    picture += np.where(noisy, 0.25, 0.03)[:, None, None, None] * rng.normal(size=picture.shape)
    shown = np.stack(
        (digit % 2 == 0, digit >= 5, np.isin(digit, (0, 6, 8, 9)), *(color == c for c in range(3)),
         *over.T), 1,
    )  # fmt: skip
    flat = torch.from_numpy(picture.clip(0, 1).reshape(n, -1)).float()
    return Sprites(flat, torch.from_numpy(shown).float())
