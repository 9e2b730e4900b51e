"""How often does the main job promote on episodes when nothing is better than the logged policy?

Simulates logs of short episodes with known behavior probabilities in which what is paid does not
depend on the actions, so every policy is worth exactly as much as the logged one, runs
`improve_trajectories` on each with its tilts as candidates, and prints the share of PROMOTE, with
the largest share that a true 5 % allows (95 % binomial bound). Two more columns of worlds: the
behavior policy estimated (which the claim does not cover), and an action that pays, for the power.

One core makes about 50 logs a minute; a killed run resumes from its cache.

    python benchmarks/episode_calibration.py [--logs 200] [--only short long]

The last line is one JSON object: for each regime without effect the bar over the observed rate, at
most 10; for the one with an effect the share of PROMOTE.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from verdict_worlds import default_cache, run_all

from surpass.data.records import About, Transitions
from surpass.improve.trajectories import improve_trajectories

LEVEL = 0.05


@dataclass(frozen=True)
class Regime:
    """Episodes of `steps` decisions among `actions`; a step pays 1 with chance sigmoid(base + pull
    s_0), and `effect` more where the action is the one that the state asks for."""

    name: str
    episodes: int
    steps: int
    actions: int
    base: float
    pull: float = 1.0
    drag: float = 0.0  # how far actions move the state
    effect: float = 0.0
    known: bool = True


REGIMES = (
    Regime("short", 200, 5, 2, -0.85),
    Regime("long", 150, 20, 3, -0.85, pull=0.0, drag=0.5),
    Regime("sparse", 300, 8, 2, -4.0),
    Regime("few", 60, 5, 3, -0.85),
    Regime("estimated", 200, 5, 2, -0.85, known=False),
    Regime("effect", 300, 5, 2, -0.85, effect=0.3),
)
BY_NAME = {r.name: r for r in REGIMES}


def make(regime: Regime, seed: int) -> Transitions:
    """One log: s' = 0.5 s + drag (a - mean) + noise in two dimensions."""
    g = torch.Generator().manual_seed(1_000_003 * REGIMES.index(regime) + seed)
    n, k = regime.episodes, regime.actions
    weight = torch.randn(2, k, generator=g)
    s = torch.randn(n, 2, generator=g)
    rows: dict[str, list[torch.Tensor]] = {}
    for t in range(regime.steps):
        mu = torch.softmax(0.7 * s @ weight, -1)
        a = torch.multinomial(mu, 1, generator=g)[:, 0]
        chance = torch.sigmoid(regime.base + regime.pull * s[:, 0])
        right = (s[:, 1] > 0).long() % k
        chance = (chance + regime.effect * (a == right)).clamp(0, 1)
        then = 0.5 * s + regime.drag * (a[:, None] - 0.5 * (k - 1)) / k
        then = then + 0.9 * torch.randn(n, 2, generator=g)
        last = torch.full((n,), t == regime.steps - 1)
        paid = (torch.rand(n, generator=g) < chance).float()
        logp = mu.gather(1, a[:, None])[:, 0].log()
        for name, column in {"obs": s, "action": a, "reward": paid, "next_obs": then,
                             "terminated": last, "logp": logp}.items():  # fmt: skip
            rows.setdefault(name, []).append(column)
        s = then
    c = {name: torch.stack(column, 1).flatten(0, 1) for name, column in rows.items()}
    return Transitions(
        obs=c["obs"], action=c["action"], reward=c["reward"], next_obs=c["next_obs"],
        terminated=c["terminated"], truncated=torch.zeros_like(c["terminated"]),
        episode=torch.arange(n).repeat_interleave(regime.steps),
        behavior_logp=c["logp"] if regime.known else None, batch_size=[len(c["reward"])],
    ).described(About(name=regime.name, spaces={"n_actions": k}))  # fmt: skip


def one_log(job: tuple[str, int]) -> dict[str, Any]:
    """The verdict on one simulated log."""
    name, seed = job
    torch.set_num_threads(1)
    regime = BY_NAME[name]
    found = improve_trajectories(
        make(regime, seed), "tilt", seed=seed, reward_limits=(0.0, 1.0), level=LEVEL,
        accept_estimated_behavior=True,
    )  # fmt: skip
    best = found.best
    assert best is not None
    return {"verdict": found.verdict, "p": best.p_value, "gain": best.gain, "low": best.gain_low}


def bar(logs: int) -> float:
    """The largest share of promotions that a true 5 % allows, 95 % binomial bound."""
    return float(stats.binom.ppf(1 - LEVEL, logs, LEVEL)) / logs


def code_mark() -> str:
    """A digest of the code that the figures depend on."""
    names = ("improve.trajectories", "improve.episode_candidates", "improve.episodes",
             "objectives.episode_gain", "evaluation.guarded")  # fmt: skip
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in names:
        digest.update(Path(str(import_module(f"surpass.{name}").__file__)).read_bytes())
    return digest.hexdigest()[:12]


def main() -> None:
    """Run what is missing, and print the table."""
    asked = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--logs", type=int, default=200, help="simulated logs per regime")
    asked.add_argument("--only", nargs="*", choices=list(BY_NAME), help="these regimes only")
    asked.add_argument("--jobs", type=int, default=1, help="processes")
    asked.add_argument("--cache", type=Path, default=default_cache(), help="of finished logs")
    given = asked.parse_args()
    jobs = dict.fromkeys(given.only or list(BY_NAME), given.logs)
    found = run_all(one_log, jobs, given.cache / f"episodes-{code_mark()}", given.jobs)
    ratios: dict[str, float] = {}
    print(f"{'regime':<12}{'logs':>6}{'PROMOTE':>10}{'REJECT':>9}{'p <= 5 %':>10}{'bar':>8}")
    for name, records in found.items():
        n, limit = len(records), bar(len(records))
        said = sum(r["verdict"] == "PROMOTE" for r in records) / n
        worse = sum(r["verdict"] == "REJECT" for r in records) / n
        proved = sum(r["p"] is not None and r["p"] <= LEVEL for r in records) / n
        print(f"{name:<12}{n:>6}{said:>10.1%}{worse:>9.1%}{proved:>10.1%}{limit:>8.1%}")
        effect = BY_NAME[name].effect > 0
        ratios[name] = said if effect else round(min(limit / max(said, 1e-9), 10.0), 2)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
