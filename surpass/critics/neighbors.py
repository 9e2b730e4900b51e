"""What lies nearby in the log: exact nearest neighbors by blocks of matrix products."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["nearest", "nearest_action", "nearest_expert"]


def nearest(
    queries: Float[Tensor, "B d"], keys: Float[Tensor, "N d"], block: int = 16_384
) -> Int[Tensor, "B"]:
    """The row of `keys` nearest to each query in Euclidean norm, exactly (up to rounding)."""
    distance, index = [], []
    for start in range(0, keys.shape[0], block):
        part_of = keys[start : start + block]
        score = part_of.square().sum(-1) - 2.0 * queries @ part_of.T
        low = score.min(-1)
        distance.append(low.values)
        index.append(low.indices + start)
    best = torch.stack(distance).argmin(0)
    return torch.stack(index).gather(0, best[None])[0]


@part
def nearest_action(
    nets: Nets, rows: Rows, /, beta: float = 2.0, pi: str = "pi"
) -> Float[Tensor, "B k"]:
    """The action of the logged pair nearest to (s, pi(s)), distances between states counting beta
    times.

    Policy Regularization with Dataset Constraint for Offline Reinforcement Learning (PRDC, 2023).
    """
    queries = torch.cat([beta * rows.obs, nets[pi](rows.obs)], -1).detach()
    keys = torch.cat([beta * rows.log["obs"], rows.log["action"]], -1)
    return rows.log["action"][nearest(queries, keys)]


@part
def nearest_expert(
    nets: Nets, log: Transitions, /, alpha: float = 1.0, beta: float = 0.5,
    mode: Literal["sas", "sa", "ss"] = "sas", per_action: bool = True, standardize: bool = False,
    shift: float = 0.0, expert: str = "expert",
) -> Transitions:  # fmt: skip
    """The log with r = alpha exp(-beta d / |A|) - shift, d the distance of (s, a, s') to the
    nearest transition of the log that is handed in as `expert`.

    SEABO: A Simple Search-Based Method for Offline Imitation Learning (2024).

    Args:
        mode: what is compared: (s, a, s'), (s, a), or (s, s') where the expert's actions are
            unknown. per_action: divide by the size of actions. standardize: measure in standard
            deviations of the log instead of its own units.

    Raises:
        InputError: for another mode, or an expert of other sizes.
    """
    shown: Any = nets[expert]
    columns = {"s": "obs", "a": "action"}
    if mode not in ("sas", "sa", "ss"):
        raise InputError(f"the nearest expert is searched by sas, sa or ss, not by {mode!r}")

    def vectors(of: Transitions) -> Float[Tensor, "N k"]:
        names = [columns[c] for c in mode[:2]] if mode != "ss" else ["obs"]
        held = [getattr(of, n).reshape(len(of), -1).float() for n in names]
        return torch.cat([*held, of.next_obs.reshape(len(of), -1)] if mode != "sa" else held, -1)

    queries, keys = vectors(log), vectors(shown)
    if queries.shape[1] != keys.shape[1]:
        raise InputError(
            f"a transition of the log has {queries.shape[1]} numbers, one of the expert "
            f"{keys.shape[1]}; both have to be of one task"
        )
    if standardize:
        scale = queries.std(0).clamp(min=1e-6)
        queries, keys = queries / scale, keys / scale
    distance = torch.cat([(q - keys[nearest(q, keys)]).norm(dim=-1) for q in queries.split(4_096)])
    size = log.action.shape[1] if per_action and log.action.dim() > 1 else 1
    out = log.clone(recurse=False)  # type: ignore[call-arg]
    out.reward = alpha * torch.exp(-beta * distance / size) - shift
    return out
