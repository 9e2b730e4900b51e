"""MAHALO's game against values computed by hand, and who moves by which term."""

import pytest
import torch
from training_logs import random_log

from surpass.methods.offline.dual import mahalo, odice
from surpass.objectives.adversarial import adversarial, normalized_sum, opposed
from surpass.objectives.rows import Rows
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, spaces_of


class Nets(dict):
    __getattr__ = dict.__getitem__


def test_neither_term_counts_for_more_than_one():
    loss, other = torch.tensor(3.0), torch.tensor(5.0)
    assert float(normalized_sum(loss, other, 0.5)) == 3.0 + 0.5 * 5.0
    assert float(normalized_sum(loss, other, 10.0)) == pytest.approx(3.0 / 10.0 + 5.0)


class Still:
    """A policy that always acts 1, with log-probability -2."""

    def sample(self, obs):
        return torch.ones(len(obs), 1), torch.full((len(obs),), -2.0)


def game():
    """f(s, a) = w (s + a) for two critics, their slow copy with w = 1 and 2, R = c s'."""
    w = torch.tensor([2.0, 3.0], requires_grad=True)
    c = torch.tensor(0.5, requires_grad=True)

    def critic(weights):
        def f(obs, action, first=None):
            return (weights[:first, None] if first else weights[:, None]) * (obs + action)[:, 0]

        return f

    nets = Nets(q=critic(w), q_target=critic(torch.tensor([1.0, 2.0])), pi=Still(),
                reward=lambda obs, after, ended: c * after[:, 0])  # fmt: skip
    rows = Rows({
        "obs": torch.tensor([[1.0], [2.0], [9.0]]), "action": torch.tensor([[0.0], [3.0], [7.0]]),
        "next_obs": torch.tensor([[2.0], [0.0], [4.0]]), "reward": torch.tensor([50.0, 50.0, 3.0]),
        "terminated": torch.tensor([0.0, 1.0, 0.0]), "source": torch.tensor([0, 0, 1]),
    })  # fmt: skip
    return nets, rows, w, c


def test_the_terms_are_those_of_the_paper():
    nets, rows, w, c = game()
    terms = adversarial(beta=4.0, ratio=0.5, gamma=0.5)(nets, rows)
    # source 0: f = w (1, 5), f(s, pi) = w (2, 3), f(s', a') = w (3, .), slow lowest = (3, .), R =
    # (1, 0)
    pess = sum(v * ((2 - 1) + (3 - 5)) / 2 for v in (2.0, 3.0))
    fit = sum(0.5 * ((v - 1 - 1.5) ** 2 + (v - 1 - 1.5 * v) ** 2 + 2 * (5 * v) ** 2) / 2
              for v in (2.0, 3.0))  # fmt: skip
    labels = (0.5 * 4 - 3) ** 2
    assert float(terms["critic"].detach()) == pytest.approx(pess / 4 + fit)
    assert float(terms["reward"]) == pytest.approx(fit + 0.5 * 2 * labels)
    assert torch.autograd.grad(terms["critic"], c, retain_graph=True, allow_unused=True)[0] is None
    assert torch.autograd.grad(terms["reward"], w, retain_graph=True, allow_unused=True)[0] is None
    warm = adversarial(gamma=0.5, opposing=False)(nets, rows)
    assert float(warm["critic"]) == pytest.approx(fit)
    assert float(warm["reward"]) == pytest.approx(labels)


def test_next_values_are_held_within_what_rewards_allow():
    nets, rows, _, _ = game()
    terms = adversarial(beta=0.0, ratio=0.0, gamma=0.5, limits=(-1.0, 2.0))(nets, rows)
    # the slow critics' 3 and the critics' own 6 and 9 are all taken for 2: f = w (1, 5), R = (1, 0)
    pess = sum(v * ((2 - 1) + (3 - 5)) / 2 for v in (2.0, 3.0))
    assert float(terms["critic"].detach()) == pytest.approx(pess)
    fit = sum((v - 1 - 0.5 * 2) ** 2 + (5 * v) ** 2 for v in (2.0, 3.0)) / 2
    assert float(terms["reward"]) == pytest.approx(fit)


def test_values_follow_from_the_bounds_of_rewards():
    (_, game) = mahalo(gamma=0.5, bounds=(-3.0, 0.2)).stages
    assert game.do.update[0].loss.hyper["limits"] == (-12.0, 2.0)


def test_the_policy_is_judged_by_the_first_critic_on_its_own_source():
    nets, rows, _, _ = game()

    class Dual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.log_value = torch.nn.Parameter(torch.tensor(3.0).log())

        def forward(self):
            return self.log_value.exp()

    nets["alpha"] = Dual()
    terms = opposed()(nets, rows)
    assert float(terms["actor"]) == pytest.approx((-2.0 * (2 + 3) / 2 + 3.0 * -2.0) / 3.0)
    assert float(terms["temperature"].detach()) == pytest.approx(
        -torch.tensor(3.0).log() * (-2.0 - 1.0)
    )


def test_two_timescales_and_norms_in_the_ball():
    rows = random_log()
    form = mahalo(lr=1e-2, slow=1e-5, radius=0.5, batch=16, warm=2, steps=4, hidden=(8,))
    trained = train(form, rows, labeled=random_log(seed=1), compile=False)
    warm = train(form.stages[0].do, rows, labeled=random_log(seed=1), steps=2, compile=False)
    for name in ("net.weight0", "net.weight1"):
        weight = trained.nets["q"].get_parameter(name)
        assert float(weight.detach().square().sum((-2, -1)).sqrt().max()) <= 0.5 + 1e-5
    moved = {n: max(float((a - b).detach().abs().max()) for a, b in zip(
        trained.nets[n].parameters(), warm.nets[n].parameters(), strict=True))
        for n in ("pi", "reward")}  # fmt: skip
    assert moved["pi"] <= 4 * 1e-5 * 1.01 < moved["reward"]


def test_the_gradient_rule_moves_the_values_of_o_dice():
    """With weight 0 the projected rule is the semi-gradient; with all terms it is the true one."""
    rows = random_log()
    spaces = spaces_of(rows)
    moved = {}
    for rule in ("orthogonal", "semi", "true"):
        form = odice(gradient=rule, batch=32, hidden=(8,), norm=False)
        stream = open_stream(form.source, {"log": rows}, spaces)
        engine = Engine(form, stream, spaces, compile=False)
        start = engine.state["net.v.net.weight0"].clone()
        engine.advance(3)
        moved[rule] = engine.state["net.v.net.weight0"] - start
    assert all(float(m.abs().max()) > 0 for m in moved.values())
    assert not torch.allclose(moved["orthogonal"], moved["semi"], atol=1e-6)
    assert not torch.allclose(moved["orthogonal"], moved["true"], atol=1e-6)
