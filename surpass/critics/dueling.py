"""Action values as a state value and what each action adds to it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from surpass.critics.ensembles import Critic
from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.networks import StackedMLP

__all__ = ["Dueling", "dueling"]


class Dueling(Critic):
    """Q(s, a) = V(s) + A(s, a) - mean_a A(s, a), discrete actions only."""

    def __init__(self, spaces: Spaces, n: int, hidden: tuple[int, ...], norm: bool) -> None:
        super().__init__(spaces, n, hidden, norm, "scalar", 1, (0.0, 0.0))
        self.net = StackedMLP(n, (spaces.obs_dim, *hidden, spaces.n_actions + 1), norm)

    def _every(self, obs: Tensor, first: int | None = None) -> Float[Tensor, "n B A 1"]:
        out = self.net(obs, first)
        value, extra = out[..., :1], out[..., 1:]
        return (value + extra - extra.mean(-1, keepdim=True))[..., None]


@part
def dueling(
    spaces: Spaces, /, n: int = 1, hidden: tuple[int, ...] = (256, 256), norm: bool = False
) -> nn.Module:
    """An ensemble of n dueling action values.

    Dueling Network Architectures for Deep Reinforcement Learning (2015).

    Raises:
        InputError: when actions are continuous.
    """
    if not spaces.discrete:
        raise InputError("a dueling critic needs discrete actions, and here they are continuous")
    return Dueling(spaces, n, tuple(hidden), norm)
