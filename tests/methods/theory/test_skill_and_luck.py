"""Off-policy DAE as recipes: nets that act, and a table that evaluates."""

from __future__ import annotations

import pytest
import torch

import surpass as sp
from surpass.errors import InputError
from surpass.methods.theory.skill_and_luck import off_policy_dae_table
from surpass.objectives.skill_and_luck import Paths
from surpass.tasks.worlds import chain


def test_nets_find_the_way_from_a_log_of_random_actions():
    mdp = chain(5, slip=0.1, gamma=0.8)
    log = mdp.transitions(mdp.uniform(), 40, 50, torch.Generator().manual_seed(0))
    recipe = sp.off_policy_dae(8, k=4, beta=0.01, gamma=0.8, lr=1e-2, polyak=0.1, hidden=(32,))
    trained = sp.train(recipe, log, steps=250, seed=0, compile=True)
    assert (trained.predict(torch.eye(5)) == 1).all()
    pi = trained.nets.pi.logits(torch.eye(5)).exp().double()
    v = trained.nets.v(torch.eye(5))[0].double()
    want = mdp.evaluate(pi / pi.sum(-1, keepdim=True)).v
    assert (v - want).abs().max() < 0.3 < want.max() - want.min()
    with pytest.raises(InputError, match="at least one step"):
        sp.off_policy_dae(0)


def test_the_table_is_a_planner_of_paths():
    mdp = chain(3, slip=0.2, gamma=0.7)
    log = mdp.rollout(mdp.uniform(), 300, 6, torch.Generator().manual_seed(0), dtype=torch.float64)
    s = torch.cat([log.extras["state"], log.extras["next_state"][:, -1:]], 1)
    pi = torch.tensor([[0.1, 0.9]]).expand(3, 2)
    found = off_policy_dae_table(pi, 0.7, mdp.P).solve(Paths(s, log.action, log.reward))
    torch.testing.assert_close(found.v, mdp.evaluate(pi).v, atol=1e-3, rtol=0)
