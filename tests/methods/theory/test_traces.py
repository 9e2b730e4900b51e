"""RBIS as recipes: a critic's net from a log, and a table in control."""

from __future__ import annotations

import pytest
import torch

import surpass as sp
from surpass.critics.ensembles import critic
from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.methods.theory.traces import rbis_table
from surpass.objectives.bellman import expected, target_of
from surpass.objectives.rows import Rows
from surpass.objectives.traces import actor_target, greedy_target, recency_bounded, traced
from surpass.policies.gaussian import gaussian
from surpass.tasks.worlds import chain, grid_world


class Nets(dict):
    __getattr__ = dict.__getitem__


def segments(B, T, g):
    rows = {
        "obs": torch.randn(B, T, 3, generator=g), "next_obs": torch.randn(B, T, 3, generator=g),
        "reward": torch.randn(B, T, generator=g), "terminated": torch.zeros(B, T),
        "mask": torch.ones(B, T), "behavior_logp": -torch.rand(B, T, generator=g),
    }  # fmt: skip
    rows["mask"][0, 3:] = 0.0
    rows["terminated"][0, 2] = 1.0
    return rows


def test_the_target_of_a_net_is_the_forward_view():
    """By a double loop over the steps of a segment, from the values of the net itself."""
    g = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    q = critic(2, (8,))(Spaces(3, n_actions=4))
    rows = segments(3, 5, g) | {"action": torch.randint(4, (3, 5), generator=g)}
    seen = Rows(rows)
    lam, gamma, eps = 0.8, 0.9, 0.4
    loss = traced(recency_bounded(lam), greedy_target(eps), gamma)(Nets(q=q, q_target=q), seen)
    with torch.no_grad():
        for b in range(3):
            total, steps = 0.0, int(rows["mask"][b].sum())
            here, there = (q.all(rows[k][b]).amin(0) for k in ("obs", "next_obs"))
            a = rows["action"][b]
            for start in range(steps):
                y, beta = here[start, a[start]].clone(), 1.0
                for u in range(start, steps):
                    best = int(here[u].argmax())
                    pi = eps / 4 + (1 - eps) * (best == int(a[u]))
                    if u > start:
                        rho = pi / float(rows["behavior_logp"][b, u].exp())
                        beta = min(lam ** (u - start), rho * beta)
                    ahead = eps * there[u].mean() + (1 - eps) * there[u].max()
                    ahead = (1 - rows["terminated"][b, u]) * gamma * ahead
                    delta = rows["reward"][b, u] + ahead - here[u, a[u]]
                    y += gamma ** (u - start) * beta * delta
                own = q(rows["obs"][b, start : start + 1], a[start : start + 1])
                total += float((own - y).square().sum()) / steps
            assert float(loss[b]) == pytest.approx(total, rel=1e-4)
    with pytest.raises(InputError, match="segments"):
        traced()(Nets(q=q, q_target=q), seen[:, 0])


def test_with_lam_zero_a_continuous_critic_has_the_one_step_target():
    g = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    spaces = Spaces(3, 2)
    nets = Nets(
        q=critic(2, (8,))(spaces), q_target=critic(2, (8,))(spaces), pi=gaussian((8,))(spaces)
    )
    rows = segments(4, 5, g) | {"action": 1.6 * torch.rand(4, 5, 2, generator=g) - 0.8}
    torch.manual_seed(7)
    loss = traced(recency_bounded(0.0), actor_target(), 0.9)(nets, Rows(rows))
    flat = Rows({k: v.flatten(0, 1) for k, v in rows.items()})
    torch.manual_seed(7)
    y = target_of(nets, flat, expected(), 0.9)
    want = nets.q.fit(flat.obs, flat.action, y).sum(0).reshape(4, 5)
    want = (want * rows["mask"]).sum(1) / rows["mask"].sum(1)
    torch.testing.assert_close(loss, want)
    nets.q.zero_grad()
    loss.sum().backward()
    assert all(p.grad is None for net in (nets.q_target, nets.pi) for p in net.parameters())


def test_a_net_learns_the_optimal_values_of_a_log_of_random_actions():
    mdp = chain(5, gamma=0.8)
    log = mdp.transitions(mdp.uniform(), 40, 50, torch.Generator().manual_seed(0))
    recipe = sp.rbis(0.8, 0.8, epsilon=0.0, length=8, lr=1e-2, batch=32, every=20, hidden=(32,))
    trained = sp.train(recipe, log, steps=400, seed=0, compile=False)
    values = trained.nets.q.all(torch.eye(5)).mean(0)
    want = mdp.solve().q
    assert (values - want).abs().max() < 0.12 < want.max() - want.min()
    assert (trained.predict(torch.eye(5)) == 1).all()
    with pytest.raises(InputError, match="behavior_logp"):
        bare = log.clone()
        bare.behavior_logp = None
        sp.train(recipe, bare, steps=1, compile=False)
    with pytest.raises(InputError, match="lam lies in"):
        sp.rbis(1.5)


def test_the_table_finds_the_shortest_way():
    mdp = grid_world("bifurcation-1", gamma=0.9, leaving=True)
    learned = rbis_table(lam=0.9, alpha=0.5, runs=8).solve(mdp)
    best = torch.nn.functional.one_hot(learned.q.argmax(-1), 4).double()
    found = mdp.evaluate(best).value  # eight policies at once
    assert found.shape == (8,) and float(found[0]) == pytest.approx(
        float(mdp.evaluate(best[0]).value)
    )
    assert (found > 0.9 * float(mdp.solve().value)).float().mean() >= 0.75
