"""Values of joint actions from one utility per agent, discrete actions.

    vdn   Q(s, a) = sum_i u_i(o_i, a_i)
    qmix  Q(s, a) = f(u_1, ..., u_n; s), f monotone in every utility

In both the best joint action is each agent's own best. Observations are rows [B, n d] of all agents
in order, actions [B, n] (or [m, B, n] for m joint actions of each state).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import elu

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.networks import StackedMLP

__all__ = ["AgentPolicy", "MixedValue", "agent_policy", "agents_of", "mixed_value"]


def agents_of(spaces: Spaces) -> int:
    """How many agents there are.

    Raises:
        InputError: when the spaces name none, or actions are not discrete.
    """
    agents = int(spaces.extras.get("agents", 0))
    if not agents or not spaces.discrete or spaces.obs_dim % agents:
        raise InputError(
            "this needs several agents with discrete actions: obs [rows, agents, d] and action "
            "[rows, agents] of whole numbers"
        )
    return agents


class _PerAgent(nn.Module):
    """One perceptron for all agents, which is told who asks; [B, n, A]."""

    def __init__(self, spaces: Spaces, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.agents, self.actions = agents_of(spaces), spaces.n_actions
        self.net = StackedMLP(
            1, (spaces.obs_dim // self.agents + self.agents, *hidden, self.actions)
        )

    def forward(self, obs: Float[Tensor, "B nd"]) -> Float[Tensor, "B n A"]:
        own = obs.reshape(obs.shape[0], self.agents, -1)
        who = torch.eye(self.agents, device=obs.device).expand(len(own), -1, -1)
        return self.net(torch.cat([own, who], -1).flatten(0, 1))[0].reshape(
            len(own), self.agents, self.actions
        )


class MixedValue(nn.Module):
    """Q(s, a) of joint actions; reads like an ensemble of one."""

    n = 1

    def __init__(self, spaces: Spaces, hidden: tuple[int, ...], mixer: str, embed: int) -> None:
        super().__init__()
        self.utilities = _PerAgent(spaces, hidden)
        self.agents, self.mixer, self.embed = self.utilities.agents, mixer, embed
        if mixer == "qmix":
            self.weights = nn.Linear(spaces.obs_dim, embed * (self.agents + 1))
            self.biases = nn.Linear(spaces.obs_dim, embed)
            self.level = StackedMLP(1, (spaces.obs_dim, embed, 1))

    def mixed(
        self, obs: Float[Tensor, "B nd"], chosen: Float[Tensor, "... B n"]
    ) -> Float[Tensor, "... B"]:
        """Q from the utilities of the chosen actions."""
        if self.mixer == "vdn":
            return chosen.sum(-1)
        weight = self.weights(obs).abs().reshape(len(obs), self.agents + 1, self.embed)
        first, second = weight[:, :-1], weight[:, -1]
        hidden = elu(torch.einsum("...bn,bne->...be", chosen, first) + self.biases(obs))
        return (hidden * second).sum(-1) + self.level(obs)[0, :, 0]

    def forward(
        self, obs: Float[Tensor, "B nd"], action: Int[Tensor, "... B n"]
    ) -> Float[Tensor, "1 ... B"]:
        utility = self.utilities(obs)
        utility = utility.expand(*action.shape[:-2], *utility.shape)
        chosen = utility.gather(-1, action.long()[..., None])[..., 0]
        return self.mixed(obs, chosen)[None]

    def counterfactual(
        self, obs: Float[Tensor, "B nd"], action: Int[Tensor, "B n"]
    ) -> Float[Tensor, "B n A"]:
        """Q(s, a_i', a_-i): what each agent's every action would be worth beside the logged ones of
        the others."""
        utility = self.utilities(obs)
        logged = utility.gather(-1, action.long()[..., None])[..., 0]  # [B, n]
        own = torch.eye(self.agents, device=obs.device, dtype=torch.bool)[:, None, None]
        other = torch.where(own, utility.permute(1, 2, 0)[..., None], logged)  # [n, A, B, n]
        return self.mixed(obs, other.flatten(0, 1)).reshape(*other.shape[:3]).permute(2, 0, 1)

    def greedy(self, obs: Float[Tensor, "B nd"]) -> Int[Tensor, "B n"]:
        """Each agent's best action, which together are the best."""
        return self.utilities(obs).argmax(-1)

    def fit(self, obs: Tensor, action: Tensor, y: Tensor, huber: float | None = None) -> Tensor:
        """(Q(s, a) - y)^2, [1, B]."""
        return (self(obs, action) - y).square()


class AgentPolicy(nn.Module):
    """A softmax for each agent by itself."""

    def __init__(self, spaces: Spaces, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.net = _PerAgent(spaces, hidden)

    def logits(self, obs: Float[Tensor, "B nd"]) -> Float[Tensor, "B n A"]:
        """Log-probabilities of every agent's actions."""
        return torch.log_softmax(self.net(obs), -1)

    def forward(self, obs: Float[Tensor, "B nd"]) -> Int[Tensor, "B n"]:
        return self.logits(obs).argmax(-1)

    def imitation(self, obs: Tensor, action: Int[Tensor, "B n"]) -> Float[Tensor, "B"]:
        """-sum_i log beta_i(a_i | o_i)."""
        return -self.logits(obs).gather(-1, action.long()[..., None])[..., 0].sum(-1)


@part
def mixed_value(
    spaces: Spaces, /, hidden: tuple[int, ...] = (64, 64), mixer: str = "qmix", embed: int = 32
) -> nn.Module:
    """Values of joint actions; `mixer` is "vdn" or "qmix".

    Value-Decomposition Networks For Cooperative Multi-Agent Learning (2017); QMIX: Monotonic Value
    Function Factorisation for Deep Multi-Agent Reinforcement Learning (2018).

    Raises:
        InputError: when there are no agents, or no such mixer.
    """
    if mixer not in ("vdn", "qmix"):
        raise InputError(f"no mixer {mixer!r}; there are vdn, qmix")
    return MixedValue(spaces, tuple(hidden), mixer, embed)


@part
def agent_policy(spaces: Spaces, /, hidden: tuple[int, ...] = (64, 64)) -> nn.Module:
    """A policy per agent from its own observation.

    Raises:
        InputError: when there are no agents.
    """
    return AgentPolicy(spaces, tuple(hidden))
