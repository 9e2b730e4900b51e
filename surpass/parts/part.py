"""What a part is, how parts are combined, and how a tree of them is evaluated."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import (
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
    runtime_checkable,
)

import torch
from torch import Tensor

from surpass.errors import InputError, nearest
from surpass.parts.schedules import Schedule

__all__ = [
    "PARTS", "Definition", "Evaluate", "Nets", "Node", "Part", "State", "Value", "as_part",
    "by_source", "children", "describe", "initial_state", "known_module", "own_needs", "part",
    "rebuild", "run", "stop",
]  # fmt: skip

Seen = ParamSpec("Seen")
Hyper = ParamSpec("Hyper")
R = TypeVar("R", covariant=True)
S = TypeVar("S")
State = dict[str, Tensor]
Needs = tuple[Any, ...] | Callable[..., tuple[Any, ...]]
Value = Any


class Nets(Protocol):
    """The nets that a loss may call, by the names of its form: `nets.q(obs, action)`."""

    def __getattr__(self, name: str) -> Any: ...
    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True)
class Definition:
    """What a decorated function declares once: its code, how its state begins, and what it needs
    to be given."""

    name: str
    function: Callable[..., Any]
    state: Callable[..., State] | None = None
    needs: Needs = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    home: str = ""


PARTS: dict[str, Definition] = {}
_LEAF, _SUM, _PRODUCT, _SCALED, _STOPPED, _BY_SOURCE = (
    "leaf",
    "sum",
    "product",
    "scaled",
    "stop",
    "by_source",
)


@dataclass(frozen=True, eq=False)
class Part(Generic[Seen, R]):
    """A pure function with its hyperparameters filled in, or a combination of such: a frozen value.

    Call it with what it sees. `run` evaluates it with schedules and state, as training does.
    """

    definition: Definition
    values: tuple[tuple[str, Any], ...] = ()

    def __call__(self, *seen: Seen.args, **named: Seen.kwargs) -> R:
        """Evaluate with schedules at step 0. A part without state gives its value, one with state
        `(value, state)`."""
        if self.definition.state is not None and self.kind == _LEAF:
            return self.definition.function(*seen, **_resolved(self.hyper, {}, ()))
        out, after = run(
            self, cast("tuple[Any, ...]", seen), state={"": {}} if initial_state(self) else {}
        )
        return cast(R, out) if not after else cast(R, (out, after))

    @property
    def kind(self) -> str:
        return self.definition.name if self.definition.name in _COMBINED else _LEAF

    @property
    def combined(self) -> bool:
        """Whether it is a combination of parts."""
        return self.kind != _LEAF

    @property
    def name(self) -> str:
        """The function's name, or the combination's."""
        return self.definition.name

    @property
    def hyper(self) -> dict[str, Any]:
        """Its hyperparameters, defaults included."""
        return {**self.definition.defaults, **dict(self.values)}

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            hyper = self.hyper
            if name in hyper:
                return hyper[name]
        raise AttributeError(f"{self!r} has no hyperparameter {name!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and self.definition.name == other.definition.name and (
            self.definition.function is other.definition.function
        ) and self.hyper == other.hyper  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.definition.name, repr(self.values)))

    def __reduce__(self) -> Any:
        return rebuild, (self.definition.home or self.definition.name, self.values)

    def __add__(self, other: Part[Seen, Any]) -> Part[Seen, R]:
        return _combine(_SUM, first=self, second=as_part(other))

    def __sub__(self, other: Part[Seen, Any]) -> Part[Seen, R]:
        return _combine(_SUM, first=self, second=_combine(_SCALED, by=-1.0, inner=as_part(other)))

    def __mul__(self, other: Any) -> Part[Seen, R]:
        if isinstance(other, Part):
            return _combine(_PRODUCT, first=self, second=other)
        return _combine(_SCALED, by=other, inner=self)

    def __rmul__(self, other: Any) -> Part[Seen, R]:
        return _combine(_SCALED, by=other, inner=self)

    def __neg__(self) -> Part[Seen, R]:
        return _combine(_SCALED, by=-1.0, inner=self)

    def __repr__(self) -> str:
        return describe(self)


_COMBINED = (_SUM, _PRODUCT, _SCALED, _STOPPED, _BY_SOURCE)


def _combine(kind: str, **values: Any) -> Any:
    return Part(Definition(kind, _combined_needs_run), tuple(values.items()))


def _combined_needs_run(*seen: Any, **values: Any) -> Any:
    raise InputError("a combination of parts is evaluated by surpass.parts.run")


def as_part(value: Any) -> Part[Any, Any]:
    """A part as it is, or a function as one (which no file can store)."""
    if isinstance(value, Part):
        return value
    if callable(value):  # a lambda fits any slot for an afternoon
        return Part(Definition(getattr(value, "__name__", "lambda"), value))
    raise InputError(f"a part adds to a part, not to {value!r}; to scale it write {value!r} * part")


class _StatefulDecorator(Protocol):
    def __call__(
        self, function: Callable[Concatenate[State, S, Hyper], tuple[R, State]], /
    ) -> Callable[Hyper, Part[[S], R]]: ...


class _NeedsDecorator(Protocol):
    @overload
    def __call__(
        self, function: Callable[Concatenate[Nets, S, Hyper], R], /
    ) -> Callable[Hyper, Part[[Nets, S], R]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[S, Hyper], R], /
    ) -> Callable[Hyper, Part[[S], R]]: ...


@overload
def part(
    function: Callable[Concatenate[Nets, S, Hyper], R], /
) -> Callable[Hyper, Part[[Nets, S], R]]: ...
@overload
def part(function: Callable[Concatenate[S, Hyper], R], /) -> Callable[Hyper, Part[[S], R]]: ...
@overload
def part(*, state: Callable[..., State], needs: Needs = ()) -> _StatefulDecorator: ...
@overload
def part(*, needs: Needs) -> _NeedsDecorator: ...
def part(function: Any = None, /, *, state: Any = None, needs: Needs = ()) -> Any:
    """Make a function a part: `clip(low=0.1)` then is a value that can be called, combined,
    printed and stored.

    Args:
        function: what it sees stands before the slash (after the state, if it has one),
            hyperparameters after it.
        state: gives the first state, a dict of tensors; may take any of the hyperparameters by
            name.
        needs: statistics (functions) or columns (names) that must be computed before the part runs;
            or a function of any of the hyperparameters, by name, that gives them.

    Raises:
        InputError: when the function has no slash, or its name is taken by another function of the
            same module.
    """
    if function is None:
        return lambda f: part_of(f, state=state, needs=needs)
    return part_of(function, state=state, needs=needs)


def part_of(function: Callable[..., Any], *, state: Any, needs: Needs) -> Any:
    signature = inspect.signature(function)
    if not any(p.kind is p.POSITIONAL_ONLY for p in signature.parameters.values()):
        raise InputError(f"part {function.__name__}: put a slash after what it sees")
    names = [p for p in signature.parameters.values() if p.kind is not p.POSITIONAL_ONLY]
    hyper = signature.replace(parameters=names, return_annotation=inspect.Signature.empty)
    defaults = {p.name: p.default for p in names if p.default is not p.empty}
    home = f"{function.__module__.removeprefix('surpass.')}.{function.__qualname__}"
    definition = Definition(function.__name__, function, state, needs, defaults, home)
    if function.__name__ in _COMBINED:
        raise InputError(f"part {function.__name__}: that name is taken by a combination of parts")

    def build(*args: Any, **named: Any) -> Part[Any, Any]:
        try:
            bound = hyper.bind(*args, **named)
        except TypeError as error:
            wrong = next((n for n in named if n not in hyper.parameters), "")
            hint = nearest(wrong, list(hyper.parameters)) if wrong else ""
            raise InputError(f"{function.__name__}{hyper}: {error}{hint}") from error
        given = {
            k: v for k, v in bound.arguments.items() if k not in defaults or defaults[k] is not v
        }
        return Part(definition, tuple(given.items()))

    build.__name__, build.__doc__, build.__module__ = (
        function.__name__, function.__doc__, function.__module__)  # fmt: skip
    build.__qualname__ = function.__qualname__
    build.__wrapped__ = function  # type: ignore[attr-defined]
    build.__signature__ = hyper  # type: ignore[attr-defined]
    build.definition = definition  # type: ignore[attr-defined]
    PARTS[home] = definition
    return build


def stop(inner: Part[Seen, R]) -> Part[Seen, R]:
    """The same values, through which no gradient flows."""
    return _combine(_STOPPED, inner=inner)


def by_source(**parts: Part[Seen, R]) -> Part[Seen, R]:
    """A part for each source of data, chosen by row: `by_source(own=clip(), expert=nll())`.

    The record names its sources in order in `.sources` and holds their numbers in `.source`.
    """
    return _combine(_BY_SOURCE, **parts)


# ----------------------------------------------------------------------------------------------
# evaluation

Path = tuple[str, ...]


class Evaluate(Protocol):
    """Evaluates one of a node's own parts, which stands under these names, with its state."""

    def __call__(self, tree: Any, seen: tuple[Any, ...], *names: str) -> Any: ...


@runtime_checkable
class Node(Protocol):
    """What evaluates the parts that it holds itself, in a slot where a part could stand: a
    dataclass, so that schedules and state are found in it."""

    def evaluate(self, seen: tuple[Any, ...], part: Evaluate) -> Any: ...


def run(
    tree: Part[..., Any] | Node,
    seen: tuple[Any, ...],
    *,
    numbers: Mapping[str, Any] | None = None,
    state: Mapping[str, State] | None = None,
    at: Path = (),
) -> tuple[Any, dict[str, State]]:
    """Evaluate a tree of parts.

    Args:
        seen: what the parts see, positionally.
        numbers: the current value of each schedule, by its dotted path (missing: its value at step
            0).
        state: the state of each stateful part, by its dotted path (missing: its initial state).

    Returns:
        The value, and the state after it (only the parts that have one).
    """
    numbers, state = numbers or {}, state or {}
    after: dict[str, State] = {}
    value = _evaluate(tree, seen, numbers, state, after, at)
    return value, after


def _evaluate(
    tree: Any, seen: tuple[Any, ...], numbers: Mapping[str, Any], state: Mapping[str, State],
    after: dict[str, State], at: Path,
) -> Any:  # fmt: skip
    if not isinstance(tree, Part) and isinstance(tree, Node):

        def own(tree: Any, seen: tuple[Any, ...], *names: str) -> Any:
            return _evaluate(tree, seen, numbers, state, after, (*at, *names))

        return tree.evaluate(seen, own)

    def inner(name: str) -> Any:
        return _evaluate(tree.hyper[name], seen, numbers, state, after, (*at, name))

    kind = tree.kind
    if kind == _SUM:
        return _add(inner("first"), inner("second"))
    if kind == _PRODUCT:
        return inner("first") * inner("second")
    if kind == _SCALED:
        by = _number(tree.hyper["by"], numbers, (*at, "by"))
        return _scale(by, inner("inner"))
    if kind == _STOPPED:
        return _detach(inner("inner"))
    if kind == _BY_SOURCE:
        return _choose(seen[-1], {name: inner(name) for name in tree.hyper})
    hyper = _resolved(tree.hyper, numbers, at)
    if tree.definition.state is None:
        return tree.definition.function(*seen, **hyper)
    key = ".".join(at)
    before = state[key] if state.get(key) else _begin(tree)
    value, after[key] = tree.definition.function(before, *seen, **hyper)
    return value


def _number(value: Any, numbers: Mapping[str, Any], at: Path) -> Any:
    if isinstance(value, Schedule):
        return numbers.get(".".join(at), value.at(0))
    return value


def _resolved(hyper: Mapping[str, Any], numbers: Mapping[str, Any], at: Path) -> dict[str, Any]:
    """Hyperparameters with schedules replaced by numbers, inside held parts too."""
    out = {}
    for name, value in hyper.items():
        if isinstance(value, Part):
            inner = _resolved(value.hyper, numbers, (*at, name))
            out[name] = Part(value.definition, tuple(inner.items()))
        else:
            out[name] = _number(value, numbers, (*at, name))
    return out


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, dict) or isinstance(b, dict):
        a, b = _terms(a), _terms(b)
        return {k: a[k] + b[k] if k in a and k in b else a.get(k, b.get(k)) for k in {**a, **b}}
    return a + b


def _terms(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"loss": value}


def _scale(by: Any, value: Any) -> Any:
    return {k: by * v for k, v in value.items()} if isinstance(value, dict) else by * value


def _detach(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _detach(v) for k, v in value.items()}
    return value.detach() if isinstance(value, Tensor) else value


def _choose(record: Any, values: dict[str, Any]) -> Any:
    sources = tuple(record.sources)
    unknown = [name for name in values if name not in sources]
    if unknown:
        raise InputError(
            f"by_source names {unknown[0]!r}, but the batch has the sources {', '.join(sources)}"
        )
    total: Any = 0
    for name, value in values.items():
        here = record.source == sources.index(name)
        while here.dim() < value.dim():
            here = here.unsqueeze(-1)
        total = total + torch.where(here, value, torch.zeros_like(value))
    return total


# ----------------------------------------------------------------------------------------------
# the first state


def children(tree: Any) -> Iterator[tuple[str, Any]]:
    """What a form, a dict or a tuple holds, by name."""
    if isinstance(tree, Mapping):
        yield from ((str(k), v) for k, v in tree.items())
    elif isinstance(tree, tuple | list):
        yield from ((str(i), v) for i, v in enumerate(tree))
    elif is_dataclass(tree) and not isinstance(tree, type | Schedule):
        yield from ((f.name, getattr(tree, f.name)) for f in fields(tree))


def initial_state(tree: Any) -> dict[str, State]:
    """The first state of every stateful part of a tree, by its dotted path.

    Raises:
        InputError: when a stateful part is held by another part, where no state can be threaded.
    """
    return _states(tree, (), True)


def _states(tree: Any, at: Path, slot: bool) -> dict[str, State]:
    found: dict[str, State] = {}
    if isinstance(tree, Part):
        combined = tree.kind != _LEAF
        if tree.definition.state is not None and not combined:
            if not slot:
                raise InputError(
                    f"{tree.name} keeps state, so it stands in a slot of a form or in a sum, "
                    f"not inside another part ({'.'.join(at)})"
                )
            found[".".join(at)] = _begin(tree)
        for name, value in tree.hyper.items():
            found |= _states(value, (*at, name), slot and combined)
        return found
    for name, value in children(tree):
        found |= _states(value, (*at, name), True)
    return found


def _begin(tree: Part[..., Any]) -> State:
    make = tree.definition.state
    assert make is not None
    return _of_hyper(make, tree)


def _of_hyper(function: Callable[..., Any], tree: Part[..., Any]) -> Any:
    """A function of those of a part's hyperparameters that it names."""
    wanted = inspect.signature(function).parameters
    return function(**{k: v for k, v in tree.hyper.items() if k in wanted})


def own_needs(tree: Part[..., Any]) -> tuple[Any, ...]:
    """What one part needs to be given, with its hyperparameters as they are."""
    needs = tree.definition.needs
    return _of_hyper(needs, tree) if callable(needs) else needs


# ----------------------------------------------------------------------------------------------
# printing and storing


def describe(tree: Any) -> str:
    """The tree as one would write it: `clip(high=0.28) + 0.05 * entropy_bonus()`."""
    if not isinstance(tree, Part):
        return repr(tree)
    h = tree.hyper
    if tree.kind == _SUM:
        return f"{describe(h['first'])} + {describe(h['second'])}"
    if tree.kind == _PRODUCT:
        return f"{_grouped(h['first'])} * {_grouped(h['second'])}"
    if tree.kind == _SCALED:
        return f"{h['by']!r} * {_grouped(h['inner'])}"
    inside = ", ".join(f"{k}={describe(v)}" for k, v in (tree.values if tree.values else ()))
    return f"{tree.name}({inside})"


def _grouped(tree: Any) -> str:
    text = describe(tree)
    return f"({text})" if isinstance(tree, Part) and tree.kind == _SUM else text


def known_module(room: str) -> bool:
    """Whether a file may name this module: only modules of this package, and only by plain
    words."""
    if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", room):
        return False
    try:
        return importlib.util.find_spec(f"surpass.{room}") is not None
    except ModuleNotFoundError:
        return False


def rebuild(home: str, values: tuple[tuple[str, Any], ...]) -> Part[Any, Any]:
    """The part of that home with its values.

    Raises:
        InputError: when there is none (nothing but registered parts is ever called).
    """
    if home in _COMBINED:
        return _combine(home, **dict(values))
    room = home.rpartition(".")[0]
    if home not in PARTS and known_module(room):
        importlib.import_module(f"surpass.{room}")
    if home not in PARTS:
        raise InputError(
            f"unknown part {home!r}{nearest(home, list(PARTS))}; from another version?"
        )
    return Part(PARTS[home], values)
