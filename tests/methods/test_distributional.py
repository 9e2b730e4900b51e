"""DSAC: a critic that learns mean and spread of drawn soft returns, and what it holds back."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.distributions import Normal
from training_counters import Regulator, TaskOf
from training_logs import bandit

from surpass.critics.ensembles import critic
from surpass.errors import InputError
from surpass.evaluation.rollouts import roll_out
from surpass.forms import Spaces, log
from surpass.methods.online.distributional import dsac
from surpass.objectives.bellman import soft, td
from surpass.objectives.gaussian_returns import bounded_likelihood, drawn_return, gaussian_td
from surpass.objectives.rows import Rows
from surpass.parts import from_json, to_json
from surpass.policies.gaussian import gaussian
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, spaces_of


class Table(dict):
    __getattr__ = dict.__getitem__


def slopes(loss, mean, spread):
    """The gradients of a loss with respect to mean and spread."""
    held = [torch.tensor([x], requires_grad=True) for x in (mean, spread)]
    return [float(g) for g in torch.autograd.grad(loss(*held).sum(), held)]


def test_without_bound_and_floor_its_gradient_is_that_of_the_likelihood():
    for mean, spread, y in ((1.0, 0.5, 3.0), (-2.0, 2.0, -2.5)):
        target = torch.tensor([y])
        want = slopes(lambda m, s, y=target: -Normal(m, s).log_prob(y), mean, spread)
        found = slopes(lambda m, s, y=target: bounded_likelihood(m, s, y, torch.inf, 0.0),
                       mean, spread)  # fmt: skip
        assert found == pytest.approx(want, rel=1e-5)


def test_by_hand_only_the_spread_sees_the_bounded_target():
    found = slopes(lambda m, s: bounded_likelihood(m, s, torch.tensor([6.0]), 2.0, 0.1), 1.0, 0.5)
    assert found == pytest.approx([-5.0 / (0.25 + 0.1), -(4.0 - 0.25) / (0.125 + 0.1)])


def test_the_floor_tames_a_spread_near_zero():
    y = torch.tensor([1.0])
    steady, wild = (slopes(lambda m, s, e=e: bounded_likelihood(m, s, y, 20.0, e), 0.0, 1e-3)
                    for e in (0.1, 0.0))  # fmt: skip
    assert max(abs(g) for g in steady) < 11.0 < 1e5 < max(abs(g) for g in wild)


@pytest.mark.parametrize("bound", [100.0, 2.0])
def test_descent_finds_the_mean_and_the_spread_within_the_bound(bound):
    y = 2.0 + 3.0 * torch.randn(4_000)
    raw = [torch.zeros(1, 1, requires_grad=True), torch.zeros(1, 1, requires_grad=True)]
    optimizer = torch.optim.Adam(raw, 0.05)
    for _ in range(900):
        optimizer.zero_grad()
        mean, spread = raw[0].expand(1, 4_000), torch.nn.functional.softplus(raw[1])
        bounded_likelihood(mean, spread.expand(1, 4_000), y, bound).mean().backward()
        optimizer.step()
    seen = (y - y.mean()).clamp(-bound, bound).square().mean().sqrt()
    assert float(raw[0].detach()) == pytest.approx(float(y.mean()), abs=0.02)
    assert float(spread.detach()) == pytest.approx(float(seen), abs=0.02)


class Returns:
    """Given means and spreads, whatever the action."""

    def __init__(self, mean, spread):
        self.mean, self.spread = mean, spread

    def distribution(self, obs, action):
        full = torch.full((1, len(obs)), self.mean)
        return full, torch.full_like(full, self.spread)

    def __call__(self, obs, action):
        return self.distribution(obs, action)[0]


def with_returns(mean, spread, logp=-1.0):
    pi = Table(sample=lambda obs: (obs, torch.full((len(obs),), logp)))
    return Table(q_target=Returns(mean, spread), pi=pi, pi_target=pi,
                 alpha=lambda: torch.tensor(0.5))  # fmt: skip


def test_the_target_is_a_draw_of_the_soft_return():
    rows = Rows({"next_obs": torch.zeros(20_000, 1)})
    found = drawn_return()(with_returns(5.0, 2.0), rows)
    assert float(found.mean()) == pytest.approx(5.5, abs=0.05)  # Q - alpha log pi
    assert float(found.std()) == pytest.approx(2.0, abs=0.05)
    assert float((found - 5.5).abs().max()) == pytest.approx(6.0)  # three deviations, and no more


def test_without_a_spread_the_target_is_that_of_sac():
    rows, nets = Rows({"next_obs": torch.randn(9, 3)}), {"pi": gaussian((8,))(Spaces(3, 2))}
    nets |= {"q_target": Returns(1.5, 0.0), "alpha": lambda: torch.tensor(0.3)}
    draws = []
    for backup in (soft(), drawn_return(pi="pi")):
        torch.manual_seed(3)
        draws.append(backup(nets, rows))
    assert torch.equal(draws[0], draws[1])


def test_temporal_differences_with_plain_likelihood_are_its_special_case():
    spaces, rows = Spaces(3, 2), Rows({
        "obs": torch.randn(6, 3), "action": torch.rand(6, 2) * 2 - 1, "reward": torch.randn(6),
        "next_obs": torch.randn(6, 3), "terminated": torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0]),
    })  # fmt: skip
    q = critic(1, (8,), head="gaussian")(spaces)
    nets = Table(with_returns(0.7, 0.0), q=q)
    grads = []
    for loss in (td(drawn_return()), gaussian_td(drawn_return(), bound=torch.inf, eps=0.0)):
        found = torch.autograd.grad(loss(nets, rows).mean(), list(q.parameters()))
        grads.append(torch.cat([g.flatten() for g in found]))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


SMALL = {"hidden": (32, 32), "batch": 64, "lr": 3e-3, "tau": 0.05}


def test_it_learns_the_mean_and_the_spread_of_a_noisy_reward():
    """One decision: reward -(a - 0.4)^2 + noise of deviation 0.5."""
    rows = bandit(4_000)
    noise = torch.randn(4_000, generator=torch.Generator().manual_seed(7))  # not that of actions
    rows.reward = rows.reward + 0.5 * noise
    form = replace(dsac(**SMALL), source=log(256))
    trained = train(form, rows, steps=800)
    action = torch.linspace(-0.8, 0.9, 18)[:, None]
    with torch.no_grad():
        mean, spread = trained.nets.q.distribution(torch.ones(18, 1), action)
    torch.testing.assert_close(mean[0], -(action[:, 0] - 0.4).square(), rtol=0, atol=0.2)
    torch.testing.assert_close(spread[0], torch.full((18,), 0.5), rtol=0, atol=0.12)


def engine_of(form, compile=False):
    rows = bandit(200)
    stream = open_stream(form.source, {"log": rows}, spaces_of(rows), ())
    return Engine(form, stream, spaces_of(rows), compile=compile)


def test_actor_temperature_and_targets_move_at_every_second_update():
    engine, seen = engine_of(replace(dsac(**SMALL), source=log(64))), []
    for _ in range(5):
        seen.append({k: v.clone() for k, v in engine.bank.state_dict().items()})
        engine.advance(1)
    for k, (a, b) in enumerate(pairwise(seen)):
        moved = {name.split(".")[0] for name in a if not torch.equal(a[name], b[name])}
        every = {"q", "pi", "alpha", "q_target", "pi_target"}
        assert moved == (every if k % 2 else {"q"})


def test_the_traced_update_equals_the_eager_one():
    form = replace(dsac(**SMALL), source=log(64))
    engines = [engine_of(form), engine_of(form, compile=True)]
    engines[1].compiler = traced
    for engine in engines:
        engine.advance(4)
    for name, tensor in engines[0].state.items():
        torch.testing.assert_close(engines[1].state[name], tensor, rtol=1e-5, atol=1e-7, msg=name)


def test_it_controls_a_regulator():
    where, p = TaskOf(Regulator()), (1 + 3**0.5) / 2  # p = 1 + p - p^2 / (p + 1/2)
    form = dsac(bound=5.0, gamma=0.9, warm=200, envs=4, **SMALL)
    trained = train(form, task=where, steps=1_200, log_every=500)
    best = roll_out(lambda x: -p / (p + 0.5) * x, where, 64).mean
    assert roll_out(trained, where, 64).mean > 1.1 * best


def test_the_recipe_comes_back_from_json_and_says_what_cannot_be():
    assert from_json(to_json(dsac())) == dsac()
    for wrong, what in (({"bound": 0.0}, "bound"), ({"eps": -1.0}, "eps"), ({"delay": 0}, "delay")):
        with pytest.raises(InputError, match=what):
            dsac(**wrong)
    with pytest.raises(InputError, match="gaussian"):
        critic(1, (8,))(Spaces(3, 2)).distribution(torch.randn(2, 3), torch.zeros(2, 2))
