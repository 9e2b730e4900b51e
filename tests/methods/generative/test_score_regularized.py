"""SRPO: where the score of the behavior holds a policy that climbs."""

from dataclasses import replace

import pytest
import torch
from training_logs import bandit, random_log

from surpass.data.records import Transitions
from surpass.objectives.denoising import variance_preserving
from surpass.parts import from_json, to_json
from surpass.registry import recipe
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, spaces_of


def test_the_recipe_comes_back_from_json():
    form = recipe("srpo")()
    assert from_json(to_json(form)) == form


def test_the_traced_update_of_the_policy_equals_the_eager_one():
    before, after = recipe("srpo")(levels=20, width=8, hidden=(8, 8), batch=16).stages
    form = replace(after.do, nets={**before.do.nets, **after.do.nets})
    rows = random_log()
    engines = []
    for _ in range(2):
        stream = open_stream(form.source, {"log": rows}, spaces_of(rows), ())
        engines.append(Engine(form, stream, spaces_of(rows), compile=False))
    eager, by_graph = engines
    by_graph.compile, by_graph.compiler = True, traced
    for engine in engines:
        engine.advance(3)
    for name, tensor in eager.state.items():
        torch.testing.assert_close(by_graph.state[name], tensor, rtol=1e-5, atol=1e-7, msg=name)


def around(center, spread, n=2000) -> Transitions:
    """One decision an episode, actions N(center, spread^2), reward a."""
    log = bandit(n)
    drawn = center + spread * torch.randn(n, 1, generator=torch.Generator().manual_seed(1))
    log.action = drawn.clamp(-1.0, 1.0)
    log.reward = log.action[:, 0].clone()
    return log


def test_the_score_holds_a_policy_as_far_off_as_the_critic_pulls():
    """Behavior N(-0.2, 0.15^2), reward a: the slope of the divergence is s (a - m), s a number of
    the schedule, so that pi = m + beta / s."""
    abar = variance_preserving(1000, high=20.0)[20:980]
    s = float(((1 - abar) * (abar * (1 - abar)).sqrt() / (abar * 0.15**2 + 1 - abar)).mean())
    form = recipe("srpo")(0.06, pretrain=300, steps=150, lr=5e-3, width=16, hidden=(32,), batch=128)
    trained = train(form, around(-0.2, 0.15), seed=0, compile=False)
    found = float(trained.policy.act(torch.ones(1, 1)).action)
    assert found == pytest.approx(-0.2 + 0.06 / s, abs=0.08)
