"""From a Python function on dicts of tensors to one compiled graph.

The function is run once on tensors without data, which records every tensor operation it makes,
gradients included, in one graph; Python itself (parts, dataclasses, the order of steps) is gone
from it. The graph goes to inductor with random operations left to torch's own generators, so that a
compiled run draws the numbers that an eager one does. On a GPU the compiled function is captured as
a CUDA graph and replayed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
import torch._inductor.config as inductor
from torch import Tensor
from torch._inductor.compile_fx import compile_fx
from torch._inductor.exc import InductorError, InvalidCxxCompiler
from torch._inductor.utils import fresh_inductor_cache as fresh_cache
from torch.fx.experimental.proxy_tensor import make_fx

from surpass.training.memory import keep_freed_memory

__all__ = ["compiled", "traced"]

_LOG = logging.getLogger("surpass.training")
_SETTINGS: dict[str, Any] = {"fallback_random": True}
# the launching code in C++ too: a step of sixty small kernels spends a tenth of its time in Python
_ON_CPU: dict[str, Any] = {"cpp_wrapper": True}

Whole = Callable[[dict[str, Tensor], dict[str, Tensor], Tensor], dict[str, Tensor]]


def traced(
    whole: Whole, state: dict[str, Tensor], tables: dict[str, Tensor], numbers: Tensor
) -> Whole:
    """The graph of `whole`, run as it is: what `compiled` hands to the compiler, for tests."""
    graph, names, fixed = _trace(whole, state, tables, numbers)
    return lambda state, tables, numbers: dict(zip(names, graph(*fixed, numbers), strict=True))


def _trace(
    whole: Whole, state: dict[str, Tensor], tables: dict[str, Tensor], numbers: Tensor
) -> tuple[Any, list[str], list[Tensor]]:
    """The graph of `whole`, the names of what it gives, and its inputs before the numbers."""
    state_keys, table_keys = list(state), list(tables)
    names: list[str] = []

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        own = dict(zip(state_keys, tensors[: len(state_keys)], strict=True))
        held = dict(zip(table_keys, tensors[len(state_keys) : -1], strict=True))
        metrics = whole(own, held, tensors[-1])
        names[:] = list(metrics)
        return tuple(metrics.values())

    fixed = [*state.values(), *tables.values()]
    graph = make_fx(flat, tracing_mode="fake")(*fixed, numbers)
    for node in graph.graph.nodes:
        node.meta.clear()
    return graph, names, fixed


def compiled(
    whole: Whole, state: dict[str, Tensor], tables: dict[str, Tensor], numbers: Tensor
) -> Whole:
    """Compile `whole(state, tables, numbers) -> metrics`, which writes the new state in place.

    The result reads the same `state` and `tables` objects at every call. Without a C++ compiler it
    gives `whole` back, and says so.
    """
    graph, names, fixed = _trace(whole, state, tables, numbers)
    keep_freed_memory()
    try:
        with inductor.patch(_SETTINGS | ({} if numbers.is_cuda else _ON_CPU)):
            function = _compile(graph, [*fixed, numbers])
            if numbers.is_cuda:
                return _captured(function, fixed, len(state), numbers, names)
    except InvalidCxxCompiler:
        _LOG.warning("no C++ compiler was found, so updates run uncompiled (slower, same numbers)")
        return whole

    def call(state: Any, tables: Any, numbers: Tensor) -> dict[str, Tensor]:
        return dict(zip(names, function(*fixed, numbers), strict=True))

    return call


def _compile(graph: Any, example: list[Tensor]) -> Any:
    """Compile; in a cache of its own where the shared one holds a file that a kill cut short."""
    try:
        return compile_fx(graph, example)
    except InductorError as error:
        if "file too short" not in str(error):
            raise
        _LOG.warning("the compiler's cache holds a broken file; compiling afresh beside it")
        with fresh_cache():
            return compile_fx(graph, example)


def _captured(
    function: Any, fixed: list[Tensor], states: int, numbers: Tensor, names: list[str]
) -> Whole:
    """Capture the function as a CUDA graph over its own copy of the numbers; the first `states`
    tensors, which it writes, are put back after the rehearsal."""
    inputs = numbers.clone()
    before = [t.clone() for t in fixed[:states]]
    random = torch.cuda.get_rng_state()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function(*fixed, inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function(*fixed, inputs)
    for tensor, kept in zip(fixed, before, strict=False):
        tensor.copy_(kept)
    torch.cuda.set_rng_state(random)

    def call(state: Any, tables: Any, numbers: Tensor) -> dict[str, Tensor]:
        inputs.copy_(numbers)
        graph.replay()
        return dict(zip(names, outputs, strict=True))

    return call
