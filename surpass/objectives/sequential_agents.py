"""Several agents that decide one after the other: agent m sees what the agents before it chose.

A joint policy is a list of conditionals, pi_m [S, A_1, ..., A_m], each summing to one over its last
axis; values of joint actions are [S, A_1, ..., A_N].
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

__all__ = [
    "independent_step", "joint_policy", "localized_values", "marginal_values", "product_policy",
    "sequential_step",
]  # fmt: skip


def joint_policy(pis: Sequence[Tensor]) -> Float[Tensor, "S ..."]:
    """prod_m pi_m(a_m | s, a_1 .. a_{m-1}), [S, A_1, ..., A_N]."""
    out = pis[0]
    for pi in pis[1:]:
        out = out[..., None] * pi
    return out


def localized_values(q: Float[Tensor, "S ..."], pis: Sequence[Tensor]) -> list[Tensor]:
    """Q^{1:m}(s, a_1 .. a_m) of each agent, [S, A_1, ..., A_m]: what is expected once the agents up
    to m have chosen, E over those behind them."""
    found = [q]
    for pi in reversed(pis[1:]):
        found.append((pi * found[-1]).sum(-1))
    return found[::-1]


def sequential_step(pis: Sequence[Tensor], q: Float[Tensor, "S ..."], beta: float) -> list[Tensor]:
    """Every agent's KL-proximal improvement along its own localized value:

    pi_m'(. | s, a_1 .. a_{m-1}) ~ pi_m exp(Q^{1:m} / beta)
    """
    local = localized_values(q, pis)
    steps = zip(pis, local, strict=True)
    return [_proximal(pi, value, beta) for pi, value in steps]


def product_policy(pis: Sequence[Float[Tensor, "S A"]]) -> Float[Tensor, "S ..."]:
    """prod_m pi_m(a_m | s), agents that do not see each other."""
    out = pis[0]
    for pi in pis[1:]:
        out = out[..., None] * pi.reshape(len(pi), *[1] * (out.dim() - 1), -1)
    return out


def marginal_values(
    q: Float[Tensor, "S ..."], pis: Sequence[Float[Tensor, "S A"]]
) -> list[Float[Tensor, "S A"]]:
    """Q_m(s, a_m) of each agent, the others drawn from their policies."""
    joint, out = product_policy(pis), []
    for m, pi in enumerate(pis):
        others = tuple(i + 1 for i in range(len(pis)) if i != m)
        both = joint * q
        out.append((both.sum(others) if others else both) / pi)
    return out


def independent_step(
    pis: Sequence[Float[Tensor, "S A"]], q: Float[Tensor, "S ..."], beta: float
) -> list[Tensor]:
    """The same improvement of agents that do not see each other, along their marginal values."""
    steps = zip(pis, marginal_values(q, pis), strict=True)
    return [_proximal(pi, value, beta) for pi, value in steps]


def _proximal(pi: Tensor, value: Tensor, beta: float) -> Tensor:
    # probabilities stay above the smallest number, so that ratios of them are numbers
    return (pi.log() + value / beta).softmax(-1).clamp_min(1e-300)
