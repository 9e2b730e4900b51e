"""Memory and time of evaluating a policy on Parquet logs of 1, 5 and 20 million rows.

Each log has ten context columns, ten actions and the propensities of the logged actions only; it is
written to a temporary folder in row groups (about 1.6 GB for the largest) and removed after. Each
size is evaluated in a fresh process, whose largest resident memory is what the operating system
counted.
`--estimators` is what to run: by default IPS, SNIPS and DR with a ridge reward model, intervals
included.

Takes about three minutes on two cores. The last line is one JSON object: 2 GB over the resident
memory of the largest log; and the processor time per row of the smallest log over that of the
largest (1 is linear, more is better than linear: what is fitted once counts less).
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

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

CONTEXT, ACTIONS, PIECE = 10, 10, 250_000
WEIGHTS = np.random.default_rng(7).standard_normal((CONTEXT, ACTIONS)) / 3


def softmax(scores: np.ndarray) -> np.ndarray:
    weight = np.exp(scores - scores.max(1, keepdims=True))
    return weight / weight.sum(1, keepdims=True)


class Sharper:
    """The policy to evaluate: the logging policy's scores, doubled."""

    def probabilities(self, context: torch.Tensor) -> torch.Tensor:
        return torch.softmax(2 * context.to(torch.float64) @ torch.from_numpy(WEIGHTS), -1)


def write(path: Path, rows: int) -> None:
    """A log of that many rows, 250,000 at a time."""
    rng = np.random.default_rng(0)
    writer: pq.ParquetWriter | None = None
    for start in range(0, rows, PIECE):
        n = min(PIECE, rows - start)
        x = rng.standard_normal((n, CONTEXT)).astype(np.float32)
        mu = softmax(x @ WEIGHTS)
        action = (rng.random((n, 1)) > mu.cumsum(1)).sum(1).clip(0, ACTIONS - 1)
        chance = 1 / (1 + np.exp(1.5 - x @ WEIGHTS))
        every = np.arange(n)
        columns = {f"x{k}": x[:, k] for k in range(CONTEXT)} | {
            "action": action,
            "reward": (rng.random(n) < chance[every, action]).astype(np.float64),
            "propensity": mu[every, action],
        }
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def measure(path: Path, estimators: list[str]) -> None:
    """In a process of its own: evaluate, print seconds, peak resident bytes and the DR interval."""
    from surpass.data import open_table
    from surpass.evaluation.decisions import evaluate

    before = peak()
    start, work = time.perf_counter(), time.process_time()
    log = open_table(path, action="action", reward="reward", propensity="propensity")
    found = evaluate(Sharper(), log, estimators)
    seconds, work = time.perf_counter() - start, time.process_time() - work
    last = found.results[-1]
    out = {"seconds": seconds, "work": work, "peak": peak(), "import": before, "rows": found.rows,
           "value": last.value, "error": last.error}  # fmt: skip
    print(json.dumps(out))


def peak() -> int:
    """The largest resident memory of this process so far, in bytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 5, 20])
    parser.add_argument("--estimators", nargs="+", default=["ips", "snips", "dr"])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure, given.estimators)
        return
    results = []
    heads = ("seconds", "CPU s", "us / row", "peak GB", "at start")
    print(f"{'rows':>12}" + "".join(f"{h:>10}" for h in heads) + f"{'value':>20}")
    with tempfile.TemporaryDirectory(prefix="surpass-memory-") as folder:
        for millions in given.millions:
            path = Path(folder) / "log.parquet"
            write(path, int(millions * 1e6))
            command = [sys.executable, __file__, "--measure", str(path), "--estimators"]
            # a child's peak begins at its parent's size, so a small shell stands between
            run = subprocess.run(
                ["/bin/sh", "-c", 'exec "$@"', "sh", *command, *given.estimators],
                stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ),
            )  # fmt: skip
            found = json.loads(run.stdout.strip().splitlines()[-1])
            results.append(found)
            print(
                f"{found['rows']:>12,}{found['seconds']:>10.1f}"
                f"{found['work']:>10.1f}{1e6 * found['work'] / found['rows']:>10.2f}"
                f"{found['peak'] / 1e9:>10.2f}{found['import'] / 1e9:>10.2f}"
                f"{found['value']:>12.5f} +- {found['error']:.5f}",
                flush=True,
            )
    first, last = results[0], results[-1]
    linear = (first["work"] / first["rows"]) / (last["work"] / last["rows"])
    print(json.dumps({"memory": round(2e9 / last["peak"], 2), "linearity": round(linear, 2)}))


if __name__ == "__main__":
    main()
