"""Credit per turn: rewards of turns become advantages of the decisions in them.

`Sequences.turn` [B, T] numbers the policy's turns from 0, -1 where the environment wrote. What a
turn earned stands at its last decision.
"""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.errors import InputError, nearest
from surpass.objectives.advantage import Sequences, same_group
from surpass.objectives.reduce import decided
from surpass.parts import part

__all__ = ["discounted_by_turn", "last_decision", "turn_credit", "turn_ends"]


class Conversations(Sequences, Protocol):
    """What credit per turn reads beside: `turn`."""

    turn: Int[Tensor, "B T"]


KINDS = ("apart", "together", "position")


def turn_ends(seq: Conversations) -> Float[Tensor, "B T"]:
    """1 at the last decision of every turn."""
    own, out = decided(seq.mask), []
    following = torch.full_like(seq.turn[:, 0], -1)
    for t in reversed(range(own.shape[1])):
        here = own[:, t] > 0
        out.append((here & (seq.turn[:, t] != following)).to(own.dtype))
        following = torch.where(here, seq.turn[:, t], following)
    return torch.stack(out[::-1], -1)


def last_decision(seq: Conversations) -> Float[Tensor, "B T"]:
    """1 at the last decision of every sequence."""
    own = decided(seq.mask)
    return ((own.cumsum(-1) == own.sum(-1, keepdim=True)) & (own > 0)).to(own.dtype)


def discounted_by_turn(
    reward: Float[Tensor, "B T"], seq: Conversations, gamma: float = 1.0
) -> Float[Tensor, "B T"]:
    """R_k = sum over l >= k of gamma^(l - k) r_l at every decision of turn k: within a turn nothing
    is discounted."""
    ends, own, out = turn_ends(seq), decided(seq.mask), []
    ahead = torch.zeros_like(reward[:, 0])
    for t in reversed(range(own.shape[1])):
        passed = torch.where(ends[:, t] > 0, gamma * ahead, ahead)
        ahead = passed + reward[:, t]
        out.append(ahead)
    return torch.stack(out[::-1], -1) * own


def _normalized(value: Tensor, here: Tensor, same: Tensor, eps: float) -> Float[Tensor, "B T"]:
    """(value - mean) / (std + eps) over the entries `here` of each one's group."""
    count = (same @ here.sum(-1)).clamp_min(1)[:, None]
    mean = (same @ (value * here).sum(-1))[:, None] / count
    apart = (value - mean) * here
    var = (same @ apart.square().sum(-1))[:, None] / (count - 1).clamp_min(1)
    return apart / (var.sqrt() + eps)


@part(needs=("group", "gain"))
def turn_credit(
    seq: Conversations, /, gamma: float = 1.0, normalize: str = "apart", eps: float = 1e-6
) -> Float[Tensor, "B T"]:
    """Returns per turn of what turns gained (`extras["gain"]`) and of the reward, which belongs to
    the last turn.

    With normalize="apart" gains are standardized over all turns but the last of the group's
    sequences and rewards over the group, each by themselves, and then added up; with "together" as
    one set of numbers. With "position" nothing is standardized, and from the returns the group's
    mean at that column is taken, as the authors' first code does. "Information Gain-based Policy
    Optimization: A Simple and Effective Approach for Multi-Turn LLM Agents" (2025).
    """
    if normalize not in KINDS:
        raise InputError(f"normalize={normalize!r}{nearest(normalize, KINDS)}: {', '.join(KINDS)}")
    own, same = decided(seq.mask), same_group(seq)
    last = last_decision(seq)
    inner = turn_ends(seq) * (1 - last)
    gain, score = seq.extras["gain"] * inner, seq.total[:, None] * last
    if normalize == "position":
        back = discounted_by_turn(gain + score, seq, gamma)
        return (back - same @ (back * own) / (same @ own).clamp_min(1)) * own
    if normalize == "together":
        reward = _normalized(gain + score, inner + last, same, eps)
    else:
        reward = _normalized(gain, inner, same, eps) + _normalized(score, last, same, eps)
    return discounted_by_turn(reward, seq, gamma)
