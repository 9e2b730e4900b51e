"""Nets from a context to a number per action: the inside of softmax and greedy policies.

Like policies, each is rebuilt from its class name, a `config` of plain JSON values and a state
dict, so that a file never holds code.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.policies.tilted import policy_class

__all__ = ["ActionValues", "LinearValues", "MLPValues"]


class ActionValues(nn.Module):
    """`forward(context [N, d]) -> [N, A]`: a predicted reward, or a preference, per action."""

    n_inputs: int
    n_actions: int
    config: dict[str, Any]

    @abstractmethod
    def forward(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N A"]: ...


@policy_class
class LinearValues(ActionValues):
    """`link(context @ weight + bias)`, weight [d, A].

    `link` is "identity", or "sigmoid" where the reward is an event: low + (high - low) sigmoid(.).
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, n_inputs: int, n_actions: int, link: str = "identity", low: float = 0.0,
        high: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if link not in ("identity", "sigmoid"):
            raise InputError(f"link is 'identity' or 'sigmoid', not {link!r}")
        self.n_inputs, self.n_actions, self.link = n_inputs, n_actions, link
        self.low, self.high = float(low), float(high)
        self.weight = nn.Parameter(torch.zeros(n_inputs, n_actions, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(n_actions, dtype=torch.float64))
        self.config = {
            "n_inputs": n_inputs, "n_actions": n_actions, "link": link, "low": self.low,
            "high": self.high,
        }  # fmt: skip

    @classmethod
    def of(
        cls, weight: Tensor, bias: Tensor, link: str = "identity", low: float = 0.0,
        high: float = 1.0,
    ) -> LinearValues:  # fmt: skip
        """From numbers: `weight` [d, A], `bias` [A]."""
        made = cls(weight.shape[0], weight.shape[1], link, low, high)
        with torch.no_grad():
            made.weight.copy_(weight)
            made.bias.copy_(bias)
        return made

    def forward(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N A"]:
        out = context.to(self.weight.dtype) @ self.weight + self.bias
        if self.link == "sigmoid":
            return self.low + (self.high - self.low) * torch.sigmoid(out)
        return out


@policy_class
class MLPValues(ActionValues):
    """A multilayer perceptron with SiLU units on standardized inputs, in single precision.

    Its last layer starts at zero, so that the first softmax policy is its base policy.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, n_inputs: int, n_actions: int, hidden: list[int] | tuple[int, ...] = (64,)
    ) -> None:
        super().__init__()
        self.n_inputs, self.n_actions = n_inputs, n_actions
        sizes = [n_inputs, *hidden]
        layers: list[nn.Module] = []
        for i in range(len(hidden)):
            layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.SiLU()]
        last = nn.Linear(sizes[-1], n_actions)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(*layers, last)
        self.register_buffer("mean", torch.zeros(n_inputs))
        self.register_buffer("scale", torch.ones(n_inputs))
        self.config = {"n_inputs": n_inputs, "n_actions": n_actions, "hidden": list(hidden)}

    @torch.no_grad()
    def standardize(self, context: Float[Tensor, "N d"]) -> MLPValues:
        """Take mean and 1/spread of the inputs from learning rows (constant columns: scale 1)."""
        self.mean.copy_(context.mean(0))
        spread = context.std(0, unbiased=False)
        self.scale.copy_(torch.where(spread > 1e-8, 1.0 / spread, torch.ones_like(spread)))
        return self

    def forward(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N A"]:
        return self.net((context.to(self.mean.dtype) - self.mean) * self.scale)
