"""How often do the 95 % intervals of `surpass.evaluate` hold the true value and the true gain?

Simulates logs whose truth is exact (contexts are drawn from a known pool), runs the estimators on
each, and prints coverage of the value and of the gain over the logging policy, for the normal
interval (the default) and for the bootstrap. In every regime at least 50 scored rows are rewarded.
About 12 minutes on two cores for 1,000 logs in each of seven regimes, 30 with `--all`; a killed run
resumes from its cache.

IPS, SNIPS, DR, SNDR and MRDR rest on the propensities alone, so their coverage is to lie in
[92 %, 98 %]. The direct method's interval counts contexts, not the model's error; the others have a
bias that their interval does not hold: `--all` prints their figures as they are.

The last line is one JSON object for the first five: "NAME low" is the lowest coverage of any regime
over 0.92, "NAME high" is 0.98 over the highest; both are to be at least 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from scipy.special import ndtri
from verdict_worlds import run_all

from surpass.data.records import Decisions
from surpass.evaluation.decisions import DEFAULT, evaluate

REST_ON_PROPENSITIES = ("ips", "snips", "dr", "sndr", "mrdr")
POOL, FEATURES = 4000, 5
Array = np.ndarray


def softmax(scores: Array) -> Array:
    weight = np.exp(scores - scores.max(1, keepdims=True))
    return weight / weight.sum(1, keepdims=True)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def draw_binary(rng: np.random.Generator, mean: Array) -> Array:
    return (rng.random(len(mean)) < mean).astype(np.float64)


def draw_normal(rng: np.random.Generator, mean: Array) -> Array:
    return mean + 2 * rng.standard_normal(len(mean))


def draw_lognormal(rng: np.random.Generator, mean: Array) -> Array:
    return mean * rng.lognormal(-0.5, 1.0, len(mean))


@dataclass(frozen=True)
class World:
    """Logging and target are softmax policies of linear scores; `mean` makes rewards of the linear
    effects."""

    rows: int
    actions: int
    logging: float
    target: float
    mean: Callable[[Array], Array]
    draw: Callable[[np.random.Generator, Array], Array] = draw_binary
    per_user: int = 1
    full: bool = True


WORLDS = {
    "small": World(500, 4, 0.5, 1.5, lambda s: sigmoid(s - 0.9)),
    "many rows": World(10_000, 10, 0.5, 1.5, lambda s: sigmoid(s - 0.9)),
    "sparse": World(2000, 5, 0.3, 1.0, lambda s: sigmoid(0.5 * s - 3.3)),
    "poor overlap": World(3000, 10, 1.5, -0.3, lambda s: sigmoid(s - 0.5)),
    "graded": World(1000, 5, 0.5, 1.5, lambda s: s + 3, draw_normal),
    "skewed": World(1000, 5, 0.5, 1.5, lambda s: np.exp(0.5 * s), draw_lognormal),
    "users, one propensity": World(
        3000, 5, 0.5, 1.5, lambda s: sigmoid(s - 0.9), per_user=6, full=False
    ),
}


def one_log(job: tuple[str, int]) -> dict[str, Any]:
    """Estimates, bounds and truth on one simulated log."""
    name, seed = job
    name, _, chosen = name.partition("+")
    world = WORLDS[name]
    fixed = np.random.default_rng(crc32(name.encode()))
    pool = fixed.standard_normal((POOL, FEATURES))
    scores = pool @ fixed.standard_normal((FEATURES, world.actions)) / np.sqrt(FEATURES)
    mu, pi = softmax(world.logging * scores), softmax(world.target * scores)
    mean = world.mean(scores)
    truth, base = (pi * mean).sum(1).mean(), (mu * mean).sum(1).mean()

    rng = np.random.default_rng([seed, crc32(name.encode())])
    users = world.rows // world.per_user
    row = np.repeat(rng.integers(POOL, size=users), world.per_user)  # a user keeps a context
    n = len(row)
    action = (rng.random((n, 1)) > mu[row].cumsum(1)).sum(1).clip(0, world.actions - 1)
    reward = world.draw(rng, mean[row, action])
    log = Decisions(
        context=torch.from_numpy(pool[row]),
        action=torch.from_numpy(action),
        reward=torch.from_numpy(reward),
        propensity=torch.from_numpy(mu[row, action]),
        propensities=torch.from_numpy(mu[row]) if world.full else None,
        group=torch.arange(users).repeat_interleave(world.per_user) if world.per_user > 1 else None,
        batch_size=[n],
    )
    found = evaluate(
        torch.from_numpy(pi[row]),
        log,
        chosen.split("+") if chosen else DEFAULT,
        seed=seed,
        interval="bootstrap",
    )
    z = float(ndtri(0.975))
    return {"rewarded": int((reward != 0).sum())} | {
        r.estimator: {
            "bootstrap value": bool(r.low <= truth <= r.high),
            "bootstrap gain": bool(r.gain_low <= truth - base <= r.gain_high),
            "value": bool(abs(r.value - truth) <= z * r.error),
            "gain": bool(abs(r.gain - (truth - base)) <= z * r.gain_error),
            "off": float((r.value - truth) / max(abs(truth), 1e-12)),
        }
        for r in found
    }


def report(records: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Print a table per regime; the worst figures of the estimators that should cover."""
    worst: dict[str, list[float]] = {}
    for key, logs in records.items():
        world = key.partition("+")[0]
        rewarded = np.mean([r["rewarded"] for r in logs])
        print(
            f"\n{world}: {len(logs)} logs of {WORLDS[world].rows:,} rows, {rewarded:.0f} rewarded"
        )
        kinds = ("value", "gain", "bootstrap value", "bootstrap gain")
        print(
            f"  {'coverage %':<14}" + "".join(f"{k:>17}" for k in kinds) + f"{'mean error %':>14}"
        )
        for name in (n for n in DEFAULT if n in logs[0]):
            share = {k: np.mean([r[name][k] for r in logs]) for k in kinds}
            off = 100 * np.mean([r[name]["off"] for r in logs])
            mark = " " if name in REST_ON_PROPENSITIES else "*"
            cells = "".join(f"{100 * share[k]:>17.1f}" for k in kinds)
            print(f"  {name:<13}{mark}{cells}{off:>14.2f}")
            worst.setdefault(name, []).extend((float(share["value"]), float(share["gain"])))
    print("\n* has a bias, or a model, that its interval does not count")
    out = {}
    for name in REST_ON_PROPENSITIES:
        out[f"{name} low"] = round(min(worst[name]) / 0.92, 3)
        out[f"{name} high"] = round(0.98 / max(worst[name]), 3)
    return out


def code_mark() -> str:
    """A digest of the code that the figures depend on."""
    import surpass

    root = Path(str(surpass.__file__)).parent
    files = [
        *(root / "evaluation").glob("*.py"), root / "objectives" / "scores.py",
        root / "objectives" / "selection.py", root / "critics" / "rewards.py",
        root / "methods" / "ope" / "estimators.py", Path(__file__),
    ]  # fmt: skip
    return hashlib.sha256(b"".join(f.read_bytes() for f in sorted(files))).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "surpass" / "coverage"
    parser.add_argument("--logs", type=int, default=1000, help="of each regime")
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument(
        "--all", action="store_true", help="the five that have a bias too, at three times the time"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cache", type=Path, default=cache, help="where finished logs are kept")
    given = parser.parse_args()
    few = "" if given.all else "+" + "+".join(REST_ON_PROPENSITIES)
    jobs = {name + few: given.logs for name in given.worlds}
    print(json.dumps(report(run_all(one_log, jobs, given.cache / code_mark(), given.processes))))


if __name__ == "__main__":
    main()
