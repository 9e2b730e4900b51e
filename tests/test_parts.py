"""The grammar of parts: values, combinations, schedules, state, JSON."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.views import Steps
from surpass.parts import (
    Nets,
    State,
    by_source,
    from_json,
    initial_state,
    linear,
    needs_of,
    part,
    run,
    schedules,
    set_at,
    stop,
    to_json,
)
from surpass.policies.diffusion import diffusion


@part
def shifted(s: Steps, /, by: float = 1.0) -> Tensor:
    return s.logp + by


@part
def squared(s: Steps, /, power: float = 2.0) -> Tensor:
    return s.logp**power


@part(state=lambda window=1: {"seen": torch.zeros(window)})
def counted(state: State, s: Steps, /, window: int = 1) -> tuple[Tensor, State]:
    return s.logp + state["seen"][0], {"seen": state["seen"] + 1}


@part(needs=("return_to_go",))
def wrapped(s: Steps, /, inner=shifted(), rate: float = 0.5) -> Tensor:
    return rate * inner(s)


@part
def critic_loss(nets: Nets, s: Steps, /, scale: float = 1.0) -> Tensor:
    return scale * nets.q(s.logp)


def steps(values: list[float]) -> Steps:
    logp = torch.tensor([values], requires_grad=True)
    return Steps(logp=logp, mask=torch.ones_like(logp))


numbers = st.floats(-3, 3)


@given(numbers, numbers, numbers)
def test_combinations_are_arithmetic_on_values(a: float, b: float, c: float):
    s = steps([0.5, -1.5])
    x, y = shifted(a), squared()
    torch.testing.assert_close((x + y)(s), x(s) + y(s))
    torch.testing.assert_close((b * x - c * y)(s), b * x(s) - c * y(s))
    torch.testing.assert_close((x * y)(s), x(s) * y(s))
    torch.testing.assert_close((-x)(s), -(x(s)))


def test_a_part_is_a_value():
    assert shifted(by=2.0) == shifted(2.0)
    assert shifted() == shifted(1.0)
    assert shifted(2.0) != shifted(3.0)
    assert shifted(2.0) + squared() == shifted(2.0) + squared()
    assert len({shifted(2.0), shifted(2.0)}) == 1
    assert pickle.loads(pickle.dumps(0.5 * shifted(2.0))) == 0.5 * shifted(2.0)
    assert repr(shifted(2.0) + 0.5 * (squared() + shifted())) == (
        "shifted(by=2.0) + 0.5 * (squared() + shifted())"
    )
    assert shifted(2.0).by == 2.0 and squared().power == 2.0


def test_a_misspelled_hyperparameter_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'by'"):
        shifted(bi=1.0)  # type: ignore[call-arg]


def test_stop_keeps_values_and_drops_gradients():
    s = steps([2.0])
    value = (stop(shifted()) * squared())(s)
    value.sum().backward()
    assert value.item() == 12.0
    assert s.logp.grad is not None and s.logp.grad.item() == 3.0 * 2 * 2.0


def test_schedules_are_found_and_resolved_by_path():
    tree = shifted(linear(0.0, 10.0, steps=10)) + linear(1.0, 0.0, steps=4) * squared()
    found = schedules(tree)
    assert {k: v.at(2) for k, v in found.items()} == {"first.by": 2.0, "second.by": 0.5}
    s = steps([3.0])
    value, _ = run(tree, (s,), numbers={k: v.at(2) for k, v in found.items()})
    assert value.item() == (3 + 2) + 0.5 * 9


def test_a_schedule_inside_a_held_part_is_resolved():
    tree = wrapped(shifted(linear(0.0, 1.0, steps=2)))
    value, _ = run(tree, (steps([1.0]),), numbers={"inner.by": 1.0})
    assert value.item() == 0.5 * (1 + 1)


def test_state_is_threaded_through_sums():
    tree = shifted(0.0) + 2.0 * counted(window=3)
    state = initial_state(tree)
    assert state["second.inner"]["seen"].tolist() == [0.0, 0.0, 0.0]
    s = steps([1.0])
    first, state = run(tree, (s,), state=state)
    second, state = run(tree, (s,), state=state)
    assert first.item() == 1 + 2 * 1
    assert second.item() == 1 + 2 * 2
    assert state["second.inner"]["seen"].tolist() == [2.0, 2.0, 2.0]


def test_state_inside_another_part_is_refused():
    with pytest.raises(InputError, match="stands in a slot"):
        initial_state(wrapped(counted()))


def test_by_source_chooses_by_row():
    logp = torch.tensor([[1.0], [2.0]])
    record = Steps(
        logp=logp,
        mask=torch.ones(2, 1),
        source=torch.tensor([1, 0]),
        sources=("own", "expert"),
    )
    value = by_source(own=shifted(10.0), expert=squared())(record)
    assert value.tolist() == [[1.0], [12.0]]
    with pytest.raises(InputError, match="replay"):
        by_source(replay=shifted())(record)


def test_json_round_trip_names_registered_parts_only():
    tree = stop(shifted(linear(0.0, 1.0, steps=5))) * squared() + 0.5 * wrapped(shifted(2.0))
    assert from_json(to_json(tree)) == tree
    with pytest.raises(InputError, match="not a registered part"):
        to_json(shifted() + (lambda s: s.logp))  # type: ignore[operator]
    with pytest.raises(InputError, match="unknown part"):
        from_json({"part": "os.system", "command": "true"})


def test_a_part_may_have_a_hyperparameter_that_is_called_schedule():
    tree = diffusion(4, schedule="cosine")
    assert from_json(to_json(tree)) == tree


def test_set_at_reaches_into_combinations_and_reads_text():
    tree = shifted(1.0) + 0.5 * squared(2.0)
    assert set_at(tree, "power", "3") == shifted(1.0) + 0.5 * squared(3)
    assert set_at(tree, "first.by", 4.0) == shifted(4.0) + 0.5 * squared(2.0)
    with pytest.raises(InputError, match="has no 'nothing'"):
        set_at(tree, "nothing", 1)


def test_needs_are_collected_once():
    assert needs_of(wrapped() + 2.0 * wrapped(rate=1.0)) == ("return_to_go",)


@part(needs=lambda window: (f"last_{window}",))
def windowed(s: Steps, /, window: int = 3) -> Tensor:
    """Needs a column that depends on its hyperparameter."""
    return s.logp


def test_needs_may_depend_on_hyperparameters():
    assert needs_of(windowed() + windowed(7) + wrapped()) == ("last_3", "last_7", "return_to_go")


def test_a_loss_on_nets_sees_nets_first():
    class Twice:
        def q(self, x: Tensor) -> Tensor:
            return 2 * x

    assert critic_loss(3.0)(Twice(), steps([1.5])).item() == 9.0  # type: ignore[arg-type]
