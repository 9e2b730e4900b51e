"""The offline recipes: each traced and eager, each on a problem whose answer is known."""

import pytest
import torch
from training_logs import bandit, one_reward_forever, random_log

from surpass.errors import InputError
from surpass.forms import Stages
from surpass.parts import from_json, needs_of, set_at, to_json
from surpass.registry import recipe
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, return_to_go, spaces_of

KEYS = (
    "bc", "td3-bc", "rebrac", "awac", "crr", "iql", "cql", "cal-ql", "sac-n", "edac", "prdc",
    "cfpi", "riql", "odice", "trajectory-weighting",
)  # fmt: skip


def small(key, width=16, batch=32, **hyper):
    """A recipe with narrow nets and small batches; of one in stages, the first."""
    form = recipe(key)(**hyper)
    form = form.stages[0].do if isinstance(form, Stages) else form
    for name, net in form.nets.items():
        if "hidden" in getattr(net, "hyper", {}):
            form = set_at(form, f"nets.{name}.hidden", (width,) * len(net.hyper["hidden"]))
    return set_at(form, "source.size", batch)


def engine_of(form, rows, **more):
    spaces = spaces_of(rows)
    needs = tuple(n for n in needs_of(form) if isinstance(n, str))
    stream = open_stream(form.source, {"log": rows}, spaces, needs)
    return Engine(form, stream, spaces, **{"compile": False, **more})


@pytest.mark.parametrize("key", KEYS)
def test_the_traced_update_equals_the_eager_one(key):
    """The graph that is handed to the compiler, run as it is: same numbers, same random draws."""
    eager, by_graph = (engine_of(small(key), random_log()) for _ in range(2))
    by_graph.compile, by_graph.compiler = True, traced
    for engine in (eager, by_graph):
        engine.advance(4)
    for name, tensor in eager.state.items():
        torch.testing.assert_close(by_graph.state[name], tensor, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("key", ["iql"])
def test_the_compiled_update_equals_the_eager_one(key):
    eager, compiled = engine_of(small(key), random_log()), engine_of(small(key), random_log())
    compiled.compile = True
    for engine in (eager, compiled):
        engine.advance(2)
    for name, tensor in eager.state.items():
        torch.testing.assert_close(compiled.state[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("key", KEYS)
def test_a_recipe_comes_back_from_json(key):
    form = recipe(key)()
    assert from_json(to_json(form)) == form


@pytest.mark.parametrize(
    "key, hyper",
    [
        ("td3-bc", {"alpha": 40.0, "lr": 1e-3}),
        ("rebrac", {"actor": 0.001, "critic": 0.0}),
        ("prdc", {"alpha": 40.0, "lr": 1e-3}),
        ("iql", {"tau": 0.9, "temperature": 100.0, "lr": 3e-3}),
        ("riql", {"tau": 0.9, "temperature": 100.0, "lr": 3e-3}),
        ("awac", {"lam": 0.01, "lr": 3e-3}),
        ("crr", {"rule": "exp", "beta": 0.02, "lr": 3e-3}),
        ("sac-n", {"lr": 3e-3}),
        ("odice", {"lam": 0.8, "lr": 3e-3, "norm": False, "scale": 500.0}),
    ],
)
def test_a_learner_finds_the_best_action_of_a_bandit(key, hyper):
    """Actions are uniform on [-1, 1], so cloning gives 0; the best is 0.4."""
    form = small(key, width=32, batch=128, **hyper)
    trained = train(form, bandit(best=0.4), steps=700, seed=0, compile=False)
    chosen = trained.predict([1.0])[0]
    assert chosen == pytest.approx(0.4, abs=0.13)


def test_cloning_gives_the_mean_action():
    trained = train(small("bc", batch=128, lr=3e-3), bandit(), steps=400, compile=False)
    assert trained.predict([1.0])[0] == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("terminated, worth", [(True, 1.0), (False, 4.0)])
def test_values_go_on_after_a_truncation_and_stop_at_a_termination(terminated, worth):
    """A reward of 1 at each step is worth 1 where the episode terminates after it, and
    1 / (1 - 0.75) = 4 where it was only cut off."""
    log = one_reward_forever(terminated=terminated, truncated=not terminated)
    form = small("iql", gamma=0.75, polyak=0.1, lr=1e-2)
    trained = train(form, log, steps=500, compile=False)
    found = trained.nets.v(torch.ones(1, 1))
    torch.testing.assert_close(found, torch.full_like(found, worth), rtol=0.03, atol=0.0)


def test_conservative_values_are_lower_off_the_log_and_calibrated_ones_not_below_the_return():
    """The log has only a = 0, always paid 1: CQL pushes a = 0.9 below it; the floor of Cal-QL keeps
    the policy's own actions at the logged return."""
    log = one_reward_forever(terminated=True)
    values = {}
    for key in ("cql", "cal-ql"):
        form = small(key, width=32, alpha=2.0, samples=4)
        trained = train(form, log, steps=400, compile=False)
        obs = torch.ones(2, 1)
        values[key] = trained.nets.q(obs, torch.tensor([[0.0], [0.9]])).mean(0)
    assert values["cql"][1] < values["cql"][0] - 0.5
    assert values["cal-ql"][1] > values["cql"][1] + 0.1


def test_the_floor_of_calibrated_values_keeps_its_discount_online():
    source, rows = recipe("cal-ql")(gamma=0.5).stages[1].do.source, random_log()
    own, replayed = (part for _, part in source.parts.values())
    found = open_stream(own, {"log": rows}, spaces_of(rows), ("return_to_go",)).tables
    wanted = return_to_go(rows, rows.reward, 0.5)
    torch.testing.assert_close(found["return_to_go"], wanted)
    assert replayed.options["gamma"] == 0.5


@pytest.mark.parametrize("key", ["cal-ql", "sac-flow:pretrained"])
def test_what_was_learned_from_a_log_acts_from_the_first_step_of_its_task(key):
    _, replayed = recipe(key)(warm=30).stages[1].do.source.parts["replay"]
    assert (replayed.options["warm"], replayed.options["warm_with"]) == (30, "policy")


def test_diversity_lowers_the_cosine_of_the_critics_gradients():
    rows = random_log(n=200, act=3)
    cosine = {}
    for eta in (0.0, 10.0):
        trained = train(small("edac", n=4, eta=eta, lr=1e-3), rows, steps=200, compile=False)
        g = trained.nets.q.action_gradients(rows.obs, rows.action).detach()
        g = g / g.norm(dim=-1, keepdim=True)
        cosine[eta] = float((g.sum(0).square().sum(-1) - 4).mean() / 12)
    assert cosine[10.0] < cosine[0.0] - 0.1


def test_a_recipe_for_the_other_kind_of_actions_is_refused_by_name():
    rows = random_log()
    rows.action = torch.zeros(len(rows), dtype=torch.long)
    with pytest.raises(InputError, match="does not fit discrete actions; these do: bc, iql, dqn"):
        train(small("td3-bc"), rows, steps=1)


def test_bc_and_iql_fit_discrete_actions():
    g = torch.Generator().manual_seed(0)
    rows = random_log(n=600)
    rows.note = None
    rows.action = torch.randint(3, (600,), generator=g)
    rows.reward = (rows.action == 2).float()
    rows.terminated = torch.ones(600, dtype=torch.bool)
    form = small("iql", tau=0.9, temperature=20.0, lr=3e-3)
    trained = train(form, rows, steps=300, compile=False)
    assert (trained.predict(rows.obs) == 2).mean() > 0.95
