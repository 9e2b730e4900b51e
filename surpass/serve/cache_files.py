"""Whom nginx's cache evicts, decided from outside: a manager that follows the access log, knows the
cached files, and unlinks victims when they exceed a budget. nginx takes a file that is gone for a
miss and fetches it again.

nginx itself must not evict: give `proxy_cache_path` a large `max_size` and a long `inactive`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

from surpass.data.access_log import USUAL_RTT, USUAL_TTL, parse_access
from surpass.errors import InputError
from surpass.tasks.web_cache import Cache, Eviction, Held

__all__ = ["CacheFiles", "cache_file"]


def cache_file(root: str | Path, key: str, levels: tuple[int, ...] = (1, 2)) -> Path:
    """Where nginx keeps the answer to a cache key: the MD5 of the key, in folders named after its
    last digits."""
    name = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    place, end = Path(root), len(name)
    for width in levels:
        place /= name[end - width : end]
        end -= width
    return place / name


class CacheFiles:
    """Keeps the files of an nginx cache within a budget; of those that were there before, the ones
    that are asked for.

    Args:
        root: the folder of `proxy_cache_path`. budget: bytes.
        policy: names the victims. levels: as in `proxy_cache_path`.

    Attributes:
        evicted: files unlinked so far. hits, requests: as the log says.

    Raises:
        InputError: when the budget is not positive.
    """

    def __init__(
        self, root: str | Path, budget: int, policy: Eviction, levels: tuple[int, ...] = (1, 2)
    ) -> None:
        if budget <= 0:
            raise InputError(f"a cache holds a positive number of bytes, not {budget}")
        self.root, self.policy, self.levels = Path(root), policy, levels
        self.cache = Cache(budget)
        self.evicted, self.hits, self.requests = 0, 0, 0

    def follow(self, lines: Iterable[str]) -> None:
        """Take in lines of the access log, as they come, and evict where the budget is exceeded.

        Raises:
            InputError: when a line has another format.
        """
        for line in lines:
            if line.strip():
                self._seen(line)

    def _seen(self, line: str) -> None:
        access = parse_access(line)
        cache, key = self.cache, access.key
        cache.now = max(cache.now, access.time)
        cache.position = self.requests
        self.requests += 1
        held = cache.held.get(key)
        self.hits += access.hit
        if access.hit and held is not None:
            held.hits += 1
            held.last = cache.now
            cache.held.move_to_end(key)
            self.policy.asked(cache, key, held)
            return
        if held is not None:
            self.policy.gone(cache, key, cache.drop(key))
        try:
            size = cache_file(self.root, key, self.levels).stat().st_size
        except FileNotFoundError:
            return  # nginx did not keep the answer, or it was evicted since
        if size > cache.capacity:  # it can never stay, so nothing has to go for it
            self._unlink(key)
            return
        ttl = USUAL_TTL if math.isnan(access.ttl) else access.ttl
        fresh = Held(size, cache.now, ttl, USUAL_RTT if math.isnan(access.rtt) else access.rtt)
        while cache.held and cache.used + size > cache.capacity:
            cache.needed = cache.used + size - cache.capacity
            self._evict(self.policy.victim(cache))
        cache.held[key] = fresh
        cache.used += size
        self.policy.admitted(cache, key, fresh)

    def _evict(self, key: int | str) -> None:
        self.policy.gone(self.cache, key, self.cache.drop(key))
        self._unlink(str(key))

    def _unlink(self, key: str) -> None:
        cache_file(self.root, key, self.levels).unlink(missing_ok=True)
        self.evicted += 1
