"""Answers as a tree of tokens: the value of answering at random from here, exactly and as a loss on
the model's own log-ratios.

"Random Policy Valuation is Enough for LLM Reasoning with Verifiable Rewards" (2025): where rewards
are not negative, the action of the largest value under the uniformly random policy is optimal, and
a softmax of these values keeps every way to a right answer alive.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.divergence import mean_logp
from surpass.objectives.ratio import kept
from surpass.objectives.reduce import decided
from surpass.objectives.views import Steps
from surpass.parts import part

__all__ = ["following", "random_values", "valuation"]


def random_values(rewards: Float[Tensor, "X K"], vocab: int, length: int) -> list[Tensor]:
    """Q(prefix, token) of the uniformly random policy at each depth: [X, V^i, V] for i < length,
    from the rewards of all V^length answers, the first token the most significant digit."""
    x = rewards.shape[0]
    return [
        rewards.reshape(x, vocab**i, vocab, vocab ** (length - 1 - i)).mean(-1)
        for i in range(length)
    ]


def following(value: Float[Tensor, "B T"], mask: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """At each decision the value of the next one, 0 after the last; what lies between decisions is
    passed over."""
    place = torch.arange(mask.shape[-1], device=mask.device).expand(mask.shape)
    last = mask.shape[-1]
    there = torch.where(mask > 0, place, last)
    ahead = there.flip(-1).cummin(-1).values.flip(-1)  # the first decision at or after each place
    after = torch.cat([ahead[..., 1:], torch.full_like(ahead[..., :1], last)], -1)
    found = torch.gather(value, -1, after.clamp(max=last - 1))
    return torch.where((after < last) & (mask > 0), found, torch.zeros_like(value))


@part(needs=(mean_logp, "anchor_mean_logp"))
def valuation(s: Steps, /, rho: float = 1.0, scale: float = 1.0) -> Float[Tensor, "B T"]:
    """(Q_t - target_t)^2, Q_t = rho log r_t, target_t = A_t + scale x the mean over the vocabulary
    of Q at the next decision, without gradient.

    `advantage` is the centered reward, given to every token; `extras["mean_logp"]` and
    `extras["anchor_mean_logp"]` are the vocabulary means of log pi and of log pi_anchor.
    """
    own = decided(s.mask)
    q = rho * kept(s.log_ratio, own)
    mean = rho * kept(s.extras["mean_logp"] - s.extras["anchor_mean_logp"], own)
    target = s.advantage + scale * following(mean, own)
    return (q - target.detach()).square()
