"""Policy gradients through concrete scores s(x)_y = pi(y) / pi(x) of a sequence's neighbors.

Since pi(x) = 1 / sum_y s(x)_y over all y,

    grad log pi(x) = - sum_y pi(y) grad log s(x)_y

so that raising E[A] is to MINIMIZE E[A sum_y w_y log s(x)_y] with w_y = pi(y) held fixed. A model
of discrete diffusion gives log s for the L x V neighbors that differ from x in at most one place; w
is estimated. A decision is a place of the finished sequence, `Steps` are [B, L], the table
[B, L, V].

"Fine-Tuning Discrete Diffusion Models with Policy Gradient Methods" (2025), SEPO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.views import Steps
from surpass.parts import Part, part

__all__ = [
    "Scored", "by_neighbors", "by_probability", "by_resampling", "conditional_kl", "log_scores",
    "neighbors", "probabilities", "resampled_weights", "score_entropy",
]  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """Finished sequences and the log-scores of their neighbors.

    Attributes:
        tokens: [N, L]. table: log s(x)_y of x with place i set to v, [N, L, V]; 0 at y = x.
        again: the table of further sequences [M, L]. logp: log pi(x) of sequences [M, L], up to a
            constant or not, for models that know it.
    """

    tokens: Int[Tensor, "N L"]
    table: Float[Tensor, "N L V"]
    again: Callable[[Tensor], Tensor]
    logp: Any = None


def log_scores(r: Scored) -> Tensor:
    """log s(x)_y, [N, L, V]."""
    return r.table


def neighbors(tokens: Int[Tensor, "N L"], size: int) -> Int[Tensor, "N L V L"]:
    """x with place i set to v."""
    length = tokens.shape[1]
    place = torch.eye(length, dtype=torch.bool, device=tokens.device)[:, None]
    value = torch.arange(size, device=tokens.device)[:, None]
    return torch.where(place, value, tokens[:, None, None])


def probabilities(r: Scored) -> Tensor:
    """pi(y) of every neighbor, [N, L, V], of models that know log pi.

    Raises:
        AttributeError: where the model does not; what scores says so in one line.
    """
    if r.logp is None:
        raise AttributeError("probabilities")
    near = neighbors(r.tokens, r.table.shape[-1])
    return r.logp(near.flatten(0, -2)).exp().reshape(r.table.shape).detach()


DRAWS = 4


def resampled_weights(r: Scored) -> Tensor:
    """pi(y) relative to its own neighborhood by self-normalized importance sampling, [N, L, V]:
    sum_m K(y|z_m) u_m / sum_m u_m, u_m = pi(z_m) / K(z_m|y), over `DRAWS` draws z_m ~ K(.|y).

    K redraws one place, chosen evenly, from its conditional; pi is not known but for what
    1 / sum_y' s(z)_y' says of it, here relative to x. DRAWS L V scorings a sequence.
    """
    with torch.no_grad():
        n, length, size = r.table.shape
        y = neighbors(r.tokens, size).reshape(-1, length)
        conditional = r.again(y).softmax(-1)
        top, bottom = [], []
        for _ in range(DRAWS):
            place = torch.randint(length, (len(y),), device=y.device)
            rows = torch.nn.functional.one_hot(place, length).bool()
            chances = (conditional * rows[..., None]).sum(1)
            noise = -torch.log(-torch.log(torch.rand_like(chances).clamp(1e-12, 1 - 1e-7)))
            value = (chances.clamp_min(1e-30).log() + noise).argmax(-1)
            z = torch.where(rows, value[:, None], y)
            forth = chances.gather(-1, value[:, None])[:, 0]
            after = r.again(z)
            back = ((after.softmax(-1) * rows[..., None]).sum(1)
                    .gather(-1, y.gather(-1, place[:, None]))[:, 0])  # fmt: skip
            weight = (-log_mass(after)).exp() / forth.clamp_min(1e-12)
            top.append(back * weight)
            bottom.append(weight)
        share = torch.stack(top).sum(0) / torch.stack(bottom).sum(0).clamp_min(1e-30)
        return share.reshape(n, length, size)


def log_mass(
    table: Float[Tensor, "... L V"], mask: Float[Tensor, "... L"] | None = None
) -> Float[Tensor, "..."]:
    """log of the sum of s(x)_y over x itself, counted once, and its neighbors: minus the log of the
    share of x in them."""
    own = torch.ones_like(table[..., 0]) if mask is None else (mask > 0).to(table.dtype)
    inside = torch.where(own[..., None] > 0, table, torch.full_like(table, -torch.inf))
    whole = inside.flatten(-2).logsumexp(-1)  # x stands in it once for every place
    return whole + torch.log1p(-(own.sum(-1) - 1.0) * (-whole).exp())


# ------------------------------------------------------------------------------------- weights


@part(needs=(log_scores, "anchor_log_scores"))
def by_neighbors(s: Steps, /) -> dict[str, Tensor]:
    """s(x)_y over the sum of x and its neighbors: grad of log pi(x) relative to its neighborhood, a
    pseudo-likelihood. No further scoring, and no bias where the neighborhood holds all mass."""
    now, old = s.extras["log_scores"].detach(), s.extras["anchor_log_scores"]
    return {
        "now": (now - log_mass(now, s.mask)[..., None, None]).exp(),
        "anchor": (old - log_mass(old, s.mask)[..., None, None]).exp(),
    }


@part(needs=(probabilities, "anchor_probabilities"))
def by_probability(s: Steps, /) -> dict[str, Tensor]:
    """pi(y) itself, of models that know it."""
    return {"now": s.extras["probabilities"], "anchor": s.extras["anchor_probabilities"]}


@part(needs=(resampled_weights, "anchor_resampled_weights"))
def by_resampling(s: Steps, /) -> dict[str, Tensor]:
    """Self-normalized importance sampling."""
    return {"now": s.extras["resampled_weights"], "anchor": s.extras["anchor_resampled_weights"]}


# --------------------------------------------------------------------------------- the surrogate


@part(needs=(log_scores, "anchor_log_scores"))
def score_entropy(
    s: Steps, /, eps: float = 0.2, weights: Part[[Steps], dict[str, Tensor]] = by_neighbors()
) -> Float[Tensor, "B L"]:
    """sum_v min(q A, clip(q, 1 - eps, 1 + eps) A) w_y log s(x)_y at each place, q and w held fixed.

    q = w_y / w_y^anchor x s^anchor(x)_y / s(x)_y estimates pi(x) / pi_anchor(x). The minimum is
    PPO's: the objective is -A q w log s, whose factor A q is taken pessimistically whatever the
    sign of log s. The sum over places is the loss of a sequence, so reduce by `sum_over(1)`.
    """
    table, old = s.extras["log_scores"], s.extras["anchor_log_scores"]
    found = weights(s)
    now = found["now"].detach()
    gained = now.clamp_min(1e-30).log() - found["anchor"].detach().clamp_min(1e-30).log()
    q = (gained + old - table.detach()).clamp(-20.0, 20.0).exp()
    a = s.advantage[..., None]
    held = torch.minimum(q * a, q.clamp(1.0 - eps, 1.0 + eps) * a)
    return torch.where(s.mask > 0, (held * now * table).sum(-1), torch.zeros_like(s.mask))


@part(needs=(log_scores, "ref_log_scores"))
def conditional_kl(s: Steps, /) -> Float[Tensor, "B L"]:
    """KL(p(.|x) || p_ref(.|x)) of each place given the others, at finished sequences."""
    now = s.extras["log_scores"].log_softmax(-1)
    ref = s.extras["ref_log_scores"].log_softmax(-1)
    apart = (now.exp() * (now - ref)).sum(-1)
    return torch.where(s.mask > 0, apart, torch.zeros_like(apart))


def checked(found: Any, need: Any, who: Any) -> Any:
    """What a statistic gave.

    Raises:
        InputError: when the model does not know what it asks for.
    """
    try:
        return found(need)
    except AttributeError:
        raise InputError(
            f"{type(who).__name__} has no {need.__name__}; a part of this recipe needs it"
        ) from None
