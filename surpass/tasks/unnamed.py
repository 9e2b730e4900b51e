"""Digit strings whose prompt does not say what to do: it is seen from a solved example before the
prompt, or guessed."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.data.records import Sequences
from surpass.errors import InputError
from surpass.tasks.language import DigitStrings, Prompts, Vocabulary, as_sequences

__all__ = ["ShownOrGuessed", "UnnamedStrings"]


@dataclass(frozen=True)
class UnnamedStrings(DigitStrings):
    """`unnamed-strings`: prompts `A1234=`, whose letter is the same whatever is asked for.

    Attributes:
        asked: the letter of what is asked for, one of C, R and S.
    """

    kinds: str = "CR"
    digits: tuple[int, int] = (4, 4)
    asked: str = "R"
    name: str = field(default="unnamed-strings", init=False)
    summary: str = field(
        default="digit strings whose prompt does not say what to do with them", init=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.asked) != 1 or self.asked not in self.kinds or "A" in self.kinds:
            raise InputError(f"asked={self.asked!r} must be one of kinds={self.kinds!r}, and no A")

    def prompts(self, n: int, generator: torch.Generator | None = None) -> Prompts:
        """n random prompts; `kind` is the place of what is asked for in `kinds`."""
        drawn = super().prompts(n, generator)
        letters = torch.isin(drawn.tokens, torch.tensor(self.vocabulary.encode(self.kinds)))
        (unnamed,) = self.vocabulary.encode("A")
        kind = torch.full_like(drawn.kind, self.kinds.index(self.asked))
        return Prompts(torch.where(letters, unnamed, drawn.tokens), drawn.mask, kind)

    def answer(self, prompt: Int[Tensor, "B P"]) -> Int[Tensor, "B T"]:
        """The right response to each prompt, with EOS, padded on the right."""
        unnamed, asked = self.vocabulary.encode(("A", self.asked))
        return super().answer(torch.where(prompt == unnamed, asked, prompt))


@dataclass(frozen=True)
class ShownOrGuessed:
    """What a model learns the unnamed operations from: prompts behind one solved example of the
    same operation, or bare; bare ones ask for the last kind with probability `rare`, shown ones
    for all kinds alike. `kind` is the operation.

    Attributes:
        kinds: letters of the operations.
        rare: how often a bare prompt asks for the last of them.
        shown: the share of prompts behind an example.
    """

    kinds: str = "CR"
    rare: float = 0.01
    shown: float = 0.6
    name: str = field(default="shown-or-guessed", init=False)
    summary: str = field(default="unnamed strings, shown or guessed", init=False)

    @property
    def _each(self) -> list[UnnamedStrings]:
        return [UnnamedStrings(self.kinds, asked=k) for k in self.kinds]

    @property
    def vocabulary(self) -> Vocabulary:
        """That of digit strings."""
        return self._each[0].vocabulary

    @property
    def response_length(self) -> int:
        """Columns of a response."""
        return self._each[0].response_length

    @property
    def prompt_length(self) -> int:
        """Columns of an example and a prompt."""
        return 2 * self._each[0].prompt_length + self.response_length

    def prompts(self, n: int, generator: torch.Generator | None = None) -> Prompts:
        """n prompts, padded on the left where no example stands before them."""
        first, query = (self._each[0].prompts(n, generator).tokens for _ in range(2))
        last = len(self.kinds) - 1
        shown = torch.rand(n, generator=generator) < self.shown
        any_of = torch.randint(len(self.kinds), (n,), generator=generator)
        common = torch.randint(max(last, 1), (n,), generator=generator)
        rare = torch.rand(n, generator=generator) < self.rare
        kind = torch.where(shown, any_of, torch.where(rare, last, common))
        example = torch.cat([first, self._answers(first, kind)], 1)
        tokens = torch.cat([example, query], 1)
        mask = torch.ones(tokens.shape)
        mask[:, : example.shape[1]] = shown[:, None].float()
        return Prompts(torch.where(mask > 0, tokens, self.vocabulary.pad), mask, kind)

    def _answers(self, prompt: Tensor, kind: Tensor) -> Tensor:
        each = torch.stack([task.answer(prompt) for task in self._each])
        return each[kind, torch.arange(len(prompt))]

    def verify(
        self, prompt: Tensor, response: Tensor, mask: Tensor | None = None
    ) -> Float[Tensor, "B"]:
        """1 where the response is what the example shows; to a bare prompt, that of any operation,
        since it does not say which."""
        width = self._each[0].prompt_length
        example, told, own = prompt[:, :width], prompt[:, width:-width], prompt[:, -width:]
        bare = prompt[:, 0] == self.vocabulary.pad
        right = torch.stack([task.verify(own, response, mask) for task in self._each])
        meant = torch.stack([(task.answer(example) == told).all(-1) for task in self._each])
        return (right * (meant | bare)).amax(0)

    def traces(
        self, prompts: Prompts, generator: torch.Generator | None = None, error: float = 0.0
    ) -> Sequences:
        """Right responses."""
        own = prompts.tokens[:, -self._each[0].prompt_length :]
        return as_sequences(self, prompts, self._answers(own, prompts.kind))
