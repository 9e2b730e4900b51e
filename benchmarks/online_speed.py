"""Environment steps per second and final return of online SAC and PPO, beside Stable-Baselines3.

    python benchmarks/online_speed.py [--seeds 3] [--sac-steps 10000] [--ppo-steps 100000]
    python benchmarks/online_speed.py --cpu-time          # on a machine that others use too

HalfCheetah-v5, the peer's default hyperparameters, the same update-to-data ratio: SAC makes one
update of batch 256 per step, PPO ten epochs of minibatches of 64 on 2048 steps of 8 copies. Every
run has a process of its own; the two libraries take turns. Speed is the median over stretches after
the first, so that compiling and warming up do not count (`seconds to start` says how long they
took). Returns are means of ten episodes of the final policy. With `--cpu-time` every contender has
one thread and is measured in the processor time of its process.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENV = "HalfCheetah-v5"
BARS = {"sac": 1.7, "ppo": 2.5}
STRETCH = {"sac": 500, "ppo": 2_048}
COPIES, HORIZON, PIECES, EPOCHS = 8, 256, 32, 10


class Clock:
    """Steps per second of each stretch."""

    def __init__(self, cpu: bool) -> None:
        self.now = time.process_time if cpu else time.perf_counter
        self.begun, self.marks = self.now(), []

    def mark(self, steps: float) -> None:
        """So many environment steps were made by now."""
        self.marks.append((steps, self.now()))

    def speed(self) -> float:
        """The median over the stretches after the first."""
        pairs = zip(self.marks[1:], self.marks[2:], strict=False)
        return statistics.median((b[0] - a[0]) / (b[1] - a[1]) for a, b in pairs)


def ours(algorithm: str, steps: int, seed: int, clock: Clock) -> float:
    """Our recipe; gives the mean return of its policy."""
    import surpass
    from surpass.evaluation.rollouts import roll_out

    if algorithm == "sac":
        recipe, every = surpass.sac(warm=100), STRETCH["sac"]
    else:
        recipe = surpass.ppo(envs=COPIES, horizon=HORIZON, epochs=EPOCHS, minibatches=PIECES)
        every = EPOCHS * PIECES

    def note(step: int, metrics: dict[str, float], trained: Any) -> None:
        clock.mark(metrics["env.steps"])

    trained = surpass.train(
        recipe, task=ENV, steps=steps, seed=seed, callback=note, log_every=every
    )
    return roll_out(trained, ENV, 10, copies=10, seed=1_000).mean


def theirs(algorithm: str, steps: int, seed: int, clock: Clock) -> float:
    """Stable-Baselines3; gives the mean return of its policy."""
    import gymnasium
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    class Note(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps % STRETCH[algorithm] == 0:
                clock.mark(self.num_timesteps)
            return True

    if algorithm == "sac":
        model = SAC("MlpPolicy", ENV, seed=seed, device="cpu")
    else:
        envs = make_vec_env(ENV, COPIES, seed=seed)
        model = PPO("MlpPolicy", envs, n_steps=HORIZON, seed=seed, device="cpu")
    model.learn(steps, callback=Note())
    env = gymnasium.make(ENV)
    env.reset(seed=1_000)
    return float(evaluate_policy(model, env, 10, warn=False)[0])


def worker(arguments: argparse.Namespace) -> None:
    """One run, reported as JSON on the last line."""
    if arguments.cpu_time:
        import torch

        torch.set_num_threads(1)
    clock = Clock(arguments.cpu_time)
    run = ours if arguments.worker == "ours" else theirs
    found = run(arguments.algorithm, arguments.steps, arguments.seed, clock)
    first = clock.marks[0]
    print(json.dumps({
        "speed": clock.speed(), "return": found,
        "start": first[1] - clock.begun - first[0] / clock.speed(),
    }))  # fmt: skip


def measured(python: Path | str, who: str, algorithm: str, steps: int, seed: int, cpu: bool) -> Any:
    """One run in a process of its own."""
    command = [str(python), __file__, "--worker", who, "--algorithm", algorithm,
               "--steps", str(steps), "--seed", str(seed)]  # fmt: skip
    environment = dict(os.environ)
    environment["PYTHONPATH"] = str(ROOT) if who == "ours" else ""
    if cpu:
        command.append("--cpu-time")
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{who} {algorithm} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(python: Path, algorithm: str, steps: int, seeds: int, cpu: bool) -> dict[str, Any]:
    """Both libraries, seed by seed, in turns."""
    runs: dict[str, list[Any]] = {"ours": [], "sb3": []}
    for seed in range(seeds):
        for who, interpreter in (("ours", sys.executable), ("sb3", python)):
            runs[who].append(measured(interpreter, who, algorithm, steps, seed, cpu))
            print(f"{algorithm} seed {seed} {who}: {runs[who][-1]}", flush=True)
    ratios = [a["speed"] / b["speed"] for a, b in zip(runs["ours"], runs["sb3"], strict=True)]
    apart = [a["return"] - b["return"] for a, b in zip(runs["ours"], runs["sb3"], strict=True)]
    out: dict[str, Any] = {
        "steps": steps, "ratio": round(statistics.median(ratios), 2), "bar": BARS[algorithm],
        "met": statistics.median(ratios) >= BARS[algorithm],
        "return difference": round(statistics.mean(apart), 1),
    }  # fmt: skip
    if seeds > 2:  # Student's t with two degrees of freedom and more
        t = {2: 4.303, 3: 3.182, 4: 2.776}.get(seeds - 1, 2.262)
        half = t * statistics.stdev(apart) / seeds**0.5
        out["interval"] = [round(statistics.mean(apart) - half, 1),
                           round(statistics.mean(apart) + half, 1)]  # fmt: skip
    for who, found in runs.items():
        out[who] = {
            "steps per second": round(statistics.median(r["speed"] for r in found), 1),
            "returns": [round(r["return"], 1) for r in found],
            "seconds to start": round(statistics.median(r["start"] for r in found), 1),
        }
    return out


def main() -> None:
    """Compare, and print one JSON object last."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--algorithms", nargs="+", default=["sac", "ppo"], choices=list(BARS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sac-steps", type=int, default=10_000)
    parser.add_argument("--ppo-steps", type=int, default=100_000)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--worker", choices=["ours", "sb3"], help=argparse.SUPPRESS)
    parser.add_argument("--algorithm", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments)
        return
    from peers import peer

    python = peer(
        "stable-baselines3-2.9",
        ["torch==2.13.0"],
        ["stable-baselines3==2.9.*", "gymnasium[mujoco]"],
    )
    steps = {"sac": arguments.sac_steps, "ppo": arguments.ppo_steps}
    found = {a: compare(python, a, steps[a], arguments.seeds, arguments.cpu_time)
             for a in arguments.algorithms}  # fmt: skip
    clock = "processor time, one thread" if arguments.cpu_time else "wall clock"
    print(json.dumps({"environment": ENV, "clock": clock, "cores": os.cpu_count(), **found}))


if __name__ == "__main__":
    main()
