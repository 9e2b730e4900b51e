"""The generative recipes: each traced and eager, stored and read, and on a known problem."""

import pytest
import torch
from training_logs import bandit, random_log

from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.forms import copy
from surpass.parts import from_json, needs_of, set_at, to_json
from surpass.registry import recipe
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, spaces_of

SMALL = {
    "idql": {"steps": 4, "width": 8, "hidden": (8, 8), "batch": 16},
    "cfgrl": {"steps": 4, "width": 8, "hidden": (8, 8), "batch": 16},
    "qgf": {"steps": 4, "width": 8, "hidden": (8, 8), "batch": 16},
}
EDP = ("edp", "edp:crr", "edp:iql")
SMALL |= {
    key: {"levels": 4, "fast": 2, "n": 3, "width": 8, "hidden": (8, 8), "batch": 16} for key in EDP
}
SMALL["decision-mamba"] = {
    "width": 8, "layers": 1, "context": 4, "ages": 30, "epoch": 2, "batch": 8, "lr": 1e-3,
}  # fmt: skip
OTHERS = ("sac-flow", "sac-flow:pretrained", "dsrl", "dsrl:sac", "resip")


def engine_of(form, rows, **more):
    spaces = spaces_of(rows)
    needs = tuple(n for n in needs_of(form) if isinstance(n, str))
    stream = open_stream(form.source, {"log": rows}, spaces, needs)
    return Engine(form, stream, spaces, **{"compile": False, **more})


@pytest.mark.parametrize("key", SMALL)
def test_the_traced_update_equals_the_eager_one(key):
    form = recipe(key)(**SMALL[key])
    eager, by_graph = (engine_of(form, random_log()) for _ in range(2))
    by_graph.compile, by_graph.compiler = True, traced
    for engine in (eager, by_graph):
        engine.advance(3)
    for name, tensor in eager.state.items():
        torch.testing.assert_close(by_graph.state[name], tensor, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("key", (*SMALL, *OTHERS))
def test_a_recipe_comes_back_from_json(key):
    form = recipe(key)(**SMALL.get(key, {}))
    assert from_json(to_json(form)) == form


def paid_by_its_size(n=1000) -> Transitions:
    """One decision an episode, uniform actions, reward a."""
    log = bandit(n)
    log.reward = log.action[:, 0].clone()
    return log


def test_idql_picks_the_best_of_what_it_imitates():
    """Of 16 actions nearly the largest that is proposed; one alone is near 0 on average."""
    form = recipe("idql")(
        n=16, lr=5e-3, smooth=0.05, polyak=0.1, width=16, hidden=(16, 16), batch=64
    )
    trained = train(form, paid_by_its_size(), steps=120, seed=0, compile=False)
    obs = torch.ones(200, 1)
    torch.manual_seed(0)
    chosen = trained.policy.act(obs).action
    with torch.no_grad():
        one = set_at(form.act, "n", 1)(trained.nets, {}).act(obs).action
    assert float(chosen.mean()) > 0.6
    assert abs(float(one.mean())) < 0.3


def test_guidance_moves_actions_further_toward_what_was_better_than_expected():
    """Actions above 0 are better than expected: weight 0 is uniform, 1 uniform on [0, 1]."""
    form = recipe("cfgrl")(tau=0.5, steps=8, lr=5e-3, width=16, hidden=(16, 16), batch=64, null=0.5)
    trained = train(form, paid_by_its_size(), steps=150, seed=0, compile=False)
    obs, mean = torch.ones(400, 1), []
    torch.manual_seed(0)
    for weight in (0.0, 1.0, 3.0):
        mean.append(float(trained.policy.given(weight=weight).act(obs).action.mean()))
    assert mean[:2] == pytest.approx([0.0, 0.5], abs=0.15)
    assert mean[2] > mean[1] + 0.1


def guided_mean(m, s, push, steps):
    """Where a flow of N(m, s^2) sends its mean when its velocity is pushed by a constant."""
    x = 0.0
    for t in (i / steps for i in range(steps)):
        spread = (1 - t) ** 2 + (t * s) ** 2
        clean = m + t * s**2 / spread * (x - t * m)
        x += ((clean - x) / (1 - t) + push) / steps
    return x


def test_a_critic_of_slope_one_pushes_a_flow_by_its_weight():
    """Actions N(-0.2, 0.2^2), reward a: Q has slope 1 wherever it is asked."""
    log = bandit(4000)
    drawn = -0.2 + 0.2 * torch.randn(4000, 1, generator=torch.Generator().manual_seed(1))
    log.action = drawn.clamp(-1.0, 1.0)
    log.reward = log.action[:, 0].clone()
    form = recipe("qgf")(steps=8, lr=5e-3, width=16, hidden=(32,), batch=128)
    trained = train(form, log, steps=400, seed=0, compile=False)
    torch.manual_seed(0)
    for weight in (0.0, 0.4, 0.8):
        drawn = trained.policy.given(weight=weight).act(torch.ones(2000, 1)).action
        expected = guided_mean(-0.2, 0.2, weight, 8)
        assert float(drawn.mean()) == pytest.approx(expected, abs=0.06), weight


def test_a_weight_that_leads_down_the_critic_is_refused():
    with pytest.raises(InputError, match="leads down the critic; take 0"):
        recipe("qgf")(weight=-1.0)


def test_belief_in_the_teacher_is_the_share_of_training_and_at_most_half():
    """beta = min(0.5, k / E) after k of E updates; the teacher is the net of the epoch before."""
    form = recipe("decision-mamba")(steps=400, epoch=50)
    step = form.update[0]
    beta = step.loss.hyper["beta"]
    for k in (0, 50, 100, 200, 300, 400):
        assert beta.at(k) == pytest.approx(min(0.5, k / 400))
    assert form.nets["teacher"] == copy("pi", every=50)
