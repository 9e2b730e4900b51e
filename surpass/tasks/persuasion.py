"""A game of persuasion: an expert shows one review of a hotel, a person goes or stays at home.

Ten rounds a game. Going pays where the hotel's mean score is 8 or more, staying where it is not;
the expert always wants the person to go. Experts follow fixed strategies; people are of two kinds:
simulated ones, a mixture of simple rules that learn, and richer ones who stand for people here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from surpass.data.choices import ROUNDS, Choices

__all__ = ["BOTS", "Hotels", "People", "Simulated", "play"]

BOTS = 32
GOOD = 8.0
FEATURES = 8


@dataclass(frozen=True)
class Hotels:
    """Scores of the reviews, [H, 7], in 2 .. 10, and what the texts say, [H, 7, 8]: six topics that
    go with the score, how warm the text is, and its length."""

    score: Float[np.ndarray, "H 7"]
    text: Float[np.ndarray, "H 7 F"]

    @classmethod
    def random(cls, rng: np.random.Generator, count: int = 100) -> Hotels:
        """Hotels around a mean of 8, and texts that tell the score with noise."""
        level = rng.normal(8.0, 1.0, size=(count, 1))
        score = np.clip(level + 1.3 * rng.normal(size=(count, 7)), 2, 10)
        lean = rng.uniform(0.3, 1.2, size=6)
        chance = 1 / (1 + np.exp(-lean * (score[..., None] - 7.5)))
        topics = (rng.random((count, 7, 6)) < chance).astype(float)
        warmth = (score - 8) / 2 + 0.5 * rng.normal(size=score.shape)
        length = rng.normal(size=score.shape)
        return cls(score, np.concatenate((topics, warmth[..., None], length[..., None]), 2))

    def sent(
        self, hotel: Int[np.ndarray, "P"], bot: Int[np.ndarray, "P"], went: np.ndarray
    ) -> Int[np.ndarray, "P"]:
        """Which review each expert shows. A strategy is a rule for good hotels, one for others
        (best, worst, median review or nearest to the mean), and whether it answers to the round
        before: then it shows the best review to who stayed."""
        score = self.score[hotel]
        order, mean = score.argsort(1), score.mean(1)
        near = np.abs(score - mean[:, None]).argmin(1)
        rules = np.stack((order[:, -1], order[:, 0], order[:, 3], near), 1)
        rule = np.where(mean >= GOOD, bot % 4, bot // 4 % 4)
        shown = rules[np.arange(len(bot)), rule]
        return np.where((bot >= 16) & (went == 0), order[:, -1], shown)


class Simulated:
    """People who draw a rule every round: at random, by trust in honest messages, by the text, or
    right ("oracle"), which takes over as they learn.

    After every round each other rule is multiplied by 1 - e, e = (10/9) eta u - eta / 10, u uniform
    (Human Choice Prediction in Language-based Persuasion Games, 2023).
    """

    def __init__(self, n: int, rng: np.random.Generator, eta: float = 0.01) -> None:
        self.rng, self.eta = rng, eta
        nature = rng.random((n, 3))
        self.chance = nature / nature.sum(1, keepdims=True)
        self.window = rng.negative_binomial(2, 0.5, size=n) + rng.integers(2, size=n)
        self.limit = rng.normal(8.0, 0.5, size=n)
        self.honest = np.full(n, 10**6)  # rounds since the last message that misled

    def go(self, score: np.ndarray, text: np.ndarray, good: np.ndarray) -> np.ndarray:
        """Who goes."""
        n, rng = len(score), self.rng
        says = score + 0.3 * rng.normal(size=n)
        rules = np.stack((
            rng.random(n) < 0.5,
            (self.honest >= self.window) & (says >= self.limit),
            rng.random(n) < 1 / (1 + np.exp(-2 * text[:, 6] - 0.5 * (text[:, :6].sum(1) - 3))),
            good,
        ), 1)  # fmt: skip
        p = np.concatenate((self.chance, 1 - self.chance.sum(1, keepdims=True)), 1).cumsum(1)
        which = (rng.random((n, 1)) >= p).sum(1).clip(max=3)
        return rules[np.arange(n), which]

    def learn(self, score: np.ndarray, good: np.ndarray, went: np.ndarray) -> None:
        """See the truth, and get better."""
        self.honest = np.where((score >= GOOD) == good, self.honest + 1, 0)
        step = (10 / 9) * self.eta * self.rng.random(self.chance.shape) - self.eta / 10
        self.chance = np.clip(self.chance * (1 - step), 0, 1)
        over = self.chance.sum(1, keepdims=True)
        self.chance = np.where(over > 1, self.chance / over, self.chance)


class People:
    """Those who stand for people: they weigh message, text and a trust that forgets, each in their
    own way, and repeat what won and change what lost."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.reads, self.feels = rng.gamma(4, 0.25, size=n), rng.gamma(2, 0.4, size=n)
        self.limit = rng.normal(8.2, 0.7, size=n)
        self.faith = rng.gamma(3, 0.6, size=n)
        self.forget = rng.uniform(0.5, 0.95, size=n)
        self.habit = rng.gamma(2, 0.3, size=n)
        self.trust, self.pull = np.zeros(n), np.zeros(n)

    def go(self, score: np.ndarray, text: np.ndarray, good: np.ndarray) -> np.ndarray:
        """Who goes."""
        drive = self.reads * (score - self.limit) + self.feels * text[:, 6]
        drive = drive + self.faith * self.trust + self.habit * self.pull
        return self.rng.random(len(score)) < 1 / (1 + np.exp(-drive))

    def learn(self, score: np.ndarray, good: np.ndarray, went: np.ndarray) -> None:
        """Trust moves toward how honest the message was; winning is repeated."""
        honest = np.where((score >= GOOD) == good, 0.5, -1.0)
        self.trust = self.forget * self.trust + (1 - self.forget) * honest
        won = went == good
        self.pull = np.where(won == went, 1.0, -1.0)


def play(
    hotels: Hotels, people: Simulated | People, bot: Int[np.ndarray, "P"],
    rng: np.random.Generator, games: int = 3, user: np.ndarray | None = None,
) -> Choices:  # fmt: skip
    """Every person plays some games of ten rounds with an expert."""
    n = len(bot)
    went, won, points = np.zeros(n), np.zeros(n), np.zeros(n)
    seen, chose = [], []
    for step in range(games * ROUNDS):
        number = step % ROUNDS
        points = np.zeros(n) if number == 0 else points
        hotel = rng.integers(len(hotels.score), size=n)
        shown = hotels.sent(hotel, bot, went)
        score, text = hotels.score[hotel, shown], hotels.text[hotel, shown]
        good = hotels.score[hotel].mean(1) >= GOOD
        state = np.stack((went, won, points / ROUNDS, np.full(n, (number + 1) / ROUNDS)), 1)
        seen.append(np.concatenate((text, state), 1))
        goes = people.go(score, text, good)
        people.learn(score, good, goes)
        went, won = goes.astype(float), (goes == good).astype(float)
        points = points + won
        chose.append(went)
    who = np.arange(n) if user is None else user
    return Choices(
        torch.from_numpy(np.stack(seen, 1)).float(), torch.from_numpy(np.stack(chose, 1)).float(),
        torch.ones(n, games * ROUNDS), torch.from_numpy(who), torch.from_numpy(bot),
    )  # fmt: skip
