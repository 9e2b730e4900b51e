"""The recipes of other settings: traced and eager, stored and read, on problems with known
answers."""

import pytest
import torch
from training_logs import bandit

from surpass.parts import from_json, needs_of, to_json
from surpass.registry import recipe
from surpass.tasks.goals import goal_log
from surpass.tasks.spread import spread_log
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, spaces_of


def risky(n=1500):
    """One decision an episode, uniform actions, reward a; every a > 0.3 violates."""
    log = bandit(n)
    log.reward = log.action[:, 0].clone()
    log.cost = (log.action[:, 0] > 0.3).float()
    return log


def apart(n=1500, seed=0):
    """Two agents, one decision, reward 3 a_1 - 3 a_2; nobody ever went beyond 0.3."""
    g = torch.Generator().manual_seed(seed)
    action = 0.6 * torch.rand(n, 2, generator=g) - 0.3
    log = bandit(n)
    log.obs, log.next_obs, log.action = torch.zeros(n, 4), torch.zeros(n, 4), action
    log.reward = 3.0 * (action[:, 0] - action[:, 1])
    return log


SMALL = {
    "fisor": ({"steps": 4, "width": 8, "hidden": (8, 8), "batch": 16}, risky),
    "cfcql": ({"hidden": (8,), "batch": 16}, lambda: spread_log(3, 40)),
    "conservative-fb": ({"d": 4, "hidden": (8, 8), "batch": 16}, risky),
    "idaq": ({"tasks": 3, "d": 4, "members": 3, "hidden": (8, 8), "batch": 16},
             lambda: goal_log((0.0, 1.0, 2.0), 3)),
    "cfcql:joint": ({"hidden": (8,), "batch": 16}, lambda: spread_log(3, 40)),
    "cfcql:continuous": ({"agents": 2, "samples": 3, "hidden": (8,), "batch": 16}, apart),
}  # fmt: skip


def engine_of(form, rows, **more):
    spaces = spaces_of(rows)
    needs = tuple(n for n in needs_of(form) if isinstance(n, str))
    stream = open_stream(form.source, {"log": rows}, spaces, needs)
    return Engine(form, stream, spaces, **{"compile": False, **more})


@pytest.mark.parametrize("key", SMALL)
def test_the_traced_update_equals_the_eager_one(key):
    hyper, log = SMALL[key]
    form = recipe(key)(**hyper)
    eager, by_graph = (engine_of(form, log()) for _ in range(2))
    by_graph.compile, by_graph.compiler = True, traced
    for engine in (eager, by_graph):
        engine.advance(2)
    for name, tensor in eager.state.items():
        torch.testing.assert_close(by_graph.state[name], tensor, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("key", SMALL)
def test_a_recipe_comes_back_from_json(key):
    form = recipe(key)(**SMALL[key][0])
    assert from_json(to_json(form)) == form


def test_fisor_stays_within_the_constraint_that_the_reward_tempts_it_across():
    form = recipe("fisor")(
        tau=0.8,
        n=8,
        lr=5e-3,
        polyak=0.1,
        smooth=0.05,
        width=16,
        hidden=(16, 16),
        batch=64,
        reward_scale=1.0,
    )
    trained = train(form, risky(), steps=150, seed=0, compile=False)
    torch.manual_seed(0)
    chosen = trained.policy.act(torch.ones(200, 1)).action
    assert float((chosen > 0.35).float().mean()) < 0.05


def test_agents_keep_to_logged_moves_and_prefer_the_better():
    """Under CFCQL the spread grows about as under the expert that made most of the log."""
    log = spread_log(3, 150, epsilon=0.3)
    form = recipe("cfcql")(alpha=1.0, mixer="vdn", hidden=(32,), batch=64, lr=5e-3, sync=50)
    trained = train(form, log, steps=250, seed=0, compile=False)
    start = log.obs[::10].flatten(1)
    chosen = trained.policy.act(start).action
    assert float((chosen[:, 2] == 9).float().mean()) > 0.9  # the last one goes right at first


def test_agents_with_continuous_moves_stay_near_what_was_logged():
    """Without the penalty both go to the end of their range, with it no further than 0.3."""
    sizes = {"agents": 2, "lr": 3e-3, "batch": 64, "hidden": (16,)}
    found = {}
    for alpha in (0.0, 1.0):
        form = recipe("cfcql:continuous")(alpha=alpha, **sizes)
        trained = train(form, apart(), steps=300, seed=0, compile=False)
        found[alpha] = trained.policy.act(torch.zeros(1, 4)).action[0]
    assert found[0.0][0] > 0.9 and found[0.0][1] < -0.9
    assert 0.03 < found[1.0][0] < 0.3 and -0.3 < found[1.0][1] < -0.03
