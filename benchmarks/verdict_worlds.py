"""Simulated decision logs for the verdict's benchmarks: regimes without effect, worlds with one,
and the rival tests that stand beside the product's."""

from __future__ import annotations

import ast
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from scipy import stats

from surpass.improve.nominate import ClosedFormTilts, nominate, score_candidate
from surpass.improve.procedure import Tested
from surpass.improve.scoring import RewardRange, Rows, reward_range
from surpass.improve.stages import folds_of

Rng = np.random.Generator
TILTS = ClosedFormTilts()


@dataclass(frozen=True)
class Log:
    """A simulated log: the rows, the range of the reward, units, and what is true.

    `truth(context) -> [N, A]`: mean rewards; `means` [N, A]: those of the log's own rows, where
    they change with time. Neither where every policy is worth the same.
    """

    rows: Rows
    range: RewardRange
    group: torch.Tensor | None = None
    truth: Callable[[np.ndarray], np.ndarray] | None = None
    means: np.ndarray | None = None
    time: torch.Tensor | None = None


@dataclass(frozen=True)
class Regime:
    """How to draw a log, and how the procedure is run on it."""

    name: str
    words: str
    make: Callable[[Rng], Log]
    learner: ClosedFormTilts = TILTS
    accept_observed: bool = False


def pack(
    rng: Rng,
    context: np.ndarray,
    mu: np.ndarray,
    reward: Callable[[np.ndarray], np.ndarray],
    stated: tuple[float, float] | None = None,
    action: np.ndarray | None = None,
) -> Log:
    """A log of actions drawn from `mu` (unless given) and their rewards."""
    n, actions = mu.shape
    if action is None:
        action = (rng.random(n)[:, None] > mu.cumsum(1)[:, :-1]).sum(1)
    paid = reward(action).astype(np.float64)
    t = torch.from_numpy
    table = t(np.ascontiguousarray(mu))
    rewards = t(paid)
    span = reward_range(rewards, stated)
    rows = Rows(
        t(context), t(action.astype(np.int64)), rewards, t(mu[np.arange(n), action].copy()),
        actions, span.lo, span.hi, table, table,
    )  # fmt: skip
    return Log(rows, span)


def fixed(n: int, shares: tuple[float, ...]) -> np.ndarray:
    return np.tile(np.asarray(shares), (n, 1))


def uniform(n: int, actions: int) -> np.ndarray:
    return np.full((n, actions), 1.0 / actions)


def contexts(rng: Rng, n: int, d: int = 5) -> np.ndarray:
    return rng.normal(size=(n, d))


# ------------------------------------------------------------------------ regimes without effect


def bernoulli(
    n: int, mu: Callable[[Rng, np.ndarray], np.ndarray], rate: float
) -> Callable[[Rng], Log]:
    def make(rng: Rng) -> Log:
        x = contexts(rng, n)
        return pack(rng, x, mu(rng, x), lambda a: rng.random(n) < rate, (0.0, 1.0))

    return make


def jackpot(stated: bool) -> Callable[[Rng], Log]:
    """The common action pays 100 once in 2,000 times; what the others pay more often makes up for
    it exactly."""

    def make(rng: Rng) -> Log:
        n = 2000
        x = contexts(rng, n)

        def reward(a: np.ndarray) -> np.ndarray:
            rate = np.where(a == 0, 0.25, 0.25 + 0.0005 * (100 - 0.25))
            paid = (rng.random(n) < rate).astype(float)
            return np.where((a == 0) & (rng.random(n) < 0.0005), 100.0, paid)

        return pack(rng, x, fixed(n, (0.6, 0.2, 0.2)), reward, (0.0, 100.0) if stated else None)

    return make


def heavy(draw: Callable[[Rng, int], np.ndarray]) -> Callable[[Rng], Log]:
    def make(rng: Rng) -> Log:
        n = 2000
        x = contexts(rng, n)
        return pack(rng, x, uniform(n, 4), lambda a: draw(rng, n))

    return make


def drift(rng: Rng) -> Log:
    """Level and effects move with time; over the log every action is worth the same."""
    n, actions = 2500, 5
    x = contexts(rng, n)
    t = np.arange(n) / n
    level = 0.3 + 0.15 * np.sin(2 * np.pi * t)[:, None]
    effect = 0.12 * np.cos(2 * np.pi * (2 * t[:, None] + np.arange(actions) / actions))
    q = level + effect
    return pack(rng, x, uniform(n, actions), lambda a: rng.random(n) < q[np.arange(n), a], (0, 1))


def peaked(strength: float, actions: int) -> Callable[[Rng, np.ndarray], np.ndarray]:
    def mu(rng: Rng, x: np.ndarray) -> np.ndarray:
        weights = np.random.default_rng(7).normal(size=(x.shape[1], actions))
        logits = strength * (x @ weights) / np.sqrt(x.shape[1])
        e = np.exp(logits - logits.max(1, keepdims=True))
        return 0.98 * e / e.sum(1, keepdims=True) + 0.02 / actions

    return mu


def users(rng: Rng) -> Log:
    """300 users of 10 rows: context, action and luck belong to the user."""
    count, each, actions = 300, 10, 4
    who = np.repeat(np.arange(count), each)
    x = contexts(rng, count)[who]
    action = rng.integers(0, actions, count)[who]
    luck = rng.beta(0.6, 1.4, count)[who]
    n = count * each
    log = pack(rng, x, uniform(n, actions), lambda a: rng.random(n) < luck, (0, 1), action)
    return replace(log, group=torch.from_numpy(who))


def doubled(rng: Rng) -> Log:
    half = bernoulli(1500, lambda rng, x: uniform(len(x), 4), 0.3)(rng)
    twice = torch.arange(1500).repeat_interleave(2)
    return Log(half.rows.take(twice), half.range, twice)


def miscalibrated(rng: Rng) -> Log:
    """The log says that actions were drawn uniformly; they were drawn with 0.28, 0.24, 0.2, 0.16,
    0.12."""
    n, actions = 4000, 5
    x = contexts(rng, n)
    action = rng.choice(actions, n, p=(0.28, 0.24, 0.2, 0.16, 0.12))
    return pack(rng, x, uniform(n, actions), lambda a: rng.random(n) < 0.3, (0, 1), action)


def harm(rng: Rng) -> Log:
    """A gentle tilt of the linear model gains, the greedy one loses: the walk must stop in between.

    The effect of action 1 is (x^3 - 2.5 x) / 100: its linear part is positive, its sign mostly not.
    """
    n = 4000
    x = contexts(rng, n, 1)

    def truth(x: np.ndarray) -> np.ndarray:
        effect = np.clip(0.02 * (x[:, 0] ** 3 - 2.5 * x[:, 0]), -0.3, 0.6)
        return np.column_stack([np.full(len(x), 0.3), 0.3 + effect])

    q = truth(x)
    mu = uniform(n, 2)
    log = pack(rng, x, mu, lambda a: rng.random(n) < q[np.arange(n), a], (0, 1))
    return replace(log, truth=truth)


def optimal(rng: Rng) -> Log:
    """The reference already prefers what is best in each context: every change loses."""
    n, actions = 2000, 4
    x = contexts(rng, n)

    def truth(x: np.ndarray) -> np.ndarray:
        scores = x[:, :actions]
        return 0.3 + 0.03 * (scores == scores.max(1, keepdims=True))

    q = truth(x)
    best = q == q.max(1, keepdims=True)
    mu = 0.1 / actions + 0.9 * best
    log = pack(rng, x, mu, lambda a: rng.random(n) < q[np.arange(n), a], (0, 1))
    return replace(log, truth=truth)


def in_time(rng: Rng) -> Log:
    """Rows in order of time; effects are drawn anew for every tenth of the log."""
    n, actions = 3000, 4
    x = contexts(rng, n)
    effects = rng.normal(0.0, 0.06, (10, actions))
    effects -= effects.mean(1, keepdims=True)
    q = np.clip(0.3 + effects[np.arange(n) * 10 // n], 0.0, 1.0)
    log = pack(rng, x, uniform(n, actions), lambda a: rng.random(n) < q[np.arange(n), a], (0, 1))
    return replace(log, means=q, time=torch.arange(n, dtype=torch.float64))


MORE_STRENGTHS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 12.0, 1000.0)


def _flat(actions: int) -> Callable[[Rng, np.ndarray], np.ndarray]:
    return lambda rng, x: uniform(len(x), actions)


def _shares(*shares: float) -> Callable[[Rng, np.ndarray], np.ndarray]:
    return lambda rng, x: fixed(len(x), shares)


def _lognormal(rng: Rng, n: int) -> np.ndarray:
    return rng.lognormal(0.0, 2.0, n)


def _pareto(rng: Rng, n: int) -> np.ndarray:
    return 1.0 + rng.pareto(1.5, n)


_RARE = bernoulli(3000, _shares(0.9, 0.07, 0.03), 0.005)
_FORTY = ClosedFormTilts(strengths=MORE_STRENGTHS)
REGIMES = (
    Regime("small", "30 % reward (500 rows, 4 actions)", bernoulli(500, _flat(4), 0.3)),
    Regime(
        "sparse-500",
        "0.5 % reward, logging .7/.2/.1 (500, 3)",
        bernoulli(500, _shares(0.7, 0.2, 0.1), 0.005),
    ),
    Regime("sparse-3000", "0.5 % reward, logging .9/.07/.03 (3,000, 3)", _RARE),
    Regime("jackpot", "jackpot on the common action, range stated (2,000, 3)", jackpot(True)),
    Regime("jackpot-unstated", "the same, range not stated (2,000, 3)", jackpot(False)),
    Regime("lognormal", "lognormal reward, sd 2 (2,000, 4)", heavy(_lognormal), TILTS, True),
    Regime("pareto", "Pareto reward, 1.5 (2,000, 4)", heavy(_pareto), TILTS, True),
    Regime("drift", "drifting level and effects (2,500, 5)", drift),
    Regime("overlap", "poor overlap (3,000, 10)", bernoulli(3000, peaked(3.0, 10), 0.3)),
    Regime("fifty", "50 actions (2,500, 50)", bernoulli(2500, _flat(50), 0.3)),
    Regime("forty", "40 candidates (2,000, 10)", bernoulli(2000, _flat(10), 0.3), _FORTY),
    Regime("users", "users repeated 10 times, sticky action (3,000, 4)", users),
    Regime("doubled", "every row twice (3,000, 4)", doubled),
    Regime("miscalibrated", "logged propensities are wrong (4,000, 5)", miscalibrated),
    Regime("optimal", "the reference is already optimal (2,000, 4)", optimal),
    Regime("harm", "gentle tilts gain, sharp ones lose (4,000, 2)", harm),
    Regime("in-time", "stages in time, effects come and go (3,000, 4)", in_time),
)
LOGGED_ONLY = ("small", "sparse-3000", "jackpot", "drift", "overlap")


def without_table(log: Log) -> Log:
    """The same log with only the propensity of the logged action known."""
    return replace(log, rows=replace(log.rows, reference=None, behavior=None))


# --------------------------------------------------------------------------- worlds with an effect


def effect_world(
    kind: str, rate: float, n: int, lift: float = 0.2, actions: int = 10, effects: Rng | None = None
) -> Callable[[Rng], Log]:
    """Uniform logging over 10 actions, 5 context columns; the best policy is `lift` better than the
    reference.

    Args:
        kind: "graded" (linear effects of the context), "one arm" (the same good action everywhere)
            or "one best" (one good action per region, eight regions).
        rate: the reference's mean reward.
        n: rows.
        lift: of the best policy, relative.
        actions: how many.
        effects: draws the effects, so that two logs can come from one world; else the log's own
            generator does, first of all.
    """

    def make(rng: Rng) -> Log:
        q = _effects(kind, rng if effects is None else effects, rate, lift, actions)
        x = contexts(rng, n)
        means = q(x)
        mu = uniform(n, actions)
        log = pack(rng, x, mu, lambda a: rng.random(n) < means[np.arange(n), a], (0, 1))
        return replace(log, truth=q)

    return make


def _effects(
    kind: str, rng: Rng, rate: float, lift: float, actions: int
) -> Callable[[np.ndarray], np.ndarray]:
    high = rate * (1 + lift)
    low = (actions * rate - high) / (actions - 1)
    if kind == "graded":
        slopes = rng.normal(size=(5, actions))
        slopes -= slopes.mean(1, keepdims=True)
        probe = rng.normal(size=(20_000, 5)) @ slopes
        slopes *= lift / probe.max(1).mean()
        return lambda x: np.clip(rate * (1 + x @ slopes), 0.0, 1.0)
    if kind == "one arm":
        good = int(rng.integers(actions))
        return lambda x: np.where(np.arange(actions) == good, high, low) * np.ones((len(x), 1))
    winner = rng.integers(0, actions, 8)
    return lambda x: np.where(
        np.arange(actions) == winner[(x[:, :3] > 0) @ np.array([1, 2, 4])][:, None], high, low
    )


def true_gain(tested: Tested, log: Log, seed: int, rows: int = 20_000) -> float:
    """The gain over the reference of the policy that was tested, in the simulated world.

    On fresh contexts; where the truth moves with time, on the contexts and times that were scored.
    """
    if log.means is not None:
        parts = []
        for stage, share in zip(tested.stages, tested.shares, strict=True):
            some = log.rows.take(stage.rows)
            pi = stage.candidate.policy(some.context, some.reference)
            change = (pi - some.reference).numpy() * log.means[stage.rows.numpy()]
            parts.append(share * change.sum(1).mean())
        return float(sum(parts))
    if log.truth is None:
        return 0.0
    rng = np.random.default_rng([seed, 1])
    x = contexts(rng, rows, log.rows.context.shape[1])
    q = log.truth(x)
    rho = torch.from_numpy(uniform(rows, log.rows.n_actions))
    if not torch.equal(log.rows.reference[0], rho[0]):  # the optimal reference of its regime
        rho = torch.from_numpy(0.1 / q.shape[1] + 0.9 * (q == q.max(1, keepdims=True)))
    with torch.no_grad():
        pi = tested.policy(torch.from_numpy(x), rho)
    return float(((pi - rho).numpy() * q).sum(1).mean())


# ------------------------------------------------------------------------------------ rival tests


def t_p(x: np.ndarray) -> float:
    """One-sided p of the t test."""
    spread = x.std(ddof=1) if x.size > 1 else 0.0
    if spread == 0.0:
        return 1.0
    return float(stats.t.sf(x.mean() / spread * np.sqrt(x.size), x.size - 1))


@torch.no_grad()
def half_and_half(rows: Rows, learner: ClosedFormTilts, seed: int) -> dict[str, float]:
    """Learn on one half, test all candidates on the other: the best with no correction, max-t,
    Bonferroni."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows)))
    first, second = rows.take(order[: len(rows) // 2]), rows.take(order[len(rows) // 2 :])
    phi = learner.scores(first, second).phi.numpy()
    spread = phi.std(1, ddof=1)
    phi = phi[spread > 0]
    if not len(phi):
        return {"best": 1.0, "maxt": 1.0, "bonferroni": 1.0}
    n = phi.shape[1]
    t = phi.mean(1) / phi.std(1, ddof=1) * np.sqrt(n)
    best = float(stats.t.sf(t.max(), n - 1))
    centered = phi - phi.mean(1, keepdims=True)
    centered /= np.sqrt((centered**2).sum(1, keepdims=True))
    flips = np.random.default_rng(seed + 1).standard_normal((500, n))
    above = ((flips @ centered.T).max(1) >= t.max()).sum()
    return {
        "best": best, "maxt": float((1 + above) / 501), "bonferroni": min(1.0, best * len(phi)),
    }  # fmt: skip


@torch.no_grad()
def same_rows(rows: Rows, learner: ClosedFormTilts) -> float:
    """Learn and test on the same rows, the best candidate with no correction."""
    return min((t_p(x) for x in learner.scores(rows, rows).phi.numpy()), default=1.0)


@torch.no_grad()
def cross_fitted(rows: Rows, learner: ClosedFormTilts, seed: int, folds: int = 5) -> float:
    """A policy per fold, nominated and learned on the other folds; the t test on all rows
    pooled."""
    fold = folds_of(torch.arange(len(rows)), folds, seed)
    parts = []
    for k in range(folds):
        train, held = rows.take(fold != k), rows.take(fold == k)
        chosen = nominate(
            train, torch.arange(len(train)), [learner], scored_units=len(rows), seed=seed
        )
        if chosen.best is None:
            parts.append(np.zeros(len(held)))
            continue
        candidate = chosen.candidates[chosen.best.label.key]
        parts.append(score_candidate(candidate, held, None, chosen.critic).phi.numpy())
    return t_p(np.concatenate(parts))


# ---------------------------------------------------------------------------------- running many


def rng_of(name: str, seed: int) -> Rng:
    return np.random.default_rng([crc32(name.encode()), seed])


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "surpass" / "verdict"


def code_mark() -> str:
    """A digest of the code that the figures depend on, blind to comments and layout."""

    names = (
        "critics.deviations", "evaluation.guarded", "improve.nominate", "improve.procedure",
        "improve.scoring", "improve.stages", "policies.tilted",
    )  # fmt: skip
    files = [str(import_module(f"surpass.{name}").__file__) for name in names]
    digest = hashlib.sha256()
    for file in [*files, __file__]:
        tree = ast.parse(Path(file).read_text())
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            first = body[0] if isinstance(body, list) and body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                first.value.value = ""
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:10]


def run_all(
    work: Callable[[tuple[str, int]], dict[str, Any]],
    jobs: dict[str, int],
    cache: Path,
    processes: int,
) -> dict[str, list[dict[str, Any]]]:
    """Run `work((name, seed))` for seeds 0 .. jobs[name] - 1, keeping every record; a killed run
    resumes.

    Args:
        work: a module-level function.
        jobs: how many logs of each name.
        cache: the folder of the JSONL files, one per name.
        processes: at once.
    """
    cache.mkdir(parents=True, exist_ok=True)
    done = {name: _read(cache / f"{name}.jsonl") for name in jobs}
    most = max(jobs.values(), default=0)  # seed by seed, so that a run cut short has some of each
    ahead = [
        (n, s) for s in range(most) for n, count in jobs.items() if s < count and s not in done[n]
    ]
    print(f"{sum(map(len, done.values()))} logs kept in {cache}, {len(ahead)} to run", flush=True)
    began, said = time.time(), time.time()
    for place, (name, seed, record) in enumerate(_results(work, ahead, processes), 1):
        with (cache / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps({"seed": seed, **record}) + "\n")
        done[name][seed] = record
        if time.time() - said > 30:
            said = time.time()
            left = (said - began) / place * (len(ahead) - place)
            print(f"  {place} of {len(ahead)} logs, about {left / 60:.0f} min left", flush=True)
    return {name: [done[name][s] for s in range(jobs[name])] for name in jobs}


def _read(path: Path) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.endswith("}"):  # the last line of a killed run may be cut
            record = json.loads(line)
            found[int(record["seed"])] = record
    return found


_WORK: Callable[[tuple[str, int]], dict[str, Any]] | None = None


def _start(work: Callable[[tuple[str, int]], dict[str, Any]]) -> None:
    global _WORK
    _WORK = work
    torch.set_num_threads(1)


def _one(job: tuple[str, int]) -> tuple[str, int, dict[str, Any]]:
    assert _WORK is not None
    began = time.perf_counter()
    record = _WORK(job)
    return (*job, {**record, "seconds": round(time.perf_counter() - began, 4)})


def _results(
    work: Callable[[tuple[str, int]], dict[str, Any]], ahead: list[tuple[str, int]], processes: int
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if processes <= 1:
        _start(work)
        yield from map(_one, ahead)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _start, (work,)) as pool:
        yield from pool.imap_unordered(_one, ahead, chunksize=4)
