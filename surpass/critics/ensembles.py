"""Critics: ensembles of action values and of state values, and the dual variables beside them.

`q(obs, action)` is [n, B]; for m actions of each state, given as [m, B, k], it is [n, m, B]. The
head decides what is learned of the return: its mean (scalar), its mean and spread (gaussian), its
quantiles, or a histogram over fixed bins whose mean is the value (HL-Gauss).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.networks import StackedMLP, remembered

__all__ = ["Critic", "Dual", "Level", "Value", "critic", "dual", "level", "value"]


class _Headed(nn.Module):
    """What the outputs of a net mean, and how they are fitted to a target."""

    head: str
    width: int
    edges: Tensor
    levels: Tensor

    def _prepare(self, head: str, bins: int, support: tuple[float, float]) -> None:
        self.head = head
        self.width = {"scalar": 1, "gaussian": 2}.get(head, bins)
        self.support = support
        if head == "hl-gauss":
            self.register_buffer("edges", torch.linspace(*support, bins + 1))
        elif head == "quantile":
            self.register_buffer("levels", (torch.arange(bins) + 0.5) / bins)

    def mean_of(self, out: Float[Tensor, "... w"]) -> Float[Tensor, "..."]:
        """The value that the head's outputs stand for."""
        if self.head in ("scalar", "gaussian"):
            return out[..., 0]
        if self.head == "quantile":
            return out.mean(-1)
        centers = 0.5 * (self.edges[1:] + self.edges[:-1])
        return torch.softmax(out, -1) @ centers

    def spread_of(self, out: Float[Tensor, "... 2"]) -> Float[Tensor, "..."]:
        """The standard deviation of the return that a Gaussian head's outputs stand for.

        Raises:
            InputError: when the head is another.
        """
        if self.head != "gaussian":
            raise InputError(f"a {self.head} head has no spread: critic(head='gaussian')")
        return softplus(out[..., 1])

    def loss_of(
        self, out: Float[Tensor, "n B w"], y: Tensor, huber: float | None
    ) -> Float[Tensor, "n B"]:
        """How far outputs are from targets [B] (for quantiles also [B, m] target atoms)."""
        if self.head == "scalar":
            error = out[..., 0] - y
            return error.square() if huber is None else _huber(error, huber) / huber
        if self.head == "gaussian":  # -log N(y; mean, spread^2), without its constant
            spread = self.spread_of(out)
            return 0.5 * ((out[..., 0] - y) / spread).square() + spread.log()
        if self.head == "quantile":
            return _quantile_loss(out, y, self.levels, 1.0 if huber is None else huber)
        return -(self._histogram(y) * torch.log_softmax(out, -1)).sum(-1)

    def _histogram(self, y: Float[Tensor, "B"]) -> Float[Tensor, "B w"]:
        """The mass of N(y, sigma^2) in each bin, sigma 0.75 bins.

        Stop Regressing: Training Value Functions via Classification for Scalable Deep RL (2024).
        """
        sigma = 0.75 * (self.support[1] - self.support[0]) / self.width
        inside = y.clamp(*self.support)[:, None]
        below = torch.erf((self.edges - inside) / (sigma * math.sqrt(2.0)))
        mass = below[:, 1:] - below[:, :-1]
        return mass / (below[:, -1:] - below[:, :1])


def _huber(error: Tensor, delta: float) -> Tensor:
    """0.5 d^2 where |d| < delta, delta (|d| - delta / 2) beyond."""
    size = error.abs()
    return torch.where(size < delta, 0.5 * size.square(), delta * (size - 0.5 * delta))


def _quantile_loss(
    out: Float[Tensor, "n B w"], y: Tensor, levels: Float[Tensor, "w"], huber: float
) -> Float[Tensor, "n B"]:
    """Quantile Huber regression: sum over the quantiles of the mean over the target's atoms.

    Distributional Reinforcement Learning with Quantile Regression (2017).
    """
    atoms = y[:, None] if y.dim() == 1 else y
    error = atoms[None, :, None, :] - out[..., None]  # [n, B, w, m]
    weight = (levels[:, None] - (error.detach() < 0).float()).abs()
    return (weight * _huber(error, huber) / huber).mean(-1).sum(-1)


class Critic(_Headed):
    """n action values. With discrete actions the net gives all of them at once."""

    def __init__(
        self,
        spaces: Spaces,
        n: int,
        hidden: tuple[int, ...],
        norm: bool,
        head: str,
        bins: int,
        support: tuple[float, float],
    ) -> None:
        super().__init__()
        self._prepare(head, bins, support)
        self.n, self.actions = n, spaces.n_actions
        reads = spaces.obs_dim + (0 if spaces.discrete else spaces.action_dim)
        gives = self.width * max(spaces.n_actions, 1)
        self.net = StackedMLP(n, (reads, *hidden, gives), norm)

    def outputs(
        self, obs: Float[Tensor, "B d"], action: Tensor, first: int | None = None
    ) -> Float[Tensor, "n ... w"]:
        """What the head reads: [n, B, w] or [n, m, B, w]."""
        if self.actions:
            every = self._every(obs, first)  # [n, B, A, w]
            index = action.long()[..., None, None]
            if action.dim() == 2:
                every = every[:, None].expand(-1, action.shape[0], -1, -1, -1)
            return every.gather(
                -2, index.expand(every.shape[0], *index.shape[:-1], self.width)
            ).squeeze(-2)
        if action.dim() == 3:
            return self.net.mixed(obs, action, first)
        return remembered(
            self,
            (obs, action, first),
            lambda: self.net(torch.cat([obs, action], -1), first),
        )

    def _every(self, obs: Tensor, first: int | None = None) -> Float[Tensor, "n B A w"]:
        out = self.net(obs, first)
        return out.reshape(*out.shape[:2], self.actions, self.width)

    def forward(
        self, obs: Float[Tensor, "B d"], action: Tensor, first: int | None = None
    ) -> Float[Tensor, "n ... B"]:
        return self.mean_of(self.outputs(obs, action, first))

    def distribution(
        self, obs: Float[Tensor, "B d"], action: Tensor
    ) -> tuple[Float[Tensor, "n ... B"], Float[Tensor, "n ... B"]]:
        """Mean and standard deviation of the return, of a Gaussian head."""
        out = self.outputs(obs, action)
        return self.mean_of(out), self.spread_of(out)

    def all(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "n B A"]:
        """The values of all discrete actions."""
        return self.mean_of(self._every(obs))

    def fit(
        self, obs: Tensor, action: Tensor, y: Tensor, huber: float | None = None
    ) -> Float[Tensor, "n B"]:
        """The loss of each member against targets [B]."""
        return self.loss_of(self.outputs(obs, action), y, huber)

    def action_gradients(
        self, obs: Float[Tensor, "B d"], action: Float[Tensor, "B k"]
    ) -> Float[Tensor, "n B k"]:
        """The gradient of each member's value with respect to the action."""
        inputs = obs.expand(self.n, *obs.shape)

        def total(actions: Tensor) -> Tensor:
            return self.mean_of(self.net(torch.cat([inputs, actions], -1))).sum()

        return torch.func.grad(total)(action.expand(self.n, *action.shape))


class Value(_Headed):
    """n state values, [n, B]."""

    def __init__(
        self,
        obs_dim: int,
        n: int,
        hidden: tuple[int, ...],
        norm: bool,
        head: str,
        bins: int,
        support: tuple[float, float],
    ) -> None:
        super().__init__()
        self._prepare(head, bins, support)
        self.n = n
        self.net = StackedMLP(n, (obs_dim, *hidden, self.width), norm)

    def forward(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "n B"]:
        return self.mean_of(self.net(obs))

    def fit(self, obs: Tensor, y: Tensor, huber: float | None = None) -> Float[Tensor, "n B"]:
        """The loss of each member against targets [B]."""
        return self.loss_of(self.net(obs), y, huber)


class Dual(nn.Module):
    """A positive scalar, exp(log_value): a temperature or a multiplier that a loss trains."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log_value = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Float[Tensor, ""]:
        return self.log_value.exp()


class Level(nn.Module):
    """A number of any sign that a loss trains, such as the average reward."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.tensor(float(start)))

    def forward(self) -> Float[Tensor, ""]:
        return self.number * 1.0


@part
def critic(
    spaces: Spaces,
    /,
    n: int = 2,
    hidden: tuple[int, ...] = (256, 256),
    norm: bool = False,
    head: str = "scalar",
    bins: int = 101,
    support: tuple[float, float] = (-100.0, 100.0),
) -> nn.Module:
    """An ensemble of n action values; `head` is "scalar", "gaussian", "quantile" or "hl-gauss"."""
    return Critic(spaces, n, tuple(hidden), norm, head, bins, support)


@part
def value(
    spaces: Spaces,
    /,
    n: int = 1,
    hidden: tuple[int, ...] = (256, 256),
    norm: bool = False,
    head: str = "scalar",
    bins: int = 101,
    support: tuple[float, float] = (-100.0, 100.0),
) -> nn.Module:
    """An ensemble of n state values."""
    return Value(spaces.obs_dim, n, tuple(hidden), norm, head, bins, support)


@part
def dual(spaces: Spaces, /, start: float = 1.0) -> nn.Module:
    """A positive scalar that a loss trains, from `start` on."""
    return Dual(start)


@part
def level(spaces: Spaces, /, start: float = 0.0) -> nn.Module:
    """A number of any sign that a loss trains, from `start` on."""
    return Level(start)
