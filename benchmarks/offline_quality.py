"""Returns of offline learners beside d3rlpy's, on the zoo's own logs, after equal updates.

    python benchmarks/offline_quality.py [--algorithms td3-bc iql cql] [--tasks hopper half-cheetah]
        [--seeds 3] [--updates td3-bc=3000 iql=3000 cql=400] [--episodes 40] [--log medium-replay]

Both sides get the same rows, batch 256, two layers of 256, the hyperparameters of the papers, and
equal numbers of updates; TD3+BC standardizes observations on both sides, as its paper does. The
final policies act without noise, from the same starts, in our environments; d3rlpy's runs in its
own virtual environment and is asked for actions over a pipe. Returns are normalized: 0 is random,
100 the best policy of the zoo's own training run on that task.

Every cell (task, algorithm, side, seed) runs in a process of its own and is kept as JSON in the
user's cache, so that a run that was killed goes on where it was. `not worse` says that the 95 %
interval of the paired difference (Student's t over seeds) does not lie below 0 as a whole: few
seeds can leave it wide, so read the interval. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
ALGORITHMS = ("td3-bc", "iql", "cql")
TASKS = {"hopper": "Hopper-v5", "half-cheetah": "HalfCheetah-v5"}
UPDATES = {"td3-bc": 3_000, "iql": 3_000, "cql": 400}
D3RLPY = "2.8.1"
STARTS = 77_000


# ----------------------------------------------------------------------------------------------
# one cell


def ours(algorithm: str, log: Any, updates: int, seed: int) -> tuple[Callable[[Any], Any], float]:
    """Our policy, and the seconds that training took."""
    import surpass

    begun = time.monotonic()
    trained = surpass.train(algorithm, log, steps=updates, seed=seed)
    return trained.policy, time.monotonic() - begun


def theirs(algorithm: str, log: Any, updates: int, seed: int) -> Any:
    """d3rlpy's policy, in a process of its own that is asked for actions."""
    import numpy as np
    import torch
    from peers import peer

    python = peer("d3rlpy", [f"d3rlpy=={D3RLPY}"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.npz"
        columns = ("obs", "action", "reward", "terminated", "truncated")
        np.savez(path, **{name: getattr(log, name).numpy() for name in columns})
        command = [str(python), __file__, "--act", str(path), "--algorithms", algorithm,
                   "--updates", f"{algorithm}={updates}", "--first-seed", str(seed)]  # fmt: skip
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": ""},
        )  # fmt: skip
        assert child.stdin is not None and child.stdout is not None
        ready = child.stdout.read(8)
    if len(ready) < 8:
        raise SystemExit(f"d3rlpy's {algorithm} died; run it with --act to see why")
    sending, receiving = child.stdin, child.stdout

    def act(obs: Any) -> Any:
        rows = obs.numpy().astype("<f4")
        sending.write(struct.pack("<2i", *rows.shape) + rows.tobytes())
        sending.flush()
        n, k = struct.unpack("<2i", _exactly(receiving, 8))
        return torch.frombuffer(bytearray(_exactly(receiving, 4 * n * k)), dtype=torch.float32
                                ).reshape(n, k)  # fmt: skip

    return act, struct.unpack("<d", ready)[0]


def _exactly(stream: IO[bytes], size: int) -> bytes:
    held = b""
    while len(held) < size:
        more = stream.read(size - len(held))
        if not more:
            raise SystemExit("d3rlpy's process ended while it was asked for actions")
        held += more
    return held


def answer(path: str, algorithm: str, updates: int, seed: int) -> None:
    """In d3rlpy's process: train, say how long it took, then give actions for observations."""
    import d3rlpy  # pyright: ignore[reportMissingImports]
    import numpy as np

    out, sys.stdout = sys.stdout.buffer, sys.stderr  # d3rlpy writes progress where answers go
    with np.load(path) as held:
        log = {name: held[name] for name in held.files}
    d3rlpy.seed(seed)
    dataset = d3rlpy.dataset.MDPDataset(
        log["obs"], log["action"], log["reward"], log["terminated"].astype(np.float32),
        log["truncated"].astype(np.float32),
    )  # fmt: skip
    standard = d3rlpy.preprocessing.StandardObservationScaler
    config = {
        "td3-bc": lambda: d3rlpy.algos.TD3PlusBCConfig(
            batch_size=256, observation_scaler=standard()
        ),
        "iql": lambda: d3rlpy.algos.IQLConfig(batch_size=256),
        # the weight of the penalty is fixed in both, as in the paper's experiments on MuJoCo
        "cql": lambda: d3rlpy.algos.CQLConfig(
            batch_size=256, alpha_learning_rate=0.0, conservative_weight=5.0
        ),
    }[algorithm]()
    learner = config.create(device="cpu")
    begun = time.monotonic()
    learner.fit(
        dataset, n_steps=updates, n_steps_per_epoch=updates, show_progress=False,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
    )  # fmt: skip
    out.write(struct.pack("<d", time.monotonic() - begun))
    out.flush()
    while len(head := sys.stdin.buffer.read(8)) == 8:
        n, d = struct.unpack("<2i", head)
        obs = np.frombuffer(sys.stdin.buffer.read(4 * n * d), "<f4").reshape(n, d)
        action = np.asarray(learner.predict(obs), dtype="<f4")
        out.write(struct.pack("<2i", *action.shape) + action.tobytes())
        out.flush()


def cell(side: str, algorithm: str, task: str, log: str, updates: int, seed: int,
         episodes: int, path: Path) -> None:  # fmt: skip
    """Train, play, and keep what came of it."""
    import torch

    from surpass.evaluation.rollouts import roll_out
    from surpass.tasks.catalog import normalized
    from surpass.zoo import Zoo

    rows = Zoo()(f"{task}-{log}")
    torch.manual_seed(seed)
    policy, seconds = (ours if side == "ours" else theirs)(algorithm, rows, updates, seed)
    played = roll_out(policy, TASKS[task], episodes, seed=STARTS, copies=episodes)
    found = {
        "side": side, "algorithm": algorithm, "task": task, "seed": seed, "updates": updates,
        "return": played.mean, "error": played.error,
        "score": float(normalized(TASKS[task], torch.tensor(played.mean))),
        "seconds": round(seconds, 1), "length": float(played.lengths.double().mean()),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(found) + "\n")
    temporary.replace(path)


# ----------------------------------------------------------------------------------------------
# all of them


def place(side: str, algorithm: str, task: str, log: str, updates: int, seed: int,
          episodes: int) -> Path:  # fmt: skip
    """Where a cell is kept: the rows' checksum and everything that was asked for name it."""
    from surpass.zoo import Zoo

    zoo = Zoo()
    zoo.build(f"{task}-{log}")
    checksum = zoo.provenance(f"{task}-{log}")["files"]["log.parquet"][:12]
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "surpass" / "benchmarks" / "offline_quality" / checksum
    return folder / f"{task}-{algorithm}-{side}-{updates}-{episodes}-seed{seed}.json"


def measured(side: str, algorithm: str, task: str, log: str, updates: int, seed: int,
             episodes: int) -> dict[str, Any]:  # fmt: skip
    """A cell, run in a process of its own where it is not there yet."""
    asked = (side, algorithm, task, log, updates, seed, episodes)
    path = place(*asked)
    if not path.exists():
        command = [sys.executable, __file__, "--cell", json.dumps([*asked, str(path)])]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{side} {algorithm} on {task} failed:\n{done.stderr}")
    found = json.loads(path.read_text())
    print(f"{task} {algorithm} seed {seed} {side}: {found['score']:.1f} "
          f"({found['seconds']:.0f} s)", flush=True)  # fmt: skip
    return found


def interval(values: Sequence[float]) -> list[float] | None:
    """The ends of the 95 % interval of the mean by Student's t; None of a single value."""
    from scipy.stats import t

    mean, n = statistics.mean(values), len(values)
    if n < 2:
        return None
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / n**0.5
    return [round(mean - half, 2), round(mean + half, 2)]


def summary(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Both sides and the difference, over pairs of cells of one seed."""
    mine, other = ([p[i]["score"] for p in pairs] for i in (0, 1))
    apart = [a - b for a, b in zip(mine, other, strict=True)]
    ends = interval(apart)
    return {
        "ours": round(statistics.mean(mine), 2), "ours interval": interval(mine),
        "d3rlpy": round(statistics.mean(other), 2), "d3rlpy interval": interval(other),
        "difference": round(statistics.mean(apart), 2), "interval": ends,
        "not worse": None if ends is None else ends[1] >= 0.0,
        "seconds": [round(statistics.median(p[i]["seconds"] for p in pairs), 1) for i in (0, 1)],
    }  # fmt: skip


def main() -> None:
    """Run what is missing, and print one JSON object last."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), choices=ALGORITHMS)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--log", default="medium-replay")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", nargs="+", default=[], metavar="NAME=N",
                        help="a number for all, or one per algorithm")  # fmt: skip
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--first-seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    parser.add_argument("--act", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    updates = dict(UPDATES)
    for word in asked.updates:
        name, _, number = word.rpartition("=")
        updates |= {name: int(number)} if name else dict.fromkeys(updates, int(number))
    if asked.act:
        answer(asked.act, asked.algorithms[0], updates[asked.algorithms[0]], asked.first_seed)
        return
    if asked.cell:
        side, *rest, path = json.loads(asked.cell)
        cell(side, *rest, path=Path(path))
        return
    table: dict[str, Any] = {}
    for algorithm in asked.algorithms:
        both: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for task in asked.tasks:
            pairs = []
            for seed in range(asked.seeds):
                rest = (algorithm, task, asked.log, updates[algorithm], seed, asked.episodes)
                pairs.append((measured("ours", *rest), measured("d3rlpy", *rest)))
            table[f"{algorithm} {task}"] = {"updates": updates[algorithm], **summary(pairs)}
            both += pairs
        table[f"{algorithm} pooled"] = {"updates": updates[algorithm], **summary(both)}
    print(json.dumps({
        "benchmark": "offline_quality", "log": asked.log, "seeds": asked.seeds,
        "episodes": asked.episodes, "score": "0 random, 100 the zoo's best policy", **table,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
