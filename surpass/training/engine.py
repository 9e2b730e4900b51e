"""The compiled executor: a `Learner`'s whole update as one function of explicit state.

Everything an update reads and writes (parameters, Adam's moments, snapshots, the state of parts) is
a dict of tensors. Several updates are traced into one graph of tensor operations, gradients
included, and compiled once; the graph gathers its rows from tables on the device and writes the new
state in place. On a GPU it is captured as a CUDA graph. `SURPASS_COMPILE=0` runs the same function
eagerly, with the same random numbers.
"""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import functional_call, grad, vjp, vmap

from surpass.errors import InputError
from surpass.forms import Best, Ema, Learner, Project, Spaces, Train
from surpass.objectives.rows import Rows
from surpass.parts import initial_state, run, schedules
from surpass.training.collecting import pack, unpack
from surpass.training.compiling import compiled
from surpass.training.descent import Descending
from surpass.training.optimizers import Moments, adam_numbers, adam_update
from surpass.training.snapshots import Bank, Snapshots, build_bank
from surpass.training.streams import Stream, Tables

__all__ = ["Bank", "Engine", "build_bank", "compiling_is_on"]

State = dict[str, Tensor]
_LOG = logging.getLogger("surpass.training")


def compiling_is_on() -> bool:
    """Whether updates are compiled: unless SURPASS_COMPILE=0."""
    return os.environ.get("SURPASS_COMPILE", "1") != "0"


class Engine:
    """Runs a learner on a stream.

    Args:
        form: what to run.
        stream: where batches come from, open.
        spaces: what the nets must fit.
        roles: what the caller handed in by name.
        seed: of the nets and of all randomness in the updates.
        seeds: run so many seeds at once, `seed, seed + 1, ...`, as one batched update (`vmap`).
            State and metrics then have a leading axis; nets start as they would alone, and each
            seed draws its own batches and noise.
        device: where everything lives.
        unroll: updates per call of the compiled function; None chooses.
        compile: None follows SURPASS_COMPILE.
    """

    def __init__(
        self,
        form: Learner,
        stream: Stream,
        spaces: Spaces,
        *,
        roles: Mapping[str, Any] | None = None,
        seed: int = 0,
        seeds: int | None = None,
        device: torch.device | str = "cpu",
        unroll: int | None = None,
        compile: bool | None = None,
    ) -> None:
        self.form, self.stream, self.spaces = form, stream, spaces
        self.device, self.seeds, self.seed = torch.device(device), seeds, seed
        self.roles = dict(roles or {})
        self.bank = build_bank(form, spaces, self.roles, seed).to(self.device)
        self.steps = tuple(form.update)
        self._check()
        averages = [n.every for n in form.nets.values() if isinstance(n, Ema)]
        self.period = math.lcm(*(s.every for s in self.steps), *averages)
        axis = 0 if seeds is None else 1
        self.snapshots = Snapshots(form, self.period, getattr(stream, "apart", False), axis)
        wanted = min([self.period if unroll is None else unroll, *self.snapshots.intervals])
        self.unroll = self.period * max(1, wanted // self.period)
        self.compile = compiling_is_on() if compile is None else compile
        self.compiler: Callable[..., Any] = compiled
        self.step = 0
        self.counts = [0] * len(self.steps)
        self._schedules = schedules(form)
        self.state = self._initial_state()
        self._compiled: dict[int, Callable[..., dict[str, Tensor]]] = {}
        self._sums: dict[str, Tensor] = {}
        self._tally: dict[str, int] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._rng = torch.get_rng_state()
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    # ------------------------------------------------------------------------------------------
    # what is run

    def _check(self) -> None:
        for i, step in enumerate(self.steps):
            for name in step.nets if isinstance(step, Train) else (step.net,):
                if name not in self.bank:
                    raise InputError(
                        f"step {i} trains {name!r}, and the nets are {', '.join(self.bank)}"
                    )

    def _key(self, i: int) -> str:
        """The name of a step's optimizer: the nets it trains, numbered where several train them."""
        step = self.steps[i]
        assert isinstance(step, Train)
        same = [j for j, s in enumerate(self.steps) if isinstance(s, Train) and s.nets == step.nets]
        name = "+".join(step.nets)
        return name if same[0] == i else f"{name}#{same.index(i)}"

    def _trained(self, step: Train, state: Mapping[str, Tensor]) -> State:
        parameters = {k for k, _ in self.bank.named_parameters()}
        return {k: state[f"net.{k}"] for k in sorted(parameters) if k.split(".")[0] in step.nets}

    def _initial_state(self) -> State:
        state: State = {}
        for name, tensor in [*self.bank.named_parameters(), *self.bank.named_buffers()]:
            state[f"net.{name}"] = tensor.detach()
        if self.seeds is not None:
            state = self._seeded(state)
        single = self.seeds is None
        state |= self.snapshots.initial(state)
        for i, step in enumerate(self.steps):
            if not isinstance(step, Train):
                continue
            for name, p in self._trained(step, state).items():
                state[f"adam.{self._key(i)}.m.{name}"] = torch.zeros_like(p)
                state[f"adam.{self._key(i)}.v.{name}"] = torch.zeros_like(p)
        for path, held in initial_state(self.form).items():
            for key, tensor in held.items():
                tensor = tensor.to(self.device)
                state[f"part.{path}:{key}"] = (
                    tensor.clone()
                    if single
                    else tensor.expand(self.seeds or 1, *tensor.shape).clone()
                )
        shape: tuple[int, ...] = () if single else (self.seeds or 1,)
        state["watch.first"] = torch.full(shape, -1.0, device=self.device)
        if self.form.source.kind == "log":
            size = (*shape, self.form.source.size)
            state["watch.rows"] = torch.zeros(size, dtype=torch.long, device=self.device)
        return state

    def _seeded(self, state: State) -> State:
        assert self.seeds is not None
        banks = [
            build_bank(self.form, self.spaces, self.roles, self.seed + s) for s in range(self.seeds)
        ]
        named = [dict([*b.named_parameters(), *b.named_buffers()]) for b in banks]
        return {
            key: torch.stack([n[key.removeprefix("net.")].detach() for n in named]).to(self.device)
            for key in state
        }

    # ------------------------------------------------------------------------------------------
    # the update, a pure function

    def _numbers(self, step: int, counts: list[int]) -> list[float]:
        """All numbers that change with the step, in a fixed order."""
        row = [float(step), *(s.at(step) for s in self._schedules.values())]
        for i, what in enumerate(self.steps):
            if not isinstance(what, Train):
                continue
            runs = (step + 1) % what.every == 0
            for _ in range(what.times):
                counts[i] += runs
                row.extend(adam_numbers(what.optimizer, step, max(counts[i], 1)))
        return row

    def _named(self, row: Tensor) -> dict[str, Any]:
        """The same, by name: schedules by path, Adam's by step and repetition."""
        values: dict[str, Any] = {"step": row[0]}
        at = 1
        for path in self._schedules:
            values[path] = row[at]
            at += 1
        for i, what in enumerate(self.steps):
            for r in range(what.times if isinstance(what, Train) else 0):
                values[f"adam.{i}.{r}"] = (row[at], row[at + 1], row[at + 2])
                at += 3
        return values

    def _updates(
        self, state: State, tables: Tables, numbers: Tensor, position: int, count: int
    ) -> tuple[State, dict[str, Tensor]]:
        """`count` updates, from a position within the period: new state, mean metrics."""
        found: dict[str, list[Tensor]] = {}
        state = dict(state)
        for k in range(count):
            metrics = self._one(state, tables, self._named(numbers[k]), position + k)
            for name, value in metrics.items():
                found.setdefault(name, []).append(value)
        means = {n: v[0] if len(v) == 1 else torch.stack(v).mean(0) for n, v in found.items()}
        return state, means

    def _one(
        self, state: State, tables: Tables, numbers: dict[str, Any], position: int
    ) -> dict[str, Tensor]:
        """One update; writes into `state` and gives the metrics."""
        self.snapshots.before_update(state)
        rows = self._draw(state, tables, numbers)
        metrics: dict[str, Tensor] = {}
        for i, step in enumerate(self.steps):
            if (position + 1) % step.every:
                continue
            if isinstance(step, Project):
                self._project(i, step, state, numbers)
                continue
            for r in range(step.times):
                batch = rows if r == 0 else self._draw(state, tables, numbers)
                metrics |= self._train(i, step, state, batch, numbers, r)
        self.snapshots.after_update(state, position, numbers)
        self._guard(state, rows, metrics, numbers)
        return metrics

    def _guard(self, state: State, rows: Rows, metrics: State, numbers: dict[str, Any]) -> None:
        """Note the first update whose loss is not a number, and its rows."""
        if not metrics:
            return
        bad = ~torch.isfinite(torch.stack(list(metrics.values())).sum(0))
        first = state["watch.first"]
        new = bad & (first < 0)
        state["watch.first"] = torch.where(new, numbers["step"], first)
        if "watch.rows" in state and "index" in rows:
            state["watch.rows"] = torch.where(new, rows.index, state["watch.rows"])

    def _lent(self, state: Mapping[str, Tensor], call: Callable[[Any], Any]) -> Any:
        tensors = {k[4:]: v for k, v in state.items() if k.startswith("net.")}
        return functional_call(self.bank, tensors, (call,))

    def _part_state(self, state: Mapping[str, Tensor], root: str) -> dict[str, State]:
        held: dict[str, State] = {}
        for key, tensor in state.items():
            if key.startswith(f"part.{root}"):
                path, _, name = key[5:].rpartition(":")
                held.setdefault(path, {})[name] = tensor
        return held

    def _draw(self, state: State, tables: Tables, numbers: dict[str, Any]) -> Rows:
        rows = self.stream.sample(tables)
        for i, prepare in enumerate(self.form.prepare):
            at = ("prepare", str(i))
            held = self._part_state(state, ".".join(at))

            def call(nets: Any, rows: Rows = rows, p: Any = prepare, h: Any = held, a: Any = at):
                return run(p, (nets, rows), numbers=numbers, state=h, at=a)

            columns, after = self._lent(state, call)
            rows = columns if isinstance(columns, Rows) else rows.filled(**columns)
            self._keep(state, after)
        return rows

    def _keep(self, state: State, after: Mapping[str, State]) -> None:
        for path, held in after.items():
            for name, tensor in held.items():
                state[f"part.{path}:{name}"] = tensor.detach()

    def _train(
        self, i: int, step: Train, state: State, rows: Rows, numbers: dict[str, Any], r: int
    ) -> dict[str, Tensor]:
        trained = self._trained(step, state)
        at = ("update", str(i), "loss")
        held = self._part_state(state, f"update.{i}.")
        key = self._key(i)

        def terms_of(parameters: State) -> tuple[State, dict[str, State]]:
            lent = {**state, **{f"net.{k}": v for k, v in parameters.items()}}
            value, after = self._lent(
                lent,
                lambda nets: run(step.loss, (nets, rows), numbers=numbers, state=held, at=at),
            )
            terms = value if isinstance(value, dict) else {key: value}
            return {name: _averaged(v, rows) for name, v in terms.items()}, after

        gradients, terms, after = self._gradient(i, step, terms_of, trained, numbers, held)
        self._keep(state, after)
        names = {n: (state[f"adam.{key}.m.{n}"], state[f"adam.{key}.v.{n}"]) for n in trained}
        moments = Moments(
            {n: m for n, (m, _) in names.items()}, {n: v for n, (_, v) in names.items()}
        )
        rates = numbers[f"adam.{i}.{r}"]
        if (rate := after.get(f"update.{i}.gradient", {}).get("rate")) is not None:
            rates = (rate * rates[0], rate * rates[1], rates[2])
        new, moments = adam_update(step.optimizer, trained, gradients, moments, rates)
        for name in trained:
            state[f"net.{name}"] = new[name]
            state[f"adam.{key}.m.{name}"] = moments.first[name]
            state[f"adam.{key}.v.{name}"] = moments.second[name]
        return {f"{key}.{n}" if n != key else key: v.detach() for n, v in terms.items()}

    def _gradient(
        self,
        i: int,
        step: Train,
        terms_of: Callable[[State], tuple[State, dict[str, State]]],
        trained: State,
        numbers: dict[str, Any],
        held: dict[str, State],
    ) -> tuple[State, State, dict[str, State]]:
        """Gradients of the sum of all terms, or what the step's gradient rule makes of them."""
        if step.gradient is None:

            def total(parameters: State) -> tuple[Tensor, Any]:
                terms, after = terms_of(parameters)
                return sum(terms.values(), torch.zeros((), device=self.device)), (terms, after)

            gradients, (terms, after) = cast(Any, grad(total, has_aux=True)(trained))
            return gradients, terms, after
        found: Any = vjp(terms_of, trained, has_aux=True)
        terms, pull, after = found
        rule = Descending(terms, pull, trained, lambda p: terms_of(p)[0])
        gradients, more = run(
            step.gradient, (rule,), numbers=numbers, state=held, at=("update", str(i), "gradient")
        )
        return gradients, terms, {**after, **more}

    def _project(self, i: int, step: Project, state: State, numbers: dict[str, Any]) -> None:
        start = f"net.{step.net}."
        own = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        held = self._part_state(state, f"update.{i}.")
        new, after = run(
            step.rule, (own,), numbers=numbers, state=held, at=("update", str(i), "rule")
        )
        self._keep(state, after)
        state.update({f"{start}{k}": v for k, v in new.items()})

    # ------------------------------------------------------------------------------------------
    # running it

    @torch.no_grad()
    def advance(self, updates: int) -> None:
        """Make so many updates.

        Raises:
            InputError: when a loss became NaN or infinite: which update (checked at the end).
        """
        goal = self.step + updates
        with self._own_randomness():
            while self.step < goal:
                count = self._fitting(goal)
                self.stream.before(count)
                if self.step == 0:
                    self._judge()
                self._call(count)
                self.snapshots.between_calls(self.state, self.step)
                self._judge()
        self._watch()

    def _fitting(self, goal: int) -> int:
        """How many updates the next call makes: `unroll`, or one where that does not fit."""
        if self.step % self.period:
            return 1
        limit = goal - self.step
        for every in self.snapshots.intervals:
            limit = min(limit, every - self.step % every)
        return self.unroll if limit >= self.unroll else 1

    def _call(self, count: int) -> None:
        rows = [self._numbers(self.step + k, self.counts) for k in range(count)]
        numbers = torch.tensor(rows, dtype=torch.float32, device=self.device)
        tables = self.stream.tables
        if self.compile and count == self.unroll and self.step % self.period == 0:
            if count not in self._compiled:
                self._compiled[count] = self._compile(tables, numbers, count)
            metrics = self._compiled[count](self.state, tables, numbers)
        else:
            new, metrics = self._whole(self.state, tables, numbers, self.step % self.period, count)
            _write(self.state, new)
        self.step += count
        self._tell(metrics, count)

    def _whole(
        self, state: State, tables: Tables, numbers: Tensor, position: int, count: int
    ) -> tuple[State, dict[str, Tensor]]:
        if self.seeds is None:
            return self._updates(state, tables, numbers, position, count)

        def one_seed(own: State) -> tuple[State, dict[str, Tensor]]:
            return self._updates(own, tables, numbers, position, count)

        return vmap(one_seed, randomness="different")(state)

    def _compile(self, tables: Tables, numbers: Tensor, count: int) -> Any:
        def whole(state: State, tables: Tables, numbers: Tensor) -> dict[str, Tensor]:
            new, metrics = self._whole(state, tables, numbers, 0, count)
            _write(state, new)
            return metrics

        return self.compiler(whole, self.state, tables, numbers)

    def batch_begins(self) -> None:
        """What a source calls that keeps a batch for several updates, before it makes a new one."""
        self.snapshots.batch_begins(self.state)

    def derived(self, part: Any, record: Any, at: tuple[str, ...]) -> Any:
        """What a part of nets and a record gives between calls, its state kept in place: columns of
        a batch that is gone through several times."""
        numbers = {path: s.at(self.step) for path, s in self._schedules.items()}
        held = self._part_state(self.state, ".".join(at))
        value, after = run(part, (self.bank, record), numbers=numbers, state=held, at=at)
        for path, kept in after.items():
            for name, tensor in kept.items():
                self.state[f"part.{path}:{name}"].copy_(tensor)
        return value

    def _judge(self) -> None:
        """Score the nets whose best state is kept, where that is due."""
        for name, net in self.snapshots.to_judge(self.step).items():
            self.snapshots.keep_best(self.state, name, self._score(name, net))

    def _score(self, name: str, net: Best) -> Tensor:
        """What a judge, a part of nets and a batch of the source, says of the nets now."""
        values = self._numbers(self.step, list(self.counts))
        numbers = self._named(torch.tensor(values, dtype=torch.float32, device=self.device))
        getattr(self.stream, "rewind", lambda: None)()

        def one_seed(own: State) -> Tensor:
            rows = self._draw(dict(own), self.stream.tables, numbers)
            at = ("nets", name, "judge")
            held = self._part_state(own, ".".join(at))

            def call(nets: Any) -> Any:
                return run(net.judge, (nets, rows), numbers=numbers, state=held, at=at)[0]

            return self._lent(own, call).float().mean()

        if self.seeds is None:
            return one_seed(self.state)
        return vmap(one_seed, randomness="different")(self.state)

    def _tell(self, metrics: dict[str, Tensor], count: int) -> None:
        for name, value in metrics.items():
            if name in self._sums:
                self._sums[name] += value
            else:
                self._sums[name] = value.clone()
            self._tally[name] = self._tally.get(name, 0) + 1

    def metrics(self) -> dict[str, float]:
        """The mean of every loss since the last time this was asked (over seeds too)."""
        out = {n: float((v / self._tally[n]).mean()) for n, v in self._sums.items()}
        self._sums, self._tally = {}, {}
        return out

    def _watch(self) -> None:
        first = self.state["watch.first"].reshape(-1)
        for s, value in enumerate(first.tolist()):
            if value >= 0:
                which = f"seed {self.seed + s}, " if self.seeds is not None else ""
                raise InputError(
                    f"{which}update {int(value)}: a loss became NaN or infinite{self._batch(s)}; "
                    "lower the learning rate, or look for extreme values in these rows"
                )

    def _batch(self, seed: int) -> str:
        """Which rows the batch had whose loss was not a number."""
        if "watch.rows" not in self.state:
            return ""
        rows = self.state["watch.rows"].reshape(-1, self.form.source.size)[seed].tolist()
        more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
        return f" in the batch of rows {', '.join(map(str, rows[:8]))}{more}"

    @contextmanager
    def _own_randomness(self):
        """Updates use torch's default generator, with a state of their own."""
        outside = torch.get_rng_state()
        torch.set_rng_state(self._rng)
        try:
            yield
        finally:
            self._rng = torch.get_rng_state()
            torch.set_rng_state(outside)

    # ------------------------------------------------------------------------------------------
    # looking in, storing, carrying over

    def nets(self, seed: int = 0) -> Bank:
        """The nets as they are now; with several seeds, a copy of those of one of them."""
        if self.seeds is None:
            return self.bank
        bank = copy.deepcopy(self.bank)
        named = dict([*bank.named_parameters(), *bank.named_buffers()])
        for name, tensor in named.items():
            tensor.data.copy_(self.state[f"net.{name}"][seed])
        return bank

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All tensors, and all else as plain values: what a checkpoint holds."""
        tensors = {**self.state, "random.cpu": self._rng}
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        held, stream = pack(self.stream.state_dict())
        tensors |= {f"stream.{k}": v for k, v in held.items()}
        tensors |= {f"sum.{k}": v for k, v in self._sums.items()}
        told = [[name, count] for name, count in self._tally.items()]  # in order
        return tensors, {"step": self.step, "counts": self.counts, "stream": stream, "tally": told}

    def load_state_dict(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            InputError: when the tensors are not those of this form and these spaces.
        """
        for key, tensor in self.state.items():
            if key not in tensors or tensors[key].shape != tensor.shape:
                found = list(tensors[key].shape) if key in tensors else "nothing"
                raise InputError(
                    f"the checkpoint does not fit: {key} is {list(tensor.shape)} here, and "
                    f"{found} there; it is of another recipe or another task"
                )
            tensor.copy_(tensors[key])
        self._rng = tensors["random.cpu"].clone()
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"].cpu())
        self.step, self.counts = int(rest["step"]), list(rest["counts"])
        self._tally = dict(rest.get("tally", ()))
        self._sums = {n: tensors[f"sum.{n}"].to(self.device).clone() for n in self._tally}
        held = {k[7:]: v for k, v in tensors.items() if k.startswith("stream.")}
        self.stream.load_state_dict(unpack(held, rest["stream"]))

    def carry_over(self, other: Engine) -> None:
        """Take from an earlier stage what has the same name and shapes: nets, and the moments and
        counts of the optimizers that train them, each whole or not at all. Snapshots that are new
        start at what they follow."""
        trained = {n for s in self.steps if isinstance(s, Train) for n in s.nets}
        anew = self.snapshots.begin_anew(trained)
        unlike = {_owner(k) for k, t in self.state.items()
                  if k not in other.state or other.state[k].shape != t.shape}  # fmt: skip
        carried: set[str] = set()
        for key, tensor in self.state.items():
            kind, name = key.split(".")[:2]
            of = set(name.split("#")[0].split("+"))
            if _owner(key) in unlike or kind == "watch" or anew & of:
                continue
            tensor.copy_(other.state[key])
            carried |= {name} if kind == "net" else set()
        self.snapshots.start_over(self.state, carried)
        known = {other._key(i): c for i, c in enumerate(other.counts)
                 if isinstance(other.steps[i], Train)}  # fmt: skip
        for i, step in enumerate(self.steps):
            if not isinstance(step, Train) or ("adam", self._key(i)) in unlike:
                continue
            if not anew & set(step.nets):
                self.counts[i] = known.get(self._key(i), 0)


def _owner(key: str) -> tuple[str, ...]:
    """The net, snapshot or optimizer that a tensor is of; what a part keeps stands alone."""
    return (key,) if key.startswith("part.") else tuple(key.split(".")[:2])


def _write(state: State, new: State) -> None:
    for key, tensor in state.items():
        if new[key] is not tensor:
            tensor.copy_(new[key])


def _averaged(value: Tensor, rows: Rows) -> Tensor:
    """The mean over rows, weighted where the batch has weights; a scalar as it is."""
    if value.dim() == 0:
        return value
    return (value * rows.weight).mean() if "weight" in rows else value.mean()
