"""The best of exponentially many actions under a trained net: a ReLU net inside a mixed-integer
linear program, solved by HiGHS through scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from surpass.errors import InputError

__all__ = ["Maximizer", "best_action", "reach"]


def _layers(net: nn.Sequential) -> list[tuple[np.ndarray, np.ndarray]]:
    kinds = [type(m) for m in net]
    if kinds[::2] != [nn.Linear] * len(kinds[::2]) or kinds[1::2] != [nn.ReLU] * len(kinds[1::2]):
        raise InputError("a net inside a program is made of linear layers with ReLU between")
    linear = [m for m in net if isinstance(m, nn.Linear)]
    return [
        (m.weight.detach().double().numpy(), m.bias.detach().double().numpy()) for m in linear
    ]  # fmt: skip


def reach(
    layers: Sequence[tuple[np.ndarray, np.ndarray]], low: Float[np.ndarray, "n"],
    high: Float[np.ndarray, "n"],
) -> list[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """The interval that each hidden unit's input can reach, layer by layer: tight constants for the
    program, where a large one would let a binary cheat within the solver's tolerance."""
    out = []
    for W, b in layers[:-1]:
        plus, minus = np.maximum(W, 0), np.minimum(W, 0)
        down, up = plus @ low + minus @ high + b, plus @ high + minus @ low + b
        out.append((down, up))
        low, high = np.maximum(down, 0), np.maximum(up, 0)
    return out


def best_action(
    net: nn.Sequential, state: Float[np.ndarray, "s"], A: Float[np.ndarray, "c J"],
    b: Float[np.ndarray, "c"],
) -> tuple[Float[np.ndarray, "J"], float]:  # fmt: skip
    """argmax and max of net([a, state]) over binary a with A a <= b.

    Each hidden unit's input is x - y with x, y >= 0, x <= (1 - d) up, y <= -d down and d binary, so
    that x is its ReLU; units that cannot change sign need no binary.

    Raises:
        InputError: when the net has other layers, or no action is feasible.
    """
    layers, J = _layers(net), A.shape[1]
    first, bias = layers[0]
    layers[0] = (first[:, :J], bias + first[:, J:] @ state)
    ranges = reach(layers, np.zeros(J), np.ones(J))
    sizes = [len(d) for d, _ in ranges]
    hidden = sum(sizes)
    n = J + 3 * hidden  # a, then x, y and d of all hidden units
    low, high = np.zeros(n), np.ones(n)
    whole = np.zeros(n)
    whole[:J] = 1
    whole[J + 2 * hidden :] = 1
    rows, right_low, right_high = [], [], []
    start, before = 0, slice(0, J)
    for (W, b0), (down, up) in zip(layers[:-1], ranges, strict=True):
        m = len(b0)
        x = slice(J + start, J + start + m)
        y = slice(J + hidden + start, J + hidden + start + m)
        d = slice(J + 2 * hidden + start, J + 2 * hidden + start + m)
        high[x], high[y] = np.maximum(up, 0), np.maximum(-down, 0)
        low[d], high[d] = (up <= 0).astype(float), (down < 0).astype(float)
        block = np.zeros((3 * m, n))
        block[:m, before] = W
        block[np.arange(m), np.arange(x.start, x.stop)] = -1
        block[np.arange(m), np.arange(y.start, y.stop)] = 1
        at = np.arange(m)
        block[m + at, np.arange(x.start, x.stop)] = 1
        block[m + at, np.arange(d.start, d.stop)] = high[x]
        block[2 * m + at, np.arange(y.start, y.stop)] = 1
        block[2 * m + at, np.arange(d.start, d.stop)] = -high[y]
        rows.append(block)
        right_low += [-b0, np.full(2 * m, -np.inf)]
        right_high += [-b0, high[x], np.zeros(m)]
        start, before = start + m, x
    rows.append(np.concatenate((A, np.zeros((len(A), n - J))), 1))
    right_low.append(np.full(len(A), -np.inf))
    right_high.append(b)
    last, end = layers[-1]
    cost = np.zeros(n)
    cost[before] = -last[0]
    limits: Any = (np.concatenate(right_low), np.concatenate(right_high))
    box: Any = (low, high)
    found = milp(
        cost, integrality=whole, bounds=Bounds(*box), options={"mip_rel_gap": 0.0},
        constraints=LinearConstraint(csr_matrix(np.concatenate(rows)), *limits),
    )  # fmt: skip
    if found.x is None:
        raise InputError(f"no action is feasible: {found.message}")
    action = np.round(found.x[:J])
    with torch.no_grad():
        value = float(net(_input(action, state, net))[0])
    return action, value


def _input(action: np.ndarray, state: np.ndarray, net: nn.Sequential) -> Tensor:
    first = net[0]
    assert isinstance(first, nn.Linear)
    return torch.from_numpy(np.concatenate((action, state))).to(first.weight.dtype)


@dataclass
class Maximizer:
    """`best_action` that remembers: the same state is solved once, until `forget` is called because
    the net changed. With at most `listed` arms all feasible actions are tried in one pass instead,
    which gives the same maximum; 0: always the program.
    """

    net: nn.Sequential
    A: np.ndarray
    b: np.ndarray
    listed: int = 10
    known: dict[bytes, tuple[np.ndarray, float]] = field(default_factory=dict)
    solved: int = 0

    def __post_init__(self) -> None:
        self.every: np.ndarray | None = None
        if self.A.shape[1] <= self.listed:
            whole = np.array(list(product((0.0, 1.0), repeat=self.A.shape[1])))
            self.every = whole[(whole @ self.A.T <= self.b + 1e-9).all(1)]

    def __call__(self, state: Float[np.ndarray, "s"]) -> tuple[Float[np.ndarray, "J"], float]:
        """The best action and its value."""
        key = state.tobytes()
        if key not in self.known:
            self.known[key] = self._found(state)
            self.solved += 1
        return self.known[key]

    def _found(self, state: np.ndarray) -> tuple[np.ndarray, float]:
        if self.every is None:
            return best_action(self.net, state, self.A, self.b)
        both = np.concatenate((self.every, np.repeat(state[None], len(self.every), 0)), 1)
        with torch.no_grad():
            q = self.net(torch.from_numpy(both).float())[:, 0]
        best = int(q.argmax())
        return self.every[best], float(q[best])

    def forget(self) -> None:
        """Drop what is known."""
        self.known = {}
