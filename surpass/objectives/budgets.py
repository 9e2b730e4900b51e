"""Deciding when to ask for help under an expected budget of calls, by putting a price on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError

__all__ = ["HelpPlan", "priced", "within_budget"]


@dataclass(frozen=True)
class HelpPlan:
    """`policy` [2, H, S, 2]: two policies that ask (action 1) where that is worth the price, and
    `mix`: the probability, once per episode, of the first. `success` and `usage` are what the model
    expects of the mixture, `price` what a call costs."""

    policy: Float[Tensor, "2 H S 2"]
    mix: float
    price: float
    success: float
    usage: float


def priced(
    P: Float[Tensor, "S 2 S"], reward: Float[Tensor, "S 2"], price: float, horizon: int
) -> tuple[Float[Tensor, "H S 2"], Float[Tensor, "S"], Float[Tensor, "S"]]:
    """The policy that maximizes success - price x calls, its success and its calls from each state:

        V(s) = max{ r_0 + P_0 V, r_1 - price + P_1 V },  U(s) = 1[ask] + P_ask U.

    Equal values do not ask.
    """
    S = P.shape[0]
    v, won, used = (torch.zeros(S, dtype=P.dtype) for _ in range(3))
    cost = torch.tensor([0.0, price], dtype=P.dtype)
    policy = []
    for _ in range(horizon):
        q = reward + P @ v - cost
        ask = (q[:, 1] > q[:, 0] + 1e-12).long()
        pick = torch.nn.functional.one_hot(ask, 2).to(P.dtype)
        v = (pick * q).sum(1)
        won = (pick * (reward + P @ won)).sum(1)
        used = (pick * (P @ used)).sum(1) + ask
        policy.append(pick)
    return torch.stack(policy[::-1]), won, used


def within_budget(
    P: Float[Tensor, "S 2 S"], reward: Float[Tensor, "S 2"], start: Float[Tensor, "S"],
    budget: float, horizon: int, tolerance: float = 1e-7,
) -> HelpPlan:  # fmt: skip
    """The best policy with at most `budget` calls in expectation: usage falls with the price, so a
    bisection brackets it, and a mixture of the two policies beside it meets the budget exactly.

    Self-Regulation and Requesting Interventions (2025).

    Raises:
        InputError: when the budget is negative.
    """
    if budget < 0:
        raise InputError(f"a budget of calls is not negative, but {budget}")

    def at(price: float) -> tuple[Tensor, float, float]:
        policy, won, used = priced(P, reward, price, horizon)
        return policy, float(start @ won), float(start @ used)

    low, high = 0.0, 1.0 + 1e-6  # a call is never worth more than a success
    many, few = at(low), at(high)
    if many[2] <= budget:
        return HelpPlan(torch.stack((many[0], many[0])), 1.0, 0.0, many[1], many[2])
    while high - low > tolerance:
        middle = (low + high) / 2
        found = at(middle)
        if found[2] > budget:
            low, many = middle, found
        else:
            high, few = middle, found
    gap = many[2] - few[2]
    mix = (budget - few[2]) / gap if gap > 1e-12 else 0.0
    both = [mix * m + (1 - mix) * f for m, f in zip(many[1:], few[1:], strict=True)]
    return HelpPlan(torch.stack((many[0], few[0])), mix, high, both[0], both[1])
