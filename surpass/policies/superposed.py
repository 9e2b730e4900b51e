"""A small causal transformer whose reasoning steps are mixtures of tokens."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.forms import Acted, Spaces
from surpass.parts import Nets, part

__all__ = ["Superposed", "answers", "superposed"]


class _Block(nn.Module):
    """Attention over what stands before, then a layer of its own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "B L d"]) -> Float[Tensor, "B L d"]:
        b, length, d = x.shape
        three = self.qkv(self.first(x)).view(b, length, 3, self.heads, d // self.heads)
        q, k, v = three.permute(2, 0, 3, 1, 4).unbind(0)
        score = q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5
        future = torch.ones(length, length, device=x.device).triu(1) > 0
        seen = (score.masked_fill(future, -1e9).softmax(-1) @ v).transpose(1, 2)
        x = x + self.out(seen.reshape(b, length, d))
        return x + self.down(torch.nn.functional.gelu(self.up(self.second(x))))


class Superposed(nn.Module):
    """Reads m whole numbers, then thinks m steps: step t gives logits over states, and what it
    feeds back
    is the mixture of their embeddings.

    `steps(numbers, fed)` are the logits [B, m, v] when the mixtures `fed` [B, m, v] are fed back
    (the last is not); without `fed`, the model's own.
    """

    def __init__(self, m: int, vocab: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.m, self.vocab = m, vocab
        self.number = nn.Embedding(vocab, width)
        self.embed = nn.Parameter(torch.randn(vocab, width) * width**-0.5)
        self.place = nn.Parameter(torch.randn(2 * m, width) * width**-0.5)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab)

    def steps(
        self, numbers: Float[Tensor, "B m"], fed: Tensor | None = None, hard: bool = False
    ) -> Tensor:
        """Logits of every step; `hard` feeds back the likeliest token alone."""
        if fed is not None:
            return self._logits(numbers, fed[:, :-1])
        seen = numbers.new_zeros(len(numbers), 0, self.vocab)
        for _ in range(self.m - 1):
            last = self._logits(numbers, seen)[:, -1:]
            mixture = last.softmax(-1)
            if hard:
                mixture = torch.nn.functional.one_hot(last.argmax(-1), self.vocab).to(last.dtype)
            seen = torch.cat([seen, mixture], 1)
        return self._logits(numbers, seen)

    def _logits(self, numbers: Tensor, seen: Tensor) -> Tensor:
        given = self.number((numbers + (self.vocab - 1) // 2).long())
        x = torch.cat([given, seen @ self.embed], 1)
        x = x + self.place[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))[:, self.m - 1 :]


@part
def superposed(spaces: Spaces, /, width: int = 32, layers: int = 2, heads: int = 4) -> nn.Module:
    """A model for as many numbers as an observation has, with one token per action."""
    return Superposed(spaces.obs_dim, spaces.n_actions, width, layers, heads)


class _Answering(nn.Module):
    def __init__(self, model: Any, hard: bool) -> None:
        super().__init__()
        self.model, self.hard = model, hard

    def act(self, obs: Tensor, memory: Any = None) -> Acted:
        """The likeliest answer after thinking: one pass, nothing random."""
        return Acted(self.model.steps(obs, hard=self.hard)[:, -1].argmax(-1), memory=memory)

    def given(self, **condition: Any) -> _Answering:
        """It has no conditions."""
        return self


@part
def answers(nets: Nets, roles: Any, /, net: str = "model", hard: bool = False) -> Any:
    """The policy that answers with a net; `hard` thinks in single tokens."""
    return _Answering(nets[net], hard)
