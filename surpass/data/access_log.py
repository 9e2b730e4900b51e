"""Access logs of a web cache: who asked for what and when, as arrays, and the reader of nginx's.

    log_format surpass '$msec $status $body_bytes_sent $upstream_cache_status '
                       '$upstream_response_time $ttl "$request_uri"';

where `$ttl` stands for whatever says how long an answer may be kept, in seconds (a `map`, or the
`max-age` that the origin sent), and - for what is not known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from surpass.errors import InputError

__all__ = ["LOG_FORMAT", "Access", "Accesses", "parse_access", "read_access_log"]

LOG_FORMAT = (
    "$msec $status $body_bytes_sent $upstream_cache_status $upstream_response_time "
    '$upstream_http_x_ttl "$request_uri"'
)
_LINE = re.compile(
    r"(?P<time>\d+(?:\.\d+)?) (?P<status>\d{3}) (?P<size>\d+) (?P<cache>[A-Z]+|-) "
    r'(?P<rtt>[\d., :-]+) (?P<ttl>\d+(?:\.\d+)?|-) "(?P<key>[^"]*)"\s*$'
)
USUAL_TTL, USUAL_RTT = 3600.0, 50_000.0


@dataclass(frozen=True, eq=False)
class Accesses:
    """n requests in order of time.

    Attributes:
        time: seconds, not falling. object: the number of what was asked for, from 0.
        size: bytes of the answer. ttl: seconds for which the answer may be kept.
        rtt: microseconds that the origin takes. hit: what the cache that wrote the log did, where
            that is known: 1 from the cache, 0 from the origin. names: of the objects.

    Raises:
        InputError: when columns differ in length, times fall, or sizes are not positive.
    """

    time: Float[np.ndarray, "n"]
    object: Int[np.ndarray, "n"]
    size: Int[np.ndarray, "n"]
    ttl: Float[np.ndarray, "n"]
    rtt: Float[np.ndarray, "n"]
    hit: Int[np.ndarray, "n"] | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.time)
        if any(len(c) != n for c in (self.object, self.size, self.ttl, self.rtt)):
            raise InputError("the columns of an access log have different lengths")
        if n == 0:
            raise InputError("the access log has no requests")
        falls = np.flatnonzero(np.diff(self.time) < 0)
        if len(falls):
            raise InputError(f"request {falls[0] + 1} is earlier than the one before; sort by time")
        if self.size.min() <= 0:
            raise InputError(f"request {int(self.size.argmin())} has no bytes; leave such out")

    def __len__(self) -> int:
        return len(self.time)

    @property
    def n_objects(self) -> int:
        """How many objects there are."""
        return int(self.object.max()) + 1

    @cached_property
    def footprint(self) -> int:
        """Bytes of all objects together, each at its largest."""
        largest = np.zeros(self.n_objects, dtype=np.int64)
        np.maximum.at(largest, self.object, self.size)
        return int(largest.sum())

    @cached_property
    def following(self) -> Int[np.ndarray, "n"]:
        """For each request the next one for the same object, n where there is none."""
        n = len(self)
        order = np.lexsort((np.arange(n), self.object))
        same = self.object[order][1:] == self.object[order][:-1]
        out = np.full(n, n, dtype=np.int64)
        out[order[:-1][same]] = order[1:][same]
        return out

    def first(self, share: float) -> Accesses:
        """The first requests, a share of them."""
        k = round(share * len(self))
        hit = None if self.hit is None else self.hit[:k]
        time, what, size, ttl, rtt = (
            c[:k] for c in (self.time, self.object, self.size, self.ttl, self.rtt)
        )
        return Accesses(time, what, size, ttl, rtt, hit, self.names)


@dataclass(frozen=True)
class Access:
    """One line of a log: when, what, how many bytes, how long it may be kept (seconds), how long
    its origin took (microseconds), and whether it came from the cache; NaN where not known."""

    time: float
    key: str
    status: int
    size: int
    ttl: float
    rtt: float
    hit: bool


def parse_access(line: str, number: int | None = None) -> Access:
    """Read a line in the format above.

    Raises:
        InputError: when it has another format.
    """
    found = _LINE.match(line)
    if found is None:
        where = "a line" if number is None else f"line {number}"
        raise InputError(
            f"{where} of the access log is not of the format {LOG_FORMAT}: {line.strip()[:80]!r}"
        )
    waits = [float(t) for t in re.findall(r"\d+(?:\.\d+)?", found["rtt"])]  # one for each origin
    return Access(
        float(found["time"]), found["key"], int(found["status"]), int(found["size"]),
        math.nan if found["ttl"] == "-" else float(found["ttl"]),
        1e6 * sum(waits) if waits else math.nan, found["cache"] == "HIT",
    )  # fmt: skip


def read_access_log(
    source: str | Path | Iterable[str], *, ttl: float = USUAL_TTL, rtt: float = USUAL_RTT
) -> Accesses:
    """Read nginx's access log in the format above.

    Answers other than 200 and those without bytes are left out. A time to live or an origin's time
    that a line lacks is the last one seen of its object, else that of the argument.

    Raises:
        InputError: when the file cannot be read or a line has another format, with its number.
    """
    lines: Iterable[str] = source if not isinstance(source, str | Path) else _lines(source)
    numbers: dict[str, int] = {}
    known: dict[int, tuple[float, float]] = {}
    rows = []
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        access = parse_access(line, i)
        if access.status != 200 or access.size == 0:
            continue
        number = numbers.setdefault(access.key, len(numbers))
        last = known.get(number, (ttl, rtt))
        keep = last[0] if math.isnan(access.ttl) else access.ttl
        slow = last[1] if math.isnan(access.rtt) else access.rtt
        known[number] = keep, slow
        rows.append((access.time, number, access.size, keep, slow, access.hit))
    if not rows:
        raise InputError("the access log has no answer of status 200 with bytes")
    rows.sort(key=lambda row: row[0])  # nginx writes when an answer is done
    time, what, size, keeps, waits, hit = (np.array(c) for c in zip(*rows, strict=True))
    return Accesses(time, what, size, keeps, waits, hit.astype(np.int64), tuple(numbers))


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as an access log: {error}") from error
