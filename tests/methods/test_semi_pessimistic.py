"""Pessimism about rewards: bounds by hand, special cases, and unlabeled rows that teach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from surpass.data.records import About, Transitions
from surpass.methods.decisions import LEARNERS, learners
from surpass.methods.decisions.semi_pessimistic import PessimisticRewards, semi_pessimistic
from surpass.objectives.reward_bounds import count_bound, observed_rewards, reward_lower_bound
from surpass.objectives.rows import Rows
from surpass.parts import from_json, set_at, to_json
from surpass.tasks.trap_grid import Labeled, label_rows, random_rows, trap_grid
from surpass.training.run import train

NAN = float("nan")


def test_the_bound_of_a_table_by_hand():
    total = torch.tensor([3.0, 4.0, 0.0]).double()
    count = torch.tensor([1.0, 4.0, 0.0]).double()
    np.testing.assert_allclose(count_bound(total, count, 0.8), [2.2, 0.6, -1.0])


class Ensemble:
    """Two members that know their words."""

    def __call__(self, obs: Any, action: Any) -> torch.Tensor:
        return torch.tensor([[1.0, 2.0], [3.0, 2.0]])

    def fit(self, obs: Any, action: Any, y: torch.Tensor, huber: Any) -> torch.Tensor:
        return (self(obs, action) - y).square()


class Nets(dict):
    def __getattr__(self, name):
        return self[name]


ROWS = Rows({"obs": torch.zeros(2, 1), "action": torch.zeros(2), "reward": torch.tensor([7.0, 9.0]),
             "labeled": torch.tensor([1.0, 0.0])})  # fmt: skip


def test_labels_are_kept_only_where_asked():
    nets = Nets(reward=Ensemble())
    found = reward_lower_bound(0.5)(nets, ROWS)
    np.testing.assert_allclose(found["reward"], [2 - 0.5 * 2**0.5, 2.0], rtol=1e-6)
    kept = reward_lower_bound(0.5, keep_observed=True)(nets, ROWS)["reward"]
    np.testing.assert_allclose(kept, [7.0, 2.0])


def test_only_labeled_rows_teach_the_reward_model():
    rows = ROWS.filled(observed=ROWS.reward)
    loss = observed_rewards()(Nets(reward=Ensemble()), rows)
    assert loss.tolist() == [2 * (36.0 + 16.0), 0.0]


@dataclass
class Log:
    """Learning rows of a one-column log."""

    context: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    n_actions: int = 2


def log(n=400, seed=0):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(n, 1)))
    a = torch.from_numpy((rng.random(n) < 0.1).astype(np.int64))
    r = 0.2 + 0.5 * a * x[:, 0] + 0.3 * torch.from_numpy(rng.normal(size=n))
    return Log(x, a, r)


def test_without_pessimism_it_is_ridge_regression_and_the_rare_action_is_doubted_more():
    rows = log()
    plain = PessimisticRewards(beta=0.0, ridge=1e-9).fit(rows)
    x = torch.cat((torch.ones_like(rows.context), rows.context), 1)
    for a in (0, 1):
        some = rows.action == a
        by_hand = torch.linalg.lstsq(x[some], rows.reward[some, None]).solution
        torch.testing.assert_close(plain(rows.context)[:, a], (x @ by_hand)[:, 0])
    less = plain(rows.context) - PessimisticRewards(beta=1.0, ridge=1e-9).fit(rows)(rows.context)
    assert float(less[:, 1].mean()) > 2 * float(less[:, 0].mean()) > 0


def test_rows_without_a_label_teach_nothing_about_rewards():
    rows = log()
    half = torch.arange(len(rows.action)) % 2 == 0
    hidden = Log(rows.context, rows.action, torch.where(half, rows.reward, NAN))
    short = PessimisticRewards().fit(hidden)(rows.context[:5])
    assert torch.isfinite(short).all()
    wrong = Log(rows.context, rows.action, torch.where(half, rows.reward, 50.0))
    assert not torch.allclose(short, PessimisticRewards().fit(wrong)(rows.context[:5]))


def test_it_takes_part_in_nomination():
    (learner,) = learners("semi-pessimistic")
    assert "semi-pessimistic" in LEARNERS and learner.name == "semi-pessimistic"


def test_sums_and_moves_count_what_was_labeled():
    mdp = trap_grid(np.random.default_rng(0), side=3, traps=1)
    rows = Labeled(np.array([0, 0, 1]), np.array([2, 2, 0]), np.array([0, 1, 1]),
                   np.array([1.0, NAN, 4.0]))  # fmt: skip
    total, count = rows.sums(mdp)
    assert (float(total[0, 2]), float(count[0, 2]), float(total[1, 0])) == (1.0, 1.0, 4.0)
    assert rows.moves(mdp)[0, 2, :2].tolist() == [1.0, 1.0]


def test_logs_of_the_grid_follow_its_tables():
    rng = np.random.default_rng(0)
    mdp = trap_grid(rng, side=3, traps=1)
    rows = random_rows(mdp, 20_000, rng)
    counts = rows.moves(mdp)
    np.testing.assert_allclose(counts / counts.sum(-1, keepdim=True), mdp.P, atol=0.07)
    total, count = label_rows(mdp, 20_000, rng, noise=0.1).sums(mdp)
    np.testing.assert_allclose(
        (total / count.clamp_min(1))[count > 50], mdp.r[count > 50], atol=0.1
    )


def test_an_action_with_an_unlabeled_reward_is_doubted_and_the_labeled_one_taken():
    """One state: action 1 was labeled 0.5, what stands at action 0 is no label."""
    n = 300
    a = torch.arange(n) % 2
    rows = Transitions(
        obs=torch.ones(n, 1), action=a, reward=torch.where(a == 1, 0.5, 9.0),
        next_obs=torch.ones(n, 1), terminated=torch.ones(n, dtype=torch.bool),
        truncated=torch.zeros(n, dtype=torch.bool), episode=torch.arange(n),
        extras=TensorDict({"labeled": a}, batch_size=[n]), batch_size=[n],
    ).described(About(actions=("0", "1"), spaces={"n_actions": 2}))  # fmt: skip
    form = semi_pessimistic(kappa=4.0, temperature=10.0, lr=3e-3, batch=64)
    for name, net in form.nets.items():
        if "hidden" in getattr(net, "hyper", {}):
            form = set_at(form, f"nets.{name}.hidden", (16, 16))
    assert from_json(to_json(form)) == form
    trained = train(form, rows, steps=120, seed=0, compile=False)
    reward = trained.nets.reward.all(torch.ones(1, 1))
    assert float(reward[:, 0, 1].mean().detach()) == pytest.approx(0.5, abs=0.1)
    assert int(trained.predict([1.0])) == 1
