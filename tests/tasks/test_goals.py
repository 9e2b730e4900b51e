"""GOALS: where it pays, and that its log belongs to its goals."""

import math

import torch

from surpass.tasks.goals import SparseGoal, goal_log


def test_it_pays_only_near_the_goal():
    env = SparseGoal(math.pi / 2)
    state, _ = env.reset(1)
    paid = [0.0]
    for _ in range(14):
        after = env.step(state, torch.tensor([[0.0, 5.0]]))  # clipped to 0.1 a step
        state, paid = after.state, [*paid, after.reward.item()]
    assert [paid[k] for k in (0, 7, 9, 10, 11, 13)] == [0, 0, 1, 1, 1, 0]


def test_controllers_end_at_their_own_goal():
    angles = (0.0, 1.5, 3.0)
    log = goal_log(angles, episodes=30, noise=0.2)
    assert log.task is not None
    last = log.next_obs[19::20].reshape(3, 30, 2).mean(1)
    goals = torch.stack([SparseGoal(a).goal for a in angles])
    torch.testing.assert_close(last, goals, rtol=0.0, atol=0.1)
    assert torch.equal(log.task[19::20], torch.arange(3).repeat_interleave(30))
