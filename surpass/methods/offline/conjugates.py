"""Dual RL: implicit Q-learning with values from the conjugate of a divergence, for a log with
rewards (f-DVL) and for a log beside an expert's (ReCOIL)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from surpass.errors import InputError
from surpass.forms import Learner, Train, log, mix
from surpass.methods.offline.implicit import implicit
from surpass.objectives.bellman import state_value, td
from surpass.objectives.dual_values import (
    chi_square,
    dual_value,
    gumbel,
    imitated,
    other_than,
    total_variation,
)
from surpass.objectives.weights import over_value
from surpass.policies.gaussian import actor
from surpass.registry import system

__all__ = ["dual_rl", "recoil"]

Hidden = tuple[int, ...]


@system("dual-rl")
def dual_rl(
    f: str = "chi-square", lam: float = 1.0, random: int = 1, temperature: float = 3.0,
    clip: float = 5.0, gamma: float = 0.99, polyak: float = 0.005, lr: float = 3e-4,
    decay: int = 1_000_000, batch: int = 256, hidden: Hidden = (256, 256),
) -> Learner:  # fmt: skip
    """IQL with min (1 - lam) E[V] + lam E[f*(Q - V)] in place of its expectile, a Huber loss for Q,
    and `random` even actions beside each logged one where V is fitted.

    `f` is "chi-square", "total-variation" (as in mazes, with lam 0.8, random 0, temperature 10; the
    official code also drops units of V there), or "gumbel", which is extreme Q-learning, lam its
    temperature.
    """
    known: dict[str, Any] = {
        "chi-square": chi_square(lam),
        "total-variation": total_variation(lam),
        "gumbel": gumbel(lam, clip),
    }
    if f not in known:
        raise InputError(f"dual-rl has no f {f!r}; it has {', '.join(known)}")
    return implicit(
        actor(hidden),
        dual_value(known[f], random),
        20.0 * td(state_value(), gamma, huber=20.0),
        over_value("q_target"),
        n=2,
        temperature=temperature,
        lr=lr,
        polyak=polyak,
        decay=decay,
        source=log(batch, gamma=gamma),
        hidden=hidden,
        norm=True,
    )


@system("dual-rl:recoil")
def recoil(
    lam: float = 1.0, beta: float = 0.1, temperature: float = 3.0, clip: float = 7.0,
    best: float = 200.0, step: float = -2.0, end: float = -200.0, gamma: float = 0.99,
    polyak: float = 0.005, lr: float = 3e-4, decay: int = 1_000_000, batch: int = 2048,
    hidden: Hidden = (256, 256),
) -> Learner:  # fmt: skip
    """Q of the log "expert" toward `best`, Q of the mixture (the log, and a share beta of expert
    rows) toward step + gamma V(s'), V by Gumbel regression and the policy by weighted cloning on
    the mixture. It reads no rewards, and the log need not cover the expert.

    Half of a batch is expert rows. The official code draws the mixture from one log to which it
    adds expert episodes; here the two stay apart and beta says how they are mixed.
    """
    half, shown = batch // 2, round(0.5 * beta * batch)
    plain = half - shown
    mixture = implicit(
        actor(hidden),
        other_than() * dual_value(gumbel(lam, clip)),
        imitated(gamma, best, step, end),
        over_value("q_target"),
        n=2,
        temperature=temperature,
        lr=lr,
        polyak=polyak,
        decay=decay,
        source=mix(
            batch, log=(plain / batch, log(plain)),
            mixed=(shown / batch, log(shown, role="expert")),
            expert=(half / batch, log(half, role="expert")),
        ),
        hidden=hidden,
        norm=True,
    )  # fmt: skip
    *fitted, policy = mixture.update
    assert isinstance(policy, Train)
    cloning = replace(policy, loss=other_than() * policy.loss)  # type: ignore[operator]
    return replace(mixture, update=(*fitted, cloning))
