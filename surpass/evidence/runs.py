"""The ledger: what every experiment came to, one JSON file per system, written only from runs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from surpass.errors import InputError, atomic
from surpass.evidence.declaration import (
    Bar,
    Experiment,
    Finding,
    Result,
    experiment,
    judge,
    overall,
)
from surpass.registry import LEDGER

__all__ = ["cache_folder", "describe_entry", "findings", "read", "run_one", "run_seed"]

Said = Callable[[str], None]


def cache_folder() -> Path:
    """Where unfinished runs keep their seeds: the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "surpass" / "evidence"


def run_seed(key: str, seed: int) -> dict[str, Any]:
    """One seed of one experiment, as plain values, with the seconds of processor time it took (its
    own and of what it started), which what else runs on the machine hardly changes."""
    import torch

    from surpass.zoo import Zoo

    torch.manual_seed(seed)
    declared = experiment(key)
    start = _processor_time()
    result = declared.run(seed, Zoo())
    if not isinstance(result, Result):
        raise InputError(f"the experiment of {key} gave {type(result).__name__}, not a Result")
    also = {
        name: {
            "ours": float(v[0]),
            "baseline": float(v[1]),
            "bar": asdict(v[2]) if len(v) > 2 else None,
        }
        for name, v in result.also.items()
    }
    return {
        "seed": seed,
        "ours": float(result.ours),
        "baseline": float(result.baseline),
        "also": also,
        "seconds": _processor_time() - start,
    }


def _processor_time() -> float:
    return sum(os.times()[:4])


def _partial(declared: Experiment) -> Path:
    return cache_folder() / f"{declared.key}-{declared.fingerprint}.jsonl"


def _kept(declared: Experiment) -> dict[int, dict[str, Any]]:
    path = _partial(declared)
    if not path.exists():
        return {}
    rows = (
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    )
    return {row["seed"]: row for row in rows}


def run_one(
    key: str,
    seeds: Iterable[int] | None = None,
    *,
    jobs: int = 1,
    say: Said = lambda _: None,
    store: bool = True,
) -> dict[str, Any]:
    """Run an experiment (only the seeds that no earlier run has left), judge it, and write its
    entry.

    Args:
        key: of the system. seeds: 0 to the declared number by default.
        jobs: seeds side by side, each in a process of its own.
        store: write the entry into the ledger.
    """
    declared = experiment(key)
    wanted = list(range(declared.seeds)) if seeds is None else list(seeds)
    kept = _kept(declared)
    missing = [s for s in wanted if s not in kept]
    path = _partial(declared)
    path.parent.mkdir(parents=True, exist_ok=True)

    def keep(row: dict[str, Any]) -> None:
        kept[row["seed"]] = row
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        say(
            f"{key}: seed {row['seed']}: {row['ours']:.4g} against {row['baseline']:.4g} "
            f"({row['seconds']:.0f} s)"
        )

    if jobs > 1 and len(missing) > 1:
        with ProcessPoolExecutor(min(jobs, len(missing)), mp_context=get_context("spawn")) as pool:
            for done in as_completed([pool.submit(run_seed, key, s) for s in missing]):
                keep(done.result())
    else:
        for seed in missing:
            keep(run_seed(key, seed))
    entry = _entry(declared, [kept[s] for s in wanted])
    if store:
        LEDGER.mkdir(parents=True, exist_ok=True)
        with atomic(LEDGER / f"{key}.json") as temporary:
            temporary.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    return entry


def findings(declared: Experiment, rows: list[dict[str, Any]]) -> list[Finding]:
    """The main metric and the further ones, each judged by its bar."""
    main = judge(
        declared.metric, [r["ours"] for r in rows], [r["baseline"] for r in rows], declared.bar
    )
    found = [main]
    for name, first in rows[0]["also"].items():
        bar = Bar(**first["bar"]) if first["bar"] else None
        ours = [r["also"][name]["ours"] for r in rows]
        found.append(judge(name, ours, [r["also"][name]["baseline"] for r in rows], bar))
    return found


def _entry(declared: Experiment, rows: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    found = findings(declared, rows)
    verdict = overall(found)
    return {
        "key": declared.key,
        "claim": declared.claim,
        "setting": declared.setting,
        "baseline": declared.baseline,
        "metric": declared.metric,
        "bar": str(declared.bar),
        "seeds": [r["seed"] for r in rows],
        "ours": list(found[0].ours),
        "theirs": list(found[0].baseline),
        "mean": found[0].mean,
        "low": found[0].low,
        "high": found[0].high,
        "verdict": verdict,
        "also": [{**asdict(f), "bar": str(f.bar) if f.bar else None} for f in found[1:]],
        "note": declared.note if verdict != "holds" else "",
        "seconds": round(sum(r["seconds"] for r in rows), 1),
        "versions": _versions(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {platform.machine()}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("surpass", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "source"
    return found


def read(key: str) -> dict[str, Any] | None:
    """A system's entry, or None."""
    path = LEDGER / f"{key}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def describe_entry(path: Path) -> str:
    """An entry in a few lines, for people."""
    e = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"\nEvidence: {e['verdict'].upper()} ({len(e['seeds'])} seeds, {e['date']})",
        f"  {e['claim']}",
        f"  {e['metric']}: {_mean(e['ours']):.4g} against {_mean(e['theirs']):.4g} "
        f"of {e['baseline']}",
        f"  {e['bar']}: {e['mean']:.4g}, 95 % interval {e['low']:.4g} to {e['high']:.4g}",
    ]
    for also in e["also"]:
        word = f" [{also['verdict']}; {also['bar']}]" if also["bar"] else ""
        lines.append(
            f"  {also['metric']}: {_mean(also['ours']):.4g} "
            f"against {_mean(also['baseline']):.4g}{word}"
        )
    if e.get("note"):
        lines.append(f"  {e['note']}")
    return "\n".join(lines)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
