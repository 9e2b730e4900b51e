"""From a torch module to an ONNX graph: `torch.export` writes down what the module does, and each
of its operators becomes one of ONNX's.

Only what decision policies and their encoders are made of is known here; a module that does
anything else is refused by name, and nothing is approximated. PyTorch's own exporter is not used:
it needs a further package, and cannot read text columns.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surpass.errors import InputError, extra

__all__ = ["OPSET", "Graph"]

OPSET = 18
_TEXT_OPSET = 3  # of ai.onnx.ml
_IR = 8

_BINARY = {
    "add.Tensor": "Add", "sub.Tensor": "Sub", "mul.Tensor": "Mul", "div.Tensor": "Div",
    "minimum.default": "Min", "maximum.default": "Max", "pow.Tensor_Scalar": "Pow",
    "add.Scalar": "Add", "sub.Scalar": "Sub", "mul.Scalar": "Mul", "div.Scalar": "Div",
}  # fmt: skip
_COMPARE = {
    "gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual", "eq": "Equal",
}  # fmt: skip
_UNARY = {
    "exp": "Exp", "log": "Log", "sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "neg": "Neg",
    "abs": "Abs", "sqrt": "Sqrt", "isnan": "IsNaN", "bitwise_not": "Not", "logical_not": "Not",
}  # fmt: skip
_BOTH = {"bitwise_and.Tensor": "And", "bitwise_or.Tensor": "Or", "logical_and.default": "And",
         "logical_or.default": "Or"}  # fmt: skip
_SAME = ("clone.default", "alias.default", "detach.default", "contiguous.default",
         "lift_fresh_copy.default")  # fmt: skip
_SIZES = {operator.mul: "Mul", operator.floordiv: "Div", operator.add: "Add"}
_CHECKS = ("_assert_tensor_metadata.default", "_assert_scalar.default",
           "sym_constrain_range_for_size.default")  # fmt: skip


class Graph:
    """An ONNX graph being written: inputs, nodes, constants; `add_module` appends a torch module.

    Values are known by name. Every node's output has a name that no input has.
    """

    def __init__(self, taken: Sequence[str] = ()) -> None:
        self.onnx = extra("onnx")
        self.taken = set(taken)
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.domains = {"": OPSET}
        self._count = 0

    # ---------------------------------------------------------------------------------- by hand

    def input(self, name: str, kind: str, shape: Sequence[int | str]) -> str:
        """Declare an input; `kind` is a numpy dtype name, or "string"."""
        proto = self.onnx.TensorProto
        elem = proto.STRING if kind == "string" else self._elem(np.dtype(kind))
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, elem, list(shape)))
        self.taken.add(name)
        return name

    def output(self, value: str, name: str, kind: str, shape: Sequence[int | str]) -> None:
        """Declare an output, which is a value under another name."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [value], [name]))
        elem = self._elem(np.dtype(kind))
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, elem, list(shape)))

    def constant(self, value: Any) -> str:
        """A constant, from an array or tensor."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        name = self._fresh("constant")
        if array.dtype.kind in "US":
            words = [w.encode() for w in array.ravel().tolist()]
            tensor = self.onnx.helper.make_tensor(
                name, self.onnx.TensorProto.STRING, array.shape, words
            )
        else:
            tensor = self.onnx.numpy_helper.from_array(
                np.ascontiguousarray(array).reshape(array.shape), name
            )
        self.initializers.append(tensor)
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        name = self._fresh(kind)
        if domain:
            self.domains.setdefault(domain, _TEXT_OPSET if domain == "ai.onnx.ml" else 1)
        self.nodes.append(
            self.onnx.helper.make_node(kind, list(inputs), [name], domain=domain, **attributes)
        )
        return name

    def cast(self, value: str, dtype: torch.dtype) -> str:
        """The value in another type."""
        return self.op("Cast", value, to=self._elem(_numpy(dtype)))

    def model(self, name: str, notes: Mapping[str, str]) -> bytes:
        """The finished model, checked, as bytes."""
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.initializers)
        opsets = [helper.make_opsetid(d, v) for d, v in self.domains.items()]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="surpass")
        model.ir_version = _IR
        helper.set_model_props(model, dict(notes))
        self.onnx.checker.check_model(model)
        return model.SerializeToString()

    def _fresh(self, kind: str) -> str:
        while True:
            self._count += 1
            name = f"{kind.lower()}.{self._count}"
            if name not in self.taken:
                return name

    def _elem(self, dtype: np.dtype) -> int:
        return self.onnx.helper.np_dtype_to_tensor_dtype(dtype)

    # ---------------------------------------------------------------------------------- a module

    def add_module(
        self, module: nn.Module, examples: Sequence[Tensor], values: Sequence[str]
    ) -> str:
        """Append what `module(*examples)` does, for any number of rows (the first dimension).

        Args:
            module: gives one tensor.
            examples: one per argument, at least 2 rows.
            values: the names of the arguments in this graph.

        Returns:
            The name of the result.

        Raises:
            InputError: when the module uses an operator that has no translation here.
        """
        rows = tuple({0: torch.export.Dim.DYNAMIC} for _ in examples)
        with torch.no_grad():
            program = torch.export.export(
                module.eval(), tuple(examples), dynamic_shapes=(rows,) if _starred(module) else rows
            ).run_decompositions()
        held = {**program.state_dict, **program.constants}
        signature = program.graph_signature
        stored = {
            **signature.inputs_to_parameters, **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }  # fmt: skip
        names: dict[Any, str] = {}
        given = iter(values)
        for node in program.graph.nodes:
            if node.op == "placeholder":
                names[node] = (
                    self.constant(held[stored[node.name]]) if node.name in stored else next(given)
                )
            elif node.op == "call_function":
                target = str(node.target).removeprefix("aten.")
                if target not in _CHECKS:
                    names[node] = _Node(self, node, names, target).write()
            elif node.op == "output":
                return names[node.args[0][0]]
        raise InputError("the module gives nothing")


def _starred(module: nn.Module) -> bool:
    return module.forward.__code__.co_flags & 0x04 != 0


def _numpy(dtype: torch.dtype) -> np.dtype:
    return torch.empty(0, dtype=dtype).numpy().dtype


class _Node:
    """One operator of an exported program, being translated."""

    def __init__(self, graph: Graph, node: Any, names: dict[Any, str], target: str) -> None:
        self.graph, self.node, self.names, self.target = graph, node, names, target
        self.args, self.kwargs = node.args, node.kwargs

    def write(self) -> str:
        target = self.target
        base = target.partition(".")[0]
        if target in _BINARY:
            if self.kwargs.get("alpha", 1) != 1:
                raise self._unknown()
            return self._joined(_BINARY[target], self._dtype(self.node))
        if base in _COMPARE:
            return self._joined(_COMPARE[base], self._common())
        if target in _BOTH:
            return self._joined(_BOTH[target], torch.bool)
        if base in _UNARY:
            return self.graph.op(_UNARY[base], self.names[self.args[0]])
        if self.node.target is operator.getitem:
            return _first(self)
        if self.node.target in _SIZES:
            return self.graph.op(_SIZES[self.node.target], *(self._size(a) for a in self.args))
        if target in _SAME:
            return self.names[self.args[0]]
        writer: Callable[[_Node], str] | None = _WRITERS.get(target)
        if writer is None:
            raise self._unknown()
        return writer(self)

    # ---------------------------------------------------------------------------------- arguments

    def arg(self, place: int, default: Any = None) -> Any:
        return self.args[place] if place < len(self.args) else default

    def value(self, arg: Any, dtype: torch.dtype | None = None) -> str:
        """The name of an argument's value, a number becoming a constant, in a type."""
        if isinstance(arg, torch.fx.Node):
            name = self.names[arg]
            if dtype is not None and self._dtype(arg) != dtype:
                return self.graph.cast(name, dtype)
            return name
        array = np.asarray(arg)
        return self.graph.constant(array if dtype is None else array.astype(_numpy(dtype)))

    def axes(self, dims: Any) -> str:
        dims = [dims] if isinstance(dims, int) else list(dims)
        return self.graph.constant(np.array(dims, dtype=np.int64))

    def shape(self, sizes: Sequence[Any], keep: int) -> str:
        """A list of sizes, some of them known at run time only, as one value; `keep` stands for
        -1."""
        if all(isinstance(s, int) for s in sizes):
            return self.axes([keep if s == -1 else s for s in sizes])
        parts = [
            self.names[s] if isinstance(s, torch.fx.Node) else self.axes(keep if s == -1 else s)
            for s in sizes
        ]
        return self.graph.op("Concat", *parts, axis=0)

    def _size(self, arg: Any) -> str:
        return self.axes(arg) if isinstance(arg, int) else self.names[arg]

    def _joined(self, kind: str, dtype: torch.dtype) -> str:
        first, second = (self.value(a, dtype) for a in self.args[:2])
        return self.graph.op(kind, first, second)

    def _common(self) -> torch.dtype:
        held = [a for a in self.args[:2] if isinstance(a, torch.fx.Node)]
        if len(held) == 1:
            return self._dtype(held[0])
        return torch.promote_types(self._dtype(held[0]), self._dtype(held[1]))

    def _dtype(self, node: Any) -> torch.dtype:
        return node.meta["val"].dtype

    def dtype(self) -> torch.dtype:
        return self._dtype(self.node)

    def rank(self, node: Any) -> int:
        return node.meta["val"].dim()

    def _unknown(self) -> InputError:
        return InputError(f"the operator {self.target} of this policy has no ONNX translation here")


def _sum(n: _Node) -> str:
    dims, keep = n.arg(1), int(bool(n.arg(2, False)))
    dims = dims or list(range(n.rank(n.args[0])))
    return n.graph.op("ReduceSum", n.value(n.args[0], n.dtype()), n.axes(dims), keepdims=keep)


def _amax(n: _Node) -> str:
    keep = int(bool(n.arg(2, False)))
    return n.graph.op("ReduceMax", n.value(n.args[0]), n.axes(n.args[1]), keepdims=keep)


def _softmax(n: _Node) -> str:
    return n.graph.op("Softmax", n.value(n.args[0]), axis=n.args[1])


def _clamp(n: _Node) -> str:
    out = n.value(n.args[0], n.dtype())
    for kind, bound in (("Max", n.arg(1)), ("Min", n.arg(2))):
        if bound is not None:
            out = n.graph.op(kind, out, n.value(bound, n.dtype()))
    return out


def _mm(n: _Node) -> str:
    return n.graph.op("MatMul", n.value(n.args[0]), n.value(n.args[1]))


def _mean(n: _Node) -> str:
    dims, keep = n.arg(1), int(bool(n.arg(2, False)))
    return n.graph.op("ReduceMean", n.value(n.args[0]), n.axes(dims), keepdims=keep)


def _layer_norm(n: _Node) -> str:
    shape, gain, shift, eps = n.args[1:5]
    if any(not isinstance(s, int) for s in shape):
        raise n._unknown()
    scale = n.value(gain) if gain is not None else n.graph.constant(np.ones(shape, np.float32))
    further = [] if shift is None else [n.value(shift)]
    value = n.value(n.args[0])
    return n.graph.op("LayerNormalization", value, scale, *further, axis=-len(shape), epsilon=eps)


def _first(n: _Node) -> str:
    """The first of several results, the only one that is kept."""
    if n.args[1] != 0:
        raise n._unknown()
    return n.names[n.args[0]]


def _addmm(n: _Node) -> str:
    product = n.graph.op("MatMul", n.value(n.args[1]), n.value(n.args[2]))
    return n.graph.op("Add", product, n.value(n.args[0]))


def _permute(n: _Node) -> str:
    return n.graph.op("Transpose", n.value(n.args[0]), perm=list(n.args[1]))


def _reshape(n: _Node) -> str:
    return n.graph.op("Reshape", n.value(n.args[0]), n.shape(n.args[1], -1))


def _expand(n: _Node) -> str:
    return n.graph.op("Expand", n.value(n.args[0]), n.shape(n.args[1], 1))


def _unsqueeze(n: _Node) -> str:
    return n.graph.op("Unsqueeze", n.value(n.args[0]), n.axes(n.args[1]))


def _squeeze(n: _Node) -> str:
    return n.graph.op("Squeeze", n.value(n.args[0]), n.axes(n.args[1]))


def _select(n: _Node) -> str:
    index = n.graph.constant(np.array(n.args[2], dtype=np.int64))
    return n.graph.op("Gather", n.value(n.args[0]), index, axis=n.args[1])


def _slice(n: _Node) -> str:
    axis, step = n.arg(1, 0), n.arg(4, 1)
    start, end = n.arg(2) or 0, n.arg(3)
    end = np.iinfo(np.int64).max if end is None else end
    bounds = [n.axes(start), n.axes(end), n.axes(axis), n.axes(step)]
    return n.graph.op("Slice", n.value(n.args[0]), *bounds)


def _index(n: _Node) -> str:
    indices = list(n.args[1])
    axis = len(indices) - 1
    if any(i is not None for i in indices[:-1]) or n._dtype(indices[-1]) == torch.bool:
        raise n._unknown()
    return n.graph.op("Gather", n.value(n.args[0]), n.value(indices[-1]), axis=axis)


def _index_select(n: _Node) -> str:
    return n.graph.op("Gather", n.value(n.args[0]), n.value(n.args[2]), axis=n.args[1])


def _gather(n: _Node) -> str:
    return n.graph.op("GatherElements", n.value(n.args[0]), n.value(n.args[2]), axis=n.args[1])


def _cat(n: _Node) -> str:
    parts = [n.value(a, n.dtype()) for a in n.args[0]]
    return n.graph.op("Concat", *parts, axis=n.arg(1, 0))


def _where(n: _Node) -> str:
    condition, first, second = n.args
    return n.graph.op("Where", n.value(condition), n.value(first, n.dtype()),
                      n.value(second, n.dtype()))  # fmt: skip


def _to_copy(n: _Node) -> str:
    return n.value(n.args[0], n.dtype())


def _scalar(n: _Node) -> str:
    return n.value(n.args[0], n.dtype())


def _full_like(n: _Node) -> str:
    fill = n.value(n.arg(1, 1.0 if n.target.startswith("ones") else 0.0), n.dtype())
    return n.graph.op("Expand", fill, n.graph.op("Shape", n.value(n.args[0])))


def _full(n: _Node) -> str:
    return n.graph.op("Expand", n.value(n.args[1], n.dtype()), n.shape(n.args[0], 1))


def _arange(n: _Node) -> str:
    if not all(isinstance(a, int | float) for a in n.args):
        raise n._unknown()
    return n.graph.constant(torch.arange(*n.args, dtype=n.dtype()))


def _size(n: _Node) -> str:
    return n.graph.op("Shape", n.value(n.args[0]), start=n.args[1], end=n.args[1] + 1)


_WRITERS: dict[str, Callable[[_Node], str]] = {
    "sum.dim_IntList": _sum, "amax.default": _amax, "_softmax.default": _softmax,
    "clamp.default": _clamp, "clamp_min.default": _clamp, "mm.default": _mm,
    "bmm.default": _mm, "mean.dim": _mean, "native_layer_norm.default": _layer_norm,
    "addmm.default": _addmm, "permute.default": _permute, "view.default": _reshape,
    "reshape.default": _reshape, "expand.default": _expand, "unsqueeze.default": _unsqueeze,
    "squeeze.dims": _squeeze, "squeeze.dim": _squeeze, "select.int": _select,
    "slice.Tensor": _slice, "index.Tensor": _index, "index_select.default": _index_select,
    "gather.default": _gather, "cat.default": _cat, "where.self": _where,
    "_to_copy.default": _to_copy, "scalar_tensor.default": _scalar, "full_like.default": _full_like,
    "zeros_like.default": _full_like, "ones_like.default": _full_like, "full.default": _full,
    "arange.start_step": _arange, "sym_size.int": _size,
}  # fmt: skip
