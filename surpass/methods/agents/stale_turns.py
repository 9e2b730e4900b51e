"""PPO on rollouts of many turns that are used for many steps: ratios per turn, and steps that are
small where clipping took much away."""

from __future__ import annotations

from typing import Any

from surpass.errors import InputError, nearest
from surpass.forms import Adam, PolicyGradient, rollouts, train
from surpass.objectives.advantage import gae, value_loss, values, whitened
from surpass.objectives.descent import divided_by
from surpass.objectives.ratio import per_decision, per_turn
from surpass.objectives.reduce import sequence_mean
from surpass.objectives.trust import clip, clip_and_removed
from surpass.parts import Number
from surpass.policies.token_nets import token_values
from surpass.registry import system

__all__ = ["s_ppo", "st_ppo", "turn_ppo"]

MODES = ("floor", "literal")


def _form(
    by_turn: bool, divided: str, eps: float, gamma: float, lam: float, lr: Number,
    value_lr: Number, epochs: int, minibatches: int, batch: int, horizon: int, turns: int,
) -> PolicyGradient:  # fmt: skip
    if divided and divided not in MODES:
        raise InputError(f"mode={divided!r}{nearest(divided, MODES)}: {', '.join(MODES)}")
    rule: Any = divided_by("removed", warmup=10, literal=divided == "literal") if divided else None
    return PolicyGradient(
        whitened(gae(gamma, lam)), clip_and_removed(eps, eps) if divided else clip(eps, eps),
        ratio=per_turn() if by_turn else per_decision(), reduce=sequence_mean(), gradient=rule,
        signals=(values(),), nets={"value": token_values()},
        also=(train("value", value_loss(), Adam(value_lr, max_norm=1.0)),),
        source=rollouts(batch, horizon, turns=turns), epochs=epochs, minibatches=minibatches,
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("st-ppo")
def st_ppo(
    eps: float = 0.2, mode: str = "floor", gamma: float = 1.0, lam: float = 1.0,
    lr: Number = 1e-6, value_lr: Number = 1e-5, epochs: int = 4, minibatches: int = 8,
    batch: int = 256, horizon: int = 256, turns: int = 6,
) -> PolicyGradient:  # fmt: skip
    """PPO whose ratio is one per turn, w_k = exp(mean over the turn of log pi - log pi_old), and
    whose gradient is divided by the size of the gradient that clipping removed.

    How the size enters is a reconstruction: g / max(1, |C| / c) with c its median over the first 10
    steps that clip; `mode="literal"` is g / max(|C|, 1e-3), and g where nothing was clipped.
    `horizon` is the longest turn.
    """
    return _form(True, mode, eps, gamma, lam, lr, value_lr, epochs, minibatches, batch, horizon,
                 turns)  # fmt: skip


@system("st-ppo:s-ppo")
def s_ppo(
    eps: float = 0.2, mode: str = "floor", gamma: float = 1.0, lam: float = 1.0,
    lr: Number = 1e-6, value_lr: Number = 1e-5, epochs: int = 4, minibatches: int = 8,
    batch: int = 256, horizon: int = 256, turns: int = 6,
) -> PolicyGradient:  # fmt: skip
    """The division alone, with a ratio per token."""
    return _form(False, mode, eps, gamma, lam, lr, value_lr, epochs, minibatches, batch, horizon,
                 turns)  # fmt: skip


@system("st-ppo:turn-ppo")
def turn_ppo(
    eps: float = 0.2, gamma: float = 1.0, lam: float = 1.0, lr: Number = 1e-6,
    value_lr: Number = 1e-5, epochs: int = 4, minibatches: int = 8, batch: int = 256,
    horizon: int = 256, turns: int = 6,
) -> PolicyGradient:  # fmt: skip
    """The ratio per turn alone."""
    return _form(True, "", eps, gamma, lam, lr, value_lr, epochs, minibatches, batch, horizon,
                 turns)  # fmt: skip
