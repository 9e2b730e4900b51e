"""A handed-over policy as one ONNX graph, from raw columns to the probabilities of the actions.

Numeric columns are inputs of type float [N] (missing: NaN; times: days since 1970 in UTC), columns
of lists float [N, width], categories are strings [N] (missing: the empty string; whole numbers
without a decimal point, booleans as true and false). A policy without an encoder has one input,
`context` [N, d]. A policy that needs the reference has a further input `reference` [N, A]. The
output `probabilities` is float [N, A]; the graph computes in double precision inside.

Categories with very many levels are hashed, as while learning, by MurmurHash3, an operator of ONNX
Runtime (domain com.microsoft); all others are of the ONNX standard.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from surpass.data.encoders import MISSING, Categories, Encoder, EncoderGraph
from surpass.policies.categorical import n_inputs_of
from surpass.policies.onnx_graph import Graph

if TYPE_CHECKING:
    from surpass.policies.handover import HandedPolicy

__all__ = ["onnx_bytes"]

_ROWS = 3  # of the examples that are traced; any number fits afterwards


class _Traced(nn.Module):
    """Encoder and policy in one module."""

    def __init__(
        self, encoder: EncoderGraph | None, policy: nn.Module, n_actions: int, needs: bool
    ) -> None:
        super().__init__()
        self.encoder, self.policy, self.n_actions, self.needs = encoder, policy, n_actions, needs

    def forward(self, *given: Tensor) -> Tensor:
        context = given[0] if self.encoder is None else self.encoder(given[0], given[1])
        if self.needs:
            reference = given[-1].to(torch.float64)
            reference = reference / reference.sum(-1, keepdim=True)
        else:
            share = torch.full((self.n_actions,), 1.0 / self.n_actions, dtype=torch.float64)
            reference = share.unsqueeze(0).expand(context.shape[0], -1)
        return self.policy(context, reference).to(torch.float32)


def onnx_bytes(handed: HandedPolicy) -> bytes:
    """The graph, serialized.

    Raises:
        MissingExtra: when onnx is not installed.
        InputError: when the policy does something that has no ONNX translation.
    """
    encoder, needs = handed.encoder, handed.needs_reference
    columns = () if encoder is None else encoder.columns
    graph = Graph(taken=(*columns, "probabilities"))
    if encoder is None:
        width = max(n_inputs_of(handed.policy), len(handed.context), 1)
        values = [graph.input("context", "float32", ("rows", width))]
        examples = [torch.randn(_ROWS, width)]
    else:
        values = list(_columns(graph, encoder))
        examples = [
            torch.randn(_ROWS, len(encoder.numeric)),
            torch.zeros(_ROWS, len(encoder.categorical), dtype=torch.int64),
        ]
    if needs:
        name = "reference" if "reference" not in columns else "reference_probabilities"
        values.append(graph.input(name, "float32", ("rows", handed.n_actions)))
        examples.append(torch.full((_ROWS, handed.n_actions), 1.0 / handed.n_actions))
    inner = None if encoder is None else encoder.graph()
    traced = _Traced(inner, handed.policy, handed.n_actions, needs)
    out = graph.add_module(traced, examples, values)
    graph.output(out, "probabilities", "float32", ("rows", handed.n_actions))
    return graph.model("policy", {"actions": json.dumps(list(handed.actions))})


def _columns(graph: Graph, encoder: Encoder) -> tuple[str, str]:
    """Inputs for the raw columns, and from them the encoder's `numbers` and `codes`."""
    held: dict[str, str] = {}
    widths: dict[str, int] = {}
    for number in encoder.numeric:
        if number.index is not None:
            widths[number.column] = max(widths.get(number.column, 0), number.index + 1)
    for number in encoder.numeric:
        if number.column not in held:
            tail = (widths[number.column],) if number.column in widths else ()
            held[number.column] = graph.input(number.column, "float32", ("rows", *tail))
    for kind in encoder.categorical:
        held[kind.column] = graph.input(kind.column, "string", ("rows",))
    last = graph.constant(torch.tensor([1]))
    parts = []
    for number in encoder.numeric:
        value = held[number.column]
        if number.index is None:
            parts.append(graph.op("Unsqueeze", value, last))
        else:
            place = graph.constant(torch.tensor([number.index]))
            parts.append(graph.op("Gather", value, place, axis=1))
    numbers = _joined(graph, parts, next(iter(held.values())), torch.float32)
    codes = [graph.op("Unsqueeze", _code(graph, k, held[k.column]), last)
             for k in encoder.categorical]  # fmt: skip
    return numbers, _joined(graph, codes, next(iter(held.values())), torch.int64)


def _joined(graph: Graph, parts: list[str], some: str, dtype: torch.dtype) -> str:
    if parts:
        return graph.op("Concat", *parts, axis=1)
    rows = graph.op("Shape", some, start=0, end=1)
    shape = graph.op("Concat", rows, graph.constant(torch.tensor([0])), axis=0)
    return graph.op("Expand", graph.constant(torch.zeros((1, 1), dtype=dtype)[:, :0]), shape)


def _code(graph: Graph, kind: Categories, column: str) -> str:
    """The number of each word's level."""
    if kind.buckets:
        empty = graph.op("LabelEncoder", column, domain="ai.onnx.ml", keys_strings=[""],
                         values_int64s=[1], default_int64=0)  # fmt: skip
        hashed = graph.op("MurmurHash3", column, domain="com.microsoft", positive=1, seed=0)
        number = graph.cast(hashed, torch.int64)
        number = graph.op("Mod", number, graph.constant(torch.tensor(kind.buckets)))
        missing = graph.constant(torch.tensor(kind.bucket(MISSING)))
        return graph.op("Where", graph.cast(empty, torch.bool), missing, number)
    words = list(kind.levels)
    codes = list(range(len(words)))
    if kind.missing and "" not in words:
        words, codes = [*words, ""], [*codes, len(kind.levels) + 1]
    if not words:
        zero = graph.constant(torch.zeros(1, dtype=torch.int64))
        return graph.op("Expand", zero, graph.op("Shape", column))
    return graph.op("LabelEncoder", column, domain="ai.onnx.ml", keys_strings=words,
                    values_int64s=codes, default_int64=len(kind.levels))  # fmt: skip
