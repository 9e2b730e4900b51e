"""Snapshots against simulations by hand: averages, copies that lag, pools, the best state."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_logs import random_log

from surpass.critics.ensembles import value
from surpass.errors import InputError
from surpass.forms import Learner, adam, best, copy, ema, log, pool, train
from surpass.objectives.rows import Rows
from surpass.parts import linear, needs_of, part
from surpass.policies.acting import mean
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.streams import open_stream, spaces_of

KEY = "net.{}.net.bias0"


@part
def pull(nets, rows: Rows, /, toward: float = 1.0, net: str = "v"):
    """Half the squared distance of the bias to a point: a step of size 1 reaches it."""
    return 0.5 * (nets[net].net.bias0 - toward).square().sum()


@part
def toward_the_pool(nets, rows: Rows, /):
    """The squared distance of a net to the mean of its last states, on a batch."""
    here, past = nets.v(rows.obs), nets.past(rows.obs)
    assert past.shape == (3, *here.shape)
    newest = nets.past[-1](rows.obs)
    return (here - past.mean(0)).square().sum(0) + 0.1 * (here - newest - 1.0).square().sum(0)


@part
def near_three(nets, rows: Rows, /):
    """The closer the bias to 3, the higher."""
    return -(nets.v.net.bias0 - 3.0).abs().sum()


def _step(lr):
    return adam(lr * 1e6, betas=(0.0, 0.0), eps=1e6)  # Adam as plain gradient descent


def engine_of(nets, loss=None, lr=0.3, every=1, **more):
    form = Learner(
        nets={"v": value(hidden=()), **nets},
        update=(train("v", pull(linear(0.0, 9.0, steps=9)) if loss is None else loss,
                      _step(lr), every=every),),
        act=mean("v"), source=log(8),
    )  # fmt: skip
    rows = random_log()
    spaces = spaces_of(rows)
    stream = open_stream(form.source, {"log": rows}, spaces, tuple(needs_of(form)))
    return Engine(form, stream, spaces, **{"compile": False, **more})


def bias(engine, name="v"):
    return float(engine.state[KEY.format(name)])


def followed(engine, updates):
    """The bias of v at the start and after every update."""
    seen = [bias(engine)]
    for _ in range(updates):
        engine.advance(1)
        seen.append(bias(engine))
    return seen


@settings(max_examples=10, deadline=None)
@given(tau=st.floats(0.05, 0.9), updates=st.integers(1, 7))
def test_a_corrected_average_is_the_weighted_mean_of_all_states(tau, updates):
    engine = engine_of({"slow": ema("v", tau, corrected=True), "plain": ema("v", tau)})
    seen = followed(engine, updates)
    weights = [(1 - tau) ** (updates - k) for k in range(updates + 1)]
    want = sum(w * v for w, v in zip(weights, seen, strict=True)) / sum(weights)
    assert bias(engine, "slow") == pytest.approx(want, rel=1e-4, abs=1e-5)
    uncorrected = seen[0]
    for v in seen[1:]:
        uncorrected += tau * (v - uncorrected)
    assert bias(engine, "plain") == pytest.approx(uncorrected, rel=1e-4, abs=1e-5)


def test_a_corrected_average_reaches_its_center_of_mass():
    """com = 8 updates: b = 8 / 9, so the mean age of what is averaged tends to 8."""
    b, engine = 8 / 9, engine_of({"slow": ema("v", 1 / 9, corrected=True)})
    followed(engine, 12)
    assert float(engine.state["snapshot.slow.weight"]) == pytest.approx((1 - b**13) / (1 - b))
    ages = torch.arange(400)
    weights = b**ages
    assert float((weights * ages).sum() / weights.sum()) == pytest.approx(8.0, rel=1e-3)


@pytest.mark.parametrize("every, lag", [(1, 0), (1, 2), (3, 0), (2, 1), (3, 2)])
def test_a_copy_comes_so_many_refreshes_late(every, lag):
    engine = engine_of({"old": copy("v", every=every, lag=lag)})
    states = [bias(engine)]
    for update in range(1, 12):
        engine.advance(1)
        states.append(bias(engine))
        refreshes = update // every
        at = max(refreshes - lag, 0) * every
        assert bias(engine, "old") == pytest.approx(states[at])


@pytest.mark.parametrize("lag", [0, 3])
def test_a_copy_of_each_batch_is_the_net_before_the_update(lag):
    engine = engine_of({"old": copy("v", every="batch", lag=lag)})
    states = [bias(engine)]
    for update in range(1, 8):
        engine.advance(1)
        assert bias(engine, "old") == pytest.approx(states[max(update - 1 - lag, 0)])
        states.append(bias(engine))


@pytest.mark.parametrize("every", [1, 2])
def test_a_pool_holds_the_last_states_in_order(every):
    engine = engine_of({"past": pool("v", 3, every)})
    seen = followed(engine, 7)
    stored = [seen[0]] * 3 + seen[every::every]
    found = engine.state["net.past.members.net.bias0"].flatten()
    torch.testing.assert_close(found, torch.tensor(stored[-3:]))
    members = engine.bank["past"]
    assert len(members) == 3
    assert float(members[0].net.bias0.detach()) == pytest.approx(stored[-3])
    with pytest.raises(InputError, match="a pool of 3 states has no state 3"):
        members[3]


def test_the_best_state_is_kept_and_the_start_counts():
    engine = engine_of({"top": best("v", near_three(), every=2)}, lr=1.0)
    start = bias(engine)
    engine.advance(1)
    assert bias(engine, "top") == start  # v moves to 0 first, then on by 1 at each update
    seen = [start, *(float(k) for k in range(8))]
    for update in range(2, 9):
        engine.advance(1)
        judged = [seen[k] for k in range(0, update + 1, 2)]
        assert bias(engine, "top") == pytest.approx(min(judged, key=lambda v: abs(v - 3)), abs=1e-4)
    assert float(engine.state["snapshot.top.score"]) == pytest.approx(0.0, abs=1e-4)


def everything():
    return {
        "slow": ema("v", 0.2, corrected=True), "late": copy("v", every=2, lag=1),
        "old": copy("v", every="batch", lag=1), "past": pool("v", 3, 2),
        "rare": pool("v", 2, 3), "top": best("v", near_three(), every=4),
    }  # fmt: skip


def with_pool():
    return pull(linear(0.0, 9.0, steps=9)) + toward_the_pool()


def test_compiled_equals_eager_and_a_restart_changes_nothing():
    eager = engine_of(everything(), with_pool(), every=2)
    graph = engine_of(everything(), with_pool(), every=2, compile=True, unroll=4)
    graph.compiler = traced
    for updates in (5, 8):
        eager.advance(updates)
        graph.advance(updates)
    for key, tensor in eager.state.items():
        torch.testing.assert_close(graph.state[key], tensor, rtol=1e-5, atol=1e-6, msg=key)
    begun = engine_of(everything(), with_pool(), every=2)
    begun.advance(7)
    again = engine_of(everything(), with_pool(), every=2, seed=3)
    tensors, rest = begun.state_dict()
    again.load_state_dict({k: v.clone() for k, v in tensors.items()}, rest)
    again.advance(6)
    for key, tensor in eager.state.items():
        assert torch.equal(again.state[key], tensor), key


def test_seeds_at_once_give_the_snapshots_of_each_alone():
    together = engine_of(everything(), seeds=2, seed=4, every=2)
    together.advance(9)
    for s in range(2):
        alone = engine_of(everything(), seed=4 + s, every=2)
        alone.advance(9)
        for key, tensor in alone.state.items():
            if not key.startswith("watch."):
                torch.testing.assert_close(together.state[key][s], tensor, msg=key)


def test_new_snapshots_of_a_stage_start_at_the_net_that_was_carried_over():
    first = engine_of({})
    first.advance(5)
    second = engine_of(everything(), seed=1)
    second.carry_over(first)
    for key in ("slow", "late", "old", "top", "past.members"):
        found = second.state[KEY.format(key)].flatten()
        torch.testing.assert_close(found, torch.full_like(found, bias(first)))
    second.advance(2)
    assert bias(second, "late") == pytest.approx(bias(first))


def test_what_a_snapshot_cannot_be_is_said():
    for nets, message in (
        ({"a": copy("v", every="epoch")}, "every='epoch'"),
        ({"a": copy("v", every=0)}, "at least 1 update"),
        ({"a": copy("v", every=2, lag=-1)}, "from the future"),
        ({"a": pool("v", 0)}, "at least 1 state"),
        ({"a": best("b", near_three(), 2)}, "no such net before it"),
    ):
        with pytest.raises(InputError, match=message):
            engine_of(nets)
