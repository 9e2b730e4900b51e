"""CSVE: values are low where the model says that the policy leads, and the policy goes up V."""

import pytest
import torch
from training_logs import random_log

from surpass.forms import Learner, adam, given, log, train
from surpass.methods.offline.conservative_values import csve
from surpass.objectives.conservative_values import conservative_value, reached, value_gap
from surpass.objectives.rows import Rows
from surpass.parts import from_json, to_json
from surpass.policies.acting import mean
from surpass.policies.gaussian import gaussian
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train as run
from surpass.training.streams import open_stream, spaces_of

SMALL = {"hidden": (16,), "model_hidden": (16,), "batch": 64, "lr": 3e-3}


class Shift(torch.nn.Module):
    """Three exact models: the first two numbers of the state move by the action."""

    def forward(self, obs, action):
        still = torch.zeros_like(obs[:, :1])
        out = torch.cat([action, still.expand(-1, obs.shape[-1] - 2), still], -1)
        return out.expand(3, -1, -1), torch.full((3, *out.shape), -80.0), still[:, 0]


class Hill(torch.nn.Module):
    """V is highest where the first two numbers are (0.4, -0.2)."""

    def forward(self, obs):
        return -(obs[:, :2] - torch.tensor([0.4, -0.2])).square().sum(-1)[None]


class Fixed:
    def __init__(self, action):
        self.action = action

    def __call__(self, obs):
        return self.action

    def sample(self, obs):
        return self.action / 2, None


class Table(dict):
    __getattr__ = dict.__getitem__


def seen():
    obs = torch.tensor([[0.0, 0.0, 5.0], [1.0, 1.0, 5.0]])
    return Rows({"obs": obs, "next_obs": obs + torch.tensor([0.4, -0.2, 0.0])})


def nets(alpha=3.0):
    action = torch.tensor([[0.4, -0.2], [0.4, -1.2]])
    price = torch.tensor(alpha, requires_grad=True)
    worth = torch.tensor([[2.0, 3.0], [1.0, 4.0]])
    return Table(model=Shift(), v=Hill(), pi=Fixed(action), q_target=lambda obs, a: worth,
                 alpha=lambda: price, price=price)  # fmt: skip


def test_the_terms_by_hand():
    """V(s) is -0.2 and -1.8; V(s') 0 and -2; V(s~) 0 and -1; Q at its lowest 1 and 3."""
    found = conservative_value(weight=2.0, threshold=0.5)(nets(), seen())
    torch.testing.assert_close(found["value"], torch.tensor([1.2**2, 4.8**2]))
    want = 3.0 * (2.0 * torch.tensor([0.0, 1.0]) - 0.5)
    torch.testing.assert_close(found["gap"], want)
    near = conservative_value(weight=2.0, threshold=0.0, clip=0.5)(nets(), seen())
    kept = torch.tensor([[0.4, -0.2, 0.5], [0.5, -0.2, 0.5]])  # what the box leaves of s~
    torch.testing.assert_close(near["gap"], 6.0 * (Hill()(kept) - Hill()(seen().next_obs))[0])


@pytest.mark.parametrize("threshold, grows", [(0.3, True), (3.0, False)])
def test_the_multiplier_grows_while_the_gap_is_above_the_threshold(threshold, grows):
    table = nets()
    value_gap(weight=2.0, threshold=threshold)(table, seen()).mean().backward()
    assert (float(table.price.grad) < 0) == grows
    assert float(table.price.grad) == pytest.approx(-(2.0 * 0.5 - threshold), abs=1e-6)


def test_the_policy_climbs_v_through_the_model():
    """From states with 0 in front the best action is (0.4, -0.2), which no row has."""
    rows = random_log()
    rows.obs[:, :2] = 0.0
    rows.action = torch.zeros_like(rows.action)
    form = Learner(
        {"pi": gaussian((16,), squashed=False), "v": given("hill"), "model": given("world")},
        (train("pi", reached(), adam(1e-2)),), mean(), log(64),
    )  # fmt: skip
    trained = run(form, rows, steps=250, compile=False, hill=Hill(), world=Shift())
    found = torch.as_tensor(trained.predict(rows.obs[:50])).mean(0)
    torch.testing.assert_close(found, torch.tensor([0.4, -0.2]), rtol=0, atol=0.08)


def test_pessimism_lowers_values_where_the_policy_leads_below_those_of_the_log():
    rows, gap = random_log(), {}
    for alpha in (0.0, 2.0):
        form = csve(alpha=alpha, alpha_lr=0.0, threshold=0.0, model=60, offline=150, **SMALL)
        trained = run(form, rows, compile=False)
        assert trained.policy.mean is not None
        obs = (rows.obs - trained.policy.mean) / trained.policy.std
        after = (rows.next_obs - trained.policy.mean) / trained.policy.std
        here = Rows({"obs": obs, "next_obs": after})
        with torch.no_grad():
            price = Table({**dict(trained.nets.items()), "alpha": lambda: torch.ones(())})
            gap[alpha] = float(-value_gap(1.0, 0.0)(price, here).mean())
    assert gap[2.0] < gap[0.0] - 0.05  # the log's next states are the model's, but for chance


def test_the_traced_updates_equal_the_eager_ones_and_the_recipe_comes_back_from_json():
    form, rows = csve(**SMALL), random_log()
    assert from_json(to_json(form)) == form
    spaces = spaces_of(rows)
    nets = {**form.stages[0].do.nets, **form.stages[1].do.nets}
    learner = Learner(nets, form.stages[1].do.update, mean(), form.stages[1].do.source)
    engines = []
    for _ in range(2):
        stream = open_stream(learner.source, {"log": rows}, spaces, ())
        engines.append(Engine(learner, stream, spaces, compile=False))
    engines[1].compile, engines[1].compiler = True, traced
    for engine in engines:
        engine.advance(3)
    for name, tensor in engines[0].state.items():
        torch.testing.assert_close(engines[1].state[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
