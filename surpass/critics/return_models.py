"""The whole distribution of a return: conditional generative models, fitted backward in time.

A model is a frozen description; `fit(x, z)` gives a sampler from x [n, d] to z [n, k]. Fitted
likelihood estimation draws for every logged step the target z = r + gamma z', z' from the model of
the next step at an action of the target policy, once, and fits the next model to these.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.objectives.denoising import ancestral, noise_loss, variance_preserving
from surpass.objectives.views import TrajectoryQuery
from surpass.policies.denoisers import time_features

__all__ = [
    "CategoricalReturns", "DiffusionReturns", "FittedReturns", "MixtureReturns", "ReturnModel",
    "mixture_logp",
]  # fmt: skip

Sampler = Callable[[Tensor], Tensor]


def mixture_logp(z: Float[Tensor, "n k"], out: Float[Tensor, "n m c"]) -> Float[Tensor, "n"]:
    """log sum_j w_j N(z; mean_j, diag std_j^2) of a net's outputs [n, m, 2 k + 1]: means,
    log-stds, log-weights; by logsumexp."""
    k = z.shape[1]
    mean, log_std, weight = out[..., :k], out[..., k : 2 * k].clamp(-6, 3), out[..., -1]
    standard = (z[:, None] - mean) * (-log_std).exp()
    log_normal = (-0.5 * standard.square() - log_std - 0.9189385332046727).sum(-1)
    return torch.logsumexp(torch.log_softmax(weight, -1) + log_normal, -1)


@dataclass(frozen=True)
class ReturnModel:
    """The base: say what the net gives, its loss, and how it samples.

    Attributes:
        steps, lr, batch: of Adam, with a step size that falls to 0. hidden: of the net.
    """

    steps: int = 400
    lr: float = 3e-3
    batch: int = 500
    hidden: tuple[int, ...] = (64,)

    def fit(self, x: Float[Tensor, "n d"], z: Float[Tensor, "n k"]) -> Sampler:
        """Maximum likelihood (of its bound, for diffusion), on targets that are standardized."""
        # one row, as where the longest episode stands alone, has no spread
        center, scale = z.mean(0), z.std(0, correction=min(1, len(z) - 1)).clamp_min(1e-3)
        y, x = ((z - center) / scale).float(), x.float()
        with torch.enable_grad():
            net = self.net(x.shape[1], z.shape[1])
            solver = torch.optim.Adam(net.parameters(), lr=self.lr)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver, self.steps)
            for _ in range(self.steps):
                at = torch.randint(len(x), (min(self.batch, len(x)),))
                loss = self.loss(net, x[at], y[at]).mean()
                solver.zero_grad()
                loss.backward()
                solver.step()
                schedule.step()
        net.requires_grad_(False)
        return lambda at: center + scale * self.sample(net, at.float()).to(z.dtype)

    def _mlp(self, reads: int, gives: int) -> nn.Module:
        sizes = [reads, *self.hidden]
        pairs = pairwise(sizes)
        layers = [m for a, b in pairs for m in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], gives))

    @abstractmethod
    def net(self, d: int, k: int) -> nn.Module:
        """An untrained net."""

    @abstractmethod
    def loss(self, net: nn.Module, x: Tensor, y: Tensor) -> Float[Tensor, "n"]:
        """Of standardized targets."""

    @abstractmethod
    def sample(self, net: nn.Module, x: Tensor) -> Float[Tensor, "n k"]:
        """One draw for every row."""


@dataclass(frozen=True)
class MixtureReturns(ReturnModel):
    """A mixture of `components` Gaussians."""

    components: int = 10

    def net(self, d: int, k: int) -> nn.Module:
        return self._mlp(d, self.components * (2 * k + 1))

    def _outputs(self, net: nn.Module, x: Tensor) -> Float[Tensor, "n m c"]:
        return net(x).view(len(x), self.components, -1)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return -mixture_logp(y, self._outputs(net, x))

    def sample(self, net: nn.Module, x: Tensor) -> Tensor:
        out = self._outputs(net, x)
        k = (out.shape[-1] - 1) // 2
        which = torch.multinomial(torch.softmax(out[..., -1], -1), 1)[:, 0]
        own = out[torch.arange(len(x)), which]
        std = own[:, k : 2 * k].clamp(-6, 3).exp()
        return own[:, :k] + std * torch.randn_like(std)


class _TimedNet(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, y: Tensor, time: Tensor) -> Tensor:
        time = torch.as_tensor(time, dtype=y.dtype).expand(y.shape[:-1])
        return self.inner(torch.cat((x, y, time_features(time, 8)), -1))


@dataclass(frozen=True)
class DiffusionReturns(ReturnModel):
    """A diffusion model with `levels` noise levels."""

    hidden: tuple[int, ...] = (96, 96)
    steps: int = 1000
    levels: int = 30

    def net(self, d: int, k: int) -> nn.Module:
        return _TimedNet(self._mlp(d + k + 8, k))

    def loss(self, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return noise_loss(lambda z, t: net(x, z, t), y, variance_preserving(self.levels))

    def sample(self, net: nn.Module, x: Tensor) -> Tensor:
        last: nn.Module = net.inner[-1]  # type: ignore[index,union-attr]
        noise = torch.randn(len(x), last.out_features)  # type: ignore[arg-type]
        abar = variance_preserving(self.levels)
        return ancestral(lambda z, t: net(x, z, t), noise, abar)


@dataclass(frozen=True)
class CategoricalReturns(ReturnModel):
    """A probability for each of `atoms` values between `low` and `high` (in units of the return's
    spread), one return; targets go to their two nearest.

    A Distributional Perspective on Reinforcement Learning (2017).
    """

    atoms: int = 100
    low: float = -3.0
    high: float = 3.0

    def net(self, d: int, k: int) -> nn.Module:
        return self._mlp(d, self.atoms)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        place = (y[:, 0].clamp(self.low, self.high) - self.low) / (self.high - self.low)
        place = place * (self.atoms - 1)
        below = place.floor().clamp(max=self.atoms - 2).long()
        share = (place - below)[:, None]
        logp = torch.log_softmax(net(x), -1)
        near = logp.gather(1, torch.stack((below, below + 1), 1))
        return -(torch.cat((1 - share, share), 1) * near).sum(1)

    def sample(self, net: nn.Module, x: Tensor) -> Tensor:
        which = torch.multinomial(torch.softmax(net(x), -1), 1)
        return self.low + which * (self.high - self.low) / (self.atoms - 1)


@dataclass(frozen=True)
class FittedReturns:
    """The nuisance "returns" [N, m] (or [N, m, k]): m samples of each episode's return under the
    target policy, from its first observation.

    Attributes:
        model: of returns given observation and action.
        samples: m.
        iterations: None fits a model per step, from the last to the first; a number fits one model
            of all steps that often, for discounted problems without an end.
        rewards: a column of `extras` with vector rewards [N, T, k]; the query's rewards when empty.
        seed: of everything random.
    """

    model: ReturnModel = MixtureReturns()
    samples: int = 32
    iterations: int | None = None
    rewards: str = ""
    seed: int = 0
    per_target = True

    def learn(self, query: TrajectoryQuery) -> Callable[[TrajectoryQuery], Tensor]:
        """Fit to the episodes of a query."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            fit = self._by_step if self.iterations is None else self._stationary
            first = fit(query, self._paid(query))

        def draw(other: TrajectoryQuery) -> Tensor:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(self.seed + 1)
                n = len(other.action)
                rows = torch.arange(n).repeat_interleave(self.samples)
                x = _inputs(other.context[rows, 0], other.target[rows, 0])
                z = first(x).view(n, self.samples, -1)
            return z if self.rewards else z[..., 0]

        return draw

    def _paid(self, query: TrajectoryQuery) -> Float[Tensor, "N T k"]:
        return query.extras[self.rewards] if self.rewards else query.reward[..., None]

    def _by_step(self, query: TrajectoryQuery, paid: Tensor) -> Sampler:
        later: Sampler | None = None
        for t in reversed(range(query.action.shape[1])):
            later = self._step(query, paid, slice(t, t + 1), later)
        assert later is not None
        return later

    def _stationary(self, query: TrajectoryQuery, paid: Tensor) -> Sampler:
        later: Sampler | None = None
        for _ in range(self.iterations or 1):
            later = self._step(query, paid, slice(None), later)
        assert later is not None
        return later

    def _step(
        self, query: TrajectoryQuery, paid: Tensor, at: slice, later: Sampler | None
    ) -> Sampler:
        inside = query.mask[:, at] > 0
        x = _inputs(query.context[:, at][inside], None, query.action[:, at][inside], query)
        z = paid[:, at][inside].to(torch.float64)
        if later is not None:
            # the state after each step, where the episode went on or was only cut
            goes_on = query.later(query.mask, query.cut)
            after = query.later(query.context, query.beyond)
            pi = query.later(query.target, query.beyond_target)
            on = (goes_on[:, at] > 0)[inside]
            if bool(on.any()):
                with torch.no_grad():
                    drawn = later(_inputs(after[:, at][inside][on], pi[:, at][inside][on]))
                z[on] += query.gamma * drawn
        return self.model.fit(x, z)


def _inputs(
    obs: Tensor, pi: Tensor | None, action: Tensor | None = None,
    query: TrajectoryQuery | None = None,
) -> Float[Tensor, "n d"]:  # fmt: skip
    """Observation and one-hot action: the given one, or one drawn from pi."""
    if action is None:
        assert pi is not None
        action, actions = torch.multinomial(pi, 1)[:, 0], pi.shape[-1]
    else:
        assert query is not None
        actions = query.target.shape[-1]
    once = torch.nn.functional.one_hot(action, actions)
    return torch.cat((obs.flatten(1).float(), once.float()), 1)
