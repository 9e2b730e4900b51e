"""State values on sequences: what is expected before each decision, [B, T]."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from surpass.forms import Spaces
from surpass.objectives.advantage import with_columns
from surpass.parts import Nets, part
from surpass.policies.stochastic import TanhMLP

__all__ = ["StateValues", "bootstrapped", "state_values"]


class StateValues(nn.Module):
    """V(s) of every observation of a record of sequences."""

    def __init__(self, obs_dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.net = TanhMLP((obs_dim, *hidden, 1), 1.0)

    def of(self, obs: Float[Tensor, "B T d"]) -> Float[Tensor, "B T"]:
        """V of observations."""
        return self.net(obs.flatten(0, -2))[0, :, 0].reshape(obs.shape[:-1])

    def forward(self, seq: Any) -> Float[Tensor, "B T"]:
        return self.of(seq.obs)


@part
def state_values(spaces: Spaces, /, hidden: tuple[int, ...] = (64, 64)) -> nn.Module:
    """A tanh perceptron from observation to value."""
    return StateValues(spaces.obs_dim, tuple(hidden))


@part
def bootstrapped(nets: Nets, seq: Any, /, net: str = "value") -> Any:
    """Columns `value` = V(s_t) and `next_value` = V(s_{t+1}), [B, T], s_{t+1} the true next
    observation also where an episode ended: a truncated one is bootstrapped from there."""
    judge = nets[net]
    return with_columns(seq, value=judge.of(seq.obs), next_value=judge.of(seq.next_obs))
