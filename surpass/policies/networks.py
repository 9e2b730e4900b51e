"""Multilayer perceptrons, one or an ensemble of them, as stacked parameters.

All members of an ensemble are computed by one batched product, which is what makes a critic of two
(or of ten) as fast per member as the hardware allows. A bias is added after the product, so that a
compiler fuses it with the activation instead of copying it into the product's output first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["StackedMLP", "remembered", "remembering"]

_MEMO: list[dict[Any, Any]] = []


@contextmanager
def remembering() -> Iterator[None]:
    """Within it, a net that is given the same tensors again gives the same tensor again.

    So that the parts of a sum, each written for itself, share one pass forward and one back.
    Parameters must not change meanwhile.
    """
    _MEMO.append({})
    try:
        yield
    finally:
        _MEMO.pop()


def remembered(module: nn.Module, given: tuple[Any, ...], compute: Callable[[], Tensor]) -> Tensor:
    """`compute()`, or what it gave for the same module and the same tensors within
    `remembering`."""
    if not _MEMO:
        return compute()
    key = (id(module), *(id(g) if isinstance(g, Tensor) else g for g in given))
    if key not in _MEMO[-1]:
        _MEMO[-1][key] = (compute(), given)  # holds what was given, so that no id is used twice
    return _MEMO[-1][key][0]


class StackedMLP(nn.Module):
    """`n` perceptrons of the same shape, with ReLU between layers.

    Args:
        n: members.
        sizes: input, hidden..., output.
        norm: LayerNorm before each activation.
        last: the bound of the last layer's uniform initial weights; None takes 1 / sqrt(fan in),
            as all other layers do.
        dropout: the share of hidden units that is dropped at random where gradients are on, which
            is within a loss; a policy that acts drops none.
    """

    def __init__(
        self, n: int, sizes: Sequence[int], norm: bool = False, last: float | None = None,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.n, self.sizes, self.norm, self.dropout = n, tuple(sizes), norm, dropout
        self.depth = len(sizes) - 1
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            bound = 1.0 / math.sqrt(fan_in)
            if last is not None and i == self.depth - 1:
                bound = last
            weight = torch.empty(n, fan_in, fan_out).uniform_(-bound, bound)
            self.register_parameter(f"weight{i}", nn.Parameter(weight))
            bias = torch.empty(n, 1, fan_out).uniform_(-bound, bound)
            self.register_parameter(f"bias{i}", nn.Parameter(bias))
            if norm and i < self.depth - 1:
                self.register_parameter(f"gain{i}", nn.Parameter(torch.ones(n, 1, fan_out)))
                self.register_parameter(f"shift{i}", nn.Parameter(torch.zeros(n, 1, fan_out)))

    def forward(
        self, x: Float[Tensor, "... i"], first: int | None = None
    ) -> Float[Tensor, "n B o"]:
        """From [B, i] (the same for all members) or [n, B, i] to [n, B, o]; `first` takes only so
        many members."""
        return remembered(self, (x, first), lambda: self.after(self._product(x, 0, first), first))

    def mixed(
        self, x: Float[Tensor, "B i"], more: Float[Tensor, "m B j"], first: int | None = None
    ) -> Float[Tensor, "n m B o"]:
        """The outputs for the inputs (x_b, more_{k,b}): the part of the first layer that reads `x`
        is computed once for all m."""
        m, batch, j = more.shape
        n = self.n if first is None else first
        weight = self._weight(0, first)
        base = torch.matmul(x, weight[:, : x.shape[-1]])  # [n, B, h]
        turn = torch.matmul(more.reshape(m * batch, j), weight[:, x.shape[-1] :])
        hidden = base[:, None] + turn.reshape(n, m, batch, -1)
        out = self.after(hidden.reshape(n, m * batch, -1), first)
        return out.reshape(n, m, batch, -1)

    def _weight(self, i: int, first: int | None) -> Tensor:
        weight = getattr(self, f"weight{i}")
        return weight if first is None else weight[:first]

    def _entry(self, name: str, i: int, first: int | None) -> Tensor:
        value = getattr(self, f"{name}{i}")
        return value if first is None else value[:first]

    def _product(self, x: Tensor, i: int, first: int | None) -> Tensor:
        weight = self._weight(i, first)
        if x.dim() == 2:
            x = x.expand(weight.shape[0], *x.shape)
        return torch.bmm(x, weight)

    def after(self, product: Float[Tensor, "n B h"], first: int | None = None) -> Tensor:
        """What follows the first layer's product: its bias, and all further layers."""
        for i in range(self.depth):
            if i:
                product = self._product(product, i, first)
            product = product + self._entry("bias", i, first)
            if i == self.depth - 1:
                break
            if self.norm:
                product = nn.functional.layer_norm(product, product.shape[-1:])
                product = product * self._entry("gain", i, first) + self._entry("shift", i, first)
            product = product.relu()
            if self.dropout and torch.is_grad_enabled():
                kept = torch.rand_like(product) >= self.dropout
                product = product * kept / (1.0 - self.dropout)
        return product
