"""SPOT: the policy stays where the log has been, and goes on online."""

from dataclasses import replace

import pytest
import torch
from training_counters import Counter, TaskOf
from training_logs import bandit, random_log

from surpass.data.records import About
from surpass.forms import given
from surpass.methods.offline.supported import spot
from surpass.objectives.rows import Rows
from surpass.objectives.support import unlikely
from surpass.parts import from_json, linear, stop, to_json
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, spaces_of

SMALL = {"hidden": (32,), "wide": (32,), "batch": 64, "lr": 3e-3, "density_lr": 3e-3}


class OneMode(torch.nn.Module):
    """A density around 0.8, as -log p up to scale."""

    def imitation(self, obs, action, samples=1):
        return (action - 0.8).square().mean(-1)


def test_the_policy_rests_where_the_critic_and_the_density_pull_alike():
    """Q = -3 - (a - 0.4)^2 and lam = 1: (a - 0.4) / |Q| = 0.8 - a, which is at 0.7."""
    log = bandit()
    log.reward = log.reward - 3.0
    form = spot(lam=1.0, dropout=0.0, density=1, offline=1, **SMALL).stages[1].do
    form = replace(form, nets={**form.nets, "density": given("mode")})
    kept = train(form, log, steps=500, compile=False, mode=OneMode())
    assert kept.predict([1.0])[0] == pytest.approx(0.7, abs=0.06)


@torch.no_grad()
def test_the_penalty_is_the_bound_of_the_policys_own_action():
    form = spot(density=1, offline=1, **SMALL).stages[1].do
    spaces = spaces_of(random_log())
    nets = Engine(form_with_density(form), stream_of(form), spaces, compile=False).bank
    rows = Rows({"obs": torch.randn(4, 3)})
    action = nets.pi(rows.obs)
    for tight, name in ((False, "imitation"), (True, "log_density")):
        torch.manual_seed(0)
        found = unlikely(3, tight)(nets, rows)
        torch.manual_seed(0)
        want = getattr(nets.density, name)(rows.obs, action, 3)
        torch.testing.assert_close(found, -want if tight else want)


def form_with_density(form):
    return replace(form, nets={**form.nets, **spot(**SMALL).stages[0].do.nets})


def stream_of(form):
    log = random_log()
    return open_stream(form.source, {"log": log}, spaces_of(log), ())


def test_the_traced_update_equals_the_eager_one_with_dropout():
    form = form_with_density(spot(density=1, offline=1, **SMALL).stages[1].do)
    engines = [Engine(form, stream_of(form), spaces_of(random_log()), compile=c) for c in (0, 1)]
    engines[1].compiler = traced
    for engine in engines:
        engine.advance(4)
    for name, tensor in engines[0].state.items():
        torch.testing.assert_close(engines[1].state[name], tensor, rtol=1e-5, atol=1e-7, msg=name)


def test_online_the_constraint_cools_from_the_weight_that_it_had_to_a_fifth_of_it():
    form = spot(lam=0.5, online=10, cooling=1000)
    by = [s.do.update[-1].loss.second.by for s in form.stages[1:]]
    assert by == [0.5, linear(0.5, 0.1, steps=800)]
    assert [by[1].at(t) for t in (0, 400, 800, 5000)] == pytest.approx([0.5, 0.3, 0.1, 0.1])
    assert [s.do.source.kind for s in form.stages] == ["log", "log", "replay"]
    assert not any(s.do.source.options.get("normalize") for s in form.stages)
    assert all(s.do.source.options["normalize"] for s in spot().stages)
    assert from_json(to_json(form)) == form


def test_the_agent_goes_on_from_its_log_in_the_task_and_the_density_stays():
    log = random_log(120, obs=1, act=1).described(
        About(spaces={"action_low": -2.0, "action_high": 6.0})
    )
    form = spot(density=10, offline=10, online=6, **SMALL)
    first = train(replace(form, stages=form.stages[:2]), log, compile=False)
    both = train(form, log, task=TaskOf(Counter()), compile=False)
    kept, moved = both.nets.density.state_dict(), both.nets.pi.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in first.nets.density.state_dict().items())
    assert any(not torch.equal(v, moved[k]) for k, v in first.nets.pi.state_dict().items())


def test_a_stopped_penalty_leaves_td3():
    """No gradient through the density: the policy's update is that of the critic's term alone."""
    form = form_with_density(spot(density=1, offline=1, dropout=0.0, **SMALL).stages[1].do)
    free = form.update[1].loss.first
    step = replace(form.update[1], loss=free + 5.0 * stop(unlikely()))
    without = replace(form, update=(form.update[0], replace(form.update[1], loss=free)))
    engines = [
        Engine(f, stream_of(f), spaces_of(random_log()), compile=False)
        for f in (without, replace(form, update=(form.update[0], step)))
    ]
    for engine in engines:
        torch.manual_seed(0)
        engine.advance(2)  # the first update of the policy
    a, b = (e.bank.pi.state_dict() for e in engines)
    assert all(torch.equal(v, b[k]) for k, v in a.items())
