"""Forward-backward representations on a chain, whose successor measure is a matrix inverse."""

import math

import pytest
import torch

from surpass.critics.successor import ZeroShot
from surpass.errors import InputError
from surpass.objectives.rows import Rows
from surpass.objectives.successor import (
    forward_backward,
    measure_penalty,
    on_sphere,
    orthonormal,
    task_codes,
    value_penalty,
)

S, GAMMA = 6, 0.8


def chain():
    """Every state of a ring goes to the next one; one row for each, as one-hot observations."""
    eye = torch.eye(S)
    return eye, eye.roll(-1, 0)


def nets_of(f, b):
    """F looks its row up by the state, B = b s'; there is nothing to decide."""
    nets = {"f": lambda obs, action, z: (obs @ f)[None], "b": lambda obs: obs @ b,
            "pi": lambda obs, z: torch.zeros(len(obs), 1)}  # fmt: skip
    return {**nets, "f_target": nets["f"], "b_target": nets["b"]}


def rows_of(obs, following):
    n = len(obs)
    columns = {"obs": obs, "next_obs": following, "action": torch.zeros(n, 1)}
    return Rows({**columns, "terminated": torch.zeros(n), "code": torch.zeros(n, S)})


def test_the_loss_is_stationary_at_the_exact_successor_measure():
    """M(s, s') = sum_t gamma^t P(s_{t+1} = s') over the density 1 / S of the log."""
    obs, following = chain()
    p = torch.eye(S).roll(-1, 0)
    exact = S * p @ torch.linalg.inv(torch.eye(S) - GAMMA * p)

    def slope(f, rows):
        f = f.clone().requires_grad_()
        nets = nets_of(f, torch.eye(S))
        nets["f_target"] = lambda obs, action, z: (obs @ f.detach())[None]
        loss = forward_backward(GAMMA)(nets, rows)  # type: ignore[arg-type]
        return torch.autograd.grad(loss, f)[0]

    index = torch.arange(S).repeat(100)
    rows = rows_of(obs[index], following[index])
    at, off = slope(exact, rows), slope(exact * 1.2, rows)
    assert float(at.abs().max()) < 0.1 * float(off.abs().max())


def test_orthonormality_is_least_where_the_features_are_white():
    obs, following = chain()
    g = torch.Generator().manual_seed(0)
    index = torch.randint(S, (1_500,), generator=g)
    rows = rows_of(obs[index], following[index])
    white = math.sqrt(S) * torch.eye(S)  # E[B B^T] = I under the uniform density
    losses = {c: float(orthonormal()({"b": lambda o, c=c: c * o @ white}, rows))  # type: ignore
              for c in (0.9, 1.0, 1.1)}  # fmt: skip
    assert losses[1.0] < min(losses[0.9], losses[1.1])
    assert losses[1.0] == pytest.approx(-S, abs=0.2)


def test_codes_lie_on_the_sphere_and_some_are_goals():
    obs, following = chain()
    torch.manual_seed(0)
    index = torch.randint(S, (400,))
    rows = rows_of(obs[index], following[index])
    found = task_codes(0.5, S)({"b": lambda o: 3.0 * o}, rows)["code"]  # type: ignore[arg-type]
    torch.testing.assert_close(found.norm(dim=-1), torch.full((400,), math.sqrt(S)))
    goals = (found.max(-1).values > math.sqrt(S) - 1e-4).float().mean()
    assert float(goals) == pytest.approx(0.5, abs=0.1)


def test_penalties_vanish_where_all_actions_are_alike_but_for_their_number():
    """logsumexp of 11 equal values is the value plus log 11; two heads."""
    rows = Rows({"obs": torch.randn(5, 3), "next_obs": torch.randn(5, 3),
                 "action": torch.zeros(5, 2), "code": torch.randn(5, 4)})  # fmt: skip
    constant = {
        "f": lambda obs, action, z: torch.ones(2, *action.shape[:-1], 4),
        "b": lambda obs: torch.randn(5, 4), "pi": lambda obs, z: torch.zeros(5, 2),
    }  # fmt: skip
    for penalty in (value_penalty(), measure_penalty()):
        found = penalty(constant, rows)  # type: ignore[arg-type]
        assert found.tolist() == pytest.approx([2 * math.log(11)] * 5, rel=1e-5)


def test_penalties_fall_when_the_logged_action_is_worth_more():
    rows = Rows({"obs": torch.randn(5, 3), "next_obs": torch.randn(5, 3),
                 "action": torch.ones(5, 2), "code": torch.ones(5, 1)})  # fmt: skip
    raised = {
        "f": lambda obs, action, z: 4.0 * action.sum(-1, keepdim=True)[None],
        "pi": lambda obs, z: torch.full((5, 2), -1.0),
    }
    torch.manual_seed(0)
    assert float(value_penalty()(raised, rows).max()) < math.log(11)  # type: ignore[arg-type]


def test_a_task_is_told_by_a_goal_or_by_labeled_states():
    b = lambda obs: obs @ torch.diag(torch.tensor([1.0, 2.0]))  # noqa: E731
    policy = ZeroShot({"b": b, "pi": lambda obs, z: z[:, :1]}, None, "pi", "b")
    with pytest.raises(InputError, match="waits for its task"):
        policy.act(torch.zeros(1, 2))
    by_goal = policy.given(goal=torch.tensor([3.0, 0.0])).act(torch.zeros(2, 2)).action
    assert by_goal[:, 0].tolist() == pytest.approx([math.sqrt(2)] * 2)
    states, reward = torch.eye(2), torch.tensor([1.0, 0.5])  # mean r B = (0.5, 0.5)
    by_reward = policy.given(obs=states, reward=reward).act(torch.zeros(1, 2)).action
    assert by_reward.item() == pytest.approx(1.0)
    torch.testing.assert_close(on_sphere(torch.tensor([3.0, 4.0])).norm(), torch.tensor(2.0).sqrt())
    with pytest.raises(InputError, match="a task is"):
        policy.given(weight=2)
