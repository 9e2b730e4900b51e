"""What a part is: a pure function with hyperparameters, held as a value.

A part sees a record (or nets and a record) and gives a tensor. Before the slash of its signature
stands what it
sees, after it its hyperparameters:

    @part
    def clip(s: Steps, /, low: float = 0.2, high: float = 0.2) -> Tensor: ...

    trust = clip(high=0.28) + linear(0.05, 0.0, steps=10_000) * entropy_bonus()

`clip(high=0.28)` is frozen, printable, comparable and picklable; `a + b`, `c * a`, `a * b`, `-a`
and `stop(a)` combine
parts of one kind; a number may be a schedule; a stateful part takes its state first and gives it
back second.
"""

from surpass.parts.part import (
    PARTS,
    Evaluate,
    Nets,
    Node,
    Part,
    State,
    Value,
    as_part,
    by_source,
    describe,
    initial_state,
    part,
    run,
    stop,
)
from surpass.parts.schedules import Number, Schedule, constant, cosine, exponential, linear, warmup
from surpass.parts.stored import from_json, to_json
from surpass.parts.trees import leaves, needs_of, schedules, set_at

__all__ = [
    "PARTS", "Evaluate", "Nets", "Node", "Number", "Part", "Schedule", "State", "Value", "as_part",
    "by_source", "constant", "cosine", "describe", "exponential", "from_json", "initial_state",
    "leaves", "linear", "needs_of", "part", "run", "schedules", "set_at", "stop", "to_json",
    "warmup",
]  # fmt: skip
