"""Losses on groups of scored answers: a contrastive policy gradient, self-play on win rates, an
anchored cross-entropy."""

from __future__ import annotations

from surpass.forms import Adam, Scored, Snapshot, Source, copy, ema
from surpass.objectives.groupwise import contrastive, listwise, win_rate_regression
from surpass.parts import Number
from surpass.registry import system

__all__ = ["adpo", "copg", "sppo"]


@system("copg")
def copg(beta: float = 0.1, lr: Number = 1e-6, batch: int = 64) -> Scored:
    """(R_beta/2(y) - R_beta/2(others)) Delta(y), on scored answers of any policy, several to a
    prompt."""
    return Scored(contrastive(beta), source=Source("scored", batch),
                  optimizer=Adam(lr, max_norm=1.0))  # fmt: skip


@system("sppo")
def sppo(
    beta: float = 1e-3, sharp: float = 1.0, ends: bool = True, every: int = 100, group: int = 5,
    lr: Number = 5e-7, batch: int = 80, horizon: int = 256,
) -> Scored:  # fmt: skip
    """(Delta - (P(y beats pi_t) - 1/2) / beta)^2 on the best and the worst of `group` fresh
    answers; pi_t, the reference, moves every so many updates."""
    return Scored(
        win_rate_regression(beta, sharp, ends), nets={"reference": copy("policy", every=every)},
        source=Source("rollouts", batch, "sequences", {"horizon": horizon, "group": group}),
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("adpo")
def adpo(
    tau: float = 0.6, sharp: float = 0.3, target: str = "rewards", anchor: float = 0.0,
    lr: Number = 1e-6, batch: int = 64,
) -> Scored:  # fmt: skip
    """KL(q || softmax(Delta / tau)) over the answers to a prompt, q from their rewards or ranks;
    the anchor is the start, or with `anchor` > 0 an average of the policy at that rate."""
    reference: Snapshot = ema("policy", anchor) if anchor else copy("policy")
    return Scored(listwise(tau, sharp, target), nets={"reference": reference},
                  source=Source("scored", batch), optimizer=Adam(lr, max_norm=1.0))  # fmt: skip
