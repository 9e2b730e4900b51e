"""Speed of off-policy evaluation beside Open Bandit Pipeline 0.4.1: one million rows, ten actions.

Both get the same arrays in double precision and one thread, and take turns in the same run. Point
estimates of IPS, SNIPS and DR are timed as one call each (OBP: `estimate_policy_value`), medians of
several turns; intervals as one call with the same number of bootstrap resamples (OBP:
`estimate_interval`), per resample, what comes before the resamples included.

Takes about three minutes; on first use five more to make the peer's environment (1.5 GB in the
user's cache folder). The last line is one JSON object: time of the peer over ours, so more than 1
is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from peers import peer

from surpass.evaluation.estimation import point
from surpass.evaluation.intervals import bootstrap
from surpass.methods.ope.estimators import dr, ips, snips
from surpass.objectives.views import Query

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
        "target": target,
        "q": np.clip(q + 0.1 * rng.standard_normal(q.shape), 0, 1),
    }


def ours(name: str, log: dict[str, np.ndarray], resamples: int) -> tuple[float, float]:
    """Seconds and value of one call, from the numpy arrays on."""
    start = time.perf_counter()
    query = Query(**{k: torch.from_numpy(v) for k, v in log.items()})
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--actions", type=int, default=10)
    parser.add_argument("--turns", type=int, default=9, help="of each point estimate")
    parser.add_argument("--resamples", type=int, default=1000, help="of each interval, both sides")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    python = peer("obp-0.4.1", *PEER)
    log = simulated(given.rows, given.actions, given.seed)
    ratios = compare(python, log, given.turns, given.resamples)
    print(json.dumps({name: round(ratio, 2) for name, ratio in ratios.items()}))


if __name__ == "__main__":
    main()
