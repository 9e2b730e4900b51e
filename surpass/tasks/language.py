"""Toy language tasks with an exact verifier: prompts, vocabulary, reward and traces, and no model.

Prompts are padded on the left and responses on the right, so that a response starts in the same
column in every row. Digits are their own token numbers, 0 .. 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.data.records import About, Sequences
from surpass.errors import InputError, nearest

__all__ = [
    "Countdown",
    "DigitStrings",
    "LanguageTask",
    "ModSum",
    "Prompts",
    "Vocabulary",
    "as_sequences",
]


@dataclass(frozen=True)
class Vocabulary:
    """Single-word tokens; the number of a word is its place.

    Attributes:
        words: all tokens, the special ones `BOS`, `EOS`, `PAD` among them.
    """

    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.words)

    @property
    def bos(self) -> int:
        """Number of the token that begins every prompt."""
        return self.words.index("BOS")

    @property
    def eos(self) -> int:
        """Number of the token that ends a response."""
        return self.words.index("EOS")

    @property
    def pad(self) -> int:
        """Number of the token that fills."""
        return self.words.index("PAD")

    def encode(self, text: str | Sequence[str]) -> list[int]:
        """Token numbers of a text (one character a token) or of a list of words.

        Raises:
            InputError: for a word that is not in the vocabulary.
        """
        known = {w: i for i, w in enumerate(self.words)}
        for word in text:
            if word not in known:
                raise InputError(
                    f"{word!r} is not in the vocabulary{nearest(word, self.words)}; "
                    f"it has {' '.join(self.words)}"
                )
        return [known[word] for word in text]

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """The text of token numbers, up to the end token, without the special tokens."""
        numbers = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        text = []
        for i in numbers:
            if self.words[i] == "EOS":
                break
            if self.words[i] not in ("BOS", "PAD"):
                text.append(self.words[i])
        return "".join(text)


class Prompts(NamedTuple):
    """Prompts [B, P], padded on the left; `kind` [B] is the difficulty or the sub-task."""

    tokens: Tensor
    mask: Tensor
    kind: Tensor

    def repeated(self, group: int) -> Prompts:
        """Every prompt `group` times in a row."""
        return Prompts(*(x.repeat_interleave(group, 0) for x in self))


@runtime_checkable
class LanguageTask(Protocol):
    """Prompts with a checkable answer.

    `prompts(n)` draws prompts, `verify(prompt, response, mask)` gives the exact reward [B],
    `traces(prompts)` writes right responses (with `error` > 0 faulty ones) for a supervised
    warm-up. A task that takes turns (`surpass.tasks.hop_search`) has `reply`, what it writes after
    a turn, and `turns` and `turn_length`, the most of them and the most tokens of one; one that can
    name right answers has `wrapped_answer`.
    """

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def prompt_length(self) -> int: ...

    @property
    def response_length(self) -> int: ...

    def prompts(self, n: int, generator: torch.Generator | None = None) -> Prompts: ...

    def verify(self, prompt: Tensor, response: Tensor, mask: Tensor | None = None) -> Tensor: ...

    def traces(
        self, prompts: Prompts, generator: torch.Generator | None = None, error: float = 0.0
    ) -> Sequences: ...


def as_sequences(
    task: LanguageTask, prompts: Prompts, response: Int[Tensor, "B T"], logp: Tensor | None = None
) -> Sequences:
    """Responses as a record: masked after the first EOS, the reward on the last decision."""
    mask = _until_eos(response, task.vocabulary.eos)
    score = task.verify(prompts.tokens, response, mask)
    last = torch.nn.functional.one_hot(mask.sum(-1).long().clamp_min(1) - 1, response.shape[1])
    return Sequences(
        action=response,
        mask=mask,
        reward=score[:, None] * last,
        behavior_logp=logp,
        prompt=prompts.tokens,
        prompt_mask=prompts.mask,
        batch_size=[response.shape[0]],  # type: ignore[call-arg]
    ).described(About(name=task.name, actions=task.vocabulary.words))


_ARITHMETIC = Vocabulary(
    (*"0123456789", "+", "=", ";", "BOS", "EOS", "PAD", "-", ":"),
)


_STRINGS = Vocabulary((*"0123456789", "+", "=", "C", "R", "S", "A", "BOS", "EOS", "PAD"))


@dataclass(frozen=True)
class ModSum:
    """`modsum-lm`: add digits modulo 10, writing down the running sums.

    Prompt `d1+d2+...+dn=`; response the n running sums, `;`, the sum, EOS. The reward is 1 when the
    token after the first `;` is the sum modulo 10. A trace with `error` e replaces every running
    sum by a random digit with probability e, and goes on from there, so that a model of such traces
    is right with probability about (1 - 0.9 e)^n.

    Attributes:
        operands: fewest and most digits to add.
        weights: relative frequency of each number of operands in that range; equal by default.
        long: traces write every running sum twice (informative but redundant).
    """

    operands: tuple[int, int] = (3, 6)
    weights: tuple[float, ...] = ()
    long: bool = False
    name: str = field(default="modsum-lm", init=False)
    summary: str = field(
        default="add n digits modulo 10, writing the running sums (a toy language)", init=False
    )
    vocabulary: Vocabulary = field(default=_ARITHMETIC, init=False)

    def __post_init__(self) -> None:
        low, high = self.operands
        if not 1 <= low <= high:
            raise InputError(f"operands must be a range such as (3, 6), got {self.operands}")
        if self.weights and len(self.weights) != high - low + 1:
            raise InputError(f"{high - low + 1} weights expected, one for each of {low}..{high}")

    @property
    def prompt_length(self) -> int:
        """Columns of a prompt: BOS, digits, signs."""
        return 2 * self.operands[1] + 1

    @property
    def response_length(self) -> int:
        """Columns of a response: running sums, `;`, answer, EOS."""
        return self.operands[1] * (2 if self.long else 1) + 3

    def prompts(self, n: int, generator: torch.Generator | None = None) -> Prompts:
        """n random sums; `kind` is the number of operands."""
        low, high = self.operands
        weights = torch.tensor(self.weights or [1.0] * (high - low + 1))
        kind = low + torch.multinomial(weights, n, replacement=True, generator=generator)
        digits = torch.randint(10, (n, high), generator=generator)
        v, P = self.vocabulary, self.prompt_length
        at = torch.arange(P) - (P - 1 - 2 * kind)[:, None]
        plus, equals = v.encode("+=")
        tokens = digits.gather(1, ((at - 1) // 2).clamp(0, high - 1))
        tokens = torch.where((at % 2 == 0) & (at > 0), plus, tokens)
        tokens = torch.where(at == 2 * kind[:, None], equals, tokens)
        tokens = torch.where(at == 0, v.bos, tokens)
        return Prompts(torch.where(at < 0, v.pad, tokens), (at >= 0).float(), kind)

    def answer(self, prompt: Int[Tensor, "B P"]) -> Int[Tensor, "B"]:
        """The sum modulo 10 of the digits of each prompt."""
        return torch.where(prompt < 10, prompt, 0).sum(-1) % 10

    def verify(
        self, prompt: Tensor, response: Int[Tensor, "B T"], mask: Tensor | None = None
    ) -> Float[Tensor, "B"]:
        """1 where the token after the first `;` is the right sum, else 0."""
        if mask is not None:
            response = torch.where(mask > 0, response, self.vocabulary.pad)
        response = _cut(response, self.vocabulary)
        (semicolon,) = self.vocabulary.encode(";")
        found = response == semicolon
        after = (found.int().argmax(-1) + 1).clamp_max(response.shape[1] - 1)
        given = response.gather(1, after[:, None])[:, 0]
        return (found[:, :-1].any(-1) & (given == self.answer(prompt))).float()

    def traces(
        self, prompts: Prompts, generator: torch.Generator | None = None, error: float = 0.0
    ) -> Sequences:
        """Worked solutions; with probability `error` a running sum is a random digit."""
        tokens, v, n = prompts.tokens, self.vocabulary, len(prompts.kind)
        digits = tokens[:, -2 * self.operands[1] :][
            :, ::2
        ]  # right aligned: the first may be padding
        total = torch.zeros(n, dtype=torch.long)
        sums = []
        for i in range(self.operands[1]):
            here = i >= self.operands[1] - prompts.kind
            total = torch.where(here, (total + digits[:, i]) % 10, total)
            slip = torch.rand(n, generator=generator) < error
            random = torch.randint(10, (n,), generator=generator)
            total = torch.where(here & slip, random, total)
            sums += [total] * (2 if self.long else 1)
        (semicolon,) = v.encode(";")
        columns = [*sums, torch.full_like(total, semicolon), total, torch.full_like(total, v.eos)]
        skip = (self.operands[1] - prompts.kind) * (2 if self.long else 1)
        return as_sequences(self, prompts, _shifted(torch.stack(columns, 1), skip, v.pad))


@dataclass(frozen=True)
class Countdown:
    """`countdown-lite`: write an expression of three digits with + and - that reaches a target.

    Prompt `t:abc=`; response such as `a+c-b`, EOS, each digit once. There are several right answers
    per prompt.
    """

    name: str = field(default="countdown-lite", init=False)
    summary: str = field(
        default="three digits, + and -, reach the target; several right answers", init=False
    )
    vocabulary: Vocabulary = field(default=_ARITHMETIC, init=False)
    prompt_length: int = field(default=7, init=False)
    response_length: int = field(default=6, init=False)

    def prompts(self, n: int, generator: torch.Generator | None = None) -> Prompts:
        """n solvable prompts; `kind` is the number of right answers (as texts)."""
        rows: list[Tensor] = []
        v = self.vocabulary
        have = 0
        while have < n:
            digits = torch.randint(10, (4 * n, 3), generator=generator)
            signs = torch.randint(2, (4 * n, 2), generator=generator) * 2 - 1
            order = torch.rand(4 * n, 3, generator=generator).argsort(-1)
            used = digits.gather(1, order)
            target = used[:, 0] + (signs * used[:, 1:]).sum(-1)
            fits = (target >= 0) & (target <= 9)
            rows.append(torch.cat([target[:, None], digits], 1)[fits])
            have += int(fits.sum())
        t, a, b, c = torch.cat(rows)[:n].unbind(1)
        colon, equals = v.encode(":=")
        full = torch.full_like
        tokens = torch.stack([full(t, v.bos), t, full(t, colon), a, b, c, full(t, equals)], 1)
        right = self._right(tokens)
        kind = torch.tensor([len(answers) for answers in right])
        return Prompts(tokens, torch.ones(tokens.shape), kind)

    def _right(self, prompt: Tensor) -> list[list[tuple[int, ...]]]:
        plus, minus = self.vocabulary.encode("+-")
        out = []
        for row in prompt.tolist():
            target, digits = row[1], row[3:6]
            answers = {
                (x, s, y, u, z)
                for x, y, z in _orders(digits)
                for s in (plus, minus)
                for u in (plus, minus)
                if x + (y if s == plus else -y) + (z if u == plus else -z) == target
            }
            out.append(sorted(answers))
        return out

    def verify(
        self, prompt: Tensor, response: Int[Tensor, "B T"], mask: Tensor | None = None
    ) -> Float[Tensor, "B"]:
        """1 where the response is d+d-d EOS (any signs) of the digits, and reaches the target."""
        v = self.vocabulary
        if mask is not None:
            response = torch.where(mask > 0, response, v.pad)
        if response.shape[1] < 6:
            return torch.zeros(len(response))
        plus, minus = v.encode("+-")
        digits, signs = response[:, 0:5:2], response[:, 1:5:2]
        shaped = (digits < 10).all(-1) & ((signs == plus) | (signs == minus)).all(-1)
        value = digits[:, 0] + (torch.where(signs == plus, 1, -1) * digits[:, 1:]).sum(-1)
        same = (digits.sort(-1).values == prompt[:, 3:6].sort(-1).values).all(-1)
        return (shaped & same & (response[:, 5] == v.eos) & (value == prompt[:, 1])).float()

    def traces(
        self, prompts: Prompts, generator: torch.Generator | None = None, error: float = 0.0
    ) -> Sequences:
        """A random right answer each; with probability `error` a sign is the other one."""
        n = len(prompts.kind)
        pick = torch.rand(n, generator=generator)
        right = self._right(prompts.tokens)
        rows = [
            answers[int(u * len(answers))] for answers, u in zip(right, pick.tolist(), strict=True)
        ]
        eos = self.vocabulary.eos
        response = torch.tensor([[*row, eos] for row in rows])
        plus, minus = self.vocabulary.encode("+-")
        for column in (1, 3):
            flip = torch.rand(n, generator=generator) < error
            response[flip, column] = plus + minus - response[flip, column]
        return as_sequences(self, prompts, response)


@dataclass(frozen=True)
class DigitStrings:
    """`digit-strings`, the toy language of the preference family: rewrite a string of digits.

    Prompt: a letter that says what to do, the digits, `=`. Response: the digits asked for, EOS.
    `C` copy, `R` reverse, `S` sort upward, `A` add two strings digit by digit modulo 10
    (`A123+456=` is 579). The reward is 1 for the exact response; `graded` gives the share of right
    digits.

    Attributes:
        kinds: the letters in use.
        digits: fewest and most digits of a response.
        weights: how often each letter is asked for; all alike by default.
    """

    kinds: str = "CRSA"
    digits: tuple[int, int] = (3, 6)
    weights: tuple[float, ...] = ()
    name: str = field(default="digit-strings", init=False)
    summary: str = field(
        default="copy, reverse, sort or add strings of digits (a toy language)", init=False
    )
    vocabulary: Vocabulary = field(default=_STRINGS, init=False)

    def __post_init__(self) -> None:
        if not self.kinds or set(self.kinds) - set("CRSA"):
            raise InputError(f"kinds are letters of CRSA, got {self.kinds!r}")
        if not 1 <= self.digits[0] <= self.digits[1]:
            raise InputError(f"digits must be a range such as (3, 6), got {self.digits}")
        if self.weights and len(self.weights) != len(self.kinds):
            raise InputError(f"{len(self.kinds)} kinds, but {len(self.weights)} weights")

    @property
    def prompt_length(self) -> int:
        """Columns of a prompt."""
        return 3 + self.digits[1] + (self.digits[1] + 1 if "A" in self.kinds else 0)

    @property
    def response_length(self) -> int:
        """Columns of a response."""
        return self.digits[1] + 1

    def prompts(self, n: int, generator: torch.Generator | None = None) -> Prompts:
        """n random prompts; `kind` is the place of the letter in `kinds`."""
        v, P = self.vocabulary, self.prompt_length
        low, high = self.digits
        if self.weights:
            share = torch.tensor(self.weights)
            kind = torch.multinomial(share, n, replacement=True, generator=generator)
        else:
            kind = torch.randint(len(self.kinds), (n,), generator=generator)
        length = torch.randint(low, high + 1, (n,), generator=generator)
        digits = torch.randint(10, (n, P), generator=generator)
        letter = torch.tensor(v.encode(self.kinds))[kind]
        (add,) = v.encode("A")
        plus, equals = v.encode("+=")
        whole = torch.where(letter == add, 2 * length + 4, length + 3)
        at = torch.arange(P) - (P - whole)[:, None]
        tokens = torch.where(at == 0, v.bos, digits)
        tokens = torch.where(at == 1, letter[:, None], tokens)
        tokens = torch.where((at == 2 + length[:, None]) & (letter == add)[:, None], plus, tokens)
        tokens = torch.where(at == whole[:, None] - 1, equals, tokens)
        return Prompts(torch.where(at < 0, v.pad, tokens), (at >= 0).float(), kind)

    def answer(self, prompt: Int[Tensor, "B P"]) -> Int[Tensor, "B T"]:
        """The right response to each prompt, with EOS, padded on the right."""
        v, T = self.vocabulary, self.response_length
        is_digit = prompt < 10
        count = is_digit.sum(-1)
        letters = dict(zip("CRSA", v.encode("CRSA"), strict=True))
        has = {k: (prompt == i).any(-1) for k, i in letters.items()}
        length = torch.where(has["A"], count // 2, count)
        first = is_digit.int().argmax(-1)
        steps = torch.arange(T - 1)

        def taken(start: Tensor, step: int) -> Tensor:
            at = (start[:, None] + step * steps).clamp(0, prompt.shape[1] - 1)
            return prompt.gather(1, at)

        copy = taken(first, 1)
        beyond = steps >= length[:, None]
        out = torch.where(has["R"][:, None], taken(first + length - 1, -1), copy)
        ordered = torch.where(beyond, len(v), copy).sort(-1).values
        out = torch.where(has["S"][:, None], ordered, out)
        out = torch.where(has["A"][:, None], (copy + taken(first + length + 1, 1)) % 10, out)
        out = torch.where(beyond, v.pad, out)
        out = torch.cat([out, torch.full_like(out[:, :1], v.pad)], 1)
        return out.scatter(1, length[:, None], v.eos)

    def verify(
        self, prompt: Tensor, response: Int[Tensor, "B T"], mask: Tensor | None = None
    ) -> Float[Tensor, "B"]:
        """1 for exactly the right response, ended by EOS; else 0."""
        given, right = self._aligned(prompt, response, mask)
        return (given == right).all(-1).float()

    def graded(
        self, prompt: Tensor, response: Int[Tensor, "B T"], mask: Tensor | None = None
    ) -> Float[Tensor, "B"]:
        """The share of right digits: places that agree, by the longer of the two lengths."""
        given, right = self._aligned(prompt, response, mask)
        special = min(self.vocabulary.eos, self.vocabulary.pad)
        longer = torch.maximum((given < special).sum(-1), (right < special).sum(-1))
        return ((given == right) & (right < special)).sum(-1) / longer.clamp_min(1)

    def _aligned(
        self, prompt: Tensor, response: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        pad = self.vocabulary.pad
        if mask is not None:
            response = torch.where(mask > 0, response, pad)
        given, right = _cut(response, self.vocabulary), self.answer(prompt)
        width = max(given.shape[1], right.shape[1])
        return tuple(  # type: ignore[return-value]
            torch.nn.functional.pad(x, (0, width - x.shape[1]), value=pad) for x in (given, right)
        )

    def traces(
        self, prompts: Prompts, generator: torch.Generator | None = None, error: float = 0.0
    ) -> Sequences:
        """Right responses; with probability `error` a digit is replaced by a random one."""
        right = self.answer(prompts.tokens)
        slip = (torch.rand(right.shape, generator=generator) < error) & (right < 10)
        random = torch.randint(10, right.shape, generator=generator)
        return as_sequences(self, prompts, torch.where(slip, random, right))


def _orders(digits: list[int]) -> set[tuple[int, int, int]]:
    a, b, c = digits
    return {(a, b, c), (a, c, b), (b, a, c), (b, c, a), (c, a, b), (c, b, a)}


def _until_eos(response: Tensor, eos: int) -> Tensor:
    """1 up to and including the first end token."""
    before = (response == eos).int().cumsum(-1) - (response == eos).int()
    return (before == 0).float()


def _cut(response: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Padding after the first end token."""
    return torch.where(_until_eos(response, vocabulary.eos) > 0, response, vocabulary.pad)


def _shifted(rows: Tensor, skip: Tensor, pad: int) -> Tensor:
    """Every row moved left by its `skip`, filled with padding."""
    at = torch.arange(rows.shape[1]) + skip[:, None]
    moved = rows.gather(1, at.clamp_max(rows.shape[1] - 1))
    return torch.where(at < rows.shape[1], moved, pad)
