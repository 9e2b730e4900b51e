"""Policies that answer yes or no: a chance of 1 given the answers so far, and how they are asked.

A policy is a function from histories [M, t] of 0 and 1 to the probability of 1, [M].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "SeriesNet", "Teller", "alternating", "ask_alone", "ask_in_series", "coin", "gambler", "market",
    "tempered",
]  # fmt: skip

Teller = Callable[[Int[np.ndarray, "M t"]], Float[np.ndarray, "M"]]


def coin(rate: float = 0.5) -> Teller:
    """1 with probability `rate`, whatever came before."""
    return lambda h: np.full(len(h), rate)


def alternating(switch: float = 0.6) -> Teller:
    """Switches with that probability; people do with 0.58 to 0.6."""
    return lambda h: (
        np.where(h[:, -1] == 1, 1 - switch, switch) if h.shape[1] else np.full(len(h), 0.5)
    )


def gambler(step: float = 0.08, longest: int = 5) -> Teller:
    """Believes that a streak has to end: switches with 1/2 + step (length of the streak - 1)."""

    def chance(h: np.ndarray) -> np.ndarray:
        if not h.shape[1]:
            return np.full(len(h), 0.5)
        same = (h[:, ::-1] == h[:, -1:]).cumprod(1).sum(1)
        switch = 0.5 + step * (np.minimum(same, longest) - 1)
        return np.where(h[:, -1] == 1, 1 - switch, switch)

    return chance


def tempered(teller: Teller, temperature: float) -> Teller:
    """Logits divided by a temperature: it flattens a bias or sharpens it, and never turns it."""

    def chance(h: np.ndarray) -> np.ndarray:
        p = np.clip(teller(h), 1e-9, 1 - 1e-9)
        return 1 / (1 + ((1 - p) / p) ** (1 / temperature))

    return chance


def ask_in_series(teller: Teller, series: int, length: int, seed: int = 0) -> np.ndarray:
    """Series of answers in one context each, [series, length]."""
    rng = np.random.default_rng(seed)
    bits = np.zeros((series, 0), dtype=np.int64)
    for _ in range(length):
        new = rng.random(series) < teller(bits)
        bits = np.concatenate((bits, new[:, None].astype(np.int64)), 1)
    return bits


def ask_alone(teller: Teller, series: int, length: int, seed: int = 0) -> np.ndarray:
    """As many answers, each in a context of its own."""
    rng = np.random.default_rng(seed)
    p = teller(np.zeros((1, 0), dtype=np.int64))[0]
    return (rng.random((series, length)) < p).astype(np.int64)


def market(teller: Teller, rounds: int, agents: int = 51, seed: int = 0) -> np.ndarray:
    """Returns [rounds] of a market whose agents buy (1) or sell by the policy, which sees the last
    20
    moves of the price as answers; the price moves by net demand."""
    rng = np.random.default_rng(seed)
    moves, returns = np.zeros((1, 0), dtype=np.int64), []
    for _ in range(rounds):
        buy = (rng.random(agents) < teller(moves[:, -20:])[0]).mean()
        returns.append(2 * buy - 1)
        moves = np.concatenate((moves[:, -20:], [[int(buy > 0.5)]]), 1)
    return np.array(returns)


class SeriesNet(nn.Module):
    """A tiny causal transformer over bits: one layer, learned positions; `teller()` reads it."""

    def __init__(self, longest: int = 50, width: int = 32) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(3, width), nn.Embedding(longest, width)
        self.layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(width, 1)

    def forward(self, bits: Int[Tensor, "M t"]) -> Float[Tensor, "M t+1"]:
        """Logits of the next bit after every prefix, the empty one first."""
        start = torch.full((len(bits), 1), 2)
        x = self.token(torch.cat((start, bits), 1))
        t = x.shape[1]
        mask = torch.triu(torch.full((t, t), -torch.inf), 1)
        return self.head(self.layer(x + self.place(torch.arange(t)), mask))[..., 0]

    def learn(self, series: Int[np.ndarray, "M L"], steps: int = 300, seed: int = 0) -> SeriesNet:
        """Maximum likelihood on series, batches of 64."""
        generator = torch.Generator().manual_seed(seed)
        data = torch.from_numpy(series)
        descent = torch.optim.Adam(self.parameters(), 3e-3)
        for _ in range(steps):
            rows = data[torch.randint(len(data), (64,), generator=generator)]
            loss = F.binary_cross_entropy_with_logits(self(rows[:, :-1]), rows.float())
            descent.zero_grad()
            loss.backward()
            descent.step()
        return self.eval()

    def teller(self) -> Teller:
        """The net as a policy."""

        @torch.no_grad()
        def chance(h: np.ndarray) -> np.ndarray:
            return self(torch.from_numpy(h))[:, -1].sigmoid().double().numpy()

        return chance
