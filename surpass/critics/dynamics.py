"""Models of the world: ensembles of Gaussian nets, and what a policy is worth inside them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.critics.policy_values import Asked
from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.forms import Learner, Spaces, adam, log, train
from surpass.objectives.policy_values import likelihood
from surpass.parts import Nets, linear, part
from surpass.policies.discrete import Categorical
from surpass.policies.gaussian import SquashedGaussian
from surpass.policies.networks import StackedMLP

__all__ = [
    "Dynamics", "DynamicsNets", "Residual", "counted_values", "dynamics", "in_model",
    "inverse_dynamics", "residual",
]  # fmt: skip

_LOG_VAR = (-9.0, 2.0)


class Dynamics(nn.Module):
    """n Gaussian models of (s' - s, r), in standard units, with the chance that the episode
    ends."""

    def __init__(self, spaces: Spaces, n: int, hidden: tuple[int, ...], norm: bool) -> None:
        super().__init__()
        self.n, self.actions, self.width = n, spaces.n_actions, spaces.obs_dim + 1
        reads = spaces.obs_dim + (spaces.n_actions or spaces.action_dim)
        self.net = StackedMLP(n, (reads, *hidden, 2 * self.width + 1), norm)

    def forward(
        self, obs: Float[Tensor, "... B d"], action: Tensor
    ) -> tuple[Float[Tensor, "n B w"], Float[Tensor, "n B w"], Float[Tensor, "n B"]]:
        """Mean and log-variance of the outcome, and the logit of an end; inputs may be [n, B, .],
        one batch for each member."""
        if self.actions:
            number = torch.arange(self.actions, device=action.device)
            action = (action.long()[..., None] == number).to(obs.dtype)
        out = self.net(torch.cat([obs, action], -1))
        mean, raw, end = out.split((self.width, self.width, 1), -1)
        low, high = _LOG_VAR
        log_var = low + (high - low) * torch.sigmoid(raw)
        return mean, log_var, end[..., 0]


@part
def dynamics(
    spaces: Spaces, /, n: int = 5, hidden: tuple[int, ...] = (200, 200), norm: bool = False
) -> nn.Module:
    """An ensemble of n Gaussian models of change, reward and end."""
    return Dynamics(spaces, n, tuple(hidden), norm)


class Residual(nn.Module):
    """s' = s + (high - low) / 2 d(s, a), kept in the box: a world without chance, which at first
    stands nearly still. States are read in units of the box."""

    low: Tensor
    high: Tensor

    def __init__(
        self, spaces: Spaces, hidden: tuple[int, ...], low: tuple[float, ...],
        high: tuple[float, ...], scale: float,
    ) -> None:  # fmt: skip
        super().__init__()
        if not len(low) == len(high) == spaces.obs_dim:
            raise InputError(f"a box of {spaces.obs_dim} numbers expected, got {low} to {high}")
        self.actions = spaces.n_actions
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))
        reads = spaces.obs_dim + (spaces.n_actions or spaces.action_dim)
        sizes = (reads, *hidden, spaces.obs_dim)
        layers: list[nn.Module] = []
        for one, other in itertools.pairwise(sizes):
            layers += [nn.Linear(one, other), nn.Tanh()]
        self.net = nn.Sequential(*layers[:-1])
        last: nn.Linear = self.net[-1]  # type: ignore[assignment]
        nn.init.orthogonal_(last.weight, scale)
        nn.init.zeros_(last.bias)

    def forward(self, obs: Float[Tensor, "B d"], action: Tensor) -> Float[Tensor, "B d"]:
        """The next state."""
        if self.actions:
            number = torch.arange(self.actions, device=action.device)
            action = (action.long()[..., None] == number).to(obs.dtype)
        half = 0.5 * (self.high - self.low)
        unit = (obs - self.low) / half - 1.0
        moved = obs + half * self.net(torch.cat([unit, action], -1))
        return torch.minimum(torch.maximum(moved, self.low), self.high)


@part
def residual(
    spaces: Spaces, /, low: tuple[float, ...], high: tuple[float, ...],
    hidden: tuple[int, ...] = (256, 256), scale: float = 0.01,
) -> nn.Module:  # fmt: skip
    """A deterministic model that predicts the change of a state in a box, by tanh layers whose last
    starts `scale` times as large as it would."""
    return Residual(spaces, tuple(hidden), tuple(low), tuple(high), scale)


@part
def inverse_dynamics(
    spaces: Spaces, /, hidden: tuple[int, ...] = (256, 256),
    log_std: tuple[float, float] = (-5.0, 2.0),
) -> nn.Module:  # fmt: skip
    """I(a|s, s'): a squashed Gaussian, or a softmax where actions are discrete, that reads the
    state and the one after it, [B, 2 d]."""
    reads, sizes = 2 * spaces.obs_dim, tuple(hidden)
    if spaces.discrete:
        return Categorical(reads, spaces.n_actions, sizes, False)
    return SquashedGaussian(reads, spaces.action_dim, sizes, False, log_std)


class _Rolled:
    """What starts are worth, by letting the policy act inside each member."""

    def __init__(self, model: Dynamics) -> None:
        self.model = model

    @torch.no_grad()
    def values(self, starts: Float[Tensor, "S d"], asked: Asked) -> Float[Tensor, "n S"]:
        """Discounted returns of one path per member and start; a path weighs as much as the model
        says that it is still going on. States are kept in the box of the log."""
        n, S = self.model.n, len(starts)
        obs = starts.expand(n, S, -1)
        total = starts.new_zeros(n, S)
        alive, factor = torch.ones_like(total), 1.0
        for _ in range(asked.horizon):
            action = asked.acted(obs.flatten(0, 1)).reshape(n, S, -1)
            if self.model.actions:
                action = action[..., 0]
            mean, log_var, end = self.model(asked.standard(obs), action)
            drawn = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
            outcome = drawn * asked.outcome_std + asked.outcome_mean
            reward = outcome[..., -1].clamp(*asked.rewards)
            total = total + factor * alive * reward
            alive = alive * (1.0 - torch.sigmoid(end))
            obs = torch.minimum(torch.maximum(obs + outcome[..., :-1], asked.low), asked.high)
            factor *= asked.gamma
            if float(alive.max()) * factor < 1e-4:
                break
        return total


@part
def in_model(nets: Nets, roles: object, /, model: str = "model") -> _Rolled:
    """Evaluates starts by playing inside the model."""
    return _Rolled(nets[model])


@dataclass(frozen=True)
class DynamicsNets:
    """A model of the world that the policy is played in, the nuisance "start" of episodes: an
    ensemble of Gaussian nets fitted by likelihood; where observations are so few that they can be
    numbered and actions are discrete, counted transitions, solved.

    Attributes:
        members: of the ensemble. hidden: layers. updates: of batch `batch`. starts: played at most.
        countable: the most observations that count as numbered states.
    """

    members: int = 4
    hidden: tuple[int, ...] = (200, 200)
    updates: int = 3_000
    batch: int = 256
    lr: float = 1e-3
    starts: int = 256
    countable: int = 300

    def learner(self, gamma: float, scale: float, limits: tuple[float, float]) -> Learner:
        """The form; a model needs neither discount nor limits."""
        return Learner(
            nets={"model": dynamics(self.members, self.hidden)},
            update=(
                train("model", likelihood(),
                      adam(linear(self.lr, 0.1 * self.lr, steps=self.updates))),
            ),
            act=in_model(),
            source=log(self.batch, normalize=True),
        )  # fmt: skip


def counted_values(
    log: Transitions, asked: Asked, weight: Float[Tensor, "M n"], most: int
) -> Float[Tensor, "M n"] | None:
    """What every row's observation is worth, [M, n], under the model that counts the log's
    transitions, each row by `weight`; None where there are more than `most` observations.

    An action that was never taken in a state does there what the others did on average, and a state
    that was never left is an end. Solved, or summed over the horizon where
    gamma is 1 and episodes were cut.
    """
    obs, then = (x.reshape(len(x), -1).float() for x in (log.obs, log.next_obs))
    if len(torch.unique(obs[: 50 * most], dim=0)) > most:
        return None
    known, place = torch.unique(torch.cat((obs, then)), dim=0, return_inverse=True)
    S, A = len(known), asked.actions
    if most < S:
        return None
    here, there = place[: len(obs)], place[len(obs) :]
    pi = asked.choose(known).double()
    goes_on = 1.0 - log.terminated.double()
    pair = here * A + log.action.long()
    out = []
    for w in weight.double().T:
        seen = torch.zeros(S * A, dtype=w.dtype).index_add_(0, pair, w)
        paid = torch.zeros_like(seen).index_add_(0, pair, w * log.reward.double()).view(S, A)
        moves = torch.zeros(S * A * S, dtype=w.dtype)
        moves = moves.index_add_(0, pair * S + there, w * goes_on).view(S, A, S)
        seen = seen.view(S, A)
        every = seen.sum(1, keepdim=True).clamp_min(1e-300)
        never = (seen == 0)[..., None]
        P = torch.where(never, moves.sum(1, keepdim=True) / every[..., None],
                        moves / seen.clamp_min(1e-300)[..., None])  # fmt: skip
        r = torch.where(never[..., 0], paid.sum(1, keepdim=True) / every,
                        paid / seen.clamp_min(1e-300))  # fmt: skip
        P_pi, r_pi = torch.einsum("sa,sat->st", pi, P), (pi * r).sum(1)
        if asked.gamma < 1 or not bool(log.truncated.any()):
            v = torch.linalg.solve(torch.eye(S, dtype=w.dtype) - asked.gamma * P_pi, r_pi)
        else:
            v = torch.zeros_like(r_pi)
            for _ in range(asked.horizon):
                v = r_pi + P_pi @ v
        out.append(v[here])
    return torch.stack(out, 1)
