"""The nets of a form and their snapshots: averages, copies, the best state so far, the last few.

A snapshot's tensors lie in the engine's state beside those of the net it follows. What a snapshot
remembers besides (the weight of a corrected average, the states that wait in a lag, the best score)
lies there too, under `snapshot.NAME.`, so that it is compiled, vmapped and stored with all else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Best, Copy, Ema, Given, Learner, Pool, Spaces
from surpass.parts import Part
from surpass.policies.borrowed import Pooled
from surpass.policies.networks import remembering

__all__ = ["Bank", "Snapshots", "build_bank"]

State = dict[str, Tensor]
Following = Ema | Copy | Best | Pool


class Bank(nn.ModuleDict):
    """The nets of a form by name, `bank.q` or `bank["q"]`; calling it with a function runs the
    function on the bank, so that `functional_call` can lend it other parameters."""

    def forward(self, call: Callable[[Any], Any]) -> Any:
        with remembering():
            return call(self)


def build_bank(form: Learner, spaces: Spaces, roles: Mapping[str, Any], seed: int) -> Bank:
    """Build the nets of a form, snapshots as copies of what they follow, from one seed.

    Raises:
        InputError: when a snapshot follows a net that does not exist, a role is missing, or a name
            cannot be used.
    """
    bank = Bank()
    reserved = set(dir(bank))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, net in form.nets.items():
            if name in reserved:
                raise InputError(f"a net cannot be called {name!r}; choose another name")
            if isinstance(net, Part):
                bank[name] = net(spaces)
    for name, net in form.nets.items():
        if isinstance(net, Given):
            if not isinstance(roles.get(net.role), nn.Module):
                raise InputError(f"this recipe needs a net that is handed in as {net.role!r}")
            bank[name] = copy.deepcopy(roles[net.role])
        elif isinstance(net, Following):
            if net.of not in bank:
                raise InputError(f"{name} follows {net.of!r}, and there is no such net before it")
            twin = copy.deepcopy(bank[net.of])
            bank[name] = Pooled(twin, net.size) if isinstance(net, Pool) else twin
        elif not isinstance(net, Part):
            raise InputError(f"{name}: {net!r} is neither a net nor a snapshot of one")
    return bank


class Snapshots:
    """Moves the snapshots of a form.

    Averages move inside the compiled update, and so do copies and pools whose `every` divides the
    period of the steps; the others move between calls, as the best states do.

    Args:
        period: after how many updates the form's steps and averages begin anew.
        apart: whether the source says itself when a batch begins (rollouts); elsewhere each update
            draws a batch.
        axis: 1 where the state has an axis of seeds in front (between calls), else 0.
    """

    def __init__(self, form: Learner, period: int, apart: bool, axis: int) -> None:
        self.nets = {n: s for n, s in form.nets.items() if isinstance(s, Following)}
        self.axis = axis
        self.averages = {n: s for n, s in self.nets.items() if isinstance(s, Ema)}
        self.best = {n: s for n, s in self.nets.items() if isinstance(s, Best)}
        batch = {n: s for n, s in self.nets.items() if isinstance(s, Copy) and s.every == "batch"}
        timed = {n: s for n, s in self.nets.items() if isinstance(s, Copy | Pool)
                 and isinstance(s.every, int)}  # fmt: skip
        self.by_batch = batch if apart else {}
        self.by_draw = {} if apart else batch
        self.inside = {n: s for n, s in timed.items() if period % int(s.every or 1) == 0}
        self.between = {n: s for n, s in timed.items() if n not in self.inside}
        for name, net in form.nets.items():
            self._check(name, net)

    def _check(self, name: str, net: Any) -> None:
        every = getattr(net, "every", None)
        if isinstance(every, int) and every < 1:
            raise InputError(f"{name}: every={every}; an interval is at least 1 update")
        if isinstance(every, str) and every != "batch":
            raise InputError(f"{name}: every={every!r}; a number of updates, 'batch', or None")
        if isinstance(net, Copy) and net.lag < 0:
            raise InputError(f"{name}: lag={net.lag}; a copy cannot come from the future")
        if isinstance(net, Pool) and net.size < 1:
            raise InputError(f"{name}: a pool holds at least 1 state, not {net.size}")

    @property
    def intervals(self) -> list[int]:
        """After how many updates something moves between calls."""
        return [int(s.every or 1) for s in (*self.between.values(), *self.best.values())]

    def initial(self, state: Mapping[str, Tensor]) -> State:
        """What the snapshots remember besides their tensors, at the start."""
        found: State = {}
        some = next(iter(state.values()), torch.zeros(()))
        shape = some.shape[: self.axis]
        for name, net in self.nets.items():
            if isinstance(net, Ema) and net.corrected:
                found[f"snapshot.{name}.weight"] = some.new_ones(shape, dtype=torch.float32)
            if isinstance(net, Best):
                found[f"snapshot.{name}.score"] = some.new_full(
                    shape, -torch.inf, dtype=torch.float32
                )
            if isinstance(net, Copy) and net.lag:
                for key, tensor in self._own(state, name):
                    found[f"snapshot.{name}.past.{key}"] = self._repeated(tensor, net.lag)
        return found

    def _own(self, state: Mapping[str, Tensor], name: str) -> list[tuple[str, Tensor]]:
        start = f"net.{name}."
        return [(k.removeprefix(start), v) for k, v in state.items() if k.startswith(start)]

    def _repeated(self, tensor: Tensor, times: int) -> Tensor:
        return torch.stack([tensor] * times, self.axis)

    # ------------------------------------------------------------------------------------------
    # inside the update, on the state of one seed

    def before_update(self, state: State) -> None:
        """Copies of each batch, where an update draws one."""
        for name, net in self.by_draw.items():
            state.update(self._moved(name, net, state, 0))

    def after_update(self, state: State, position: int, numbers: Mapping[str, Any]) -> None:
        """Averages, and copies and pools that move with the steps."""
        for name, net in self.averages.items():
            if (position + 1) % net.every == 0:
                self._follow(name, net, numbers.get(f"nets.{name}.tau", net.tau), state)
        for name, net in self.inside.items():
            if (position + 1) % int(net.every or 1) == 0:
                state.update(self._moved(name, net, state, 0))

    def _follow(self, name: str, net: Ema, tau: Any, state: State) -> None:
        """p <- p + tau (q - p); corrected, tau is 1 / W, W <- (1 - tau) W + 1 from W = 1, so that
        the first states count no more than their share ("Batch size-invariance for policy
        optimization", 2021)."""
        if net.corrected:
            weight = (1.0 - tau) * state[f"snapshot.{name}.weight"] + 1.0
            state[f"snapshot.{name}.weight"] = weight
            tau = 1.0 / weight
        for key, tensor in self._own(state, name):
            if tensor.is_floating_point():
                target = state[f"net.{net.of}.{key}"]
                state[f"net.{name}.{key}"] = tensor + tau * (target - tensor)

    def _moved(self, name: str, net: Following, state: Mapping[str, Tensor], axis: int) -> State:
        """What a refresh makes of a copy or a pool."""
        new: State = {}
        for key, tensor in self._own(state, name):
            if isinstance(net, Pool):
                now = state[f"net.{net.of}.{key.removeprefix('members.')}"]
                new[f"net.{name}.{key}"] = _pushed(tensor, now, axis)
            elif isinstance(net, Copy) and net.lag:
                past = state[f"snapshot.{name}.past.{key}"]
                new[f"net.{name}.{key}"] = past.select(axis, 0).clone()
                pushed = _pushed(past, state[f"net.{net.of}.{key}"], axis)
                new[f"snapshot.{name}.past.{key}"] = pushed
            elif isinstance(net, Copy):
                new[f"net.{name}.{key}"] = state[f"net.{net.of}.{key}"].clone()
        return new

    # ------------------------------------------------------------------------------------------
    # between calls, on the whole state, in place

    def batch_begins(self, state: State) -> None:
        """Copies of each batch, where the source says when one begins."""
        self._write(state, self.by_batch)

    def between_calls(self, state: State, step: int) -> None:
        """Copies and pools that do not move with the steps."""
        due = {n: s for n, s in self.between.items() if step % int(s.every or 1) == 0}
        self._write(state, due)

    def _write(self, state: State, due: Mapping[str, Following]) -> None:
        for name, net in due.items():
            for key, tensor in self._moved(name, net, state, self.axis).items():
                state[key].copy_(tensor)

    def to_judge(self, step: int) -> dict[str, Best]:
        """Which best states have to be judged now; all of them at the start."""
        return {n: s for n, s in self.best.items() if step % s.every == 0}

    def keep_best(self, state: State, name: str, score: Tensor) -> None:
        """Take the state of a net where it was judged higher than the best so far."""
        before = state[f"snapshot.{name}.score"]
        better = score > before
        before.copy_(torch.where(better, score, before))
        for key, tensor in self._own(state, name):
            mask = better.reshape(*better.shape, *(1,) * (tensor.dim() - better.dim()))
            tensor.copy_(torch.where(mask, state[f"net.{self.best[name].of}.{key}"], tensor))

    def begin_anew(self, trained: set[str]) -> set[str]:
        """The nets that a stage does not take over by name: those that it declares as snapshots and
        trains, which begin at what they are snapshots of, the anchor of such a policy, and an
        anchor that is a copy: trust is centered on the policy as the stage found it."""
        anew = {n for n in self.nets if n in trained}
        anchor = self.nets.get("anchor")
        fresh = anchor is not None and (isinstance(anchor, Copy) or anchor.of in anew)
        return anew | ({"anchor"} if fresh else set())

    def start_over(self, state: State, carried: set[str]) -> None:
        """Set the snapshots that were not carried over from a stage before to the nets they follow,
        which were."""
        names = list(self.nets)
        names.sort(key=lambda n: self.nets[n].of in self.nets)  # first those that follow a net
        for name in names:
            net = self.nets[name]
            if name in carried or net.of not in carried:
                continue
            for key, tensor in self._own(state, name):
                now = state[f"net.{net.of}.{key.removeprefix('members.')}"]
                many = isinstance(net, Pool)
                tensor.copy_(self._repeated(now, net.size) if many else now)
                if isinstance(net, Copy) and net.lag:
                    state[f"snapshot.{name}.past.{key}"].copy_(self._repeated(now, net.lag))
            carried = carried | {name}


def _pushed(past: Tensor, now: Tensor, axis: int) -> Tensor:
    """The past without its oldest entry, and what is now behind it."""
    kept = past.narrow(axis, 1, past.shape[axis] - 1)
    return torch.cat([kept, now.unsqueeze(axis)], axis)
