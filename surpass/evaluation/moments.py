"""Sums over any number of rows, from which every estimate and interval follows, in constant memory.

Each row gives a vector of terms. Kept are their exact mean, range and covariance, and their sums
in `blocks` buckets of rows. A bucket's sum is what a multiplier of the bootstrap multiplies, so a
resample costs `blocks` products whatever the number of rows (with fewer rows than buckets it is
the ordinary multiplier bootstrap). Rows of one unit (user, group) share a bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["BLOCKS", "Moments"]

BLOCKS = 8191  # a prime, so that no period of the log falls in step with the buckets
_HASH = 0x9E3779B97F4A7C15


class Moments:
    """Means, covariances, ranges and block sums of row vectors in groups of columns.

    Args:
        widths: the number of columns of each group; covariances are kept within groups.
        blocks: the number of buckets.
    """

    def __init__(self, widths: Sequence[int], blocks: int = BLOCKS) -> None:
        self.widths = tuple(int(w) for w in widths)
        ends = np.cumsum(self.widths)
        self.slices = [slice(int(e - w), int(e)) for e, w in zip(ends, self.widths, strict=True)]
        columns = int(ends[-1]) if len(ends) else 0
        self.rows = 0
        self.shift: Tensor | None = None
        self.total = torch.zeros(columns, dtype=torch.float64)
        self.second = [torch.zeros(w, w, dtype=torch.float64) for w in self.widths]
        self.low = torch.full((columns,), torch.inf, dtype=torch.float64)
        self.high = torch.full((columns,), -torch.inf, dtype=torch.float64)
        self.sums = torch.zeros(blocks, columns, dtype=torch.float64)
        self.counts = torch.zeros(blocks, dtype=torch.float64)
        self.units: dict[int, int] | None = None

    def add(self, columns: Float[Tensor, "n K"], unit: Int[Tensor, "n"] | None = None) -> None:
        """Count n rows; `unit` numbers what was drawn independently: rows, when absent."""
        if not len(columns):
            return
        if self.shift is None:  # one row of the log: sums of squares then lose no digits
            self.shift = columns.to(torch.float64).mean(0)
        x = columns.to(torch.float64) - self.shift
        self.total += x.sum(0)
        for slot, (group, w) in enumerate(zip(self.slices, self.widths, strict=True)):
            part = x[:, group]
            self.second[slot] += part.T @ part if w > 1 else part[:, 0] @ part[:, 0]
        self.low = torch.minimum(self.low, x.amin(0))
        self.high = torch.maximum(self.high, x.amax(0))
        place = self._places(unit, len(x))
        self.sums.index_add_(0, place, x)
        self.counts += torch.bincount(place, minlength=len(self.counts))
        self.rows += len(x)

    def _places(self, unit: Tensor | None, n: int) -> Tensor:
        blocks = len(self.counts)
        if unit is None:
            return torch.arange(self.rows, self.rows + n) % blocks
        if self.units is None:
            self.units = {}
        known, inverse = np.unique(unit.numpy(), return_inverse=True)
        places = torch.tensor([self._bucket(int(name)) for name in known])
        return places[torch.from_numpy(inverse)]

    def _bucket(self, name: int) -> int:
        """As many units as there are buckets have one each; later ones are spread by a hash."""
        assert self.units is not None
        if name not in self.units and len(self.units) < len(self.counts):
            self.units[name] = len(self.units)
        mixed = ((name ^ (name >> 31)) * _HASH & (2**64 - 1)) >> 20
        return self.units.get(name, mixed % len(self.counts))

    # ------------------------------------------------------------------------------------------

    @property
    def mean(self) -> Float[Tensor, "K"]:
        """The mean of every column."""
        return self.total / self.rows + self._shift

    @property
    def minimum(self) -> Float[Tensor, "K"]:
        """The smallest entry of every column."""
        return self.low + self._shift

    @property
    def maximum(self) -> Float[Tensor, "K"]:
        """The largest entry of every column."""
        return self.high + self._shift

    @property
    def _shift(self) -> Tensor:
        return torch.zeros_like(self.total) if self.shift is None else self.shift

    def of(self, group: int, values: Tensor) -> Tensor:
        """The columns of one group."""
        return values[..., self.slices[group]]

    def covariance(self, group: int) -> Float[Tensor, "k k"]:
        """The covariance of a group's columns times n: of sums of units where there are units.

        So covariance / n is that of the means, clustered by unit.
        """
        if self.units is not None:
            sums = self.of(group, self.centered())
            used = int((self.counts > 0).sum())
            return sums.T @ sums / self.rows * (used / max(used - 1, 1))
        mean = self.of(group, self.total) / self.rows
        second = self.second[group] - self.rows * torch.outer(mean, mean)
        return second / max(self.rows - 1, 1)

    def centered(self) -> Float[Tensor, "B K"]:
        """The sums of the buckets with the overall mean taken off every row."""
        return self.sums - self.counts[:, None] * (self.total / self.rows)

    def resampled(
        self, resamples: int, seed: int = 0, chunk: int = 64
    ) -> Iterator[Float[Tensor, "r K"]]:
        """Means under random weights, `chunk` resamples at a time: exponential multipliers, one a
        bucket.

        Rubin, The Bayesian bootstrap (1981); on buckets as in Chamandy, Muralidharan, Najmi and
        Naidu, Estimating uncertainty for massive data streams (2012).
        """
        used = self.counts > 0
        centered, counts = self.centered()[used], self.counts[used]
        joined = torch.cat((centered, counts[:, None]), 1)
        mean = self.mean
        draws = np.random.default_rng(seed)
        for start in range(0, resamples, chunk):
            size = min(chunk, resamples - start)
            weights = draws.standard_exponential((size, len(counts)), dtype=np.float32)
            both = torch.from_numpy(weights).to(torch.float64) @ joined
            yield mean + both[:, :-1] / both[:, -1:]
