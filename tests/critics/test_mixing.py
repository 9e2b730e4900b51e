"""Values of joint actions: counterfactuals by brute force, greedy actions by enumeration."""

import itertools

import pytest
import torch

from surpass.critics.mixing import agent_policy, mixed_value
from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.objectives.many_agents import (
    counterfactual_penalty,
    counterfactual_samples,
    greedy_double,
    joint_divergence,
    joint_penalty,
    per_agent_divergence,
)
from surpass.objectives.rows import Rows
from surpass.policies.many_agents import agent_actor, agent_gaussian

SPACES = Spaces(6, n_actions=4, extras={"agents": 3})


@pytest.fixture(params=["vdn", "qmix"])
def q(request):
    torch.manual_seed(0)
    return mixed_value((16,), request.param, 8)(SPACES)


def test_the_value_of_every_deviation_by_brute_force(q):
    obs, action = torch.randn(5, 6), torch.randint(4, (5, 3))
    found = q.counterfactual(obs, action)
    for i, a in itertools.product(range(3), range(4)):
        other = action.clone()
        other[:, i] = a
        torch.testing.assert_close(found[:, i, a], q(obs, other)[0])


def test_each_agents_best_is_together_the_best(q):
    obs = torch.randn(7, 6)
    every = torch.tensor(list(itertools.product(range(4), repeat=3)))[:, None].expand(-1, 7, -1)
    best = every[q(obs, every)[0].argmax(0), torch.arange(7)]
    assert torch.equal(q.greedy(obs), best)


def test_a_penalty_on_one_agent_is_that_of_conservative_q_learning():
    torch.manual_seed(0)
    spaces = Spaces(2, n_actions=4, extras={"agents": 1})
    nets = {"q": mixed_value((8,), "vdn")(spaces), "behavior": agent_policy((8,))(spaces)}
    rows = Rows({"obs": torch.randn(6, 2), "action": torch.randint(4, (6, 1))})
    every = torch.arange(4)[:, None, None].expand(4, 6, 1)
    values = nets["q"](rows.obs, every)[0]
    expected = torch.logsumexp(values, 0) - nets["q"](rows.obs, rows.action)[0]
    found = counterfactual_penalty()(nets, rows)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)


def test_a_large_temperature_puts_all_weight_on_the_agent_that_strays_most():
    torch.manual_seed(0)
    nets = {"q": mixed_value((8,))(SPACES), "behavior": agent_policy((8,))(SPACES)}
    rows = Rows({"obs": torch.randn(6, 6), "action": torch.randint(4, (6, 3))})
    values = nets["q"].counterfactual(rows.obs, rows.action)
    excess = torch.logsumexp(values, -1) - nets["q"](rows.obs, rows.action)[0][:, None]
    mu = values.softmax(-1)
    kl = (mu * (mu.log() - nets["behavior"].logits(rows.obs))).sum(-1)
    even = counterfactual_penalty(0.0)(nets, rows)  # type: ignore[arg-type]
    sharp = counterfactual_penalty(1e6)(nets, rows)  # type: ignore[arg-type]
    torch.testing.assert_close(even, excess.mean(-1))
    torch.testing.assert_close(sharp, excess.gather(-1, kl.argmax(-1, keepdim=True))[:, 0])


def test_the_joint_penalty_and_the_double_backup_by_hand():
    torch.manual_seed(0)
    nets = {"q": mixed_value((8,), "vdn")(SPACES), "q_target": mixed_value((8,), "vdn")(SPACES)}
    rows = Rows({"obs": torch.randn(4, 6), "next_obs": torch.randn(4, 6),
                 "action": torch.randint(4, (4, 3))})  # fmt: skip
    torch.manual_seed(1)
    found = joint_penalty(20)(nets, rows)  # type: ignore[arg-type]
    torch.manual_seed(1)
    drawn = torch.randint(4, (20, 4, 3))
    values = torch.stack([nets["q"](rows.obs, a)[0] for a in drawn])
    torch.testing.assert_close(
        found, torch.logsumexp(values, 0) - nets["q"](rows.obs, rows.action)[0]
    )
    best = nets["q"].greedy(rows.next_obs)
    backup = greedy_double()(nets, rows)  # type: ignore[arg-type]
    torch.testing.assert_close(backup, nets["q_target"](rows.next_obs, best)[0])


def test_joint_divergence_grows_with_the_agents_and_the_counterfactual_one_does_not():
    g = torch.Generator().manual_seed(0)
    joint, single = [], []
    for n in range(2, 9):
        pi, beta = (torch.rand(50, n, 5, generator=g).double() + 0.1 for _ in range(2))
        pi, beta = pi / pi.sum(-1, keepdim=True), beta / beta.sum(-1, keepdim=True)
        even = torch.full((50, n), 1.0 / n).double()
        joint.append(float(joint_divergence(pi, beta)))
        single.append(float(per_agent_divergence(pi, beta, even)))
    assert all(a > b for a, b in zip(joint, single, strict=True))
    assert joint[-1] / single[-1] >= 10 and max(single) < 1.5 * min(single)


class Known:
    """A critic whose value is linear in the joint action, actors and who logged."""

    slope = torch.tensor([1.0, -2.0, 0.5, 3.0])

    def __getitem__(self, name):
        return {"q": self.q, "pi": self.pi, "behavior": self}[name]

    def q(self, obs, action):
        value = action @ self.slope + obs.sum(-1)
        return torch.stack([value, 2.0 * value])

    def pi(self, obs):
        return torch.tanh(obs)

    def logps(self, obs, action):
        return -action.reshape(-1, 2, 2).square().sum(-1)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_the_penalty_on_continuous_moves_by_brute_force(temperature):
    torch.manual_seed(0)
    nets, m, noise = Known(), 4, 0.3
    rows = Rows({"obs": 0.2 * torch.randn(5, 4), "next_obs": 0.2 * torch.randn(5, 4),
                 "action": torch.rand(5, 4) - 0.5})  # fmt: skip
    torch.manual_seed(1)
    found = counterfactual_samples(2, m, noise, temperature)(nets, rows)  # type: ignore[arg-type]
    torch.manual_seed(1)
    jitter, uniform = noise * torch.randn(2, m, 5, 4), torch.rand(m, 5, 4) * 2.0 - 1.0
    normal = torch.distributions.Normal(0.0, noise)
    for b in range(5):
        apart = (nets.pi(rows.obs)[b].reshape(2, 2).square().sum(-1) * temperature).softmax(-1)
        total = 0.0
        for i, factor in itertools.product(range(2), (1.0, 2.0)):
            own = slice(2 * i, 2 * i + 2)
            terms = []
            for k in range(m):
                for kind, at in (("free", 0), ("pi", rows.obs), ("pi", rows.next_obs)):
                    move = rows.action[b].clone()
                    if kind == "free":
                        move[own], logp = uniform[k, b, own], 2 * torch.tensor(0.5).log()
                    else:
                        shift = jitter[0 if at is rows.obs else 1, k, b, own]
                        move[own] = (nets.pi(at)[b, own] + shift).clamp(-1.0, 1.0)
                        logp = normal.log_prob(shift).sum()
                    terms.append(factor * (move @ nets.slope + rows.obs[b].sum()) - logp)
            logged = factor * (rows.action[b] @ nets.slope + rows.obs[b].sum())
            total = total + apart[i] * (torch.logsumexp(torch.stack(terms), 0) - logged)
        assert float(found[b]) == pytest.approx(float(total), abs=1e-4)


def test_agents_move_by_what_they_see_themselves():
    torch.manual_seed(0)
    spaces = Spaces(6, 4)
    actor, who = agent_actor(2, (8,))(spaces), agent_gaussian(2, (8,))(spaces)
    obs = torch.randn(5, 6)
    other = torch.cat([obs[:, :3], torch.randn(5, 3)], 1)
    assert torch.equal(actor(obs)[:, :2], actor(other)[:, :2])
    assert (actor(obs)[:, 2:] != actor(other)[:, 2:]).all()
    action = torch.rand(5, 4)
    by_hand = torch.distributions.Normal(who(obs), 1.0).log_prob(action).reshape(5, 2, 2).sum(-1)
    torch.testing.assert_close(who.logps(obs, action), by_hand)
    with pytest.raises(InputError, match="4 agents with continuous actions"):
        agent_actor(4)(spaces)


def test_without_agents_it_is_refused():
    with pytest.raises(InputError, match="several agents"):
        mixed_value()(Spaces(4, n_actions=2))
    with pytest.raises(InputError, match="no mixer"):
        mixed_value(mixer="sum")(SPACES)
