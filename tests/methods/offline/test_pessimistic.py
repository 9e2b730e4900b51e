"""C-CQL: what inverse dynamics learn, and the update as a whole."""

import torch
from training_logs import random_log

from surpass.forms import Learner
from surpass.methods.offline.pessimistic import c_cql
from surpass.parts import from_json, to_json
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, spaces_of

SMALL = {"hidden": (32,), "batch": 64, "samples": 2}


def test_inverse_dynamics_say_what_led_from_one_state_to_the_next_and_then_stay():
    log = random_log(1000)
    log.next_obs = log.obs.clone()
    log.next_obs[:, :2] += 0.5 * log.action
    trained = train(c_cql(inverse=500, offline=3, inverse_lr=1e-2, **SMALL), log, compile=False)
    mean, std = trained.policy.mean, trained.policy.std
    both = torch.cat([(log.obs - mean) / std, (log.next_obs - mean) / std], -1)
    with torch.no_grad():
        wrong = (trained.nets.inverse(both) - log.action).abs().mean()
    assert float(wrong) < 0.12  # 0.5 where nothing was learned


def test_the_traced_update_equals_the_eager_one_and_the_recipe_comes_back_from_json():
    form, rows = c_cql(**SMALL), random_log()
    assert from_json(to_json(form)) == form
    first, second = (s.do for s in form.stages)
    learner = Learner({**first.nets, **second.nets}, (*first.update, *second.update), second.act,
                      second.source)  # fmt: skip
    engines = []
    for _ in range(2):
        stream = open_stream(learner.source, {"log": rows}, spaces_of(rows), ())
        engines.append(Engine(learner, stream, spaces_of(rows), compile=False))
    engines[1].compile, engines[1].compiler = True, traced
    for engine in engines:
        engine.advance(3)
    for name, tensor in engines[0].state.items():
        torch.testing.assert_close(engines[1].state[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
