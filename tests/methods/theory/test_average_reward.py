"""Average reward: values by hand, the Riccati optimum, and what the recipe is made of."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensordict import TensorDict

import surpass as sp
from surpass.data.records import Sequences
from surpass.evaluation.rollouts import roll_out
from surpass.methods.theory.average_reward import aro_ddpg
from surpass.objectives.average_reward import centered_gae, differential_td
from surpass.parts import part
from surpass.tasks.catalog import task
from surpass.tasks.linear_quadratic import LinearQuadratic


def test_the_best_gain_is_a_fixed_point_and_no_other_gain_is_better():
    lq = LinearQuadratic()

    def average(k):
        c = lq.decay - k
        return -(1 + lq.weight * k**2) * lq.sigma**2 / (1 - c**2)

    assert lq.best == pytest.approx(average(lq.gain), rel=1e-9)
    assert all(average(k) <= lq.best + 1e-12 for k in np.linspace(0.0, 1.5, 151))


class Known:
    """Two critics that say 1 and 2, whatever they see."""

    def fit(self, obs, action, y):
        return torch.stack([(1.0 - y) ** 2, (2.0 - y) ** 2])


def test_the_loss_and_the_pull_on_the_rate_by_hand():
    """y = r + next = 3 + 0.5 and 3 at an end; rho = 1 leaves 2.5 and 2: squared distances to the
    critics (1.5^2 + 0.5^2) and (1 + 0)."""
    rho = torch.tensor(1.0, requires_grad=True)
    rows = SimpleNamespace(obs=None, action=None, reward=torch.tensor([3.0, 3.0]),
                           terminated=torch.tensor([0.0, 1.0]))  # fmt: skip

    @part
    def half(nets, rows, /):
        return torch.full((2,), 0.5)

    loss = differential_td(half())({"q": Known(), "rho": lambda: rho * 1.0}, rows)
    assert loss.tolist() == [2.5, 1.0]
    loss.sum().backward()
    assert float(rho.grad) == pytest.approx(2 * (-1.5 - 0.5 - 1.0 + 0.0))


def test_advantages_sum_to_nothing_where_values_are_flat():
    """Without a critic and with lam 1, A_t is the sum of what is above the mean from t on."""
    reward = torch.tensor([[1.0, 2.0, 6.0]])
    seq = Sequences(
        action=torch.zeros(1, 3).long(), mask=torch.ones(1, 3), reward=reward,
        extras=TensorDict({"value": torch.zeros(1, 3)}, batch_size=[1, 3]), batch_size=[1],
    )  # fmt: skip
    found = centered_gae(1.0)(seq)["advantage"]
    torch.testing.assert_close(found, torch.tensor([[0.0, 2.0, 3.0]]))


def test_a_linear_system_is_held_nearly_as_well_as_can_be(monkeypatch):
    """1,400 updates; without control it would be 3.5 times as bad as can be."""
    monkeypatch.setenv("SURPASS_COMPILE", "0")
    lq = LinearQuadratic()
    form = aro_ddpg(lr=1e-3, batch=64, warm=500, per_step=0.25, envs=4, hidden=(32, 32))
    trained = sp.train(form, task=task("linear-quadratic"), steps=6_000, seed=0)
    earned = roll_out(trained, task("linear-quadratic"), 32).mean / 1000
    assert earned >= 1.25 * lq.best
