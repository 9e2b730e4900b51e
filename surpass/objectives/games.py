"""Preferences as a game: policies that win against others, near a reference.

J(pi, mu) = P(pi beats mu) - beta KL(pi || ref) + beta KL(mu || ref) has one symmetric equilibrium.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.advantage import Sequences, over_decisions, same_group, with_columns
from surpass.objectives.ratio import kept
from surpass.parts import Nets, State, part

__all__ = ["log_probs_of", "mirror_prox", "prox_advantage", "prox_step"]


def prox_step(
    P: Float[Tensor, "K K"], center: Float[Tensor, "K"], opponent: Float[Tensor, "K"],
    log_ref: Float[Tensor, "K"], beta: float, eta: float,
) -> Float[Tensor, "K"]:  # fmt: skip
    """The policy that answers `opponent`, near the reference and the center, in closed form:
    log pi = [log center + eta log ref + (eta / beta) P mu] / (1 + eta), up to a constant."""
    pull = (eta / beta) * (P @ opponent.exp())
    return ((center + eta * log_ref + pull) / (1 + eta)).log_softmax(-1)


def mirror_prox(
    P: Float[Tensor, "K K"], log_ref: Float[Tensor, "K"], beta: float, steps: int, *,
    eta: float = 0.0, inner: int = 2, start: Float[Tensor, "K"] | None = None,
) -> list[Float[Tensor, "K"]]:  # fmt: skip
    """The policies after each iteration on a game that is known: log-probs, the start among them.

    An iteration answers the center, then the answer, `inner` times in all, each time from the same
    center: 1 is mirror descent, 2 the extra-gradient step, more come to the proximal point.
    The last iterate converges at the rate (1 + eta)^-k for `inner` = 2 and eta = 2 beta (the
    default), whatever the number of responses.

    "Accelerating Nash Learning from Human Feedback via Mirror Prox" (2025).
    """
    eta = eta or 2 * beta
    out = [log_ref if start is None else start]
    for _ in range(steps):
        center = opponent = out[-1]
        for _ in range(inner):
            opponent = prox_step(P, center, opponent, log_ref, beta, eta)
        out.append(opponent)
    return out


@part
def log_probs_of(nets: Nets, seq: Sequences, /, net: str = "target", size: int = 1 << 30) -> Any:
    """A column NET_logp [B, T]: the log-probs of the decisions under another net."""
    return with_columns(seq, **{f"{net}_logp": nets[net].logps(seq, size)})


@part(state=lambda: {"turn": torch.zeros(())}, needs=("group", "ref_logp"))
def prox_advantage(
    state: State, seq: Sequences, /, beta: float = 0.1, eta: float = 0.0, sharp: float = 0.0
) -> tuple[Float[Tensor, "B T"], State]:  # fmt: skip
    """Wins / beta - log pi / ref - (1 / eta) log pi / target, less the mean of the others of the
    group: the gradient of a proximal step with the target as its center.

    The opponent is, in turn, the target (half step) and the policy itself (full step); the target's
    answers are those of the group, weighted by target / policy. One answer beats another where its
    reward is higher, ties by halves; with `sharp` > 0, with probability sigma(sharp x difference).
    """
    assert seq.extras is not None and seq.behavior_logp is not None
    eta = eta or 2 * beta
    mine = kept(seq.behavior_logp, seq.mask).sum(-1)
    target = kept(seq.extras["target_logp"], seq.mask).sum(-1)
    ref = kept(seq.extras["ref_logp"], seq.mask).sum(-1)
    apart = seq.total[:, None] - seq.total[None, :]
    beats = torch.sigmoid(sharp * apart) if sharp > 0 else 0.5 * (1 + apart.sign())
    others = same_group(seq) * (1 - torch.eye(len(mine), device=mine.device))
    half = (state["turn"] % 2 == 0).to(mine.dtype)
    weight = others * torch.exp(half * (target - mine).clamp(-5, 5))[None, :]
    wins = (weight * beats).sum(-1) / weight.sum(-1).clamp_min(1e-8)
    gain = wins / beta - (mine - ref) - (mine - target) / eta
    baseline = (others @ gain) / others.sum(-1).clamp_min(1)
    return over_decisions(beta * (gain - baseline), seq), {"turn": state["turn"] + 1}
