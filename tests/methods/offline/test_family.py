"""FamO2O: one policy for all balances, and the balance that is best in a state."""

from dataclasses import replace

import pytest
import torch
from training_counters import Counter, TaskOf
from training_logs import bandit, random_log

from surpass.critics.ensembles import dual
from surpass.data.records import About
from surpass.forms import Learner, adam, given, log, train
from surpass.methods.offline.family import famo2o
from surpass.objectives.balances import chosen, family_clone
from surpass.objectives.rows import Rows
from surpass.parts import from_json, to_json
from surpass.policies.acting import none
from surpass.policies.family import balance
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train as run
from surpass.training.streams import open_stream, spaces_of

SMALL = {"hidden": (32,), "batch": 128, "lr": 3e-3}


def engine_of(form, **roles):
    rows = random_log()
    stream = open_stream(form.source, {"log": rows}, spaces_of(rows), ())
    return Engine(form, stream, spaces_of(rows), roles=roles, compile=False)


@torch.no_grad()
def test_a_family_of_one_member_is_weighted_cloning_with_its_coefficient():
    engine = engine_of(famo2o(online=0, **SMALL).stages[0].do)
    nets, rows = engine.bank, engine.stream.sample(engine.stream.tables)
    found = family_clone(2.5, 2.5)(nets, rows)
    gain = nets.q_target(rows.obs, rows.action).amin(0) - nets.v(rows.obs)[0]
    logp = nets.pi.logp(rows.obs, rows.action, torch.full_like(gain, 2.5))
    torch.testing.assert_close(found, -(2.5 * gain).exp().clamp(max=100.0) * logp)


class Follows(torch.nn.Module):
    """A policy whose action is its coefficient."""

    def sample(self, obs, b):
        return b[:, None].expand(-1, 2), None


class Peaked(torch.nn.Module):
    """Actions are best at 3 + the first number of the state."""

    def forward(self, obs, action):
        return -4.0 * (action - 3.0 - obs[:, :1]).square().sum(-1)[None]


def test_the_balance_is_what_the_critic_likes_best_in_each_state():
    form = Learner(
        {"balance": balance(1.0, 5.0, (32,)), "eta": dual(), "pi": given("member"),
         "q_target": given("judge")},
        (train(("balance", "eta"), chosen(), adam(1e-2)),), none(), log(128),
    )  # fmt: skip
    engine = engine_of(form, member=Follows(), judge=Peaked())
    engine.advance(400)
    obs = torch.zeros(3, 3)
    obs[:, 0] = torch.tensor([-1.0, 0.0, 1.0])
    with torch.no_grad():
        found = engine.bank.balance(obs)
        entropy = -engine.bank.balance.sample(obs.repeat(2000, 1))[1].mean()
    torch.testing.assert_close(found, torch.tensor([2.0, 3.0, 4.0]), rtol=0, atol=0.25)
    assert float(entropy) == pytest.approx(-0.5, abs=0.4)  # of z, as eta holds it


def test_the_higher_the_coefficient_the_further_a_member_goes_and_it_acts_with_the_best():
    """Actions are even, so that cloning gives 0; the best is 0.4."""
    form = famo2o(1.0, 60.0, tau=0.9, online=0, offline=900, **SMALL)
    trained = run(form, bandit(), compile=False)
    obs = torch.ones(2, 1)
    with torch.no_grad():
        low, high = trained.nets.pi(obs, torch.tensor([1.0, 60.0]))[:, 0].tolist()
        b = float(trained.nets.balance(obs)[0])
    assert high > low + 0.1 and high == pytest.approx(0.4, abs=0.13)
    assert b > 20.0 and trained.predict([1.0])[0] == pytest.approx(0.4, abs=0.15)


def test_online_the_policy_learns_with_what_the_balance_chose_from_the_log_and_its_own_steps():
    form = famo2o(offline=4, online=6, **SMALL)
    first, second = (s.do for s in form.stages)
    assert first.update[2].loss.low == 1.0 and second.update[2].loss == family_clone(None)
    assert second.source.options["begin_with"] == "log" and from_json(to_json(form)) == form
    rows = random_log(120, obs=1, act=1).described(
        About(spaces={"action_low": -2.0, "action_high": 6.0})
    )
    trained = run(form, rows, task=TaskOf(Counter()), compile=False)
    assert torch.isfinite(trained.policy.act(torch.zeros(3, 1)).action).all()
    assert len(famo2o(online=0).stages) == 1


@torch.no_grad()
def test_what_was_drawn_from_the_balance_weighs_and_conditions_alike():
    engine = engine_of(famo2o(online=0, **SMALL).stages[0].do)
    nets = engine.bank
    rows = Rows({"obs": torch.randn(6, 3), "action": torch.rand(6, 2), "reward": torch.zeros(6)})
    torch.manual_seed(3)
    found = family_clone(None)(nets, rows)
    torch.manual_seed(3)
    b, _ = nets.balance.sample(rows.obs)
    gain = nets.q_target(rows.obs, rows.action).amin(0) - nets.v(rows.obs)[0]
    want = -(b * gain).exp().clamp(max=100.0) * nets.pi.logp(rows.obs, rows.action, b)
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("stage", [0, 1])
def test_the_traced_update_equals_the_eager_one(stage):
    form = famo2o(**SMALL).stages[stage].do
    form = replace(form, source=log(32))
    engines = [engine_of(form) for _ in range(2)]
    engines[1].compile, engines[1].compiler = True, traced
    for engine in engines:
        engine.advance(3)
    for name, tensor in engines[0].state.items():
        torch.testing.assert_close(engines[1].state[name], tensor, rtol=1e-5, atol=1e-7, msg=name)
