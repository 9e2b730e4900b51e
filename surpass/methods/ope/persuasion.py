"""Predicting people with experts they have not met, from people with others and simulated ones."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.data.choices import Choices
from surpass.forms import Study
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.persuasion import BOTS, Hotels, Simulated, play

__all__ = ["ChoicePredictor", "choice_predictor", "persuasion_ope"]


class ChoicePredictor(nn.Module):
    """P(go) of every round [P, T] from what was seen so far [P, T, d]: two layers, then an LSTM
    whose state goes on from game to game."""

    def __init__(self, inputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.read = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.memory = nn.LSTM(hidden, hidden, batch_first=True)
        self.say = nn.Linear(hidden, 1)

    def logits(self, seen: Float[Tensor, "P T d"]) -> Float[Tensor, "P T"]:
        """Before the sigmoid."""
        return self.say(self.memory(self.read(seen))[0])[..., 0]

    def forward(self, seen: Float[Tensor, "P T d"]) -> Float[Tensor, "P T"]:
        return torch.sigmoid(self.logits(seen))


def _loss(net: ChoicePredictor, log: Choices) -> Tensor:
    each = nn.functional.binary_cross_entropy_with_logits(
        net.logits(log.seen), log.went, reduction="none"
    )
    return (log.weight * each).sum() / log.mask.sum()


@part
def choice_predictor(
    log: Choices, /, hotels: Hotels | None = None, ratio: float = 4.0, eta: float = 0.01,
    epochs: int = 12, batch: int = 48, lr: float = 2e-3, held: float = 0.2, seed: int = 0,
) -> ChoicePredictor:  # fmt: skip
    """The predictor of the best epoch on held-out people.

    Every epoch mixes the log with `ratio` times as many fresh simulated people, who play experts of
    the whole strategy space; only people from the log say which epoch is best.
    """
    rng = np.random.default_rng(seed)
    users = torch.unique(log.user)
    out = users[torch.from_numpy(rng.permutation(len(users)))[: max(round(held * len(users)), 1)]]
    kept = torch.isin(log.user, out)
    learn, judge = log.rows((~kept).nonzero()[:, 0]), log.rows(kept.nonzero()[:, 0])
    games = -(-log.went.shape[1] // 10)

    def simulated(shown: Hotels) -> list[Choices]:
        n = round(ratio * len(learn))
        bots = rng.integers(BOTS, size=n)
        return _batches(play(shown, Simulated(n, rng, eta), bots, rng, games), batch)

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        net = ChoicePredictor(log.seen.shape[2])
        solver = torch.optim.Adam(net.parameters(), lr=lr)
        best, found = float("inf"), deepcopy(net)
        for _ in range(epochs):
            own = [learn.rows(i) for i in torch.randperm(len(learn)).split(batch)]
            mixed = own + (simulated(hotels) if hotels is not None and ratio > 0 else [])
            for k in rng.permutation(len(mixed)):
                solver.zero_grad()
                _loss(net, mixed[k]).backward()
                solver.step()
            with torch.no_grad():
                now = float(_loss(net, judge))
            if now < best:
                best, found = now, deepcopy(net)
    return found.requires_grad_(False)


def _batches(log: Choices, size: int) -> list[Choices]:
    return [log.rows(i) for i in torch.arange(len(log)).split(size)]


@system("persuasion-ope")
def persuasion_ope(
    hotels: Hotels | None = None, ratio: float = 4.0, eta: float = 0.01, epochs: int = 12,
    seed: int = 0,
) -> Study:  # fmt: skip
    """Predict choices with experts that nobody in the log has met. `measure` takes `Choices` and
    gives a `ChoicePredictor`.

    Args:
        hotels: what simulated people are shown; None adds none. ratio: simulated per logged person.
        eta: how fast they learn. epochs: of training. seed: of everything.
    """
    return Study(choice_predictor(hotels, ratio, eta, epochs, seed=seed))
