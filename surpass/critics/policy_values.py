"""Nets that say what one fixed policy is worth: action values that follow it, or a model of the
world that it is played in. They are trained on the compiled engine, several members at once, every
member on its own random weights of the episodes, so that their spread is that of repeated logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.critics.ensembles import critic
from surpass.forms import Learner, adam, ema, log, train
from surpass.objectives.policy_values import policy_td
from surpass.parts import Nets, linear, part

__all__ = ["Asked", "ValueNets", "by_values"]


@dataclass(frozen=True)
class Asked:
    """What nets are asked about: a policy, in the log's own units, and for how long it acts.

    Attributes:
        choose: observations [M, d] to probabilities [M, A], or to continuous actions [M, k] in
            [-1, 1].
        gamma, horizon: discount, and steps after which nothing counts. scale: of values.
        mean, std: of observations, as the nets were trained. low, high: the log's box, with room.
        outcome_mean, outcome_std: of change and reward, [d + 1]. rewards: lowest and highest.
        actions: how many discrete ones, or 0.
    """

    choose: Callable[[Tensor], Tensor]
    gamma: float
    horizon: int
    scale: float
    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    outcome_mean: Tensor
    outcome_std: Tensor
    rewards: tuple[float, float]
    actions: int

    def standard(self, obs: Tensor) -> Tensor:
        """Observations in the units of the nets."""
        return (obs - self.mean) / self.std

    def acted(self, obs: Float[Tensor, "M d"]) -> Tensor:
        """Actions drawn from the policy."""
        chosen = self.choose(obs)
        if self.actions:
            return torch.multinomial(chosen.clamp_min(0.0), 1)
        return chosen.float()


class _Valued:
    """What starts are worth by action values."""

    def __init__(self, q: Any) -> None:
        self.q = q

    @torch.no_grad()
    def values(self, starts: Float[Tensor, "S d"], asked: Asked) -> Float[Tensor, "n S"]:
        """E_pi Q_k(s_0, a); of a stochastic continuous policy the mean over eight actions."""
        x = asked.standard(starts)
        if asked.actions:
            return (self.q.all(x) * asked.choose(starts).float()).sum(-1) * asked.scale
        drawn = [self.q(x, asked.choose(starts).float()) for _ in range(8)]
        return torch.stack(drawn).mean(0) * asked.scale


@part
def by_values(nets: Nets, roles: object, /, q: str = "q") -> _Valued:
    """Evaluates starts by action values."""
    return _Valued(nets[q])


@dataclass(frozen=True)
class ValueNets:
    """Fitted Q evaluation with an ensemble of nets, the nuisance "start" of episodes.

    Attributes:
        members: of the ensemble. hidden: layers. updates: of batch `batch`.
        tau: how fast the copy follows, from first to last update.
    """

    members: int = 4
    hidden: tuple[int, ...] = (256, 256)
    updates: int = 6_000
    batch: int = 256
    lr: float = 1e-3
    tau: tuple[float, float] = (0.2, 0.01)
    norm: bool = True

    def learner(self, gamma: float, scale: float, limits: tuple[float, float]) -> Learner:
        """The form: values in units of `scale`, kept within `limits`."""
        clamp = (limits[0] / scale, limits[1] / scale)
        start, end = self.tau
        return Learner(
            nets={
                "q": critic(self.members, self.hidden, norm=self.norm),
                "q_target": ema("q", linear(start, end, steps=self.updates)),
            },
            update=(
                train("q", policy_td(gamma, clamp=clamp),
                      adam(linear(self.lr, 0.1 * self.lr, steps=self.updates))),
            ),
            act=by_values(),
            source=log(self.batch, normalize=True, reward_scale=1.0 / scale),
        )  # fmt: skip
