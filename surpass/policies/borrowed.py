"""Nets with other parameters than their own: the states of a pool, and a step that is only thought.

A borrowed net is called, and its methods are called, as the net itself would be; gradients flow to
the parameters that were lent to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from surpass.errors import InputError
from surpass.objectives.rows import Rows
from surpass.parts import Nets, Part, part
from surpass.policies.networks import remembering

__all__ = ["Borrowed", "Pooled", "after_step"]


class _Through(nn.Module):
    """Calls a method of a net, so that `functional_call` can lend the net other parameters."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, method: str | None, given: Any, named: Any) -> Any:
        call: Any = self.net if method is None else getattr(self.net, method)
        with remembering():  # what was computed with other parameters does not count
            return call(*given, **named)


class Borrowed:
    """`net` with other `tensors` (parameters and buffers by name)."""

    def __init__(self, net: nn.Module | Borrowed, tensors: Mapping[str, Tensor]) -> None:
        self._net: nn.Module = net._net if isinstance(net, Borrowed) else net
        self._tensors = dict(tensors)

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """What was lent of the net's parameters, by name."""
        own = {name for name, _ in self._net.named_parameters()}
        return [(k, v) for k, v in self._tensors.items() if k in own]

    def _run(self, method: str | None, *given: Any, **named: Any) -> Any:
        lent = {f"net.{k}": v for k, v in self._tensors.items()}
        return functional_call(_Through(self._net), lent, (method, given, named))

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self._run(None, *given, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._tensors:
            return self._tensors[name]
        found = getattr(self._net, name)
        if isinstance(found, nn.Module):
            inside = {k.removeprefix(f"{name}."): v for k, v in self._tensors.items()
                      if k.startswith(f"{name}.")}  # fmt: skip
            return Borrowed(found, inside)
        return partial(self._run, name) if callable(found) else found


class Pooled(nn.Module):
    """Several states of one net, oldest first: `pool[-1]` is one of them; a call, or a call of one
    of the net's methods, gives what each of them gives, stacked in front, [size, ...]."""

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.size = size
        self.members = net
        for tensor in [*net.parameters(), *net.buffers()]:
            tensor.data = tensor.data.expand(size, *tensor.shape).clone()

    def _stacked(self) -> dict[str, Tensor]:
        return dict([*self.members.named_parameters(), *self.members.named_buffers()])

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Borrowed:
        if not -self.size <= index < self.size:
            raise InputError(f"a pool of {self.size} states has no state {index}")
        return Borrowed(self.members, {k: v[index] for k, v in self._stacked().items()})

    def forward(self, *given: Any, **named: Any) -> Any:
        return self._each(None, *given, **named)

    def _each(self, method: str | None, *given: Any, **named: Any) -> Any:
        def one(tensors: dict[str, Tensor]) -> Any:
            return Borrowed(self.members, tensors)._run(method, *given, **named)

        return vmap(one, randomness="different")(self._stacked())

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or not callable(getattr(self.members, name, None)):
                raise
        return partial(self._each, name)


class _Moved:
    """The nets of a form, one of them with other parameters."""

    def __init__(self, nets: Any, name: str, moved: Borrowed) -> None:
        self._nets, self._name, self._moved = nets, name, moved

    def __getitem__(self, name: str) -> Any:
        return self._moved if name == self._name else self._nets[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]


@part
def after_step(
    nets: Nets, rows: Rows, /, outer: Part[[Nets, Rows], Tensor],
    inner: Part[[Nets, Rows], Tensor], net: str = "pi", lr: float = 0.1,
) -> Float[Tensor, "..."]:  # fmt: skip
    """L_outer(theta - lr grad L_inner(theta)): `outer` after a virtual gradient step of `inner` on
    one net, which itself stays where it is.

    The gradient flows through the step: to nets that `inner` reads (weights of samples), and, with
    the second derivative, to the net itself. "Model-Agnostic Meta-Learning for Fast Adaptation of
    Deep Networks" (2017).
    """
    module = nets[net]
    own = dict(module.named_parameters())

    def loss_at(parameters: dict[str, Tensor]) -> Tensor:
        return inner(_with(nets, net, module, parameters), rows).mean()

    slope = grad(loss_at)(own)
    moved = {name: p - lr * slope[name] for name, p in own.items()}
    return outer(_with(nets, net, module, moved), rows)


def _with(nets: Any, name: str, module: Any, parameters: Mapping[str, Tensor]) -> Any:
    return _Moved(nets, name, Borrowed(module, parameters))
