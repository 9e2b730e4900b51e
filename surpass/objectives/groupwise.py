"""Losses on several scored answers to one prompt, a loss per answer [B].

They see `Side`: Delta, the log-ratio to the reference, a score and the number of the prompt; data
may come from any policy.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.views import Side
from surpass.parts import part

__all__ = ["contrastive", "listwise", "win_rate_regression", "wins_in_group"]


def _same(s: Side) -> Float[Tensor, "B B"]:
    assert s.group is not None
    return (s.group[:, None] == s.group[None, :]).to(s.delta.dtype)


@part(needs=("group",))
def contrastive(s: Side, /, beta: float = 0.1) -> Float[Tensor, "B"]:
    """-(a_i - mean of the others' a) Delta_i with a = R - (beta / 2) Delta, differentiated in full:
    a policy gradient whose baseline is the other answers, right off-policy without importance
    weights.

    Over a pair the sum is -(dR D - (beta / 2) D^2), D the difference of the Delta and dR that of
    the rewards, so its minimum is the optimum of E R - beta KL(pi || ref), whoever wrote the data.
    "Contrastive Policy Gradient: Aligning LLMs on sequence-level scores in a supervised-friendly
    fashion" (2024).
    """
    same = _same(s)
    a = s.reward - 0.5 * beta * s.delta
    others = (same.sum(-1) - 1).clamp_min(1)
    baseline = (same @ a - a) / others
    return -(a - baseline) * s.delta


def wins_in_group(
    score: Float[Tensor, "B"], same: Float[Tensor, "B B"], sharp: float = 1.0
) -> Float[Tensor, "B"]:
    """How probably each answer beats one of its group, itself (1/2) included: the mean of
    sigma(sharp (s_i - s_j))."""
    beats = torch.sigmoid(sharp * (score[:, None] - score[None, :]))
    return (same * beats).sum(-1) / same.sum(-1)


@part(needs=("group",))
def win_rate_regression(
    s: Side, /, beta: float = 1e-3, sharp: float = 1.0, ends: bool = True
) -> Float[Tensor, "B"]:
    """(Delta - (w - 1/2) / beta)^2, w how probably the answer beats the policy that wrote it, from
    the scores of the group or a column `wins` of a judge of pairs; the reference is that policy.
    With `ends` only the best and the worst of a group count.

    Both answers are pinned: the chosen rises and the rejected falls in absolute terms. beta = 1e-3
    fits long texts; short ones want 0.1 to 1. "Self-Play Preference Optimization for Language Model
    Alignment" (2024).
    """
    same = _same(s)
    given = s.steps.extras.get("wins")
    wins = wins_in_group(s.reward, same, sharp) if given is None else given
    loss = (s.delta - (wins.detach() - 0.5) / beta).square()
    if not ends:
        return loss
    place = torch.arange(len(wins), device=wins.device)
    ahead = (wins[None, :] > wins[:, None]) | (
        (wins[None, :] == wins[:, None]) & (place[None, :] < place[:, None])
    )
    better = (same * ahead).sum(-1)  # how many of the group come before
    extreme = (better == 0) | (better == same.sum(-1) - 1)
    return loss * extreme.to(loss.dtype) * same.sum(-1) / 2


@part(needs=("group",))
def listwise(
    s: Side, /, tau: float = 0.6, sharp: float = 0.3, target: str = "rewards", limit: float = 10.0
) -> Float[Tensor, "B"]:
    """-q_i log softmax(u)_i over each group, u = Delta / tau held in [-limit, limit] and q a target
    over its answers: a cross-entropy anchored at the reference.

    Targets: "rewards" is softmax(A / sharp) with A the group's z-scores; "ranks" takes z-scores of
    ranks, which heavy tails do not move; "best" is all on the best answer, which for pairs and
    tau = 1 / beta is DPO. Its fixed point is log pi / ref = tau log q + const, so tau / sharp plays
    the part of 1 / beta: compare methods at the same.

    "ADPO: Anchored Direct Preference Optimization" (2025).

    Raises:
        InputError: for another target.
    """
    same = _same(s)
    count = same.sum(-1)

    def z(value: Tensor) -> Tensor:
        apart = value - same @ value / count
        std = ((same @ apart.square()) / count).sqrt()
        return torch.where(std > 1e-8, apart / std.clamp_min(1e-8), torch.zeros_like(apart))

    def log_share(value: Tensor) -> Tensor:
        held = torch.where(same > 0, value[None, :].expand_as(same), -torch.inf)
        return value - held.logsumexp(-1)

    below = (same * (s.reward[:, None] > s.reward[None, :])).sum(-1)
    equal = (same * (s.reward[:, None] == s.reward[None, :])).sum(-1)
    if target == "rewards":
        q = log_share(z(s.reward) / sharp).exp()
    elif target == "ranks":
        q = log_share(z(below + 0.5 * equal) / sharp).exp()
    elif target == "best":
        top = (below + equal == count).to(s.delta.dtype)
        q = top / (same @ top)
    else:
        raise InputError(f"target={target!r}: rewards, ranks or best")
    return -q.detach() * log_share((s.delta / tau).clamp(-limit, limit)) * count
