"""Demonstrations as bandits: at each of their decisions the policy draws actions, and is rewarded
where they are the one that was demonstrated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from surpass.objectives.divergence import Draws, Readout
from surpass.objectives.views import Steps
from surpass.parts import part

__all__ = ["TokenRollout", "token_bandit"]


@dataclass(frozen=True)
class TokenRollout:
    """A statistic: (1 / K) sum_k R_k log pi(a_k), a_k drawn from softmax(z / temperature), R = 1
    where a_k is the action taken and `miss` where it is not. `count` = K; 0 is the expectation,
    whose weights have no gradient, as drawn actions have none."""

    count: int = 256
    temperature: float = 1.3
    miss: float = -0.1

    __name__ = "token_rollout"
    moments = ()

    @property
    def draws(self) -> Draws:
        """What is drawn."""
        return Draws(self.count, self.temperature)

    def __call__(self, r: Readout) -> Tensor:
        """Of a readout with draws: (1 - miss) h log pi(y) + miss (1 / K) sum_k log pi(a_k), with h
        the share of hits."""
        return (1 - self.miss) * r.hits * r.logp + self.miss * (r.drawn - r.lse)


def _rollout(count: int, temperature: float, miss: float) -> tuple[Any, ...]:
    return (TokenRollout(count, temperature, miss),)


@part(needs=_rollout)
def token_bandit(
    s: Steps, /, count: int = 256, temperature: float = 1.3, miss: float = -0.1
) -> Float[Tensor, "B T"]:
    """-A (1 / K) sum_k R_k log pi(a_k), REINFORCE on K actions drawn at each decision of a
    demonstration; R is 1 for the demonstrated action and `miss` for others.

    At temperature 1 its expected gradient is (1 - miss) pi(y) times that of -log pi(y): imitation
    that counts each decision by how likely the policy finds it, and nothing of what it finds
    impossible. `miss` then only acts as a baseline. Above 1 the weight is the flatter
    probability, and a negative `miss` also sharpens the policy. `count` = 0 is that expectation.

    "One-Token Rollout: Guiding Supervised Fine-Tuning of LLMs with Policy Gradient" (2025).
    """
    return -s.advantage * s.extras["token_rollout"]
