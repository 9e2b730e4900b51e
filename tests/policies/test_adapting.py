"""Adapting to a task by trial: what is tried, kept and concluded, on tasks that are one number."""

import pytest
import torch

from surpass.evaluation.rollouts import roll_out
from surpass.policies.acting import InEnvironment
from surpass.policies.adapting import Adapting
from surpass.tasks.catalog import ControlTask
from surpass.tasks.goals import SparseGoal
from surpass.tasks.protocol import Spaces

SPACES = Spaces(2, 2, 0, (-1.0, -1.0), (1.0, 1.0))
ANGLES = torch.linspace(0.0, 3.0, 7)


def nets_of():
    """Codes are directions; the policy walks along its code; a transition that paid is encoded as
    the direction of its place, any other as the origin."""
    directions = torch.stack([ANGLES.cos(), ANGLES.sin()], -1)
    return {
        "codes": lambda: directions,
        "pi": lambda seen: torch.where(seen[:, :2].norm(dim=-1, keepdim=True) < 0.95,
                                       seen[:, 2:], 0.0 * seen[:, 2:]),
        "encoder": lambda obs, action, reward: torch.nn.functional.normalize(obs + action, dim=-1)
        * (reward > 0)[:, None],
        "rewards": lambda seen, action: torch.stack([seen[:, 0] * 0, seen[:, 0] * 0 + 0.5]),
    }  # fmt: skip


def returns(policy, angle, budget, copies=4):
    task = ControlTask("goals", "find the goal", SparseGoal(angle))
    found = roll_out(InEnvironment(policy, SPACES), task, budget * copies, copies=copies)
    return found.returns.reshape(copies, budget)


def test_it_ends_with_the_best_that_it_tried():
    """With a budget of more than the seven codes all are tried; the goal at code 4 is found."""
    torch.manual_seed(0)
    policy = Adapting(nets_of(), 10, 9, "familiar", "return", candidates=60, spread=0.0)
    found = returns(policy, float(ANGLES[4]), 10)
    assert bool((found[:, -1] == found.amax(1)).all())
    assert float(found[:, -1].min()) >= 8.0
    assert float(found[:, :7].gt(5).sum(1).max()) == 1.0  # no code is tried twice before all were


def test_believing_every_episode_ends_between_the_codes():
    """The mean over all transitions, most of which found nothing, points nowhere in particular."""
    torch.manual_seed(0)
    policy = Adapting(nets_of(), 10, 9, "all", "return", candidates=60, spread=0.0)
    assert float(returns(policy, float(ANGLES[4]), 10)[:, -1].max()) == 0.0


def test_the_context_is_the_mean_over_the_transitions_that_were_kept():
    policy = Adapting(nets_of(), 5, 2, "familiar", "return", spread=0.0)
    memory = policy._fresh(torch.zeros(1, 2))
    memory["sums"][0, :3] = torch.tensor([[2.0, 0.0], [0.0, 6.0], [9.0, 9.0]])
    memory["counts"][0, :3] = torch.tensor([4.0, 3.0, 5.0])
    memory["doubt"][0, :3] = torch.tensor([-3.0, -3.0, 1.0])
    memory["episode"][:] = 3
    expected = torch.tensor([[2.0 / 7, 6.0 / 7]])
    torch.testing.assert_close(policy._next(memory), expected)
    torch.testing.assert_close(
        policy.given(keep="all")._next(memory),
        torch.tensor([[11.0 / 12, 15.0 / 12]]),  # type: ignore
    )


def test_doubts_of_three_kinds_by_hand():
    memory = {"obs": torch.zeros(1, 2), "code": torch.zeros(1, 2), "action": torch.zeros(1, 2)}
    reward = torch.tensor([1.0])
    doubt = {u: Adapting(nets_of(), 5, 2, "familiar", u)._doubt(memory, reward).item()
             for u in ("return", "error", "variance")}  # fmt: skip
    assert doubt == pytest.approx(
        {"return": -1.0, "error": (1 + 0.25) / 2, "variance": 0.5 / 2**0.5}
    )


def test_copies_adapt_by_themselves():
    """Two copies end their episodes at different times: only one concludes."""
    policy = Adapting(nets_of(), 5, 2, "familiar", "return")
    memory = policy.act(torch.zeros(2, 2)).memory
    after = policy.remember(memory, torch.tensor([1.0, 0.0]), torch.tensor([True, False]))
    assert after["episode"].tolist() == [1, 0]
    assert after["count"].tolist() == [0.0, 1.0]
    assert after["doubt"][:, 0].tolist() == [-1.0, float("inf")]
    torch.testing.assert_close(after["code"][1], memory["code"][1])
