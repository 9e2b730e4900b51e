"""How one step of learning moves the log-probabilities of other answers.

A step of size lr on an example u changes those at an observed input o by

    d log pi(. | x_o) = -lr A(x_o) K(x_o, x_u) G(x_u, y_u) + O(lr^2)

with A = I - 1 pi^T, K = J_o J_u^T the empirical tangent kernel of the logits, and G the gradient of
the loss with respect to the logits at u. Where nets are large none of the three is formed: the
product is one gradient (vjp) and one derivative along it (jvp).

"Learning Dynamics of LLM Finetuning" (2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.parts import part

__all__ = [
    "Effects", "Learning", "imitation_residual", "sensitivity", "step_effects", "tangent_kernel",
    "unlearned",
]  # fmt: skip

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Learning:
    """A net that is about to take a step, and what is watched.

    Attributes:
        parameters: by name.
        loss: of the parameters, a scalar.
        watched: of the parameters, log-probabilities by name, of any shape.
    """

    parameters: Mapping[str, Tensor]
    loss: Callable[[Parameters], Tensor]
    watched: Callable[[Parameters], dict[str, Tensor]]


class Effects(NamedTuple):
    """What a step was predicted to change, and what it changed.

    Attributes:
        predicted, observed: changes of log-probabilities, by name.
        correlation: of both, over everything that is watched.
        error: the root mean square of their difference, over that of what was observed.
        shrinks: the former error over that of half the step: about 4 where the rest is of second
            order.
    """

    predicted: dict[str, Tensor]
    observed: dict[str, Tensor]
    correlation: float
    error: float
    shrinks: float


@part
def step_effects(learning: Learning, /, lr: float = 1e-4) -> Effects:
    """Predict the effect of one gradient step of size lr, take it, and compare."""
    if not lr > 0:
        raise InputError(f"lr={lr:g}: a step has a size above 0")
    start = {n: p.detach() for n, p in learning.parameters.items()}
    leaves = {n: p.clone().requires_grad_() for n, p in start.items()}
    found = torch.autograd.grad(learning.loss(leaves), tuple(leaves.values()),
                                materialize_grads=True)  # fmt: skip
    slope = dict(zip(leaves, found, strict=True))
    down = {n: -g for n, g in slope.items()}
    moved: tuple[Any, ...] = torch.func.jvp(learning.watched, (start,), (down,))
    before, along = moved

    def taken(size: float) -> dict[str, Tensor]:
        with torch.no_grad():
            after = learning.watched({n: p - size * slope[n] for n, p in start.items()})
        return {name: after[name] - before[name] for name in after}

    def off(size: float) -> tuple[Tensor, Tensor]:
        seen = _flat(taken(size))
        return seen, seen - size * _flat(along)

    (seen, rest), (_, half) = off(lr), off(lr / 2)
    both = torch.stack([lr * _flat(along), seen])
    return Effects(
        {name: lr * change for name, change in along.items()}, taken(lr),
        float(torch.corrcoef(both)[0, 1]), _rms(rest) / max(_rms(seen), 1e-300),
        _rms(rest) / max(_rms(half), 1e-300),
    )  # fmt: skip


def _flat(values: dict[str, Tensor]) -> Tensor:
    return torch.cat([v.detach().double().flatten() for v in values.values()])


def _rms(value: Tensor) -> float:
    return float(value.square().mean().sqrt())


# ------------------------------------------------------------------------------ the three factors


def sensitivity(logits: Float[Tensor, "V"]) -> Float[Tensor, "V V"]:
    """A = I - 1 pi^T, the derivative of log-probabilities with respect to logits."""
    p = logits.softmax(-1)
    return torch.eye(len(p), dtype=p.dtype, device=p.device) - p.expand(len(p), -1)


def tangent_kernel(
    first: Callable[[Parameters], Tensor], second: Callable[[Parameters], Tensor],
    parameters: Parameters,
) -> Float[Tensor, "V W"]:  # fmt: skip
    """K = J_1 J_2^T of the logits of two inputs, functions of the parameters; for small nets, whose
    Jacobians can be held."""
    ones, twos = (torch.func.jacrev(f)(parameters) for f in (first, second))
    pairs = ((ones[n].flatten(1), twos[n].flatten(1)) for n in parameters)
    return torch.stack([a @ b.T for a, b in pairs]).sum(0)


def imitation_residual(logits: Float[Tensor, "V"], label: int) -> Float[Tensor, "V"]:
    """G = pi - e_y, of supervised training on one label. DPO's is beta (1 - a) times it at the
    chosen answer and minus that at the rejected one, a = sigma(beta z)."""
    found = logits.softmax(-1)
    return found - torch.nn.functional.one_hot(torch.tensor(label), len(found)).to(found)


def unlearned(
    logits: Float[Tensor, "V"], label: int, lr: float = 0.5, steps: int = 300
) -> Float[Tensor, "K V"]:
    """The log-probabilities of a table, before and along `steps` steps that push one label down:
    z <- z - lr (e_y - pi).

    The squeezing effect: what the label loses goes to the likeliest one, and nearly all others fall
    with it, the more so the less likely the label was and the more peaked the table.
    """
    z, out = logits.detach().clone(), [logits.detach().log_softmax(-1)]
    for _ in range(steps):
        z = z + lr * imitation_residual(z, label)
        out.append(z.log_softmax(-1))
    return torch.stack(out)
