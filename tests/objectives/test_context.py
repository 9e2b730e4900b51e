"""Codes of tasks by hand."""

import pytest
import torch

from surpass.objectives.context import codebook, task_distance, with_task_code
from surpass.objectives.rows import Rows

NETS = {"encoder": lambda obs, action, reward: torch.stack([obs[:, 0], reward], -1)}


def rows(**columns):
    base = {
        "obs": torch.tensor([[1.0], [3.0], [5.0], [7.0]]), "action": torch.zeros(4, 1),
        "next_obs": torch.zeros(4, 1), "reward": torch.tensor([0.0, 2.0, 1.0, 1.0]),
        "task": torch.tensor([0, 1, 0, 1]),
    }  # fmt: skip
    return Rows({**base, **columns})


def test_the_code_of_a_row_is_the_mean_of_its_task_in_the_batch():
    found = with_task_code(3)(NETS, rows())  # type: ignore[arg-type]
    expected = torch.tensor([[3.0, 0.5], [5.0, 1.5]])[[0, 1, 0, 1]]
    torch.testing.assert_close(found["code"], expected)
    torch.testing.assert_close(found["obs"], torch.cat([rows().obs, expected], -1))
    torch.testing.assert_close(found["next_obs"][:, 1:], expected)


def test_codes_are_drawn_together_within_a_task_and_pushed_apart_between_tasks():
    """Halves: task 0 at (1, 0) and (5, 1), task 1 at (3, 2) and (7, 1)."""
    seen = rows(plain=rows().obs)
    loss = float(task_distance(2, 0.1)(NETS, seen))  # type: ignore[arg-type]
    together = (17.0 + 17.0) / 2
    apart = (1 / (36 + 1 + 0.1) + 1 / (4 + 1 + 0.1)) / 2
    assert loss == pytest.approx(together + apart, rel=1e-5)
    more = float(task_distance(5, 0.1)(NETS, seen))  # type: ignore[arg-type]
    assert more == pytest.approx(loss, rel=1e-5)  # tasks that are not in the batch do not count


def test_the_table_follows_the_codes():
    seen = rows(code=torch.ones(4, 2))
    table = torch.tensor([[1.0, 1.0], [0.0, 3.0]])
    found = codebook()({"codes": lambda: table}, seen)  # type: ignore[arg-type]
    assert found.tolist() == [0.0, 5.0, 0.0, 5.0]
