"""Logged choices in a repeated game of persuasion: read from the game's files.

A sequence is what one person met with one expert, game after game: per round what the shown review
says, what happened in the round before, and whether the person went.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.errors import InputError

__all__ = ["Choices", "joined", "read_choices"]

ROUNDS = 10
_NEEDED = ("user_id", "strategy_id", "gameId", "roundNum", "reviewId", "didGo", "didWin",
           "user_points")  # fmt: skip


@dataclass(frozen=True)
class Choices:
    """P sequences of at most T rounds.

    Attributes:
        seen: what the person could see, [P, T, F + 4]: the review's features, whether the person
            went and won in the round before, points (over 10) and round (over 10) of the game.
        went: 1.0 where the person went, [P, T]. mask: 1.0 where there was a round.
        user, bot: numbers of the person and of the expert, [P].
    """

    seen: Float[Tensor, "P T d"]
    went: Float[Tensor, "P T"]
    mask: Float[Tensor, "P T"]
    user: Int[Tensor, "P"]
    bot: Int[Tensor, "P"]

    def __len__(self) -> int:
        return len(self.user)

    def rows(self, index: Tensor) -> Choices:
        """Some of the sequences."""
        return Choices(*(getattr(self, f)[index] for f in self.__dataclass_fields__))

    @property
    def weight(self) -> Float[Tensor, "P T"]:
        """The weight of every round, so that each person with each expert counts the same; the mean
        over rounds is 1."""
        own = self.mask / self.mask.sum(1, keepdim=True).clamp_min(1)
        return own * self.mask.sum() / own.sum()


def joined(*parts: Choices) -> Choices:
    """Several logs one after the other, padded to the longest."""
    longest = max(p.went.shape[1] for p in parts)

    def padded(x: Tensor) -> Tensor:
        short = longest - x.shape[1]
        return torch.cat((x, x.new_zeros(len(x), short, *x.shape[2:])), 1) if short else x

    columns = {
        f: torch.cat([padded(getattr(p, f)) for p in parts]) for f in ("seen", "went", "mask")
    }
    return Choices(**columns, user=torch.cat([p.user for p in parts]),
                   bot=torch.cat([p.bot for p in parts]))  # fmt: skip


def read_choices(rounds: str | Path, features: str | Path) -> Choices:
    """Read a group's rounds and the features of reviews.

    Args:
        rounds: CSV, a row per round: user_id, strategy_id, gameId, roundNum, reviewId, didGo,
            didWin, user_points (others are not needed).
        features: CSV with a column per review id, and a row per feature.

    Raises:
        InputError: when a column is missing, or a review has no features.
    """
    table = pd.read_csv(rounds)
    missing = [c for c in _NEEDED if c not in table.columns]
    if missing:
        raise InputError(f"{rounds}: there is no column {missing[0]!r}; needed are {_NEEDED}")
    known = pd.read_csv(features)
    known = known[[c for c in known.columns if str(c).lstrip("-").isdigit()]]
    place = {int(c): i for i, c in enumerate(known.columns)}
    unknown = sorted(set(table["reviewId"]) - set(place))
    if unknown:
        raise InputError(f"{features}: review {unknown[0]} of {rounds} has no column of features")
    review = known.to_numpy(dtype=np.float32).T
    table = table.sort_values(["user_id", "strategy_id", "gameId", "roundNum"], kind="stable")
    users = {u: i for i, u in enumerate(table["user_id"].unique())}
    parts = []
    for pair, own in table.groupby(["user_id", "strategy_id"], sort=False):
        user, bot = pair  # type: ignore[misc]
        went, won = own["didGo"].to_numpy(float), own["didWin"].to_numpy(float)
        last = np.zeros((2, len(own)))
        last[:, 1:] = np.stack((went, won))[:, :-1]
        says = review[[place[int(r)] for r in own["reviewId"]]]
        state = np.stack((
            *last, own["user_points"].to_numpy(float) / ROUNDS,
            own["roundNum"].to_numpy(float) / ROUNDS,
        ), 1)  # fmt: skip
        parts.append(Choices(
            torch.from_numpy(np.concatenate((says, state), 1)).float()[None],
            torch.from_numpy(went).float()[None], torch.ones(1, len(own)),
            torch.tensor([users[user]]), torch.tensor([int(str(bot))]),
        ))  # fmt: skip
    return joined(*parts)
