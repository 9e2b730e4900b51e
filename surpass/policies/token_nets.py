"""Nets beside a language model: values of tokens, rewards of answers.

Both have the model's own trunk, copied, and a linear head of one number; they read `Sequences`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.data.records import Sequences
from surpass.parts import part
from surpass.policies.language import LanguagePolicy, tokens_of
from surpass.policies.token_logps import Tokens, aligned, decoder_of, unaligned

__all__ = ["RewardNet", "ValueNet", "reward_head", "token_values"]


class _Headed(nn.Module):
    """A copy of a trunk with a head of one number, zero at the start."""

    def __init__(self, policy: LanguagePolicy) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(decoder_of(policy.model)).requires_grad_(True)
        size = int(policy.model.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.head = nn.Linear(size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def numbers(self, seq: Sequences) -> tuple[Tensor, Tokens, Tensor, Tokens]:
        whole = tokens_of(seq)
        tokens, place = aligned(whole)
        named: dict[str, Any] = {"use_cache": False}
        states = self.trunk(input_ids=tokens.ids, **named).last_hidden_state
        return self.head(states)[..., 0].float(), tokens, place, whole


class ValueNet(_Headed):
    """V(s_t) before each decision: `net(seq)` is [B, T]."""

    def forward(self, seq: Sequences) -> Float[Tensor, "B T"]:
        value, _, place, whole = self.numbers(seq)
        before = torch.cat([torch.zeros_like(value[:, :1]), value[:, :-1]], 1)
        full = unaligned(before, place, whole)
        return full[:, -seq.action.shape[1] :] * (seq.mask > 0)


class RewardNet(_Headed):
    """r(x, y), read at the last decided token: `net(seq)` is [B]."""

    def forward(self, seq: Sequences) -> Float[Tensor, "B"]:
        value, tokens, _, _ = self.numbers(seq)
        last = tokens.attention.sum(-1).long() - 1
        return value.gather(1, last[:, None])[:, 0]


@part
def token_values(policy: Any, /) -> nn.Module:
    """A value net of the model's own size."""
    return ValueNet(policy)


@part
def reward_head(policy: Any, /) -> nn.Module:
    """A reward net of the model's own size."""
    return RewardNet(policy)
