"""Linear policies with Gaussian parameters: what PAC-Bayes certificates are about."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.policies.categorical import DecisionPolicy
from surpass.policies.tilted import policy_class

__all__ = ["MixedLogit"]


@policy_class
class MixedLogit(DecisionPolicy):
    """pi(a|x) = E softmax(phi' theta) with theta_a ~ N(mean_a, spread^2 I) and phi = [1, z].

    The scores are Gaussian with spread `spread` |phi|, so the expectation is over A numbers; it is
    taken over `draws` of them, fixed by `seed`, every one with its negative.
    """

    location: Tensor
    scale: Tensor
    mean: Tensor
    log_spread: Tensor
    noise: Tensor

    def __init__(self, n_features: int, n_actions: int, draws: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.config = {
            "n_features": n_features, "n_actions": n_actions, "draws": draws, "seed": seed,
        }  # fmt: skip
        half = torch.randn(
            max(draws // 2, 1), n_actions, generator=torch.Generator().manual_seed(seed),
            dtype=torch.float64,
        )  # fmt: skip
        self.register_buffer("noise", torch.cat((half, -half)))
        self.register_buffer("location", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_features, dtype=torch.float64))
        zero = torch.zeros(n_features + 1, n_actions, dtype=torch.float64)
        self.register_buffer("mean", zero)
        self.register_buffer("log_spread", torch.zeros((), dtype=torch.float64))

    def features(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N d+1"]:
        """[1, z]."""
        z = (context.to(torch.float64) - self.location) / self.scale
        return torch.cat((torch.ones_like(z[:, :1]), z), 1)

    def forward(
        self, context: Float[Tensor, "N d"], reference: Float[Tensor, "N A"] | None = None
    ) -> Float[Tensor, "N A"]:
        found = mixed(self.features(context), self.mean, self.log_spread, self.noise)
        if reference is None:
            return found
        found = found * (reference > 0)
        return found / found.sum(-1, keepdim=True)


def mixed(
    phi: Float[Tensor, "N k"], mean: Float[Tensor, "k A"], log_spread: Tensor,
    noise: Float[Tensor, "S A"],
) -> Float[Tensor, "N A"]:  # fmt: skip
    """The mean over draws of softmax(phi mean + spread |phi| noise)."""
    reach = log_spread.exp() * phi.square().sum(1).sqrt()
    rules = torch.softmax((phi @ mean)[:, None] + reach[:, None, None] * noise, -1)
    return rules.sum(1) / len(noise)
