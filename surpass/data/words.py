"""Words as numbers without a vocabulary: each word, and each pair of neighbors, is hashed into one
of so many buckets (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009).
"""

from __future__ import annotations

import re
from functools import lru_cache

from sklearn.utils import murmurhash3_32

__all__ = ["hashed_words"]

_WORD = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")
_PLAIN = re.compile(r"[a-z0-9]+")


@lru_cache(maxsize=65_536)
def hashed_words(text: str, buckets: int, pairs: bool = True) -> tuple[int, ...]:
    """The buckets 1 .. buckets - 1 of a text's words in their order, then of its pairs of words
    that no sign stands between; 0 is left for what is no word."""
    last, words, joined = "", [], []
    for piece in _WORD.findall(text.lower()):
        plain = _PLAIN.fullmatch(piece) is not None
        if plain:
            words.append(piece)
            if last and pairs:
                joined.append(f"{last} {piece}")
        last = piece if plain else ""
    return tuple(
        1 + int(murmurhash3_32(w, seed=0, positive=True)) % (buckets - 1) for w in words + joined
    )
