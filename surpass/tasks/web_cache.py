"""A web cache with a budget of bytes: requests come one after the other, what is not held is
fetched and kept, and while it does not fit a policy names victims.

An object that is asked for after its time to live is fetched again. One that is larger than the
whole budget is passed through. The cache always admits: the only decision is whom to evict.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float

from surpass.data.access_log import Accesses
from surpass.errors import InputError

__all__ = [
    "FEATURES", "Cache", "Eviction", "Held", "Outcome", "candidates", "most_hits", "simulate",
    "trap_workload",
]  # fmt: skip

FEATURES = ("age", "size", "hits", "idle", "ttl_left", "origin_time")


class Held:
    """An object in the cache."""

    __slots__ = ("created", "expires", "hits", "last", "log_size", "rtt", "size")

    def __init__(self, size: int, now: float, ttl: float, rtt: float) -> None:
        self.size, self.created, self.last = size, now, now
        self.log_size = math.log1p(size / 1024.0)
        self.expires, self.rtt, self.hits = now + ttl, rtt, 0

    def features(self, now: float) -> tuple[float, ...]:
        """Seconds since it was fetched, log(1 + size in KB), hits so far, seconds since it was last
        asked for, seconds until it expires (at least 0), microseconds of its origin."""
        return (
            now - self.created, self.log_size, float(self.hits), now - self.last,
            max(self.expires - now, 0.0), self.rtt,
        )  # fmt: skip


@dataclass
class Cache:
    """What is held, the least recently asked for first.

    Attributes:
        capacity: the budget in bytes. held: by the number (or name) of the object.
        used: bytes. now: the time of the request; position: its number. needed: bytes that have to
            become free.
    """

    capacity: int
    held: OrderedDict[int | str, Held] = field(default_factory=OrderedDict)
    used: int = 0
    now: float = 0.0
    position: int = 0
    needed: int = 0

    def oldest(self, k: int) -> Iterator[tuple[int | str, Held]]:
        """The k least recently asked for."""
        return islice(self.held.items(), k)

    def drop(self, key: int | str) -> Held:
        """Take an object out."""
        gone = self.held.pop(key)
        self.used -= gone.size
        return gone


class Eviction(Protocol):
    """Names victims; is told what happens to the objects, so that it can keep an order."""

    def victim(self, cache: Cache) -> int | str:
        """Whom to evict now; `cache` is not empty."""
        ...

    def admitted(self, cache: Cache, key: int | str, held: Held) -> None:
        """An object came in."""

    def asked(self, cache: Cache, key: int | str, held: Held) -> None:
        """An object that is held was asked for."""

    def gone(self, cache: Cache, key: int | str, held: Held) -> None:
        """An object was evicted."""


def candidates(cache: Cache, k: int) -> tuple[list[int | str], Float[np.ndarray, "k 6"]]:
    """The k least recently asked for (fewer where fewer are held) and their `FEATURES`."""
    keys, rows, now = [], [], cache.now
    for key, held in cache.oldest(k):
        keys.append(key)
        rows.append(held.features(now))
    return keys, np.array(rows, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a cache did with a log.

    Attributes:
        hit: per request. evicted: how many objects. size: bytes per request. admitted: bytes by
            which the request made the cache fuller, before it evicted: none for a hit, an object
            that replaces its expired self, and one that is passed through.
    """

    hit: Bool[np.ndarray, "n"]
    evicted: int
    size: np.ndarray
    admitted: np.ndarray

    def ratio(self, after: float = 0.0) -> float:
        """The share of requests that hit, without the first `after` of all."""
        return float(self.hit[round(after * len(self.hit)) :].mean())

    def byte_ratio(self, after: float = 0.0) -> float:
        """The share of bytes that came from the cache."""
        start = round(after * len(self.hit))
        return float((self.hit * self.size)[start:].sum() / self.size[start:].sum())


def simulate(
    log: Accesses,
    capacity: float,
    policy: Eviction,
    watch: Callable[[Cache, int | str], None] | None = None,
) -> Outcome:
    """Send the requests of a log through a cache.

    Args:
        capacity: bytes.
        watch: is shown the cache before each eviction, and the victim.

    Raises:
        InputError: when the capacity is not positive, or the policy names what is not held.
    """
    if capacity <= 0:
        raise InputError(f"a cache holds a positive number of bytes, not {capacity:g}")
    cache = Cache(int(capacity))
    held, hit, evicted = cache.held, np.zeros(len(log), dtype=bool), 0
    admitted = np.zeros(len(log), dtype=np.int64)
    columns = (c.tolist() for c in (log.time, log.object, log.size, log.ttl, log.rtt))
    for i, (now, key, size, ttl, rtt) in enumerate(zip(*columns, strict=True)):
        cache.now, cache.position = now, i
        found = held.get(key)
        if found is not None and found.expires >= now:
            found.hits += 1
            found.last = now
            held.move_to_end(key)
            policy.asked(cache, key, found)
            hit[i] = True
            continue
        if found is not None:
            policy.gone(cache, key, cache.drop(key))
            admitted[i] = -found.size
        if size > cache.capacity:
            continue
        admitted[i] += size
        while cache.used + size > cache.capacity:
            cache.needed = cache.used + size - cache.capacity
            victim = policy.victim(cache)
            if victim not in held:
                raise InputError(f"the policy evicts {victim!r}, which is not held")
            if watch is not None:
                watch(cache, victim)
            policy.gone(cache, victim, cache.drop(victim))
            evicted += 1
        held[key] = fresh = Held(size, now, ttl, rtt)
        cache.used += size
        policy.admitted(cache, key, fresh)
    return Outcome(hit, evicted, log.size, admitted)


def most_hits(log: Accesses, capacity: float) -> Bool[np.ndarray, "n"]:
    """Which requests hit where a cache has all its bytes at all times but need not hold an object
    in one piece of time: no policy, clairvoyant or not, hits more.

    A hit holds its bytes from the request before to this one. Of all such spans that end before the
    object expires, those with the smallest bytes x requests fit first into capacity x requests.

    Practical Bounds on Optimal Caching with Variable Object Sizes (2018), the bound that it calls
    PFOO-L.
    """
    n = len(log)
    start = np.flatnonzero(log.following < n)
    end = log.following[start]
    fits = (log.time[end] <= log.time[start] + log.ttl[start]) & (log.size[start] <= capacity)
    start, end = start[fits], end[fits]
    cost = log.size[start].astype(float) * (end - start)
    order = np.argsort(cost, kind="stable")
    inside = order[np.cumsum(cost[order]) <= float(capacity) * n]
    hit = np.zeros(n, dtype=bool)
    hit[end[inside]] = True
    if len(inside) < len(order):
        hit[end[order[len(inside)]]] = True  # the span that fits in part
    return hit


def trap_workload(
    requests: int = 25_000, objects: int = 2_000, seed: int = 0, hot_share: float = 0.65,
    beat: float = 150.0, burst: int = 24, gap: float = 2.0,
) -> Accesses:  # fmt: skip
    """Requests that punish each simple rule: small objects are hardly asked for twice, large ones
    come back, but at a beat, and only while their burst lasts.

    60 % of the objects are small (1 to 25 KB), nearly all asked for about once; 25 % medium (25 to
    150 KB) of mixed, steady popularity; 15 % large (150 to 800 KB), of which 70 % are hot: they get
    `hot_share` of the requests, in bursts of burst / 2 to 3 burst / 2 requests, `beat` seconds
    apart (each object at its own tempo, 0.8 to 1.2 beats, and within 5 % of it). Objects expire
    after 2 to 24 hours; requests are `gap` seconds apart on average.
    """
    rng = np.random.default_rng(seed)
    kind = rng.permutation(np.repeat((0, 1, 2), _shares(objects)))
    low, high = np.array((1, 25, 150))[kind], np.array((25, 150, 800))[kind]
    size = (rng.uniform(low, high) * 1024).astype(np.int64)
    popular = rng.exponential(np.array((0.3, 2.0, 0.5))[kind])
    popular = np.where((kind == 0) & (rng.random(objects) < 0.05), 8.0, popular)
    hot = (kind == 2) & (rng.random(objects) < 0.7)
    popular[hot] = 0.0
    ttl, rtt = rng.uniform(7_200, 86_400, objects), 5e4 + size / 50.0
    end = 1.2 * requests * gap  # longer than needed, and cut where there are so many requests
    steady = rng.poisson(1.2 * (1.0 - hot_share) * requests)
    times = [rng.uniform(0, end, steady)]
    asked = [popular.cumsum().searchsorted(rng.random(steady) * popular.sum(), side="right")]
    for i in np.flatnonzero(hot):
        own = _bursts(rng, end, beat * rng.uniform(0.8, 1.2), burst,
                      hot.sum() * burst * gap / hot_share)  # fmt: skip
        times.append(own)
        asked.append(np.full(len(own), i))
    time, which = np.concatenate(times), np.concatenate(asked)
    order = np.argsort(time)[:requests]
    time, which = time[order], which[order]
    return Accesses(time, which, size[which], ttl[which], rtt[which])


def _bursts(
    rng: np.random.Generator, end: float, beat: float, burst: int, period: float
) -> np.ndarray:
    """The times at which a hot object is asked for: bursts that start about every `period`."""
    found, start = [], rng.uniform(-0.2, 1.0) * period
    while start < end:
        n = int(rng.integers(burst // 2, burst + burst // 2 + 1))
        found.append(start + beat * (np.arange(n) + rng.uniform(-0.05, 0.05, n)))
        start += period * rng.uniform(0.8, 1.2)
    times = np.concatenate(found) if found else np.zeros(0)
    return times[(times >= 0) & (times < end)]


def _shares(objects: int) -> tuple[int, int, int]:
    small, medium = round(0.6 * objects), round(0.25 * objects)
    return small, medium, objects - small - medium
