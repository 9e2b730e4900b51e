"""Whom a cache evicts: the classical rules, the clairvoyant one, and whatever scores candidates."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from surpass.data.access_log import Accesses
from surpass.tasks.web_cache import Cache, Eviction, Held, Outcome, candidates, simulate

__all__ = [
    "LRU",
    "Belady",
    "Ranked",
    "Scored",
    "best_rule",
    "gdsf",
    "largest_first",
    "lfu",
    "lru_by_size",
    "lru_over_size",
    "rules",
]  # fmt: skip


class LRU(Eviction):
    """The least recently asked for."""

    def victim(self, cache: Cache) -> int | str:
        return next(iter(cache.held))


class Ranked(Eviction):
    """The lowest rank, which an object is given when it comes in and whenever it is asked for.

    Args:
        rank: from an object and the inflation, which is the rank of the last victim (0 at first).
    """

    def __init__(self, rank: Callable[[Held, float], float]) -> None:
        self.rank, self.inflation, self.count = rank, 0.0, 0
        self.heap: list[tuple[float, int, Any]] = []
        self.current: dict[Any, int] = {}

    def admitted(self, cache: Cache, key: int | str, held: Held) -> None:
        self.count += 1
        self.current[key] = self.count
        heapq.heappush(self.heap, (self.rank(held, self.inflation), self.count, key))

    asked = admitted

    def gone(self, cache: Cache, key: int | str, held: Held) -> None:
        self.current.pop(key, None)

    def victim(self, cache: Cache) -> int | str:
        while True:
            rank, count, key = self.heap[0]
            if self.current.get(key) == count:
                self.inflation = rank
                return key
            heapq.heappop(self.heap)


def lfu() -> Ranked:
    """The fewest hits since it was fetched, among equals the least recently asked for."""
    return Ranked(lambda held, _: held.hits)


def largest_first() -> Ranked:
    """The largest."""
    return Ranked(lambda held, _: -held.size)


def lru_over_size(threshold: float) -> Ranked:
    """The least recently asked for of those over a size; of all, where none is over it."""
    return Ranked(lambda held, _: held.last + (0.0 if held.size > threshold else 1e12))


def lru_by_size(weight: float = 0.6, window: float = 3600.0) -> Ranked:
    """The largest weight x size in MB + (1 - weight) x hours since it was last asked for, an hour
    being `window` seconds."""
    return Ranked(
        lambda held, _: (1.0 - weight) * held.last / window - weight * held.size / 1_048_576.0
    )


def gdsf(frequency: float = 1.0, size: float = 1.0) -> Ranked:
    """The lowest L + (hits + 1)^frequency / KB^size, L the rank of the last victim.

    Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy (1998); with
    size 0 it is LFU with dynamic aging.
    """
    return Ranked(lambda held, L: L + (held.hits + 1.0) ** frequency / (held.size / 1024.0) ** size)


class Belady(Eviction):
    """The one that is asked for again last, known from the log; by bytes where `by_size`: the
    largest size x requests until then.

    With objects of one size and no expiry nothing hits more. A study of replacement algorithms for
    a virtual-storage computer (1966).
    """

    def __init__(self, log: Accesses, by_size: bool = False) -> None:
        self.following = log.following
        self.by_size, self.next = by_size, {}

    def admitted(self, cache: Cache, key: int | str, held: Held) -> None:
        self.next[key] = int(self.following[cache.position])

    asked = admitted

    def gone(self, cache: Cache, key: int | str, held: Held) -> None:
        self.next.pop(key, None)

    def victim(self, cache: Cache) -> int | str:
        now = cache.position
        if not self.by_size:
            return max(self.next, key=self.next.__getitem__)
        held = cache.held
        return max(self.next, key=lambda key: held[key].size * (self.next[key] - now))


class Scored(Eviction):
    """The highest score among the k least recently asked for.

    Args:
        score: from their features [k, 6] to [k].
    """

    def __init__(self, score: Callable[[np.ndarray], Sequence[float] | np.ndarray], k: int = 16):
        self.score, self.k = score, k

    def victim(self, cache: Cache) -> int | str:
        keys, features = candidates(cache, self.k)
        return keys[int(np.argmax(self.score(features)))]


def rules() -> dict[str, Callable[[], Eviction]]:
    """The classical rules, each over a grid of what it leaves open."""
    out: dict[str, Callable[[], Eviction]] = {
        "lru": LRU, "lfu": lfu, "size": largest_first,
    }  # fmt: skip
    for kb in (10, 25, 50, 100, 150, 300, 500):
        out[f"lru over {kb} KB"] = lambda kb=kb: lru_over_size(kb * 1024)
    for weight in (0.2, 0.4, 0.6, 0.8, 0.95):
        out[f"lru and size {weight}"] = lambda w=weight: lru_by_size(w)
    for power in (0.0, 0.25, 0.5, 1.0):
        for frequency in (0.5, 1.0):
            out[f"gdsf {frequency}, {power}"] = lambda f=frequency, p=power: gdsf(f, p)
    return out


def best_rule(
    log: Accesses, capacity: float, among: Mapping[str, Callable[[], Eviction]] | None = None
) -> tuple[str, dict[str, Outcome]]:
    """The rule that hits most on a log, and what all of them do."""
    found = {name: simulate(log, capacity, make()) for name, make in (among or rules()).items()}
    return max(found, key=lambda name: found[name].ratio()), found
