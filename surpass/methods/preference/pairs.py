"""Losses on preference pairs: DPO, IPO, cDPO, SimPO, ORPO, and the Bradley-Terry reward model."""

from __future__ import annotations

from surpass.forms import Adam, Pairwise, Source
from surpass.objectives.preference import bradley_terry, chosen_nll, logistic, odds_ratio, squared
from surpass.objectives.ratio import averaged
from surpass.parts import Number
from surpass.policies.token_nets import reward_head
from surpass.registry import system

__all__ = ["cdpo", "dpo", "ipo", "orpo", "pairs", "reward_model", "rpo_sft", "simpo"]


def pairs(batch: int) -> Source:
    """Preference pairs of a log, `batch` at a time."""
    return Source("pairs", batch, "pairs")


@system("dpo")
def dpo(beta: float = 0.1, lr: Number = 1e-6, batch: int = 32) -> Pairwise:
    """-log sigma(beta z), z = Delta(y_w) - Delta(y_l)."""
    return Pairwise(logistic(beta), source=pairs(batch), optimizer=Adam(lr, max_norm=1.0))


@system("ipo")
def ipo(beta: float = 0.1, lr: Number = 1e-6, batch: int = 32) -> Pairwise:
    """(z - 1 / (2 beta))^2."""
    return Pairwise(squared(beta), source=pairs(batch), optimizer=Adam(lr, max_norm=1.0))


@system("cdpo")
def cdpo(smoothing: float = 0.1, beta: float = 0.1, lr: Number = 1e-6, batch: int = 32) -> Pairwise:
    """DPO with labels that are wrong at the rate `smoothing`."""
    return Pairwise(logistic(beta, smoothing), source=pairs(batch),
                    optimizer=Adam(lr, max_norm=1.0))  # fmt: skip


@system("simpo")
def simpo(beta: float = 2.0, margin: float = 1.0, lr: Number = 1e-6, batch: int = 32) -> Pairwise:
    """-log sigma(beta (mean log pi(y_w) - mean log pi(y_l)) - margin), without a reference."""
    return Pairwise(logistic(beta, margin=margin), ratio=averaged(), nets={}, source=pairs(batch),
                    optimizer=Adam(lr, max_norm=1.0))  # fmt: skip


@system("orpo")
def orpo(lam: float = 0.1, lr: Number = 8e-6, batch: int = 32) -> Pairwise:
    """Supervised training on the chosen, plus `lam` times the log odds ratio."""
    return Pairwise(chosen_nll() + lam * odds_ratio(), ratio=averaged(), nets={},
                    source=pairs(batch), optimizer=Adam(lr, max_norm=1.0))  # fmt: skip


@system("rpo-sft")
def rpo_sft(beta: float = 0.1, eta: float = 0.005, lr: Number = 1e-6, batch: int = 32) -> Pairwise:
    """DPO - eta beta log pi(y_w), summed over tokens: the policy that is best for the worst reward
    among those that explain the pairs."""
    return Pairwise(logistic(beta) + (eta * beta) * chosen_nll(mean=False), source=pairs(batch),
                    optimizer=Adam(lr, max_norm=1.0))  # fmt: skip


@system("reward-model")
def reward_model(lr: Number = 1e-5, batch: int = 32) -> Pairwise:
    """A scalar on the last token, trained on -log sigma(r(y_w) - r(y_l))."""
    return Pairwise(bradley_terry(), nets={"reward": reward_head()}, source=pairs(batch),
                    optimizer=Adam(lr, max_norm=1.0))  # fmt: skip
