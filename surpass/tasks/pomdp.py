"""A small problem with a hidden state that the logging agent saw, solved exactly."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.critics.bridges import Observed
from surpass.tasks.tabular import draw

__all__ = ["ConfoundedPOMDP", "hidden_need"]


@dataclass(frozen=True)
class ConfoundedPOMDP:
    """Hidden states, observations of them, and logged actions that depended on the state itself.

    Attributes:
        start: of the hidden state when o_0 is seen, [S]. first: its move before decision 1, [S, S].
        emission: P(o | s), [S, X]. P: P(s' | s, a), [S, A, S]. r: expected reward, [S, A].
        behavior: P(a | s) of the log, [S, A]. horizon: decisions T. noise: spread of rewards.
    """

    start: Tensor
    first: Tensor
    emission: Tensor
    P: Tensor
    r: Tensor
    behavior: Tensor
    horizon: int = 3
    noise: float = 0.3

    @property
    def shape(self) -> tuple[int, int, int]:
        """[M, X, A] of a policy's table: what is remembered (nothing is the last), observation,
        action."""
        X, A = self.emission.shape[1], self.r.shape[1]
        return X + 1, X, A

    def value(self, pi: Float[Tensor, "M X A"]) -> Float[Tensor, ""]:
        """The exact value of a policy; differentiable."""
        M = pi.shape[0]
        ahead = torch.zeros(len(self.start), M, dtype=torch.float64)  # by state and memory
        for _ in range(self.horizon):
            then = torch.einsum("sat,to->sao", self.P, ahead[:, :-1])  # o becomes the memory
            earned = self.r[:, :, None] + then
            ahead = torch.einsum("so,moa,sao->sm", self.emission, pi, earned)
        return self.start @ self.first @ ahead[:, -1]

    def log(self, n: int, generator: torch.Generator) -> Observed:
        """n logged episodes."""
        s = draw(self.start.expand(n, -1), generator)
        obs = [draw(self.emission[s], generator)]
        s = draw(self.first[s], generator)
        actions, rewards = [], []
        for _ in range(self.horizon):
            obs.append(draw(self.emission[s], generator))
            a = draw(self.behavior[s], generator)
            noise = torch.randn(n, generator=generator, dtype=torch.float64)
            rewards.append(self.r[s, a] + self.noise * noise)
            actions.append(a)
            s = draw(self.P[s, a], generator)
        o, a, r = (torch.stack(c, 1) for c in (obs, actions, rewards))
        return Observed.of(o, a, r, self.shape[1], self.shape[2])

    def population(self) -> Observed:
        """Every episode that can be logged, with its probability and its expected rewards: the log
        of infinitely many episodes."""
        _, X, A = self.shape
        T, rows = self.horizon, []
        for o in itertools.product(range(X), repeat=T + 1):
            for a in itertools.product(range(A), repeat=T):
                # chance of the episode so far with the hidden state in each s, and with r_t added
                p = (self.start * self.emission[:, o[0]]) @ self.first
                paid = torch.zeros(T, len(p), dtype=torch.float64)
                for t in range(T):
                    step = self.emission[:, o[t + 1]] * self.behavior[:, a[t]]
                    p, paid = p * step, paid * step
                    paid[t] = p * self.r[:, a[t]]
                    p, paid = p @ self.P[:, a[t]], paid @ self.P[:, a[t]]
                rows.append((o, a, paid.sum(1) / p.sum(), p.sum()))
        obs, action, reward, weight = zip(*rows, strict=True)
        return Observed(
            torch.tensor(obs), torch.tensor(action), torch.stack(reward), torch.stack(weight),
            X, A, 10**9,
        )  # fmt: skip


def hidden_need(clarity: float = 0.7) -> ConfoundedPOMDP:
    """Three degrees of well-being, seen rightly with probability `clarity`. Those who are well are
    treated most often, and treatment helps only who is badly off.

    Treating is worth +1 in the worst state and -0.5 in the others, but a log shows it where rewards
    are high anyway. It also makes the state a little better or worse.
    """
    eye = torch.eye(3, dtype=torch.float64)
    emission = (clarity - (1 - clarity) / 2) * eye + (1 - clarity) / 2
    stay = 0.9 * eye + 0.1 / 3
    up = torch.tensor(
        [[0.7, 0.25, 0.05], [0.05, 0.7, 0.25], [0.05, 0.05, 0.9]], dtype=torch.float64
    )
    down = torch.tensor(
        [[0.9, 0.05, 0.05], [0.25, 0.7, 0.05], [0.05, 0.25, 0.7]], dtype=torch.float64
    )
    # treatment (action 1) lifts the worst state and wears the others out
    treated = torch.stack((up[0], down[1], down[2]))
    plain = torch.stack((down[0], up[1], up[2]))
    well = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    effect = torch.tensor([1.0, -0.5, -0.5], dtype=torch.float64)
    behavior = torch.tensor([[0.85, 0.15], [0.5, 0.5], [0.15, 0.85]], dtype=torch.float64)
    return ConfoundedPOMDP(
        torch.full((3,), 1 / 3, dtype=torch.float64), stay, emission,
        torch.stack((plain, treated), 1), torch.stack((well, well + effect), 1), behavior,
    )  # fmt: skip
