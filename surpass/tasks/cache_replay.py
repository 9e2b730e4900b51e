"""From an access log to what can be learned from it: the log is sent through a cache under a known
eviction policy, and each forced eviction is a row of `Transitions`.

Requests do not depend on what is held, so such a replay is exact for any policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from tensordict import TensorDict

from surpass.data.access_log import Accesses
from surpass.data.records import About, Transitions
from surpass.errors import InputError
from surpass.tasks.web_cache import FEATURES, Cache, Eviction, candidates, simulate

__all__ = ["Among", "replayed"]

Score = Callable[[np.ndarray], np.ndarray]


class Among(Eviction):
    """Evicts one of the k least recently asked for: any of them with probability `random`, else the
    one of the highest `score` (None: the oldest); the chance of what it did is in `propensity`."""

    def __init__(
        self, k: int, random: float, rng: np.random.Generator, score: Score | None = None
    ) -> None:
        self.k, self.random, self.rng, self.score = k, random, rng, score
        self.propensity = 1.0

    def victim(self, cache: Cache) -> int | str:
        n = min(self.k, len(cache.held))
        best = 0 if self.score is None else int(np.argmax(self.score(candidates(cache, n)[1])))
        chosen = int(self.rng.integers(n)) if self.rng.random() < self.random else best
        self.propensity = self.random / n + (1.0 - self.random) * (chosen == best)
        for i, (key, _) in enumerate(cache.oldest(n)):
            if i == chosen:
                return key
        raise AssertionError("there are n candidates")


def replayed(
    log: Accesses,
    capacities: float | Sequence[float],
    *,
    k: int = 16,
    behavior: Sequence[float] = (0.0, 1.0, 0.5),
    score: Score | None = None,
    gamma: float = 0.97,
    tick: float = 32.0,
    retained: bool = False,
    size_penalty: float = 0.0,
    seed: int = 0,
) -> Transitions:
    """The evictions that a cache makes of a log, once for each capacity and behavior.

    `obs` [N, k 6] are the raw `FEATURES` of the k least recently asked for, zeros where fewer are
    held (`available` [N, k]); `action` is the one evicted. Time runs in ticks of `tick` requests,
    and `extras["elapsed"]` [N] are those to the next eviction; several at one request are 0 apart.

    The reward charges an eviction for the miss that it causes, when that comes: -gamma^d, d ticks
    from now, where the object is asked for again before it expires, and 0 where it is not; so the
    discounted sum is that of the misses which another choice would have avoided. Added is what they
    cost per tick on average, rho, over the time to the next eviction: rho (1 - gamma^elapsed) /
    (1 - gamma). In sum that is the same for every policy; it makes rewards average to 0 and says at
    once that a victim after which nothing is evicted for long was worth more.

    What another candidate would have earned is known as well, since requests come as they come:
    `extras["rewards"]` [N, k], with the ticks to the next eviction in `extras["elapses"]` (until as
    many bytes as that victim had left free are admitted, by the same misses).

    With `retained` it is what Cold-RL's code pays at every eviction: +1 for each candidate that
    stays and is asked for again before it expires, less `size_penalty` per MB that stays, and
    nothing for time.

    Args:
        behavior: for each replay the share of evictions that are random among the candidates; 0 is
            LRU, 1 random, and between them it is mixed. Their chances are in `behavior_logp`.
        score: in place of LRU, the highest score: what another policy, such as the one learned
            from the first replays, would have met.

    Raises:
        InputError: when k, gamma, tick or a share is out of range, or nothing was evicted.
    """
    if not 1 <= k <= 32:
        raise InputError(f"k, the number of candidates, is 1 to 32, not {k}")
    if not 0 < gamma < 1 or tick <= 0:
        raise InputError(f"gamma lies between 0 and 1 and tick is positive, not {gamma} and {tick}")
    if any(not 0 <= share <= 1 for share in behavior):
        raise InputError(f"the shares of random evictions lie between 0 and 1, not {behavior}")
    sizes = (capacities,) if isinstance(capacities, int | float) else tuple(capacities)
    rng = np.random.default_rng(seed)
    episodes = []
    for capacity in sizes:
        for share in behavior:
            seen = _Watching(log, k, Among(k, share, rng, score))
            outcome = simulate(log, capacity, seen.policy, seen)
            if len(seen.action) > 1:
                episodes.append(seen.columns(gamma, tick, retained, size_penalty, outcome.admitted))
    if not episodes:
        raise InputError("the cache holds all that is asked for, so nothing is evicted: give it "
                         "fewer bytes")  # fmt: skip
    number = np.repeat(np.arange(len(episodes)), [len(e["action"]) for e in episodes])
    t = {name: torch.as_tensor(np.concatenate([e[name] for e in episodes])) for name in episodes[0]}
    n = len(number)
    return Transitions(
        obs=t["obs"], action=t["action"], reward=t["reward"].float(), next_obs=t["next_obs"],
        terminated=torch.zeros(n, dtype=torch.bool), truncated=t["last"],
        episode=torch.as_tensor(number), behavior_logp=t["logp"].float(),
        available=t["available"],
        extras=TensorDict(
            {
                "elapsed": t["elapsed"].float(), "next_available": t["next_available"],
                "rewards": t["rewards"].float(), "elapses": t["elapses"].float(),
            },
            batch_size=[n],
        ),
        batch_size=[n],  # pyright: ignore[reportCallIssue]
    ).described(
        About(
            name="replayed evictions of a web cache",
            spaces={"n_actions": k},
            names={"candidate": FEATURES},
            provenance={"gamma": gamma, "tick": tick, "behavior": tuple(behavior), "seed": seed,
                        "capacities": sizes, "reward": "retained" if retained else "avoidable"},
        )
    )  # fmt: skip


class _Watching:
    """Writes down what stood before each eviction."""

    def __init__(self, log: Accesses, k: int, policy: Among) -> None:
        self.log, self.k, self.policy = log, k, policy
        self.rows: list[np.ndarray] = []
        self.action: list[int] = []
        self.position: list[int] = []
        self.logp: list[float] = []
        self.back: list[np.ndarray] = []
        self.free: list[np.ndarray] = []
        self.when = np.append(log.time, math.inf)
        self.latest = np.zeros(log.n_objects, dtype=np.int64)
        self.seen = 0

    def __call__(self, cache: Cache, victim: int | str) -> None:
        now = cache.position
        self.latest[self.log.object[self.seen : now + 1]] = np.arange(self.seen, now + 1)
        self.seen = now + 1
        keys, features = candidates(cache, self.k)
        self.rows.append(features)
        self.action.append(keys.index(victim))
        self.position.append(now)
        self.logp.append(math.log(self.policy.propensity))
        held = [held for _, held in cache.oldest(self.k)]
        ahead = self.log.following[self.latest[np.array(keys, dtype=np.int64)]]
        comes = self.when[ahead] <= [one.expires for one in held]
        self.back.append(np.where(comes, ahead - now, math.inf))
        self.free.append(np.array([one.size for one in held]) - cache.needed)

    def columns(
        self, gamma: float, tick: float, retained: bool, size_penalty: float, admitted: np.ndarray
    ) -> dict[str, np.ndarray]:
        n, k, d = len(self.action), self.k, len(FEATURES)
        obs, held = np.zeros((n, k, d), np.float32), np.zeros((n, k), bool)
        back, free = np.full((n, k), math.inf), np.full((n, k), -1)
        for i, rows in enumerate(self.rows):
            m = len(rows)
            obs[i, :m], held[i, :m], back[i, :m], free[i, :m] = (
                rows, True, self.back[i], self.free[i],
            )  # fmt: skip
        action, position = np.array(self.action), np.array(self.position)
        elapsed = np.diff(position, append=position[-1]) / tick
        elapses = _until_full(admitted, position, free) / tick
        elapses[np.arange(n), action] = elapsed  # but for the end of the log the same
        if retained:
            megabytes = np.expm1(obs[..., 1].astype(float)) / 1024.0
            worth = np.isfinite(back) - size_penalty * megabytes * held
            rewards = worth.sum(1, keepdims=True) - worth
        else:
            charge, time = gamma ** (back / tick), (1.0 - gamma**elapses) / (1.0 - gamma)
            mine = np.arange(n), action
            rewards = charge[mine].sum() / max(time[mine].sum(), 1e-9) * time - charge
        reward = rewards[np.arange(n), action]
        flat = obs.reshape(n, k * d)
        after = np.append(np.arange(1, n), n - 1)
        return {
            "obs": flat, "next_obs": flat[after], "action": action, "reward": reward,
            "available": held, "next_available": held[after], "elapsed": elapsed,
            "rewards": rewards, "elapses": elapses, "logp": np.array(self.logp),
            "last": np.arange(n) == n - 1,
        }  # fmt: skip


def _until_full(
    admitted: np.ndarray, position: np.ndarray, free: np.ndarray
) -> Float[np.ndarray, "n k"]:
    """Requests from each eviction until more than the bytes `free` [n, k] have been admitted; 0
    where they are negative, and to the last eviction where that is not reached."""
    filled, falls = np.cumsum(admitted), bool((admitted < 0).any())
    out = np.zeros(free.shape)
    for i, (now, row) in enumerate(zip(position.tolist(), free, strict=True)):
        later = filled[now + 1 :]
        most = np.maximum.accumulate(later) if falls else later
        ahead = np.searchsorted(most, filled[now] + np.maximum(row, 0), side="right")
        out[i] = np.where(row < 0, 0, np.minimum(now + 1 + ahead, position[-1]) - now)
    return out
