"""Adam over explicit state: parameters, first and second moments in, the same out.

The scalars that depend on the step (learning rate over the first bias correction, and the inverse
of the second) are computed in double precision outside the update and handed in, so that an
element costs one square root and one division.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surpass.forms import Adam
from surpass.parts import Schedule

__all__ = ["Moments", "adam_numbers", "adam_update", "clip_global_norm"]

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Moments:
    """The running means of the gradient and of its square, by parameter name."""

    first: Tensors
    second: Tensors


def adam_numbers(adam: Adam, step: int, count: int) -> tuple[float, float, float]:
    """`(learning rate, learning rate / (1 - beta1^count), 1 / (1 - beta2^count))`.

    Args:
        step: the training step, which schedules of the learning rate are evaluated at.
        count: how many updates this optimizer has made, with this one.
    """
    rate = adam.lr.at(step) if isinstance(adam.lr, Schedule) else float(adam.lr)
    beta1, beta2 = adam.betas
    return rate, rate / (1.0 - beta1**count), 1.0 / (1.0 - beta2**count)


def clip_global_norm(gradients: Tensors, max_norm: float) -> Tensors:
    """The gradients, scaled so that their joint norm is at most `max_norm`."""
    norm = torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt()
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    return {name: g * scale for name, g in gradients.items()}


def adam_update(
    adam: Adam,
    parameters: Tensors,
    gradients: Tensors,
    moments: Moments,
    numbers: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensors, Moments]:
    """One step of Adam: p - lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps).

    Weight decay is decoupled: p shrinks by lr * weight_decay first. `numbers` are those of
    `adam_numbers`, as 0-d tensors.

    Adam: A Method for Stochastic Optimization (2014); Decoupled Weight Decay Regularization (2017).
    """
    if adam.max_norm is not None:
        gradients = clip_global_norm(gradients, adam.max_norm)
    beta1, beta2 = adam.betas
    rate, step_size, correction = numbers
    new, first, second = {}, {}, {}
    for name, p in parameters.items():
        g = gradients[name]
        m = beta1 * moments.first[name] + (1.0 - beta1) * g
        v = beta2 * moments.second[name] + (1.0 - beta2) * g * g
        if adam.weight_decay:
            p = p - rate * adam.weight_decay * p
        new[name] = p - step_size * (m / ((v * correction).sqrt() + adam.eps))
        first[name], second[name] = m, v
    return new, Moments(first, second)
