"""How often does the verdict promote when something better can be learned, and does a HOLD name
enough rows?

Simulates uniform logging over ten actions with five context columns, where the best policy is 20 %
better than the reference, and runs the product's own procedure on each log. Beside it stand the t
test on the same scores and two oracles that know the rewards' means: the greedy ("sharp") and the
most provable ("tilt") policy, tested on 70 % of the rows. About half an hour on two cores for 400
logs in each setting; a killed run resumes from its cache.

--hold draws logs that end in HOLD, then for each a fresh log of the size that the HOLD names, and
prints how often that one ends in PROMOTE (80 % is aimed at).

The last line is one JSON object: for each setting that has a bar, the power over the bar; for
    --hold, the share over
80 %.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from verdict_worlds import (
    Log,
    code_mark,
    default_cache,
    effect_world,
    rng_of,
    run_all,
    t_p,
    true_gain,
)

from surpass.evaluation.guarded import guarded_p
from surpass.improve.hold import promising_gain, rows_to_settle
from surpass.improve.procedure import decide
from surpass.improve.scoring import score
from surpass.policies.tilted import tilted

# (world, reward rate, rows): the bar for the share of PROMOTE, or None where there is none
SETTINGS: dict[tuple[str, float, int], float | None] = {
    ("graded", 0.3, 20_000): 0.95,
    ("graded", 0.2, 20_000): 0.90,
    ("one arm", 0.2, 20_000): 0.75,
    ("graded", 0.1, 20_000): 0.40,
    ("one arm", 0.1, 20_000): 0.40,
    ("graded", 0.1, 50_000): 0.90,
    ("one best", 0.1, 20_000): None,
    ("one best", 0.2, 20_000): None,
    ("one best", 0.3, 20_000): None,
}
HOLDS = (("graded", 0.3, 3_000), ("one arm", 0.3, 3_000), ("graded", 0.1, 10_000))
MOST_ROWS = 120_000
LEVEL = 0.05


def named(setting: tuple[str, float, int]) -> str:
    """A setting as the name of its cache file."""
    world, rate, rows = setting
    return f"{world.replace(' ', '-')}-{rate:g}-{rows}"


BY_NAME = {named(s): s for s in (*SETTINGS, *HOLDS)}


def one_log(job: tuple[str, int]) -> dict[str, Any]:
    """The verdict on one simulated log, the true gain of what it tested, and the oracles."""
    name, seed = job
    world, rate, rows = BY_NAME[name]
    log = effect_world(world, rate, rows)(rng_of(name, seed))
    found = decide(log.rows, log.range, level=LEVEL, seed=seed)
    best = found.best
    record: dict[str, Any] = {
        "verdict": found.verdict,
        "p": best.p if best else 1.0,
        "t": t_p(found.tested[0].scores) if best else 1.0,
        "gain": true_gain(best, log, seed) if best else 0.0,
        "first gain": true_gain(found.tested[0], log, seed) if best else 0.0,
        "low": best.gain_low if best else 0.0,
        "high": best.gain_high if best else 0.0,
        "rate": rate,
    }
    return record | oracles(log)


def oracles(log: Log) -> dict[str, float]:
    """The guarded p of policies that know the means, on 70 % of the rows."""
    assert log.truth is not None
    rows = log.rows.take(torch.arange(int(0.7 * len(log.rows))))
    assert rows.reference is not None
    q = torch.from_numpy(log.truth(rows.context.numpy()))
    d = q - q.mean(1, keepdim=True)
    d = d / d.std()
    out = {}
    for name, strength in (("sharp", 1000.0), ("tilt", 0.5)):
        found = score(rows, tilted(rows.reference, d, strength), q)
        out[name] = guarded_p(found.phi.numpy(), float(found.lower))
    return out


def one_hold(job: tuple[str, int]) -> dict[str, Any]:
    """A log; if it ends in HOLD, the rows it names, and the verdict on a fresh log of the same
    world of that size."""
    name, seed = job
    world, rate, rows = BY_NAME[name.removesuffix("+hold")]
    first = effect_world(world, rate, rows)(rng_of(name, seed))
    found = decide(first.rows, first.range, level=LEVEL, seed=seed)
    best = found.best
    if found.verdict != "HOLD" or best is None:
        return {"held": False, "verdict": found.verdict}
    x = best.scores
    likely = promising_gain(best.gain, float(x.std(ddof=1)), x.size)
    effect = likely if likely > 0 else 0.05 * float(first.rows.reward.mean())
    named_rows = rows_to_settle(effect, float(x.std(ddof=1)), best.guard, LEVEL) / 0.7
    record: dict[str, Any] = {
        "held": True,
        "rows": float(named_rows),
        "promising": bool(likely > 0),
    }
    if named_rows > MOST_ROWS:
        return record
    # the same world again: its effects are drawn from the same stream before the rows are
    again = effect_world(world, rate, int(np.ceil(named_rows)), effects=rng_of(name, seed))
    second = again(rng_of(f"{name}-fresh", seed))
    return record | {"fresh": decide(second.rows, second.range, level=LEVEL, seed=seed).verdict}


def power_table(found: dict[str, list[dict[str, Any]]]) -> tuple[str, dict[str, float]]:
    """The printed table, shares in percent, and the ratios to the bars."""
    columns = ("PROMOTE", "t test", "sharp", "tilt", "true lift", "first lift", "false", "covered")
    lines = [
        "world".ljust(10)
        + " rate   rows  logs"
        + "".join(c.rjust(11) for c in columns)
        + "  s / log"
    ]
    ratios: dict[str, float] = {}
    for name, records in found.items():
        world, rate, rows = BY_NAME[name]
        row = _summary(records, rate)
        cells = "".join(f"{100 * row[c]:11.1f}" for c in columns)
        seconds = np.mean([r["seconds"] for r in records])
        lines.append(f"{world:10}{rate:5.2f}{rows:7d}{len(records):6d}{cells}{seconds:9.2f}")
        bar = SETTINGS[world, rate, rows]
        if bar is not None:
            ratios[f"power {name}"] = row["PROMOTE"] / bar
        ratios[f"coverage {name}"] = row["covered"] / 0.938
    return "\n".join(lines), ratios


def _summary(records: Sequence[dict[str, Any]], rate: float) -> dict[str, float]:
    promoted = [r for r in records if r["verdict"] == "PROMOTE"]
    return {
        "PROMOTE": len(promoted) / len(records),
        "t test": float(np.mean([r["t"] <= LEVEL for r in records])),
        "sharp": float(np.mean([r["sharp"] <= LEVEL for r in records])),
        "tilt": float(np.mean([r["tilt"] <= LEVEL for r in records])),
        "true lift": float(np.mean([r["gain"] / rate for r in promoted])) if promoted else 0.0,
        "first lift": float(np.mean([r["first gain"] / rate for r in promoted]))
        if promoted
        else 0.0,
        "false": float(np.mean([r["gain"] <= 0 for r in promoted])) if promoted else 0.0,
        "covered": float(np.mean([r["low"] <= r["gain"] for r in records])),
    }


def hold_table(found: dict[str, list[dict[str, Any]]]) -> tuple[str, dict[str, float]]:
    """For logs that ended in HOLD: the rows named, and how fresh logs of that size end."""
    heads = ("logs", "held", "promising", "median rows", "too many", "tried", "PROMOTE %")
    lines = ["HOLD in".ljust(22) + "".join(h.rjust(12) for h in heads)]
    ratios: dict[str, float] = {}
    for name, records in found.items():
        held = [r for r in records if r["held"]]
        promising = [r for r in held if r["promising"]]
        likely = [r["fresh"] == "PROMOTE" for r in promising if "fresh" in r]
        rows = float(np.median([r["rows"] for r in promising])) if promising else np.nan
        counts = (
            len(records),
            len(held),
            len(promising),
            round(rows),
            len(promising) - len(likely),
        )
        share = 100 * float(np.mean(likely)) if likely else np.nan
        cells = "".join(f"{c:12d}" for c in (*counts, len(likely)))
        lines.append(f"{name:22}{cells}{share:12.1f}")
        if likely:
            ratios[f"hold {name}"] = float(np.mean(likely)) / 0.8
    return "\n".join(lines), ratios


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--logs", type=int, default=400, help="simulated logs per setting")
    parser.add_argument(
        "--only", nargs="*", choices=[named(s) for s in SETTINGS], help="these settings only"
    )
    parser.add_argument(
        "--hold", type=int, default=0, metavar="LOGS", help="logs per setting of the HOLD study"
    )
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 16), help="processes")
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="where finished logs are kept"
    )
    options = parser.parse_args()
    cache = options.cache / f"power-{code_mark()}"
    ratios: dict[str, float] = {}
    if options.logs:
        jobs = dict.fromkeys(options.only or [named(s) for s in SETTINGS], options.logs)
        text, ratios = power_table(run_all(one_log, jobs, cache, options.jobs))
        print(text)
    if options.hold:
        jobs = {f"{named(s)}+hold": options.hold for s in HOLDS}
        text, more = hold_table(run_all(one_hold, jobs, cache, options.jobs))
        print(text)
        ratios |= more
    print(json.dumps({k: round(v, 4) for k, v in ratios.items()}))


if __name__ == "__main__":
    main()
