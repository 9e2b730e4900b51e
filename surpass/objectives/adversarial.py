"""A game between a policy and the values that are worst for it among those that fit the log.

Rows of two sources are told apart by `source`: 0 has states, actions and next states; 1 has rewards
(and perhaps no actions that mean anything). "Adversarially Trained Actor Critic for Offline
Reinforcement Learning" (2022); "MAHALO: Unifying Offline Reinforcement Learning and Imitation
Learning from Observations" (2023).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["adversarial", "cloned_own", "normalized_sum", "opposed"]


def normalized_sum(loss: Tensor, regularizer: Tensor, weight: float | Tensor) -> Tensor:
    """loss + weight x regularizer, divided by the weight where that is above 1: neither term ever
    counts for more than 1."""
    weight = torch.as_tensor(weight, dtype=loss.dtype, device=loss.device)
    return (loss + weight * regularizer) / weight.clamp(min=1.0)


def _of(value: Tensor, chosen: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    """The mean over chosen rows."""
    return (value * chosen).sum() / chosen.sum().clamp(min=1.0)


@part
def adversarial(
    nets: Nets, rows: Rows, /, beta: float = 10.0, ratio: float = 1e5, gamma: float = 0.99,
    bounds: tuple[float, float] = (-torch.inf, torch.inf),
    limits: tuple[float, float] = (-torch.inf, torch.inf), opposing: bool = True, q: str = "q",
    target: str = "q_target", pi: str = "pi", reward: str = "reward",
) -> dict[str, Float[Tensor, ""]]:  # fmt: skip
    """Two terms, the critics' and the rewards', for one optimizer over both nets:

        critic   normalized_sum(E_A[f(s, pi) - f(s, a)], E_A[bell(f; stop(R))], beta)
        reward   normalized_sum(E_A[bell(stop(f); R)], E_R[(R - r)^2], ratio)

    bell is half the squared error toward the slow critics' lowest value of (s', a'), a' ~ pi, plus
    half the squared residual toward f(s', a') itself, which the gradient enters too; both of these
    next values are held within `limits`. Critics are summed. E_A is over the rows of source 0, E_R
    over those of source 1. Without `opposing` both are only fitted: E_A[bell(f; stop(R))] and
    E_R[(R - r)^2], a warm start.
    """
    own, paid = (rows.source == 0).float(), (rows.source == 1).float()
    here, _ = nets[pi].sample(rows.obs)
    there, _ = nets[pi].sample(rows.next_obs)
    here, there = here.detach(), there.detach()
    f, after = nets[q](rows.obs, rows.action), nets[q](rows.next_obs, there)
    after = after.clamp(*limits)
    slow = nets[target](rows.next_obs, there).amin(0).detach().clamp(*limits)
    named = nets[reward](rows.obs, rows.next_obs, rows.terminated)
    r = named.clamp(*bounds).detach()
    keep = gamma * (1.0 - rows.terminated)

    def bell(f: Tensor, after: Tensor, r: Tensor) -> Tensor:
        errors = (f - r - keep * slow).square() + (f - r - keep * after).square()
        return 0.5 * _of(errors.sum(0), own)

    fit = bell(f, after, r)
    labels = _of((named - rows.reward).square(), paid)
    if not opposing:
        return {"critic": fit, "reward": labels}
    pessimism = _of((nets[q](rows.obs, here) - f).sum(0), own)
    consistent = bell(f.detach(), after.detach(), named)  # unbounded, so that it can come back
    return {
        "critic": normalized_sum(pessimism, fit, beta),
        "reward": normalized_sum(consistent, f.shape[0] * labels, ratio),
    }


@part
def opposed(
    nets: Nets, rows: Rows, /, q: str = "q", pi: str = "pi", alpha: str = "alpha",
    target: float | None = None,
) -> dict[str, Float[Tensor, ""]]:  # fmt: skip
    """The policy's side: normalized_sum(-f(s, a), log pi(a|s), alpha), a ~ pi, by the first critic
    only; and the loss of alpha, which holds the entropy at `target` (-dim(a) where not given)."""
    own = (rows.source == 0).float()
    action, logp = nets[pi].sample(rows.obs)
    worth = nets[q](rows.obs, action, first=1)[0]
    goal = -float(rows.action.shape[-1]) if target is None else target
    dual = nets[alpha]
    return {
        "actor": normalized_sum(-_of(worth, own), _of(logp, own), dual().detach()),
        "temperature": -dual.log_value * (_of(logp, own).detach() + goal),
    }


@part
def cloned_own(nets: Nets, rows: Rows, /, pi: str = "pi") -> Float[Tensor, ""]:
    """Imitation of the actions of source 0."""
    return _of(nets[pi].imitation(rows.obs, rows.action), (rows.source == 0).float())
