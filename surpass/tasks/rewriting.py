"""`rewriting`: prompts, rewrites of each, and a scorer that likes style and not what was asked.

A prompt is four content words out of two topics. A rewrite keeps a word, swaps it for another of
its topic or for one of another topic, and adds up to four style words; the more style, the less of
the content is kept. A scorer sees the style only. What a rewrite is truly worth is its style times
the share of content words that it kept, which is counted, not embedded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.tasks.preference import PreferenceBandit

__all__ = ["Rewriting", "Rewritten", "rewriting"]

TOPICS, OF_TOPIC, CONTENT, STYLES = 12, 5, 4, 4
STYLE = ("cinematic", "detailed", "dramatic", "elegant", "glowing", "moody", "sharp", "vivid")


class Rewritten(NamedTuple):
    """The exact worth of a policy: the expected share of content words `kept`, the number of style
    words, their product `worth`, the scorer's `score`, and KL(policy || reference)."""

    kept: float
    style: float
    worth: float
    score: float
    kl: float


@dataclass(frozen=True, eq=False)
class Rewriting:
    """Prompts and rewrites, as texts and as a bandit.

    Attributes:
        bandit: contexts are prompts, actions rewrites; the reward is the scorer's.
        kept: share of content words kept, [N, A]. style: number of style words, [N, A].
        features: what a policy sees of each rewrite, [N, A, k].
        prompts: N texts. rewrites: of each, A texts.
    """

    bandit: PreferenceBandit
    kept: Float[Tensor, "N A"]
    style: Float[Tensor, "N A"]
    features: Float[Tensor, "N A k"]
    prompts: tuple[str, ...]
    rewrites: tuple[tuple[str, ...], ...]
    name: str = "rewriting"
    summary: str = "rewrites of prompts, judged for style alone; what they keep is counted"

    def truth(self, logits: Float[Tensor, "N A"]) -> Rewritten:
        """What a policy with these logits is worth, averaged over prompts."""
        p, exact = logits.double().softmax(-1), self.bandit.truth(logits)

        def mean(table: Tensor) -> float:
            return float((p * table).sum(-1).mean())

        return Rewritten(
            mean(self.kept), mean(self.style), mean(self.kept * self.style), float(exact.reward),
            float(exact.kl),
        )  # fmt: skip


def rewriting(
    prompts: int = 100, rewrites: int = 40, *, noise: float = 0.5, drift: float = 0.07,
    nuisance: int = 6, seed: int = 0,
) -> Rewriting:  # fmt: skip
    """A random `Rewriting`.

    Args:
        prompts: N. rewrites: A.
        noise: standard deviation of the scorer's error, which is the same whenever it is asked.
        drift: by how much each style word lowers the chance, 0.9 without style, that a content word
            is kept.
        nuisance: features that say nothing.
    """
    if prompts < 1 or rewrites < 2 or not 0 <= drift <= 0.9 / STYLES:
        raise InputError(
            f"rewriting: a prompt or more, two rewrites or more and a drift of 0 to "
            f"{0.9 / STYLES:g} expected, got {prompts}, {rewrites} and {drift:g}"
        )
    random = np.random.default_rng(seed)
    asked = [_content(random) for _ in range(prompts)]
    written = [[_rewrite(words, drift, random) for _ in range(rewrites)] for words in asked]
    kept = torch.tensor([[k for _, k, _ in row] for row in written]).double() / CONTENT
    style = torch.tensor([[s for _, _, s in row] for row in written]).double()
    error = torch.from_numpy(random.normal(size=(3 + nuisance, prompts, rewrites)))
    reward = style + noise * error[0]
    reference = error[1].log_softmax(-1)
    features = torch.stack([style / STYLES, kept, *error[3:]], -1)
    bandit = PreferenceBandit(features.mean(1), reward, reference)
    texts = tuple(tuple(text for text, _, _ in row) for row in written)
    return Rewriting(bandit, kept, style, features, tuple(_text(w) for w in asked), texts)


def _content(random: np.random.Generator) -> list[tuple[int, int]]:
    """Two words of each of two topics, as (topic, word)."""
    topics = random.choice(TOPICS, 2, replace=False).tolist()
    return [(t, w) for t in topics for w in random.choice(OF_TOPIC, 2, replace=False).tolist()]


def _text(words: list[tuple[int, int]], style: list[str] | None = None) -> str:
    return " ".join([*(f"topic{t}word{w}" for t, w in words), *(style or [])])


def _rewrite(
    words: list[tuple[int, int]], drift: float, random: np.random.Generator
) -> tuple[str, int, int]:
    """A text, how many words it kept, and how many of style it has."""
    style = random.choice(STYLE, int(random.integers(STYLES + 1)), replace=False).tolist()
    out: list[tuple[int, int]] = []
    for topic, word in words:
        if random.random() < 0.9 - drift * len(style):
            out.append((topic, word))
        elif random.random() < 0.5:
            out.append((topic, (word + 1 + int(random.integers(OF_TOPIC - 1))) % OF_TOPIC))
        else:
            other = (topic + 1 + int(random.integers(TOPICS - 1))) % TOPICS
            out.append((other, int(random.integers(OF_TOPIC))))
    return _text(out, style), len(set(words) & set(out)), len(style)
