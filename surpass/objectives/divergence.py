"""How far two policies are apart, and statistics of one: computed in the one log-prob pass.

A `Readout` has sums over the actions (the vocabulary) at each decision; a statistic is a pure
function of it, so that logits need never be held whole. Penalties see `Steps` and are added to a
trust rule: `clip() + 0.04 * k3()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.ratio import kept
from surpass.objectives.views import Steps
from surpass.parts import part

__all__ = [
    "MOMENTS", "Draws", "Readout", "anchor_kl", "collision", "collision_of", "draws_of", "entropy",
    "entropy_bonus", "entropy_of", "k1", "k2", "k3", "k3_to", "law", "log_partition", "mean_logp",
    "moments_of", "read_out",
]  # fmt: skip


@dataclass(frozen=True)
class Readout:
    """Sums over actions v of logits z_v, at each decision.

    Attributes:
        chosen: z of the action that was taken.
        lse: log sum_v exp z_v.
        mean: sum_v p_v z_v, with p = softmax(z).
        lse2: log sum_v exp 2 z_v.
        total: sum_v z_v.
        size: how many actions there are.
        hits, drawn: of actions drawn by `Draws`, the share that are the one taken, and the mean z.
        logits: z itself, [..., A], where logits are held whole and a statistic asks for them.
    """

    chosen: Tensor
    lse: Tensor
    size: int
    mean: Any = None
    lse2: Any = None
    total: Any = None
    hits: Any = None
    drawn: Any = None
    logits: Any = None

    @property
    def logp(self) -> Tensor:
        """log p of the action that was taken."""
        return self.chosen - self.lse


MOMENTS, WHOLE = ("mean", "lse2", "total"), "logits"


@dataclass(frozen=True)
class Draws:
    """Actions drawn at each decision, beside the one taken, from softmax(z / temperature).

    Attributes:
        count: how many, with replacement; 0 stands for the expectation over them.
    """

    count: int
    temperature: float = 1.0

    def shares(self, logits: Float[Tensor, "n A"]) -> Float[Tensor, "n A"]:
        """The share of the draws that falls on each action, without gradient."""
        p = (logits.detach().float() / self.temperature).softmax(-1)
        if not self.count:
            return p
        drawn = torch.multinomial(p, self.count, replacement=True)
        return torch.zeros_like(p).scatter_add(-1, drawn, torch.ones_like(p[..., :1]).expand(
            drawn.shape)) / self.count  # fmt: skip

    def read(self, logits: Float[Tensor, "n A"], action: Tensor) -> tuple[Tensor, Tensor]:
        """`hits` and `drawn` of a `Readout`, [n]; the gradient of the second reaches the logits."""
        share = self.shares(logits)
        seen = torch.where(share > 0, logits, torch.zeros_like(logits))
        return share.gather(-1, action[..., None])[..., 0], (share * seen).sum(-1)


def read_out(
    logits: Float[Tensor, "*n A"], action: Tensor, moments: tuple[str, ...] = MOMENTS,
    draws: Draws | None = None,
) -> Readout:  # fmt: skip
    """The readout of logits that are held whole, as those of small nets are."""
    lse = logits.logsumexp(-1)
    p = (logits - lse[..., None]).exp()
    finite = torch.where(p > 0, logits, torch.zeros_like(logits))
    return Readout(
        chosen=logits.gather(-1, action[..., None])[..., 0],
        lse=lse,
        size=logits.shape[-1],
        mean=(p * finite).sum(-1) if "mean" in moments else None,
        lse2=(2 * logits).logsumexp(-1) if "lse2" in moments else None,
        total=logits.sum(-1) if "total" in moments else None,
        logits=logits if WHOLE in moments else None,
        **({} if draws is None else dict(zip(("hits", "drawn"), draws.read(logits, action),
                                             strict=True))),
    )  # fmt: skip


def entropy(r: Readout) -> Tensor:
    """H = -sum_v p_v log p_v = lse - sum_v p_v z_v, in nats."""
    return r.lse - r.mean


def collision(r: Readout) -> Tensor:
    """log sum_v p_v^2, the log-probability that two draws agree."""
    return r.lse2 - 2 * r.lse


def mean_logp(r: Readout) -> Tensor:
    """The mean over the vocabulary of log p_v."""
    return r.total / r.size - r.lse


def log_partition(r: Readout) -> Tensor:
    """log sum_v exp z_v: the soft value V of a state whose soft action values are the logits."""
    return r.lse


def law(seen: Any) -> Tensor:
    """All of a decision's distribution: the log-probabilities of a softmax, [..., A], or the means
    and log-deviations of a Gaussian (`gaussian_decisions.Drawn`), [..., k, 2].

    Raises:
        InputError: where logits are never held whole, as over a vocabulary.
    """
    if hasattr(seen, "middle"):
        return torch.stack([seen.middle, seen.deviation.expand_as(seen.middle).log()], -1)
    if seen.logits is None:
        raise InputError(
            "an exact divergence needs all probabilities of a decision, and those of a vocabulary "
            "are never held whole: take k2 or k3, which see the action taken"
        )
    return seen.logits - seen.lse[..., None]


_WANTS: dict[Any, str] = {
    entropy: "mean", collision: "lse2", mean_logp: "total", log_partition: "", law: WHOLE,
}  # fmt: skip


def moments_of(needs: tuple[Any, ...]) -> tuple[str, ...]:
    """Which sums the statistics among `needs` read; all of them for a statistic unknown here that
    has no `moments`."""
    wanted: set[str] = set()
    for need in needs:
        if hasattr(need, "moments"):
            wanted |= set(need.moments)
        elif callable(need):
            known = _WANTS.get(need)
            wanted |= {known} if known is not None else set(MOMENTS)
    return tuple(m for m in (*MOMENTS, WHOLE) if m in wanted)


def draws_of(needs: tuple[Any, ...]) -> Draws | None:
    """The draws that a statistic among `needs` reads."""
    return next((need.draws for need in needs if hasattr(need, "draws")), None)


@part
def k1(s: Steps, /) -> Float[Tensor, "B T"]:
    """log pi - log pi_ref on sampled actions: unbiased for KL(pi || pi_ref) as a value.

    Its gradient is that of the log-likelihood, zero on average: to restrain a policy take it in the
    reward, or take `k2` or `k3`. John Schulman, "Approximating KL Divergence" (2020).
    """
    return s.logp - _ref(s)


@part
def k2(s: Steps, /) -> Float[Tensor, "B T"]:
    """(log pi - log pi_ref)^2 / 2: its gradient on sampled actions is that of KL(pi || pi_ref)."""
    return 0.5 * (s.logp - _ref(s)).square()


@part
def k3(s: Steps, /) -> Float[Tensor, "B T"]:
    """exp(d) - 1 - d with d = log pi_ref - log pi: unbiased, never negative; GRPO's penalty."""
    d = torch.where(s.mask > 0, _ref(s) - s.logp, torch.zeros_like(s.logp))
    return d.exp() - 1 - d


@part(needs=(law, "anchor_law"))
def anchor_kl(s: Steps, /, step: float = 1.0) -> Float[Tensor, "B T"]:
    """KL(pi || pi_anchor) / step, exact, of the whole distribution of every decision: the proximity
    term of mirror descent with that step size.

    "Mirror Descent Policy Optimization" (2020). TRPO and PPO measure KL(pi_anchor || pi).
    """
    new, old = s.extras["law"], s.extras["anchor_law"]
    return kept(_divergence(new, old), s.mask) / step


def _divergence(new: Tensor, old: Tensor) -> Tensor:
    """KL of two laws, [B, T], of either kind."""
    if new.dim() == 3:
        return (new.exp() * (new - old)).sum(-1)
    (mean, log_std), (center, log_spread) = new.unbind(-1), old.unbind(-1)
    scaled = ((2 * log_std).exp() + (mean - center).square()) * (-2 * log_spread).exp()
    return (log_spread - log_std + 0.5 * scaled - 0.5).sum(-1)


@part
def k3_to(s: Steps, /, net: str = "previous") -> Float[Tensor, "B T"]:
    """`k3` to another net, whose log-probs are the column NET_logp (`games.log_probs_of`)."""
    d = torch.where(s.mask > 0, s.extras[f"{net}_logp"] - s.logp, torch.zeros_like(s.logp))
    return d.exp() - 1 - d


def _ref(s: Steps) -> Tensor:
    assert s.ref_logp is not None, (
        "name a reference in the form: nets={'reference': copy('policy')}"
    )
    return s.ref_logp


@part(needs=(entropy,))
def entropy_bonus(s: Steps, /) -> Float[Tensor, "B T"]:
    """-H(pi(. | s_t)), so that a positive coefficient rewards entropy."""
    return -s.entropy


@part(needs=(entropy,))
def entropy_of(s: Steps, /) -> Float[Tensor, "B T"]:
    """H(pi(. | s_t)), a factor or a weight."""
    return s.entropy


@part(needs=(collision,))
def collision_of(s: Steps, /) -> Float[Tensor, "B T"]:
    """log sum_v pi(v | s_t)^2, a factor or a weight."""
    return s.extras["collision"]
