"""Preference problems where every expectation is exact: a bandit and a matrix game."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linprog
from torch import Tensor

from surpass.data.records import About, Pairs, Sequences
from surpass.errors import InputError
from surpass.tasks.tabular import draw

__all__ = ["PreferenceBandit", "PreferenceGame", "Worth", "preference_bandit", "preference_game"]


class Worth(NamedTuple):
    """The exact worth of a policy of a `PreferenceBandit`, averaged over contexts; differentiable.

    `reward` is E r*, `kl` is KL(policy || reference) in nats, `entropy` in nats, `win_rate` the
    probability that a Bradley-Terry judge prefers the policy's action to the reference's.
    """

    reward: Tensor
    kl: Tensor
    entropy: Tensor
    win_rate: Tensor


@dataclass(frozen=True, eq=False)
class PreferenceBandit:
    """`preference-bandit`: contexts with features, actions with a true reward, a reference policy.

    Attributes:
        features: of the contexts, [N, d].
        reward: the true reward r*, [N, A]; labels follow P(a beats b) = sigmoid(r*(a) - r*(b)).
        reference: log-probabilities of the reference policy, [N, A].
    """

    features: Tensor
    reward: Tensor
    reference: Tensor
    name: str = "preference-bandit"
    summary: str = "contexts, actions, Bradley-Terry labels; reward, KL and win rate are exact"

    @property
    def n_actions(self) -> int:
        """A."""
        return self.reward.shape[1]

    def truth(self, logits: Float[Tensor, "N A"]) -> Worth:
        """The exact worth of the policy with these logits."""
        logp = logits.double().log_softmax(-1)
        p = logp.exp()
        beats = (self.reward[:, :, None] - self.reward[:, None]).sigmoid()
        win = torch.einsum("na,nab,nb->n", p, beats, self.reference.exp())
        return Worth(
            (p * self.reward).sum(-1).mean(),
            (p * (logp - self.reference)).sum(-1).mean(),
            -(p * logp).sum(-1).mean(),
            win.mean(),
        )

    def optimal(self, beta: float) -> Float[Tensor, "N A"]:
        """The logits of argmax E r* - beta KL(policy || reference): log reference + r* / beta."""
        return (self.reference + self.reward / beta).log_softmax(-1)

    def pairs(
        self,
        n: int,
        generator: torch.Generator | None = None,
        *,
        behavior: Tensor | None = None,
        flip: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> Pairs:
        """n labeled pairs of different actions in random contexts, as sequences of length 1.

        `obs` holds the features, `group` the number of the context, `behavior_logp` the
        log-probability under the behavior policy of each action alone.

        Args:
            n: number of pairs.
            generator: source of randomness.
            behavior: log-probabilities [N, A] of the policy that proposes; the reference by
                default.
            flip: probability that a label is turned around.
            dtype: of features and log-probs.
        """
        logp = self.reference if behavior is None else behavior
        x = torch.randint(len(self.features), (n,), generator=generator)
        probs = logp[x].exp()
        a = draw(probs, generator)
        rest = probs.scatter(1, a[:, None], 0.0)
        b = draw(rest, generator)
        r = self.reward[x]
        gap = r.gather(1, a[:, None]) - r.gather(1, b[:, None])
        first = torch.rand(n, generator=generator, dtype=torch.float64) < gap[:, 0].sigmoid()
        first ^= torch.rand(n, generator=generator) < flip
        chosen, rejected = torch.where(first, a, b), torch.where(first, b, a)
        sides = [self._sequence(x, action, logp, dtype) for action in (chosen, rejected)]
        return Pairs(chosen=sides[0], rejected=sides[1], batch_size=[n])  # type: ignore[call-arg]

    def _sequence(
        self, x: Int[Tensor, "n"], a: Int[Tensor, "n"], logp: Tensor, dtype: torch.dtype
    ) -> Sequences:
        n = len(x)
        return Sequences(
            action=a[:, None],
            mask=torch.ones(n, 1, dtype=dtype),
            behavior_logp=logp[x, a][:, None].to(dtype),
            obs=self.features[x][:, None].to(dtype),
            group=x,
            batch_size=[n],  # type: ignore[call-arg]
        ).described(About(name=self.name, actions=tuple(str(i) for i in range(self.n_actions))))


def preference_bandit(
    contexts: int = 64,
    actions: int = 8,
    dim: int = 8,
    *,
    scale: float = 2.0,
    spread: float = 1.0,
    seed: int = 0,
) -> PreferenceBandit:
    """A random `PreferenceBandit`: rewards linear in the features, centered.

    Args:
        contexts: N.
        actions: A.
        dim: d.
        scale: standard deviation of the rewards.
        spread: standard deviation of the logits of the reference policy.
        seed: of everything.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    features = normal(contexts, dim)
    reward = features @ normal(dim, actions)
    reward = reward - reward.mean(-1, keepdim=True)
    reward = scale * reward / reward.std()
    return PreferenceBandit(features, reward, (spread * normal(contexts, actions)).log_softmax(-1))


@dataclass(frozen=True, eq=False)
class PreferenceGame:
    """`preference-game`: P[i, j] is how probably response i is preferred to response j.

    Attributes:
        P: [K, K] with P + P^T = 1.
    """

    P: Tensor
    name: str = "preference-game"
    summary: str = "a matrix of preferences, possibly cyclic; exploitability and equilibrium exact"

    def __post_init__(self) -> None:
        P = torch.as_tensor(self.P, dtype=torch.float64)
        if P.dim() != 2 or not torch.allclose(P + P.T, torch.ones_like(P), atol=1e-8):
            raise InputError("a preference game needs a square P with P + P^T = 1")
        object.__setattr__(self, "P", P)

    def beats(self, p: Float[Tensor, "K"], q: Float[Tensor, "K"]) -> Tensor:
        """The probability that a response of p is preferred to one of q."""
        return p.double() @ self.P @ q.double()

    def truth(self, p: Float[Tensor, "K"]) -> Tensor:
        """The exploitability of p: what the best response wins against it, above 1/2."""
        return (self.P @ p.double()).max() - 0.5

    def nash(self) -> Float[Tensor, "K"]:
        """A symmetric equilibrium (the von Neumann winner), by linear programming.

        Maximizes v subject to p P[:, j] >= v for every j; v is 1/2.
        """
        K = len(self.P)
        cost = np.zeros(K + 1)
        cost[-1] = -1.0
        worst = np.hstack([-self.P.T.numpy(), np.ones((K, 1))])
        sums = np.ones((1, K + 1))
        sums[0, -1] = 0.0
        bounds = [(0.0, 1.0)] * K + [(None, None)]
        found = linprog(cost, worst, np.zeros(K), sums, [1.0], bounds, method="highs")
        p = torch.from_numpy(found.x[:K]).clamp_min(0.0)
        return p / p.sum()

    def nash_to(
        self, reference: Float[Tensor, "K"], tau: float, steps: int = 100_000
    ) -> Float[Tensor, "K"]:
        """The equilibrium of the game with KL regularization: p ~ reference exp(P p / tau).

        Found by mirror descent on the regularized game (Munos et al., "Nash Learning from Human
        Feedback", 2024), to 1e-12 in the policy.

        Raises:
            InputError: when tau is not positive, or `steps` do not suffice.
        """
        if not tau > 0:
            raise InputError(f"tau must be positive, got {tau}; nash() is its limit")
        log_ref = reference.double().log()
        logp = log_ref
        rate = min(0.5, tau)
        for _ in range(steps):
            target = (log_ref + self.P @ logp.exp() / tau).log_softmax(-1)
            new = ((1 - rate) * logp + rate * target).log_softmax(-1)
            moved = (new.exp() - logp.exp()).abs().max()
            logp = new
            if moved < 1e-12 * rate:
                return logp.exp()
        raise InputError(f"the regularized equilibrium was not found in {steps} steps; raise tau")


def preference_game(
    k: int = 3, *, cyclic: float = 0.0, scale: float = 1.0, seed: int = 0
) -> PreferenceGame:
    """A random game: Bradley-Terry of random strengths, plus a cycle.

    log-odds(i, j) = (1 - cyclic) (s_i - s_j) + cyclic c_ij with s normal and c antisymmetric
    normal, both of standard deviation `scale`; `cyclic` = 0 is a Bradley-Terry model, 1 has no
    order at all.
    """
    generator = torch.Generator().manual_seed(seed)
    s = scale * torch.randn(k, generator=generator, dtype=torch.float64)
    c = scale * torch.randn(k, k, generator=generator, dtype=torch.float64)
    c = torch.triu(c, 1)
    odds = (1 - cyclic) * (s[:, None] - s[None]) + cyclic * (c - c.T)
    return PreferenceGame(odds.sigmoid())
