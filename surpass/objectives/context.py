"""Codes of tasks from batches of their transitions, and what makes codes of tasks differ."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["codebook", "reward_fit", "task_distance", "with_task_code"]


def _member(task: Tensor, tasks: int) -> Float[Tensor, "B M"]:
    """1 where the row is of the task."""
    return (task[:, None] == torch.arange(tasks, device=task.device)).float()


def _means(
    values: Float[Tensor, "B d"], task: Tensor, tasks: int
) -> tuple[Float[Tensor, "M d"], Float[Tensor, "M"]]:
    """The mean of each task's rows, and how many there are."""
    member = _member(task, tasks)
    count = member.sum(0)
    return (member.T @ values) / count.clamp(min=1.0)[:, None], count


@part(needs=("task",))
def with_task_code(
    nets: Nets, rows: Rows, /, tasks: int, encoder: str = "encoder"
) -> dict[str, Tensor]:
    """Columns `obs, next_obs` with the code of the row's task at their end (the mean over the
    batch's transitions of that task), the `code` itself, and `plain` the observation alone."""
    each = nets[encoder](rows.obs, rows.action, rows.reward)
    mean, _ = _means(each, rows.task, tasks)
    code = _member(rows.task, tasks) @ mean
    return {
        "plain": rows.obs, "code": code, "obs": torch.cat([rows.obs, code], -1),
        "next_obs": torch.cat([rows.next_obs, code], -1),
    }  # fmt: skip


@part(needs=("task",))
def task_distance(
    nets: Nets, rows: Rows, /, tasks: int, eps: float = 0.1, encoder: str = "encoder"
) -> Float[Tensor, ""]:
    """Codes of one task from the two halves of the batch are drawn together, |z - z'|^2, those of
    two tasks pushed apart, 1 / (|z - z'|^2 + eps); means over pairs.

    FOCAL: Efficient Fully-Offline Meta-Reinforcement Learning via Distance Metric Learning and
    Behavior Regularization (2020).
    """
    each = nets[encoder](rows.plain, rows.action, rows.reward)
    half = len(rows) // 2
    (first, n), (second, m) = (
        _means(each[part], rows.task[part], tasks) for part in (slice(half), slice(half, None))
    )
    distance = (first[:, None] - second).square().sum(-1)
    known = (n > 0).float()[:, None] * (m > 0).float()
    same = torch.eye(tasks, device=each.device) * known
    other = known - same
    together = (same * distance).sum() / same.sum().clamp(min=1.0)
    apart = (other / (distance + eps)).sum() / other.sum().clamp(min=1.0)
    return together + apart


@part
def codebook(nets: Nets, rows: Rows, /, codes: str = "codes") -> Float[Tensor, "B"]:
    """(table[task] - code)^2: the table follows the codes of the batches."""
    table = nets[codes]()
    own = _member(rows.task, table.shape[0]) @ table
    return (own - rows.code).square().sum(-1)


@part
def reward_fit(nets: Nets, rows: Rows, /, model: str = "rewards") -> Float[Tensor, "B"]:
    """(r_l(s, z, a) - r)^2, summed over the members of an ensemble."""
    return nets[model].fit(rows.obs, rows.action, rows.reward, None).sum(0)
