"""Gradient-boosted trees as tensors: what scikit-learn's HistGradientBoosting learned, evaluated by
gathers, so that a policy over trees is a module like any other (saved, exported, differentiable in
nothing).

Ke et al., LightGBM: a highly efficient gradient boosting decision tree (2017), is what
scikit-learn's trees follow.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.policies.action_values import ActionValues
from surpass.policies.tilted import policy_class

__all__ = ["TreeValues"]

_CHUNK = 1_000_000  # nodes visited at once: tables and rows then stay in the cache


@policy_class
class TreeValues(ActionValues):
    """A sum of trees per action, on the standardized context z = (context - mean) / spread:
    link(base_a + sum_t uses_{t,a} tree_t(z)).

    Nodes of all trees lie in one table. A row goes left where `z[feature] <= threshold`; the right
    child follows the left one; a leaf is its own left child with threshold +inf. Trees that several
    actions share are evaluated once.

    Attributes:
        roots: the first node of every tree, [U]. uses: how often each action adds it, [U, A].
        feature, left: [nodes] integers. threshold, value: [nodes], double precision.
        base: [A]. mean, spread: [d].
    """

    roots: Tensor
    uses: Tensor
    feature: Tensor
    threshold: Tensor
    left: Tensor
    value: Tensor
    base: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(
        self, n_inputs: int, n_actions: int, trees: int, nodes: int, depth: int,
        link: str = "identity", low: float = 0.0, high: float = 1.0,
    ) -> None:  # fmt: skip
        """Empty tables of the given sizes: `trees` and `nodes` in all, `depth` levels.

        `link` is "identity", or "sigmoid": low + (high - low) sigmoid(.).
        """
        super().__init__()
        if link not in ("identity", "sigmoid"):
            raise InputError(f"link is 'identity' or 'sigmoid', not {link!r}")
        self.n_inputs, self.n_actions = n_inputs, n_actions
        self.trees, self.nodes, self.depth = trees, nodes, depth
        self.link, self.low, self.high = link, float(low), float(high)
        f64 = torch.float64
        self.register_buffer("roots", torch.zeros(trees, dtype=torch.int64))
        self.register_buffer("uses", torch.zeros(trees, n_actions, dtype=f64))
        self.register_buffer("feature", torch.zeros(nodes, dtype=torch.int64))
        self.register_buffer("left", torch.zeros(nodes, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(nodes, dtype=f64))
        self.register_buffer("value", torch.zeros(nodes, dtype=f64))
        self.register_buffer("base", torch.zeros(n_actions, dtype=f64))
        self.register_buffer("mean", torch.zeros(n_inputs, dtype=f64))
        self.register_buffer("spread", torch.ones(n_inputs, dtype=f64))
        self.config: dict[str, Any] = {
            "n_inputs": n_inputs, "n_actions": n_actions, "trees": trees, "nodes": nodes,
            "depth": depth, "link": link, "low": self.low, "high": self.high,
        }  # fmt: skip
        self._last: tuple[weakref.ref[Tensor], int, Tensor] | None = None

    def forward(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N A"]:
        if torch.compiler.is_exporting():
            return self._values(context)
        # tilts of one model ask for the same rows one after another: the last answer is kept
        if self._last is not None:
            asked, version, known = self._last
            if asked() is context and context._version == version:
                return known
        rows = max(64, _CHUNK // self.trees)
        out = torch.cat([self._values(some) for some in context.split(rows)])
        self._last = (weakref.ref(context), context._version, out)
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    def _values(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N A"]:
        z = (context.to(torch.float64) - self.mean) / self.spread
        total = self.base + self._leaves(z) @ self.uses
        if self.link == "sigmoid":
            return self.low + (self.high - self.low) * torch.sigmoid(total)
        return total

    def _leaves(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N U"]:
        at = self.roots.unsqueeze(0).expand(z.shape[0], -1)
        for _ in range(self.depth):
            right = z.gather(1, self.feature[at]) > self.threshold[at]
            at = self.left[at] + right.to(torch.int64)
        return self.value[at]

    # ------------------------------------------------------------------------------------ building

    @classmethod
    def of_joint(
        cls, model: Any, n_inputs: int, n_actions: int, mean: Tensor | None = None,
        spread: Tensor | None = None, **link: Any,
    ) -> TreeValues:  # fmt: skip
        """From one fitted HistGradientBoosting model of [z, action number], the action last, as a
        category or as a number; z is the context less `mean`, by `spread` (or the context itself).

        Splits on the action are resolved here, so what is left per action are trees of the context
        alone.

        Raises:
            InputError: when the model has several outputs or other categorical features.
        """
        every = [_trees_of(model, n_inputs, action) for action in range(n_actions)]
        made = cls._assemble(every, [_base_of(model)] * n_actions, n_inputs, **link)
        if mean is not None and spread is not None:
            made.mean.copy_(mean)
            made.spread.copy_(spread)
        return made

    @classmethod
    def of_each(cls, models: Sequence[Any], n_inputs: int, **link: Any) -> TreeValues:
        """From a fitted HistGradientBoosting model of the context per action."""
        every = [_trees_of(model, n_inputs, None) for model in models]
        return cls._assemble(every, [_base_of(m) for m in models], n_inputs, **link)

    @classmethod
    def _assemble(
        cls, every: list[list[_Tree]], base: Sequence[float], n_inputs: int, **link: Any
    ) -> TreeValues:
        table = _Table()
        members = [[table.add(tree) for tree in each] for each in every]
        place = {root: i for i, root in enumerate(dict.fromkeys(r for m in members for r in m))}
        made = cls(n_inputs, len(every), len(place), len(table.value), table.depth, **link)
        for action, roots in enumerate(members):
            for root in roots:
                made.uses[place[root], action] += 1.0
        made.roots.copy_(torch.tensor(list(place), dtype=torch.int64))
        for name in ("feature", "left", "threshold", "value"):
            held = getattr(made, name)
            held.copy_(torch.tensor(getattr(table, name), dtype=held.dtype))
        made.base.copy_(torch.tensor(base, dtype=torch.float64))
        return made


class _Tree:
    """A tree being copied: `split(node)` gives (feature, threshold, left, right), or None at a
    leaf; `value(node)` its value."""

    def __init__(self, split: Callable[[int], tuple | None], value: Callable[[int], float]) -> None:
        self.split, self.value = split, value


class _Table:
    """The node table, growing; equal trees (of actions that a tree does not tell apart) are stored
    once."""

    def __init__(self) -> None:
        self.feature: list[int] = []
        self.left: list[int] = []
        self.threshold: list[float] = []
        self.value: list[float] = []
        self.depth = 0
        self._seen: dict[tuple, int] = {}

    def add(self, tree: _Tree) -> int:
        """Append a tree; returns the number of its root."""
        shape = self._shape(tree, 0)
        if shape not in self._seen:
            at = len(self.value)
            self._put(0, at, np.inf, 0.0)
            self._fill(at, shape, 0)
            self._seen[shape] = at
        return self._seen[shape]

    def _shape(self, tree: _Tree, node: int) -> tuple:
        split = tree.split(node)
        if split is None:
            return (tree.value(node),)
        feature, threshold, left, right = split
        if feature < 0:  # a split on the action: decided, only one side is left
            return self._shape(tree, left)
        return feature, threshold, self._shape(tree, left), self._shape(tree, right)

    def _fill(self, at: int, shape: tuple, depth: int) -> None:
        self.depth = max(self.depth, depth)
        if len(shape) == 1:
            self.value[at] = shape[0]
            return
        left = len(self.value)
        self._put(0, left, np.inf, 0.0)
        self._put(0, left + 1, np.inf, 0.0)
        self.feature[at], self.threshold[at], self.left[at] = shape[0], shape[1], left
        self._fill(left, shape[2], depth + 1)
        self._fill(left + 1, shape[3], depth + 1)

    def _put(self, feature: int, left: int, threshold: float, value: float) -> None:
        self.feature.append(feature)
        self.left.append(left)
        self.threshold.append(threshold)
        self.value.append(value)


def _base_of(model: Any) -> float:
    return float(np.ravel(model._baseline_prediction)[0])


def _trees_of(model: Any, n_inputs: int, action: int | None) -> list[_Tree]:
    """The model's trees, with splits on the action (if it is an input) decided for one action."""
    if any(len(each) != 1 for each in model._predictors):
        raise InputError("trees of several outputs cannot be a value per action; fit one output")
    if action is None:
        if model.is_categorical_ is not None and any(model.is_categorical_):
            raise InputError("trees of one action split on numbers only; encode the categories")
        return [_tree(each[0], {f: f for f in range(n_inputs)}, None, None)
                for each in model._predictors]  # fmt: skip
    flags = model.is_categorical_
    as_category = flags is not None and bool(flags[n_inputs])
    if flags is not None and any(flags[:n_inputs]):
        raise InputError("only the action may be a categorical feature of the trees")
    # scikit-learn puts categorical features first, then the numeric ones in order
    shift = 1 if as_category else 0
    feature_of = {f + shift: f for f in range(n_inputs)}
    code: float = action
    if as_category:
        row = np.zeros((1, n_inputs + 1))
        row[0, n_inputs] = action
        code = float(np.asarray(model._preprocess_X(row, reset=False))[0, 0])
    return [_tree(each[0], feature_of, code, as_category) for each in model._predictors]


def _tree(
    predictor: Any, feature_of: dict[int, int], code: float | None, category: bool | None
) -> _Tree:
    nodes = predictor.nodes
    is_leaf, value = nodes["is_leaf"].tolist(), nodes["value"].tolist()
    feature, threshold = nodes["feature_idx"].tolist(), nodes["num_threshold"].tolist()
    left, right = nodes["left"].tolist(), nodes["right"].tolist()

    def goes_left(node: int) -> bool:
        assert code is not None
        missing = bool(nodes["missing_go_to_left"][node])
        if code != code:
            return missing
        if not category:
            return code <= threshold[node]
        row, bit = int(nodes["bitset_idx"][node]), int(code)
        return bool(int(predictor.raw_left_cat_bitsets[row][bit // 32]) >> (bit % 32) & 1)

    def split(node: int) -> tuple[int, float, int, int] | None:
        if is_leaf[node]:
            return None
        if feature[node] in feature_of:
            return feature_of[feature[node]], threshold[node], left[node], right[node]
        side = left[node] if goes_left(node) else right[node]
        return -1, 0.0, side, side

    return _Tree(split, lambda node: value[node])
