"""A categorical policy over discrete actions: pi(a|s) = softmax(f(s))_a."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.networks import StackedMLP

__all__ = ["Categorical", "categorical"]


class Categorical(nn.Module):
    """Probabilities over actions 0 .. A - 1; `forward` gives the most probable action."""

    def __init__(self, obs_dim: int, actions: int, hidden: tuple[int, ...], norm: bool) -> None:
        super().__init__()
        self.net = StackedMLP(1, (obs_dim, *hidden, actions), norm)

    def logits(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "B A"]:
        """log pi(.|s)."""
        return torch.log_softmax(self.net(obs)[0], -1)

    def forward(self, obs: Float[Tensor, "B d"]) -> Tensor:
        return self.net(obs)[0].argmax(-1)

    def logp(self, obs: Float[Tensor, "B d"], action: Tensor) -> Float[Tensor, "... B"]:
        """log pi(a|s) of actions [B] or [m, B]."""
        logits = self.logits(obs)
        wanted = action.long()[..., None]
        return logits.expand(*wanted.shape[:-1], -1).gather(-1, wanted)[..., 0]

    def sample(self, obs: Tensor, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """Actions [B] (or [m, B]) drawn by the Gumbel trick, and their log-probs."""
        logits = self.logits(obs)
        lead = () if samples is None else (samples,)
        uniform = torch.rand(*lead, *logits.shape, device=logits.device).clamp(1e-20, 1.0)
        action = (logits - torch.log(-torch.log(uniform))).argmax(-1)
        return action, logits.expand(*lead, *logits.shape).gather(-1, action[..., None])[..., 0]

    def imitation(self, obs: Tensor, action: Tensor) -> Float[Tensor, "B"]:
        """-log pi(a|s)."""
        return -self.logp(obs, action)


@part
def categorical(
    spaces: Spaces, /, hidden: tuple[int, ...] = (256, 256), norm: bool = False
) -> nn.Module:
    """A categorical policy of the given hidden layers.

    Raises:
        InputError: when actions are continuous.
    """
    if not spaces.discrete:
        raise InputError(
            "a categorical policy needs discrete actions, and here they are continuous; "
            "td3-bc, iql, cql and sac fit continuous ones"
        )
    return Categorical(spaces.obs_dim, spaces.n_actions, tuple(hidden), norm)
