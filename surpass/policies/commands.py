"""Nets that choose among commands in words, where every observation carries the commands on offer.

An observation of a text environment is one flat vector: bags of hashed words of the context (goal,
what was seen, what was said), then the hashed words of each command, zeros where there is none. So
texts are transitions like all others, and every recipe for discrete actions reads them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.discrete import Categorical
from surpass.policies.networks import StackedMLP

__all__ = ["CommandScores", "Context", "TextLayout", "command_scorer"]

NEVER = -1e9


@dataclass(frozen=True)
class TextLayout:
    """How texts lie in a flat observation.

    Attributes:
        buckets: that words are hashed into. bags: of words in the context.
        commands: that can be on offer at once. length: hashed words of a command that are kept.
    """

    buckets: int = 512
    bags: int = 5
    commands: int = 32
    length: int = 9

    @property
    def obs_dim(self) -> int:
        """The length of an observation."""
        return self.bags * self.buckets + self.commands * self.length

    def spaces(self, horizon: int | None = None) -> Spaces:
        """What nets have to fit."""
        extras = {"text": asdict(self)}
        return Spaces(self.obs_dim, n_actions=self.commands, horizon=horizon, extras=extras)

    @classmethod
    def of(cls, spaces: Spaces) -> TextLayout:
        """The layout that spaces declare.

        Raises:
            InputError: when they are not those of a text environment.
        """
        held = spaces.extras.get("text")
        if not isinstance(held, Mapping):
            raise InputError(
                "this net reads commands in words, and the observations are not of a text "
                "environment; hand in the task too, as in task='text-quest'"
            )
        return cls(**held)

    def bags_of(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "B bags buckets"]:
        """The words of the context, counted, each bag scaled by the root of its size."""
        bags = obs[:, : self.bags * self.buckets].unflatten(-1, (self.bags, self.buckets))
        return bags / bags.sum(-1, keepdim=True).clamp_min(1.0).sqrt()

    def words_of(self, obs: Float[Tensor, "B d"]) -> Int[Tensor, "B A L"]:
        """The hashed words of the commands, 0 where there is none."""
        words = obs[:, self.bags * self.buckets :].long()
        return words.unflatten(-1, (self.commands, self.length))

    def offered(self, obs: Float[Tensor, "B d"]) -> Bool[Tensor, "B A"]:
        """Which commands are on offer."""
        return self.words_of(obs)[..., 0] > 0


class Context(nn.Module):
    """The context as n vectors [n, B, o]: a linear map and a perceptron, added, of all bags, of
    what each shares with the first one, the goal, and of how much that is; a word's embedding is
    one for all of them."""

    def __init__(
        self, layout: TextLayout, n: int, width: int, hidden: tuple[int, ...], gives: int
    ) -> None:
        super().__init__()
        self.layout = layout
        self.words = nn.Parameter(torch.randn(layout.buckets, width) / math.sqrt(width))
        reads = (2 * layout.bags - 1) * width + layout.bags - 1
        self.straight = StackedMLP(n, (reads, gives))
        self.bent = StackedMLP(n, (reads, *hidden, gives))

    def forward(self, obs: Float[Tensor, "B d"], first: int | None = None) -> Tensor:
        bags = self.layout.bags_of(obs)
        shared = bags[:, 1:] * (bags[:, :1] > 0)
        both = torch.cat([bags, shared], 1) @ self.words
        read = torch.cat([both.flatten(-2), shared.sum(-1)], -1)
        return self.straight(read, first) + self.bent(read, first)


class CommandScores(nn.Module):
    """n scores of every command on offer, [n, B, A]; far below all others where no command is.

    A score is the product of an encoding of the context and the mean of the command's words, and,
    for each bag of the context, the share of the command's words that occur in it, weighed by the
    context: a command that names what the goal names is known for what it is, whatever the name.

    Args:
        offset: add a number that is the context's alone, as a critic needs and a softmax does not.
    """

    def __init__(
        self, layout: TextLayout, n: int, width: int, hidden: tuple[int, ...], offset: bool
    ) -> None:
        super().__init__()
        self.layout, self.width, self.offset = layout, width, offset
        gives = width + layout.bags + int(offset)
        self.context = Context(layout, n, width, hidden, gives)
        self.turn = nn.Parameter(torch.eye(width))

    def forward(
        self, obs: Float[Tensor, "B d"], first: int | None = None
    ) -> Float[Tensor, "n B A"]:
        words = self.layout.words_of(obs)
        there = (words > 0).to(obs.dtype)
        share = there / there.sum(-1, keepdim=True).clamp_min(1.0)  # [B, A, L]
        index = words.flatten(-2)
        known = self.layout.bags_of(obs) > 0  # [B, bags, buckets]
        found = known.gather(-1, index[:, None].expand(-1, self.layout.bags, -1))
        shared = (found.unflatten(-1, words.shape[-2:]) * share[:, None]).sum(-1)  # [B, bags, A]
        read = self.context(obs, first)
        by_word = read[..., : self.width] @ (self.context.words @ self.turn).T  # [n, B, buckets]
        said = by_word.gather(-1, index.expand(read.shape[0], -1, -1)).unflatten(
            -1, words.shape[-2:]
        )
        bags = read[..., self.width : self.width + self.layout.bags]
        score = (said * share).sum(-1) + torch.einsum("nbk,bka->nba", bags, shared)
        if self.offset:
            score = score + read[..., -1:]
        return torch.where(words[..., 0] > 0, score, NEVER)


@part
def command_scorer(
    spaces: Spaces, /, width: int = 64, hidden: tuple[int, ...] = (64,)
) -> nn.Module:
    """A softmax over the commands on offer of the product of two bag-of-words encoders.

    Its log-probs are those of the constrained distribution that is sampled.

    Raises:
        InputError: when the observations are not of a text environment.
    """
    layout = TextLayout.of(spaces)
    policy = Categorical(1, layout.commands, (), False)
    policy.net = CommandScores(layout, 1, width, tuple(hidden), False)  # type: ignore[assignment]
    return policy
