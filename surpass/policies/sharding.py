"""A language model whose weights and optimizer state are spread over processes (FSDP2).

Each process holds a part of every weight; a forward pass with gradients gathers them and its
backward pass averages the gradients over the processes. What needs no gradient (reference
log-probs, sampling) runs on the whole weights, gathered once, so that processes need not keep step
there: `gathered`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from surpass.errors import InputError
from surpass.policies.llama import fits
from surpass.policies.token_logps import Tokens, TokenStats, base_of, token_logps

__all__ = [
    "Sharded", "agreed", "average", "copied", "everyone", "join", "leave", "rank", "whole_of",
    "world",
]  # fmt: skip


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process."""
    return dist.get_rank() if world() > 1 else 0


def join(device: str | None = None) -> str | None:
    """Meet the other processes, where `torchrun` started several; gives the device to work on."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return device
    gpu = device != "cpu" and torch.cuda.is_available()
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    if not gpu:
        return device
    place = int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(place)
    return f"cuda:{place}"


def leave() -> None:
    """Part from the other processes, once all have come to the end of their work."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def agreed(value: int, largest: bool = True) -> int:
    """The largest (or smallest) of a number over all processes."""
    if world() == 1:
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MAX if largest else dist.ReduceOp.MIN)
    return int(found)


def everyone(value: Any) -> list[Any]:
    """What each process has, in order."""
    if world() == 1:
        return [value]
    out: list[Any] = [None] * world()
    dist.all_gather_object(out, value)
    return out


def average(notes: dict[str, float]) -> dict[str, float]:
    """The mean over processes of what was measured."""
    found = everyone(notes)
    names = dict.fromkeys(name for each in found for name in each)
    lists = {n: [each[n] for each in found if n in each] for n in names}
    return {n: sum(values) / len(values) for n, values in lists.items()}


def whole_of(value: Tensor) -> Tensor:
    """A tensor that may be spread over processes, whole; all of them have to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def copied(into: Tensor, value: Tensor) -> None:
    """Put a whole tensor into one that may be spread over processes."""
    value = value.to(device=into.device, dtype=into.dtype)
    if isinstance(into, DTensor):
        value = distribute_tensor(value, into.device_mesh, into.placements, src_data_rank=None)
    into.copy_(value)


class _Scored(nn.Module):
    """A forward pass that gives log-probs, so that all weights are whole within it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tokens, needs: tuple[Any, ...], temperature: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        stats = token_logps(self.model, tokens, needs=needs, temperature=temperature)
        return stats.logp, stats.statistics


class Sharded:
    """A model spread over all processes, in place.

    Small models are gathered whole for a pass; of others one layer at a time.

    Raises:
        InputError: when there is one process only.
    """

    def __init__(self, model: nn.Module) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        if world() == 1:
            raise InputError("there is one process only; start several with torchrun")
        kind = next(model.parameters()).device.type
        mesh = init_device_mesh(kind, (world(),))
        with torch.no_grad():  # every process begins with the weights of the first
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor, 0)
        self.scored = _Scored(model)
        self.layers: list[Any] = []
        if not fits(model):
            self.layers = list(getattr(base_of(model).get_decoder(), "layers", []))  # type: ignore[operator]
            for layer in self.layers:
                fully_shard(layer, mesh=mesh)
        fully_shard(self.scored, mesh=mesh, reshard_after_forward=True)
        two = torch.zeros(1, 2, dtype=torch.long, device=kind)
        with torch.no_grad():  # the first pass tells the layers that they belong together
            self.score(Tokens(two, torch.ones_like(two), two == 0), (), 1.0)

    def score(self, tokens: Tokens, needs: tuple[Any, ...], temperature: float) -> TokenStats:
        """Log-probs with gradients; all processes have to call it equally often."""
        return TokenStats(*self.scored(tokens, needs, temperature))

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """The weights whole, as plain tensors, to be read only."""
        parts: list[Any] = [*self.layers, self.scored]
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.set_reshard_after_forward(True, recurse=False)
                part.reshard()
