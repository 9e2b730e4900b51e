"""MCEP: the evaluation policy is read off values that it never touches."""

import pytest
import torch
from training_logs import bandit, random_log

from surpass.methods.offline.behavior_regularized import td3_bc
from surpass.methods.offline.extracted import mcep, mcep_awac
from surpass.parts import from_json, to_json
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, spaces_of

SMALL = {"hidden": (16,), "batch": 32, "lr": 3e-3}


def engine_of(form, **more):
    log = random_log()
    stream = open_stream(form.source, {"log": log}, spaces_of(log), ())
    return Engine(form, stream, spaces_of(log), **{"compile": False, **more})


@pytest.mark.parametrize("mild", [0.0, 1000.0])
def test_values_and_the_target_policy_are_those_of_td3_bc_whatever_the_evaluation_policy_does(mild):
    plain, both = engine_of(td3_bc(**SMALL)), engine_of(mcep(mild=mild, **SMALL))
    for name, tensor in plain.state.items():
        assert torch.equal(both.state[name], tensor), name  # the further net is built last
    for engine in (plain, both):
        engine.advance(6)
    for name, tensor in plain.state.items():
        torch.testing.assert_close(both.state[name], tensor, msg=name)


def test_the_awac_form_leaves_its_target_policy_alone_too():
    both, other = (engine_of(mcep_awac(mild=m, **SMALL)) for m in (0.1, 10.0))
    for engine in (both, other):
        engine.advance(4)
    for name, tensor in both.state.items():
        if name.startswith(("net.q", "net.pi")):
            assert torch.equal(other.state[name], tensor), name
    assert not torch.equal(both.bank.evaluation.net.weight0, other.bank.evaluation.net.weight0)


def test_equal_constraints_from_one_start_give_one_policy():
    form = mcep(alpha=2.5, mild=2.5, **SMALL)
    engine = engine_of(form)
    for k, v in engine.bank.pi.state_dict().items():
        engine.bank.evaluation.state_dict()[k].copy_(v)
    engine.advance(6)
    for k, v in engine.bank.pi.state_dict().items():
        torch.testing.assert_close(engine.bank.evaluation.state_dict()[k], v, msg=k)


WIDE = {"hidden": (32, 32), "batch": 128, "lr": 1e-3}


@pytest.mark.parametrize(
    "form", [mcep(0.1, 40.0, **WIDE), mcep_awac(50.0, 0.02, actor_lr=1e-3, **WIDE)]
)
def test_the_milder_policy_acts_and_goes_further_from_the_log_than_the_tight_one(form):
    """Actions are uniform, Q = -3 - (a - 0.4)^2; cloning pulls to 0, which weighs much in one."""
    log = bandit()
    log.reward = log.reward - 3.0
    trained = train(form, log, steps=700, compile=False)
    assert trained.predict([1.0])[0] == pytest.approx(0.38, abs=0.13)
    seen = torch.ones(1, 1) if trained.policy.mean is None else torch.zeros(1, 1)
    with torch.no_grad():
        assert abs(float(trained.nets.pi(seen))) < 0.15


def test_the_traced_update_equals_the_eager_one_and_the_recipes_come_back_from_json():
    for form in (mcep(**SMALL), mcep_awac(**SMALL)):
        assert from_json(to_json(form)) == form
        eager, by_graph = engine_of(form), engine_of(form, compile=True)
        by_graph.compiler = traced
        for engine in (eager, by_graph):
            engine.advance(4)
        for name, tensor in eager.state.items():
            torch.testing.assert_close(by_graph.state[name], tensor, rtol=1e-5, atol=1e-7, msg=name)
