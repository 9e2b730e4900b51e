"""Losses on single answers: supervised training, KTO, regression on rewards."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, Scored, Source, log
from surpass.objectives.advantage import ones
from surpass.objectives.preference import kto as kto_loss
from surpass.objectives.preference import regression
from surpass.objectives.trust import nll
from surpass.parts import Number
from surpass.registry import system

__all__ = ["kto", "rebel", "sft"]


@system("sft")
def sft(lr: Number = 2e-5, batch: int = 32) -> PolicyGradient:
    """The mean negative log-likelihood per token of demonstrations."""
    return PolicyGradient(ones(), nll(), source=log(batch, view="sequences"),
                          optimizer=Adam(lr, max_norm=1.0))  # fmt: skip


@system("kto")
def kto(
    beta: float = 0.1, desirable: float = 1.0, undesirable: float = 1.0, lr: Number = 1e-6,
    batch: int = 32,
) -> Scored:  # fmt: skip
    """Answers labeled good or bad, pushed from a reference point that is the policy's own drift."""
    return Scored(kto_loss(beta, desirable, undesirable), source=Source("scored", batch),
                  optimizer=Adam(lr, max_norm=1.0))  # fmt: skip


@system("rebel")
def rebel(beta: float = 0.1, lr: Number = 1e-6, batch: int = 64, group: int = 2) -> Scored:
    """Differences of implicit rewards regress on differences of rewards, on fresh answers."""
    return Scored(
        regression(beta), optimizer=Adam(lr, max_norm=1.0),
        source=Source("rollouts", batch, "sequences", {"horizon": 256, "group": group}),
    )  # fmt: skip
