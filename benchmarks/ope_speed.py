"""Speed of off-policy evaluation beside Open Bandit Pipeline 0.4.1: one million rows, ten actions.

Both get the same arrays in double precision and one thread, and take turns in the same run. Point
estimates of IPS, SNIPS and DR are timed as one call each (OBP: `estimate_policy_value`), medians of
several turns; intervals as one call with the same number of bootstrap resamples (OBP:
`estimate_interval`), per resample, what comes before the resamples included.

Then every estimator of decisions on the same rows: seconds for value, gain and interval after its
nuisance models (here: given columns), and how much the process grew from 100 resamples to 4,000,
each in a process of its own.

Takes about four minutes; on first use five more to make the peer's environment (1.5 GB in the
user's cache folder). The last line is one JSON object: time of the peer over ours, so more than 1
is faster; and for "scale" ten seconds over ours, so more than 1 is within ten seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from peers import peer

from surpass.evaluation.decisions import DEFAULT
from surpass.evaluation.estimation import Panel, point
from surpass.evaluation.intervals import bootstrap
from surpass.methods.ope.estimators import dr, ips, snips
from surpass.objectives.views import Query
from surpass.registry import build

PEER = (
    ("torch==2.13.0",),
    ("numpy<2", "pandas<2.3", "scipy<1.12", "scikit-learn<1.4", "matplotlib<3.9", "seaborn<0.14",
     "tqdm", "pyyaml", "mypy-extensions"),
    ("--no-deps", "obp==0.4.1"),
)  # fmt: skip
OURS = {"ips": ips(), "snips": snips(), "dr": dr()}


def simulated(rows: int, actions: int, seed: int) -> dict[str, np.ndarray]:
    """A log with softmax policies, rewards in {0, 1} and noisy predictions."""
    rng = np.random.default_rng(seed)

    def simplex(sharp: float) -> np.ndarray:
        weight = np.exp(sharp * rng.standard_normal((rows, actions)))
        return weight / weight.sum(1, keepdims=True)

    mu, target, q = simplex(0.5), simplex(1.0), rng.random((rows, actions))
    action = (rng.random((rows, 1)) > mu.cumsum(1)).sum(1).clip(0, actions - 1)
    every = np.arange(rows)
    return {
        "action": action,
        "reward": (rng.random(rows) < q[every, action]).astype(np.float64),
        "propensity": mu[every, action],
        "mu": mu,
        "target": target,
        "q": np.clip(q + 0.1 * rng.standard_normal(q.shape), 0, 1),
    }


def ours(name: str, log: dict[str, np.ndarray], resamples: int) -> tuple[float, float]:
    """Seconds and value of one call, from the numpy arrays on."""
    start = time.perf_counter()
    query = Query(**{k: torch.from_numpy(v) for k, v in log.items() if k != "mu"})
    score = OURS[name].score
    value = bootstrap(score(query), resamples=resamples).value if resamples else point(score, query)
    return time.perf_counter() - start, value


def compare(
    python: Path, log: dict[str, np.ndarray], turns: int, resamples: int
) -> dict[str, float]:
    """Ratios by name; prints a line for each."""
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, values in log.items():
            if name == "mu":
                continue
            np.save(Path(folder) / f"{name}.npy", values)
        script = Path(__file__).with_name("obp_peer.py")
        process = subprocess.Popen(
            [python, script, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("the peer did not start; its message stands above")
        print(f"{'':<22}{'ours ms':>12}{'peer ms':>12}{'ratio':>10}{'difference':>14}")
        for kind, count, times in (("point", 0, turns), ("interval", resamples, 1)):
            for name in OURS:
                mine, theirs = [], []
                for _ in range(times):
                    mine.append(ours(name, log, count))
                    process.stdin.write(f"{name} {count}\n")
                    process.stdin.flush()
                    seconds, value = process.stdout.readline().split()
                    theirs.append((float(seconds), float(value)))
                a, b = median(t for t, _ in mine), median(t for t, _ in theirs)
                ratios[f"{name} {kind}"] = b / a
                per = count or 1
                gap = abs(mine[0][1] - theirs[0][1])
                label = f"{name} {kind}" + (" / resample" if count else "")
                times_ms = f"{1e3 * a / per:>8.3f}{1e3 * b / per:>12.3f}"
                print(f"{label:<26}{times_ms}{b / a:>10.1f}{gap:>14.1e}", flush=True)
        process.stdin.close()
        process.wait()
    return ratios


EVERY = (*DEFAULT, "es-ips", "off-cem")


def scale(rows: int, actions: int, seed: int) -> dict[str, float]:
    """Ten seconds over each estimator's own; prints seconds and growth."""
    print(f"{'':<22}{'seconds':>12}{'MB, 100':>12}{'MB, 4,000':>12}   (resamples)")
    out = {}
    for name in EVERY:
        found = []
        for resamples in (100, 4_000):
            asked = [sys.executable, __file__, "--one", name, "--resamples", str(resamples)]
            asked += ["--rows", str(rows), "--actions", str(actions), "--seed", str(seed)]
            done = subprocess.run(asked, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
        (first, small), (_, large) = ((f["seconds"], f["megabytes"]) for f in found)
        out[f"{name} scale"] = 10.0 / first
        print(f"{name:<22}{first:>12.2f}{small:>12.0f}{large:>12.0f}", flush=True)
    return out


def one(name: str, rows: int, actions: int, seed: int, resamples: int) -> dict[str, float]:
    """Seconds of one estimator from its columns on, and what the process grew by meanwhile."""
    log = simulated(rows, actions, seed)
    columns: dict[str, Any] = {k: torch.from_numpy(v) for k, v in log.items()}
    columns["propensities"] = columns.pop("mu")
    columns["reference"] = columns["propensities"]
    cluster = (torch.arange(actions) // 3).expand(rows, -1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    panel = Panel(("target",), {name: build(name)})
    for start in range(0, rows, 16_384):
        part = {k: v[start : start + 16_384] for k, v in columns.items()}
        extras = {"cluster": cluster[start : start + 16_384]}
        panel.add({("target", name): Query(**part, extras=extras)})
    cell, found = panel.chosen("target", name)
    drawn = panel.draws([cell], resamples, seed)[0, :, 2]
    low, high = np.quantile(drawn.numpy(), [0.025, 0.975])
    seconds = time.perf_counter() - begun
    assert low < found.gain < high
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": seconds, "megabytes": grown / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--actions", type=int, default=10)
    parser.add_argument("--turns", type=int, default=9, help="of each point estimate")
    parser.add_argument("--resamples", type=int, default=1000, help="of each interval, both sides")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", choices=EVERY, help="one estimator alone, without the peer")
    parser.add_argument("--alone", action="store_true", help="all of them, without the peer")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one:
        print(json.dumps(one(given.one, given.rows, given.actions, given.seed, given.resamples)))
        return
    ratios = scale(given.rows, given.actions, given.seed)
    if given.alone:
        print(json.dumps({name: round(ratio, 2) for name, ratio in ratios.items()}))
        return
    python = peer("obp-0.4.1", *PEER)
    log = simulated(given.rows, given.actions, given.seed)
    ratios |= compare(python, log, given.turns, given.resamples)
    print(json.dumps({name: round(ratio, 2) for name, ratio in ratios.items()}))


if __name__ == "__main__":
    main()
