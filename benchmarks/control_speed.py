"""Updates per second of offline and online actor-critic learners, beside d3rlpy and JAX.

    python benchmarks/control_speed.py [--algorithms td3-bc iql sac cql] [--rounds 7] [--seconds 4]
    python benchmarks/control_speed.py --cpu-time           # on a machine that others use too
    python benchmarks/control_speed.py --device cuda        # no peers: updates/s, and seeds by vmap

Batch 256, two hidden layers of 256, observations of 17 and actions of 6 numbers. Every contender
runs in a process of its own and is measured in turns, so that a change of the machine's clock meets
all alike; ratios are medians over the rounds. Peers live in virtual environments of their own in
the user's cache, made at first use. `limit` is what the step could reach if it were nothing but its
matrix products: their FLOPs (counted in the eager step, all of them, thin ones too) at the rate
that one plain product of the shape that holds most of them reaches in the same run.

With `--cpu-time` every contender has one thread and is measured in the processor time of its
process, so that the load of other programs counts little; nothing then says how well it uses more
cores.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "surpass" / "peers"
ROOT = Path(__file__).resolve().parent.parent
ALGORITHMS = ("td3-bc", "iql", "sac", "cql")
BARS = {"td3-bc": 2.2, "iql": 2.2, "sac": 1.9, "cql": 1.3}
BATCH, OBS, ACT, HIDDEN, ROWS = 256, 17, 6, 256, 100_000
PEERS = {"d3rlpy": ["d3rlpy==2.8.1"], "jax": ["jax==0.6.2", "numpy"]}


# ----------------------------------------------------------------------------------------------
# contenders: each is a function that makes `n` updates


def ours(algorithm: str, device: str = "cpu", seeds: int | None = None, unroll: int | None = None):
    """Our own learner, compiled, on a log of random rows."""
    engine = make_engine(algorithm, device, seeds, unroll, compile=True)
    period = engine.unroll

    def updates(n: int) -> int:
        n = math.ceil(n / period) * period
        engine.advance(n)
        return n

    return updates


def make_engine(algorithm, device="cpu", seeds=None, unroll=None, compile=True):
    """The engine of a recipe on a log of random rows."""
    import torch

    from surpass.data.records import Transitions
    from surpass.forms import log
    from surpass.methods.actor_critic import soft_actor_critic
    from surpass.parts import needs_of
    from surpass.registry import recipe
    from surpass.training.engine import Engine
    from surpass.training.streams import open_stream, spaces_of

    g = torch.Generator().manual_seed(0)
    n = ROWS
    rows = Transitions(
        obs=torch.randn(n, OBS, generator=g),
        action=torch.rand(n, ACT, generator=g) * 2 - 1,
        reward=torch.randn(n, generator=g),
        next_obs=torch.randn(n, OBS, generator=g),
        terminated=torch.rand(n, generator=g) < 0.01,
        truncated=torch.zeros(n, dtype=torch.bool),
        episode=torch.arange(n) // 1000,
        batch_size=[n],  # pyright: ignore[reportCallIssue]
    )
    form = soft_actor_critic(source=log()) if algorithm == "sac" else recipe(algorithm)()
    spaces = spaces_of(rows)
    needs = tuple(x for x in needs_of(form) if isinstance(x, str))
    stream = open_stream(form.source, {"log": rows}, spaces, needs, device)
    return Engine(form, stream, spaces, device=device, seeds=seeds, unroll=unroll, compile=compile)


def d3rlpy_updates(algorithm: str):
    """The same learner of d3rlpy, its own batches drawn from its own buffer."""
    import d3rlpy  # pyright: ignore[reportMissingImports]
    import numpy as np

    rng = np.random.default_rng(0)
    terminals = np.zeros(ROWS, dtype=np.float32)
    terminals[999::1000] = 1.0
    dataset = d3rlpy.dataset.MDPDataset(
        rng.standard_normal((ROWS, OBS)).astype(np.float32),
        rng.uniform(-1, 1, (ROWS, ACT)).astype(np.float32),
        rng.standard_normal(ROWS).astype(np.float32),
        terminals,
    )
    algos = d3rlpy.algos
    config = {
        "td3-bc": lambda: algos.TD3PlusBCConfig(batch_size=BATCH),
        "iql": lambda: algos.IQLConfig(batch_size=BATCH),
        "sac": lambda: algos.SACConfig(batch_size=BATCH),
        # the weight of the penalty is fixed in both, as in Cal-QL's experiments
        "cql": lambda: algos.CQLConfig(
            batch_size=BATCH, alpha_learning_rate=0.0, conservative_weight=5.0
        ),
    }[algorithm]()
    learner = config.create(device="cpu")
    learner.build_with_dataset(dataset)

    def updates(n: int) -> int:
        for _ in range(n):
            learner.update(dataset.sample_transition_batch(BATCH))
        return n

    return updates


def jax_updates(algorithm: str):
    """TD3+BC in JAX, the whole loop of updates jitted: the two critics batched by vmap."""
    if algorithm != "td3-bc":
        raise SystemExit("the JAX step is TD3+BC only")
    import jax  # pyright: ignore[reportMissingImports]
    import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
    import numpy as np

    rng = np.random.default_rng(0)
    data = {
        "obs": rng.standard_normal((ROWS, OBS)),
        "action": rng.uniform(-1, 1, (ROWS, ACT)),
        "reward": rng.standard_normal(ROWS),
        "next_obs": rng.standard_normal((ROWS, OBS)),
        "alive": (rng.uniform(size=ROWS) > 0.01).astype(float),
    }
    data = {k: jnp.asarray(v, jnp.float32) for k, v in data.items()}

    def init(key, sizes):
        layers = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            key, k1, k2 = jax.random.split(key, 3)
            bound = 1.0 / math.sqrt(fan_in)
            w = jax.random.uniform(k1, (fan_in, fan_out), minval=-bound, maxval=bound)
            layers.append((w, jax.random.uniform(k2, (fan_out,), minval=-bound, maxval=bound)))
        return layers

    def forward(layers, x):
        for w, b in layers[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = layers[-1]
        return x @ w + b

    def policy(layers, obs):
        return jnp.tanh(forward(layers, obs))

    def critics(layers, obs, action):
        x = jnp.concatenate([obs, action], -1)
        return jax.vmap(forward, (0, None))(layers, x)[..., 0]

    def adam(p, g, m, v, t, lr=3e-4):
        tree = jax.tree_util.tree_map
        m = tree(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = tree(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        a, b = lr / (1 - 0.9**t), 1 / (1 - 0.999**t)
        return tree(lambda p, m, v: p - a * m / (jnp.sqrt(v * b) + 1e-8), p, m, v), m, v

    def one(state, key, train_actor):
        pi, q, pi_t, q_t, mp, vp, mq, vq, t = state
        k1, k2 = jax.random.split(key)
        index = jax.random.randint(k1, (BATCH,), 0, ROWS)
        obs, action, reward, next_obs, alive = (
            data[k][index] for k in ("obs", "action", "reward", "next_obs", "alive")
        )
        noise = jnp.clip(0.2 * jax.random.normal(k2, (BATCH, ACT)), -0.5, 0.5)
        after = jnp.clip(policy(pi_t, next_obs) + noise, -1, 1)
        y = reward + 0.99 * alive * critics(q_t, next_obs, after).min(0)
        t = t + 1.0
        g = jax.grad(lambda q: ((critics(q, obs, action) - y) ** 2).mean(-1).sum())(q)
        q, mq, vq = adam(q, g, mq, vq, t)
        if train_actor:

            def loss(pi):
                chosen = policy(pi, obs)
                first = jax.tree_util.tree_map(lambda x: x[:1], q)
                value = critics(first, obs, chosen)[0]
                scale = 2.5 / jax.lax.stop_gradient(jnp.abs(value).mean())
                return -(scale * value).mean() + ((chosen - action) ** 2).mean()

            pi, mp, vp = adam(pi, jax.grad(loss)(pi), mp, vp, t / 2)
            follow = lambda a, b: a + 0.005 * (b - a)  # noqa: E731
            pi_t = jax.tree_util.tree_map(follow, pi_t, pi)
            q_t = jax.tree_util.tree_map(follow, q_t, q)
        return (pi, q, pi_t, q_t, mp, vp, mq, vq, t)

    def pair(state, key):
        a, b = jax.random.split(key)
        return one(one(state, a, False), b, True), None

    @jax.jit
    def hundred(state, key):
        return jax.lax.scan(pair, state, jax.random.split(key, 50))[0]

    key = jax.random.PRNGKey(0)
    pi = init(key, (OBS, HIDDEN, HIDDEN, ACT))
    sizes = (OBS + ACT, HIDDEN, HIDDEN, 1)
    q = jax.vmap(lambda k: init(k, sizes))(jax.random.split(key, 2))
    zero = lambda t: jax.tree_util.tree_map(jnp.zeros_like, t)  # noqa: E731
    held = {"state": (pi, q, pi, q, zero(pi), zero(pi), zero(q), zero(q), jnp.float32(0))}

    def updates(n: int) -> int:
        calls = math.ceil(n / 100)
        for i in range(calls):
            held["state"] = hundred(held["state"], jax.random.PRNGKey(i))
        jax.block_until_ready(held["state"])
        return calls * 100

    return updates


# ----------------------------------------------------------------------------------------------
# the limit


@functools.cache
def products_of(algorithm: str, device: str = "cpu") -> tuple[dict[tuple, int], float]:
    """Every matrix product of a step by shape, with its count, and the FLOPs of one update."""
    from torch.utils._python_dispatch import TorchDispatchMode

    engine = make_engine(algorithm, device, compile=False)
    seen: dict[tuple, int] = {}

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.overloadpacket.__name__
            if name in ("mm", "bmm"):
                a, b = args[0].shape, args[1].shape
                n = a[0] if name == "bmm" else 1
                shape = (n, a[-2], a[-1], b[-1])
                seen[shape] = seen.get(shape, 0) + 1
            return func(*args, **(kwargs or {}))

    updates = engine.period * 2
    with Counting():
        engine.advance(updates)
    flops = sum(2.0 * math.prod(shape) * count for shape, count in seen.items()) / updates
    return seen, flops


def limit_of(algorithm: str, device: str = "cpu") -> dict[str, float]:
    """Updates per second if a step were its matrix products at the rate of a plain one."""
    import torch

    seen, flops = products_of(algorithm, device)
    n, m, k, o = max(seen, key=lambda s: math.prod(s) * seen[s])
    a, b = torch.randn(n, m, k, device=device), torch.randn(n, k, o, device=device)
    out = torch.empty(n, m, o, device=device)

    def sync() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    rates, clock = [], now()
    for _ in range(60):
        sync()
        start = clock()
        for _ in range(50):
            torch.bmm(a, b, out=out)
        sync()
        rates.append(50 * 2.0 * n * m * k * o / (clock() - start))
    rate = statistics.median(rates[10:])
    return {"flops": flops, "rate": rate, "updates": rate / flops}


# ----------------------------------------------------------------------------------------------
# processes


def now():
    """The clock: of the wall, or of the processor time of this process."""
    return time.process_time if os.environ.get("CONTROL_SPEED_CLOCK") else time.perf_counter


def serve(contender: str, algorithm: str, device: str) -> None:
    """A child: builds a contender, then measures for as many seconds as each line asks."""
    clock = now()
    make = {"ours": ours, "d3rlpy": d3rlpy_updates, "jax": jax_updates}
    if contender == "limit":
        print("ready", flush=True)
        for _ in sys.stdin:
            print(json.dumps(limit_of(algorithm, device)), flush=True)
        return
    updates = (
        make[contender](algorithm, device) if contender == "ours" else make[contender](algorithm)
    )
    updates(20)
    print("ready", flush=True)
    for line in sys.stdin:
        seconds, done, start = float(line), 0, clock()
        while clock() - start < seconds:
            done += updates(20)
        print(json.dumps({"rate": done / (clock() - start)}), flush=True)


class Child:
    """A contender in its own process."""

    def __init__(self, python: str, contender: str, algorithm: str, device: str = "cpu") -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT) if contender in ("ours", "limit") else ""}
        command = [python, __file__, "--serve", contender, "--algorithms", algorithm]
        self.process = subprocess.Popen(
            [*command, "--device", device], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=env,
        )  # fmt: skip
        self._until("ready")

    def _until(self, word: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == word:
                return
        raise SystemExit("a contender died; run it alone with --serve to see why")

    def measure(self, seconds: float) -> dict:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit("a contender died while it was measured")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def peer(name: str) -> str | None:
    """The python of a peer's virtual environment, made at first use; None when it cannot be."""
    home = CACHE / name
    python = home / "bin" / "python"
    if python.exists():
        return str(python)
    print(f"making the virtual environment of {name} in {home} ...", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(home)]).returncode == 0
    install = [str(python), "-m", "pip", "install", "-q", *PEERS[name]]
    if not made or subprocess.run(install).returncode:
        print(f"{name} could not be installed; its column is left out")
        return None
    return str(python)


def compare(algorithm: str, rounds: int, seconds: float) -> dict:
    """One algorithm beside its peers, in turns."""
    pythons = {"d3rlpy": peer("d3rlpy")}
    if algorithm == "td3-bc":
        pythons["jax"] = peer("jax")
    children = {"ours": Child(sys.executable, "ours", algorithm)}
    children["limit"] = Child(sys.executable, "limit", algorithm)
    children |= {n: Child(p, n, algorithm) for n, p in pythons.items() if p}
    found: dict[str, list[float]] = {name: [] for name in children}
    for r in range(rounds + 1):
        for name, child in children.items():
            value = child.measure(seconds if r else 1.0)
            if r:
                found[name].append(value["updates"] if name == "limit" else value["rate"])
    for child in children.values():
        child.close()
    out: dict = {n: round(statistics.median(v), 1) for n, v in found.items()}
    for name in found:
        if name != "ours":
            ratios = [a / b for a, b in zip(found["ours"], found[name], strict=True)]
            out[f"over_{name}"] = round(statistics.median(ratios), 3)
    out["bar"] = BARS[algorithm]
    out["met"] = out.get("over_d3rlpy", 0) >= BARS[algorithm] and out["over_limit"] >= 0.7
    return out


def on_gpu(algorithms: list[str]) -> dict:
    """Updates per second on the GPU, alone and with several seeds by vmap."""
    import torch

    table: dict = {"device": torch.cuda.get_device_name()}
    for algorithm in algorithms:
        row: dict = {"limit": round(limit_of(algorithm, "cuda")["updates"], 1)}
        for seeds in (None, 8, 32):
            updates = ours(algorithm, "cuda", seeds)
            updates(100)
            torch.cuda.synchronize()
            start, done = time.perf_counter(), 0
            while time.perf_counter() - start < 5.0:
                done += updates(200)
                torch.cuda.synchronize()
            rate = done / (time.perf_counter() - start)
            row["one" if seeds is None else f"seeds{seeds}"] = round(rate * (seeds or 1), 1)
        table[algorithm] = row
        print(algorithm, row, flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--serve", default="")
    args = parser.parse_args()
    if args.cpu_time:
        one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ |= {"CONTROL_SPEED_CLOCK": "cpu", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
                       "XLA_FLAGS": one}  # fmt: skip
    if args.serve:
        serve(args.serve, args.algorithms[0], args.device)
        return
    if args.device == "cuda":
        print(json.dumps({"benchmark": "control_speed", **on_gpu(args.algorithms)}))
        return
    table = {}
    for algorithm in args.algorithms:
        table[algorithm] = compare(algorithm, args.rounds, args.seconds)
        print(algorithm, table[algorithm], flush=True)
    clock = "processor time, one thread" if args.cpu_time else "wall, all cores"
    print(
        json.dumps({"benchmark": "control_speed", "clock": clock, "cores": os.cpu_count(), **table})
    )


if __name__ == "__main__":
    main()
