"""Where a step comes from: a classifier of real against simulated transitions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.networks import StackedMLP

__all__ = ["DomainClassifier", "domains"]


class DomainClassifier(nn.Module):
    """Logits of "real": of (s, a), and what s' adds to them,

        log p(real|s,a,s') / p(sim|s,a,s') = before + added,   added = log P_real(s'|s,a) / P_sim

    so that the second is the log-ratio of the two dynamics, whatever states are visited. Both lie
    within +-`limit`: where nothing is random the two can be told apart for certain, and no step
    of the simulator would count any more.
    """

    def __init__(
        self, obs_dim: int, action_dim: int, hidden: tuple[int, ...], limit: float
    ) -> None:
        super().__init__()
        self.limit = limit
        self.pair = StackedMLP(1, (obs_dim + action_dim, *hidden, 1))
        self.triple = StackedMLP(1, (2 * obs_dim + action_dim, *hidden, 1))

    def before(self, obs: Float[Tensor, "... d"], action: Tensor) -> Float[Tensor, "..."]:
        """The logit of (s, a)."""
        return self._logit(self.pair, torch.cat([obs, action], -1))

    def added(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Float[Tensor, "..."]:
        """The log-ratio of the dynamics, log P_real(s'|s,a) / P_sim(s'|s,a)."""
        return self._logit(self.triple, torch.cat([obs, action, next_obs], -1))

    def forward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.before(obs, action), self.added(obs, action, next_obs)

    def _logit(self, net: StackedMLP, x: Float[Tensor, "... k"]) -> Float[Tensor, "..."]:
        out = net(x.reshape(-1, x.shape[-1]))[0, :, 0].reshape(x.shape[:-1])
        return self.limit * torch.tanh(out / self.limit)


@part
def domains(
    spaces: Spaces, /, hidden: tuple[int, ...] = (256, 256), limit: float = 4.0
) -> nn.Module:
    """A classifier of the given hidden layers, whose logits lie within +-`limit`.

    When to Trust Your Simulator (H2O, 2022), whose code gives either side 2 tanh(x).

    Raises:
        InputError: when actions are discrete.
    """
    if spaces.discrete:
        raise InputError("the classifier of domains reads continuous actions; here are discrete")
    return DomainClassifier(spaces.obs_dim, spaces.action_dim, tuple(hidden), limit)
