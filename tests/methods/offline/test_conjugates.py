"""Dual RL on logs with known answers: f-DVL with rewards, ReCOIL without."""

import pytest
import torch
from training_logs import bandit, one_reward_forever, random_log

from surpass.data.records import About
from surpass.errors import InputError
from surpass.methods.offline.conjugates import dual_rl, recoil
from surpass.parts import from_json, to_json
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, spaces_of

SMALL = {"hidden": (32,), "batch": 128, "lr": 3e-3}
CALM = {"best": 20.0, "step": -0.2, "end": -20.0, "lam": 3.0}


def engine_of(form, **logs):
    spaces = spaces_of(logs["log"])
    return Engine(form, open_stream(form.source, logs, spaces, ()), spaces, compile=False)


FORMS = [dual_rl(**SMALL), dual_rl("total-variation", 0.8, 0, **SMALL),
         dual_rl("gumbel", **SMALL), recoil(**SMALL)]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_traced_update_equals_the_eager_one_and_a_recipe_comes_back_from_json(form):
    assert from_json(to_json(form)) == form
    logs = {"log": random_log(), "expert": random_log(100, seed=1)}
    eager, by_graph = engine_of(form, **logs), engine_of(form, **logs)
    by_graph.compile, by_graph.compiler = True, traced
    for engine in (eager, by_graph):
        engine.advance(3)
    for name, tensor in eager.state.items():
        torch.testing.assert_close(by_graph.state[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    "f, lam, random", [("chi-square", 0.9, 0), ("total-variation", 0.9, 0), ("gumbel", 0.05, 1)]
)
def test_every_divergence_finds_the_best_action_of_a_bandit(f, lam, random):
    """Actions are uniform on [-1, 1]; the best is 0.4."""
    form = dual_rl(f, lam, random, temperature=50.0, **SMALL)
    trained = train(form, bandit(), steps=600, compile=False)
    assert trained.predict([1.0])[0] == pytest.approx(0.4, abs=0.13)


def test_values_are_those_of_the_discounted_sum_of_rewards():
    """One action, so that every divergence agrees: 1 / (1 - 0.75) = 4."""
    form = dual_rl("total-variation", 0.7, 0, gamma=0.75, polyak=0.1, **{**SMALL, "lr": 1e-2})
    trained = train(form, one_reward_forever(truncated=True), steps=500, compile=False)
    with torch.no_grad():
        found = float(trained.nets.q(torch.ones(1, 1), torch.zeros(1, 1)).mean())
    assert found == pytest.approx(4.0, abs=0.3)


def test_an_unknown_divergence_is_refused():
    with pytest.raises(InputError, match="no f 'kl'; it has chi-square, total-variation, gumbel"):
        dual_rl("kl")


def choices(n=2000, expert=False):
    """Four actions, taken alike, or by an expert who takes the third."""
    log = bandit(n)
    log.action = torch.randint(4, (n,), generator=torch.Generator().manual_seed(1))
    log.action = torch.full_like(log.action, 2) if expert else log.action
    return log.described(About(spaces={"n_actions": 4}))


def test_imitation_follows_the_expert_and_reads_no_reward():
    logs = {"expert": choices(40, expert=True)}
    form = recoil(**CALM, **SMALL)
    paid, unpaid = choices(), choices()
    unpaid.reward = torch.zeros_like(unpaid.reward)
    one, other = (engine_of(form, log=log, **logs) for log in (paid, unpaid))
    for engine in (one, other):
        engine.advance(3)
    assert all(torch.equal(v, other.state[k]) for k, v in one.state.items())
    trained = train(form, unpaid, steps=500, compile=False, **logs)
    assert int(trained.predict([1.0])) == 2
    with torch.no_grad():
        worth = trained.nets.q.all(torch.ones(1, 1)).mean(0)[0]
        chance = trained.nets.pi.logits(torch.ones(1, 1)).exp()[0]
    # of 128 rows 64 lift the third action, and 6 + 58 / 4 of the mixture push it down
    assert float(worth[2]) == pytest.approx(20.0 * (64 - 20.5) / 84.5, abs=3.0)
    assert float(worth[[0, 1, 3]].max()) < -15.0 and float(chance[2]) > 0.9


def test_half_of_a_batch_is_the_experts_and_the_mixture_holds_its_share():
    form = recoil(beta=0.25, batch=64)
    logs = {"log": choices(), "expert": choices(40, expert=True)}
    rows = open_stream(form.source, logs, spaces_of(choices()), ())
    drawn = rows.sample(rows.tables)
    assert drawn.sources == ("log", "mixed", "expert")
    assert torch.bincount(drawn.source).tolist() == [24, 8, 32]
    assert drawn.action[drawn.source > 0].eq(2).all()
    assert not drawn.action[drawn.source == 0].eq(2).all()
