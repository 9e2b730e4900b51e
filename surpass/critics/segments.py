"""Codes of segments of episodes: an encoder that sees all of one, and a code that is learned."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.diffusion import continuous_only
from surpass.policies.networks import remembered
from surpass.policies.sequence import SelfAttention

__all__ = ["Code", "SegmentEncoder", "learned_code", "segment_encoder"]


class SegmentEncoder(nn.Module):
    """From obs [B, T, d] and actions [B, T, k] to a code of the whole, [B, c].

    Every token s_t, a_t sees every other one of the segment (no causal mask); the code is linear in
    their sum. Places count from the segment's start, so that it does not matter when it began.
    """

    def __init__(self, spaces: Spaces, code: int, width: int, layers: int, places: int) -> None:
        super().__init__()
        self.places = places
        self.reads = nn.ModuleList(nn.Linear(i, width) for i in (spaces.obs_dim, spaces.action_dim))
        self.place = nn.Parameter(0.02 * torch.randn(places, width))
        self.first, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(SelfAttention(width, heads=1) for _ in range(layers))
        self.code = nn.Linear(width, code)

    def forward(
        self, obs: Float[Tensor, "B T d"], action: Float[Tensor, "B T k"],
        mask: Float[Tensor, "B T"],
    ) -> Float[Tensor, "B c"]:  # fmt: skip
        return remembered(self, (obs, action, mask), lambda: self._encoded(obs, action, mask))

    def _encoded(self, obs: Tensor, action: Tensor, mask: Tensor) -> Tensor:
        if obs.shape[1] > self.places:
            raise InputError(
                f"segments of {obs.shape[1]} steps, and their encoder reads at most {self.places}; "
                "give the recipe a longer context"
            )
        when = self.place[: obs.shape[1]]
        tokens = [read(x) + when for read, x in zip(self.reads, (obs, action), strict=True)]
        x = self.first(torch.stack(tokens, 2).flatten(1, 2))
        there = (mask > 0).repeat_interleave(2, 1)
        hidden = ~there[:, None] & ~torch.eye(
            there.shape[1], dtype=torch.bool, device=x.device
        )  # behind the end a place sees itself, so that its softmax is defined
        for block in self.blocks:
            x = block(x, hidden)
        # the mean, so that longer segments have no longer codes; `code` can undo the factor
        total = (self.last(x) * there[..., None]).sum(1)
        return self.code(total / there.sum(1, keepdim=True).clamp(min=1))


class Code(nn.Module):
    """One code, [c]."""

    def __init__(self, size: int, scale: float) -> None:
        super().__init__()
        self.value = nn.Parameter(scale * torch.randn(size))

    def forward(self) -> Float[Tensor, "c"]:
        return self.value


@part
def segment_encoder(
    spaces: Spaces, /, code: int = 8, width: int = 128, layers: int = 3, places: int = 20
) -> nn.Module:
    """A bidirectional transformer over at most `places` steps.

    Raises:
        InputError: when actions are discrete.
    """
    continuous_only(spaces, "an encoder of segments")
    return SegmentEncoder(spaces, code, width, layers, places)


@part
def learned_code(spaces: Spaces, /, code: int = 8, scale: float = 2.0) -> nn.Module:
    """A code that a loss locates, from `scale` N(0, 1) on."""
    return Code(code, scale)
