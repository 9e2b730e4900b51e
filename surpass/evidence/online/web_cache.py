"""Evidence for Cold-RL: a web cache whose budget is a small, a medium and a large part of all that
is asked for, and a real nginx."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surpass.data.access_log import Accesses, read_access_log
from surpass.data.records import Transitions
from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.evidence.online.cache_server import REPLAYED, Nginx
from surpass.methods.online.cold_rl import cold_rl_hindsight
from surpass.parts import cosine
from surpass.policies.candidate_scores import candidate_scores, save_scores
from surpass.serve.cache_files import CacheFiles
from surpass.serve.candidates import Asker, Score, Sidecar, SidecarEviction, scorer
from surpass.tasks.cache_policies import LRU, Belady, Scored, best_rule, rules
from surpass.tasks.cache_replay import replayed
from surpass.tasks.recording import joined
from surpass.tasks.web_cache import Eviction, most_hits, simulate, trap_workload
from surpass.training.run import train

__all__ = ["Learned", "learned", "through_nginx"]

K, TRAINED, BUDGETS = 32, 0.6, (0.05, 0.2, 0.8)
HORIZON, GAMMA, ROWS, UPDATES = 6.0, 0.95, 12_000, (150, 300, 600, 1_200)
SIZES: dict[str, Any] = {
    "gamma": 0.95, "tau": 0.01, "batch": 256, "hidden": (32, 32), "head": 32, "alpha": 0.0,
    "every": 1_000,
}  # fmt: skip


@dataclass(frozen=True)
class Learned:
    """Scores of candidates, in ONNX Runtime, and those of the same net before training."""

    score: Score
    untrained: Score


def learned(log: Accesses, capacity: float, seed: int, place: Path) -> Learned:
    """Train on replays of a log under LRU, random and mixed eviction, and three times more with
    replays under what was learned from them. Misses are discounted over `HORIZON` times as many
    requests as LRU needs to fill the cache anew."""
    missed = (log.size * ~simulate(log, capacity, LRU()).hit).mean()
    tick = HORIZON * (1.0 - GAMMA) * capacity / missed
    options: dict[str, Any] = {"k": K, "gamma": GAMMA, "tick": tick, "seed": seed}

    def fitted(log: Transitions, updates: int) -> Score:
        lr: Any = cosine(3e-3, 0.0, steps=updates)
        form = cold_rl_hindsight(**SIZES, lr=lr, steps=updates)
        trained = train(form, log, steps=updates, seed=seed, compile=False)
        return scorer(save_scores(candidate_scores(trained), place / "scores.onnx"))[0]

    rows = _some(replayed(log, capacity, behavior=(0.0, 1.0, 0.5), **options), seed)
    score = fitted(rows, UPDATES[0])
    for updates in UPDATES[1:]:
        own = _some(replayed(log, capacity, behavior=(0.0, 0.1), score=score, **options), seed)
        rows = joined([rows, own]).described(rows.about)
        score = fitted(rows, updates)
    return Learned(score, fitted(rows, 1))


def _some(log: Transitions, seed: int) -> Transitions:
    kept = torch.randperm(len(log), generator=torch.Generator().manual_seed(seed))[:ROWS]
    return log[kept.sort().values].described(log.about)


def through_nginx(log: Accesses, budget: int, policy: Eviction) -> float:
    """The hit ratio that a real nginx writes for the requests of a log, its files kept within the
    budget by the policy; NaN where nginx is not installed."""
    if shutil.which("nginx") is None:
        return float("nan")
    paths = [f"/{what}/{size}" for what, size in zip(log.object, log.size, strict=True)]
    about = {
        path: (float(ttl), float(rtt) / 1e6)
        for path, ttl, rtt in zip(paths, log.ttl, log.rtt, strict=True)
    }
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        with Nginx(place, REPLAYED, about) as server:
            manager = CacheFiles(place / "cache", budget, policy)
            for path, now in zip(paths, log.time, strict=True):
                manager.follow([server.get(path, float(now))])
        found = read_access_log(place / "access.log").hit
    return float(np.mean(found)) if found is not None else float("nan")


def waits(score: Score, place: Path, calls: int = 2_000) -> np.ndarray:
    """Microseconds that an answer takes over the socket."""
    path, seconds = place / "waits.sock", []
    features = np.random.default_rng(0).normal(size=(K, 6)).astype(np.float32)
    with Sidecar(score, K, 6, path):
        asker = Asker(path, deadline=5.0)
        for _ in range(50 + calls):
            start = time.perf_counter()
            asker.ask(features)
            seconds.append(time.perf_counter() - start)
    return 1e6 * np.array(seconds[50:])  # the first ones warm it up


@evidence(
    "cold-rl",
    claim="trained on replays of the first part of a log, it hits at least 1.2 times as often as "
    "the best classical rule where the cache holds 5 % of all that is asked for, and at least 0.98 "
    "times as often at 80 %; never more than the offline bound, and more than the net untrained",
    setting="25,000 requests for 2,000 objects, large ones in regular bursts, trained on the first "
    "60 %; a net shared by the candidates and told what each would have earned, K 32, four rounds "
    "of replays, 150, 300, 600 and 1,200 updates, rows drawn evenly (chosen on seeds 100 to 102); "
    "2,000 requests also go through a real nginx whose files the sidecar's choices unlink",
    baseline="the best of LRU, LFU, largest first, LRU over a size, LRU and size, and GDSF, chosen "
    "with its thresholds on the same 60 % from 23 candidates, for each budget",
    metric="hit ratio on the last 40 % of the requests, cache of 5 %",
    bar=at_least(1.2, times=True),
    seeds=5,
    minutes=17,
    note="At the smallest cache it hits 1.37 times as often as the best tuned rule (1.30 to 1.43),"
    " and all else holds but the largest, where it ends at 0.977 of GDSF (0.974 to 0.980) and"
    " 0.98 is asked. That is the price of naming 32 candidates: of the 32 oldest of some "
    "1,600 objects a clairvoyant choice by size and time reaches 0.980 there, on a trial "
    "seed.",
)
def cold_rl_evidence(seed: int, zoo: Any) -> Result:
    """Another log of the same kind, and the other budgets, are beside it.

    Learned from the evicted candidate alone (`cold-rl:shared`), three rounds came to 1.07 times the
    best rule (0.99 to 1.16) on the same seeds, where this asks for 1.2.
    """
    log, other = trap_workload(seed=seed), trap_workload(seed=1_000 + seed)
    first, also, main = log.first(TRAINED), {}, (0.0, 0.0)
    for budget in BUDGETS:
        with tempfile.TemporaryDirectory() as folder:
            place, capacity = Path(folder), budget * log.footprint
            ours = learned(first, capacity, seed, place)
            name, _ = best_rule(first, capacity)

            def ratio(policy: Eviction, size: float = capacity) -> float:
                return simulate(log, size, policy).ratio(TRAINED)

            pair = ratio(Scored(ours.score, K)), ratio(rules()[name]())
            share = f"cache of {100 * budget:.0f} %"
            bound = most_hits(log, capacity)[round(TRAINED * len(log)) :].mean()
            also[f"hit ratio against the offline bound, {share}"] = (
                pair[0], float(bound), at_most(1.0, times=True),
            )  # fmt: skip
            also[f"hit ratio against Belady by size, {share}"] = (
                pair[0], ratio(Belady(log, by_size=True)),
            )  # fmt: skip
            elsewhere = budget * other.footprint
            also[f"hit ratio on another log, {share}"] = (
                simulate(other, elsewhere, Scored(ours.score, K)).ratio(),
                simulate(other, elsewhere, rules()[name]()).ratio(),
            )
            if budget == BUDGETS[0]:
                main = pair
                also["hit ratio against the untrained net, cache of 5 %"] = (
                    pair[0], ratio(Scored(ours.untrained, K)), at_least(0.0),
                )  # fmt: skip
                also["microseconds to an answer, 95th percentile, beside 500"] = (
                    float(np.quantile(waits(ours.score, place), 0.95)), 500.0,
                )  # fmt: skip
                short = log.first(2_000 / len(log))
                with Sidecar(ours.score, K, 6, place / "cache.sock"):
                    chosen = SidecarEviction(Asker(place / "cache.sock", deadline=5.0), K)
                    through = through_nginx(short, int(capacity), chosen)
                if np.isfinite(through):
                    also["hit ratio in nginx's own log, 2,000 requests, against LRU"] = (
                        through, through_nginx(short, int(capacity), LRU()), at_least(0.0),
                    )  # fmt: skip
            elif budget == BUDGETS[-1]:
                also[f"hit ratio, {share}"] = (*pair, at_least(0.98, times=True))
            else:
                also[f"hit ratio, {share}"] = pair
    return Result(*main, also)
