"""How far the chosen answer of a pair is from its prompt, in meaning: a column for losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from torch import Tensor

from surpass.data.language import read_rows
from surpass.errors import InputError

__all__ = ["distances", "latent_semantics", "with_distance"]

Embed = Callable[[Sequence[str]], Any]


def latent_semantics(texts: Sequence[str], dims: int = 64) -> Embed:
    """An encoder of texts: TF-IDF of words, reduced to `dims` by a singular value decomposition of
    these texts. Words that occur together come close; words that it never saw count for nothing.

    "Indexing by Latent Semantic Analysis" (1990).
    """
    counted = TfidfVectorizer(sublinear_tf=True)
    width = min(counted.fit_transform(texts).shape)
    net = make_pipeline(counted, TruncatedSVD(min(dims, width - 1), random_state=0)).fit(texts)
    return lambda asked: net.transform(list(asked))


def distances(first: Sequence[str], second: Sequence[str], embed: Embed) -> Float[Tensor, "N"]:
    """1 - cos(e(x), e(y)) of texts, in [0, 2]; 1 where one of both has no vector."""
    x, y = (torch.as_tensor(embed(texts)).double() for texts in (first, second))
    return (1 - torch.cosine_similarity(x, y)).clamp(0, 2)


def with_distance(
    source: Any, embed: Embed | None = None, prompt: str = "prompt", chosen: str = "chosen"
) -> list[dict[str, Any]]:
    """Rows of preference pairs with a column `distance`, from the prompt to the chosen answer.

    Args:
        source: a JSONL or Parquet file, a data set of Hugging Face, or rows as dicts.
        embed: from texts to vectors, such as a sentence encoder's `encode`; by default
            `latent_semantics` of the prompts.
        prompt, chosen: names of the columns, which hold texts.

    Raises:
        InputError: when a row has no text there.
    """
    rows, name = read_rows(source)
    for number, row in enumerate(rows, 1):
        for column in (prompt, chosen):
            if not isinstance(row.get(column), str):
                raise InputError(
                    f"{name}: row {number}: {column} is no text, and only texts have a meaning "
                    "here; give the last message of a chat as text"
                )
    first, second = ([row[column] for row in rows] for column in (prompt, chosen))
    found = distances(first, second, embed or latent_semantics(first))
    return [{**row, "distance": d} for row, d in zip(rows, found.tolist(), strict=True)]
