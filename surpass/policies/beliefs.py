"""What a language policy believes of the right answer before each of its turns, read by teacher
forcing in one pass: the answer stands behind every turn at once, as branches of one text."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surpass.data.records import Sequences
from surpass.errors import InputError, nearest
from surpass.objectives.advantage import with_columns
from surpass.objectives.turns import turn_ends
from surpass.parts import Nets, part
from surpass.policies.language import LanguagePolicy, tokens_of
from surpass.policies.token_logps import Tokens, aligned, token_logps

__all__ = ["answer_beliefs", "information_gain"]

LARGEST = 1 << 24  # entries of an attention mask that are held at a time


@torch.no_grad()
def answer_beliefs(
    policy: LanguagePolicy, seq: Sequences
) -> tuple[Float[Tensor, "B K"], Bool[Tensor, "B K"]]:
    """The mean log-prob of the right answer's tokens, had the policy answered before each of its
    turns; and which turns there are.

        b_k = (1 / L) sum_j log pi(a_j | everything before turn k, lead-in, a_<j)

    `seq.extras` holds the right answer as the policy would write it: `answer` [B, M] tokens,
    `answer_mask` which of them there are, `answer_own` which of those are the answer itself and
    not its wrapping. "Information Gain-based Policy Optimization: A Simple and Effective Approach
    for Multi-Turn LLM Agents" (2025).

    Raises:
        InputError: when the sequences have no turns or no answer.
    """
    if seq.turn is None or seq.extras is None or "answer" not in seq.extras.keys():  # noqa: SIM118
        raise InputError("beliefs of the answer need turns, and the right answer of each sequence")
    tokens, start, there = _branched(seq)
    width = tokens.ids.shape[1]
    rows = max(1, LARGEST // width**2)
    with policy.gathered(), policy.precise():
        logp = torch.cat([
            token_logps(policy.model, _rows(tokens, slice(i, i + rows)),
                        temperature=policy.temperature).logp
            for i in range(0, len(seq), rows)
        ])  # fmt: skip
    turns = there.shape[1]
    branches = logp[:, start:].unflatten(1, (turns, -1)).sum(-1)
    return branches / seq.extras["answer_own"].sum(-1, keepdim=True).clamp_min(1), there


def _rows(tokens: Tokens, index: slice) -> Tokens:
    assert tokens.segment is not None and tokens.follows is not None
    return Tokens(tokens.ids[index], tokens.attention[index], tokens.scored[index],
                  tokens.segment[index], tokens.follows[index])  # fmt: skip


def _branched(seq: Sequences) -> tuple[Tokens, int, Tensor]:
    """Each conversation, and behind it for each turn the token before the turn and the answer; the
    column where the branches begin; which turns there are.

    A branch repeats the token before the turn, so that the answer's first token has its predictor
    inside the branch.
    """
    assert seq.turn is not None and seq.extras is not None
    trunk, place = aligned(tokens_of(seq))
    b, width = trunk.ids.shape
    turns = int(seq.turn.max()) + 1
    before = 0 if seq.prompt is None else seq.prompt.shape[1]
    numbers = torch.arange(turns, device=seq.turn.device)
    mine = (seq.turn[:, None] == numbers[:, None]) & (seq.mask > 0)[:, None]  # [B, K, T]
    there = mine.any(-1)
    first = before + mine.int().argmax(-1)  # the column of each turn's first token
    start = torch.searchsorted(place.contiguous(), first).clamp(1, width - 1)
    answer, real = seq.extras["answer"], seq.extras["answer_mask"] > 0
    own = seq.extras["answer_own"] > 0
    previous = trunk.ids.gather(1, start - 1)
    ids = torch.cat([previous[..., None], answer[:, None].expand(-1, turns, -1)], -1)
    head = torch.zeros(b, turns, 1, dtype=torch.bool, device=ids.device)
    real = torch.cat([~head, real[:, None].expand(-1, turns, -1)], -1) & there[..., None]
    scored = torch.cat([head, own[:, None].expand(-1, turns, -1)], -1) & real
    segment = torch.where(real, numbers[:, None] + 1, -1)
    follows = torch.where(real, (start - 1)[..., None], 0)

    def joined(stem: Tensor, branch: Tensor) -> Tensor:
        return torch.cat([stem, branch.flatten(1)], 1)

    stem = trunk.attention > 0
    return (
        Tokens(
            joined(trunk.ids, ids), joined(stem, real), joined(torch.zeros_like(stem), scored),
            joined(torch.where(stem, 0, -1), segment), joined(torch.zeros_like(trunk.ids), follows),
        ),
        width, there,
    )  # fmt: skip


@part(needs=("answer",))
def information_gain(nets: Nets, seq: Any, /, belief: str = "logprob") -> Any:
    """A column `gain` [B, T]: at the end of every turn but the last, what the turn and the answer
    of the environment added to the policy's belief in the right answer.

        r_k = b_{k+1} - b_k, or with belief="prob" exp(b_{k+1}) - exp(b_k)

    "Information Gain-based Policy Optimization: A Simple and Effective Approach for Multi-Turn LLM
    Agents" (2025); its first version used probabilities.
    """
    kinds = ("logprob", "prob")
    if belief not in kinds:
        raise InputError(f"belief={belief!r}{nearest(belief, kinds)}: logprob or prob")
    before, there = answer_beliefs(nets["policy"], seq)
    worth = before.exp() if belief == "prob" else before
    gain = torch.where(there[:, 1:], worth[:, 1:] - worth[:, :-1], 0.0)
    gain = torch.cat([gain, torch.zeros_like(worth[:, :1])], 1)
    at = gain.gather(1, seq.turn.clamp_min(0))
    return with_columns(seq, gain=at * turn_ends(seq))
