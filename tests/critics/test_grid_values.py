"""Values on a grid: interpolation, gradients, and a walk whose values are known."""

from __future__ import annotations

import pytest
import torch

from surpass.critics.grid_values import Grid, goal_grid
from surpass.errors import InputError


def test_linear_functions_are_exact_between_the_points():
    grid = Grid((-1.0, 0.0), (1.0, 4.0), 5)
    values = grid.points @ torch.tensor([2.0, -3.0])
    x = torch.tensor([[-0.3, 1.7], [1.0, 4.0], [-1.0, 0.0], [0.95, 3.99]], requires_grad=True)
    place, weight = grid.corners(x)
    found = (values[place] * weight).sum(-1)
    torch.testing.assert_close(found, x @ torch.tensor([2.0, -3.0]))
    slope = torch.autograd.grad(found[0], x)[0][0]
    torch.testing.assert_close(slope, torch.tensor([2.0, -3.0]))
    outside, edge = (
        grid.corners(torch.tensor([[9.0, 2.0]])),
        grid.corners(torch.tensor([[1.0, 2.0]])),
    )
    assert torch.equal(outside[0], edge[0]) and torch.equal(outside[1], edge[1])
    with pytest.raises(InputError, match="at least 2 points"):
        Grid((0.0,), (0.0,), 5)


def walk(points=11, gamma=0.9):
    """Left or right by one tenth on [0, 1]; goals are the ends."""
    ends = torch.tensor([[0.0], [1.0]])

    def moves(x, a):
        return (x + 0.1 * (2.0 * a[:, None].float() - 1.0)).clamp(0.0, 1.0)

    def there(x, g):
        return ((x - g).abs()[:, 0] < 0.01).float()

    return goal_grid(moves, Grid((0.0,), (1.0,), points), 2, ends, there, there, gamma)


def test_the_values_of_a_walk_to_either_end():
    agent = walk()
    x = torch.arange(11)[:, None] / 10
    left = agent.all(x, torch.zeros(11, dtype=torch.long))
    steps = torch.tensor([1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])  # of going left; at the end it bumps
    torch.testing.assert_close(left[:, 0], 0.9 ** (steps - 1.0))
    torch.testing.assert_close(left[2, 1], torch.tensor(0.9**3))
    right = agent.all(x, torch.ones(11, dtype=torch.long))
    torch.testing.assert_close(right, left.flip(0, 1))
    assert agent.act(x, goal=1).tolist() == [1] * 11
