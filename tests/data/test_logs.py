"""Logs of every format, whole and in a stream."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch

from surpass.data import Decisions, HeldLog, TableLog, from_table, open_log
from surpass.data.encoders import Encoder
from surpass.data.splits import learning_rows

Rows = dict[str, list[Any]]
Put = Callable[[Rows, str], str]


def same(a: Decisions, b: Decisions) -> bool:
    names = ("context", "action", "reward", "propensity", "propensities", "available", "position",
             "cost", "time", "group")  # fmt: skip
    pairs = [(getattr(a, n), getattr(b, n)) for n in names]
    return all((x is None) == (y is None) and (x is None or torch.equal(x, y)) for x, y in pairs)


@pytest.fixture
def rich(rows: Rows) -> Rows:
    """The rows with every other role, and missing context values."""
    rng = np.random.default_rng(4)
    missing = [None if i % 7 == 0 else c for i, c in enumerate(rows["city"])]
    return {
        **rows, "city": missing, "user_id": [f"u{i // 3}" for i in range(120)],
        "timestamp": [f"2026-03-01T{i // 60:02d}:{i % 60:02d}:00" for i in range(120)],
        "slot": [int(s) for s in rng.integers(1, 4, 120)],
        "cost": [float(c) for c in rng.integers(0, 5, 120)], "row_id": list(range(120)),
    }  # fmt: skip


def test_every_format_reads_the_same(rich: Rows, put: Put) -> None:
    first = open_log(rich).read()
    assert first.reward.tolist() == rich["reward"]
    assert [first.about.actions[a] for a in first.action] == rich["arm"]
    assert first.time is not None and first.group is not None and first.position is not None
    assert (first.time - first.time[0]).tolist() == [60.0 * i for i in range(120)]
    assert [first.about.names["position"][p] for p in first.position] == [
        str(s) for s in rich["slot"]
    ]
    for ending in ("csv", "parquet", "jsonl"):
        assert same(open_log(put(rich, f"log.{ending}")).read(), first)
    table = pa.table(rich)
    pyarrow.feather.write_feather(table, "log.feather", compression="lz4")
    with gzip.open("log.csv.gz", "wb") as packed:
        packed.write(Path("log.csv").read_bytes())
    Path("log.tsv").write_text(Path("log.csv").read_text().replace(",", "\t"))
    frame = pd.DataFrame(rich)
    for other in ("log.feather", "log.csv.gz", "log.tsv", table, frame, pl.DataFrame(rich)):
        assert same(open_log(other).read(), first)


def test_groups_are_the_groups(rich: Rows) -> None:
    group = open_log(rich).read().group
    assert group is not None
    assert len(set(group.tolist())) == 40 == int(group.max()) + 1
    assert all(group[i] == group[3 * (i // 3)] for i in range(120))


@pytest.mark.parametrize("size", [7, 50, 1000])
def test_a_stream_is_the_log(rich: Rows, put: Put, size: int) -> None:
    log = open_log(put(rich, "log.parquet"))
    assert isinstance(log, TableLog)
    whole = log.read(encoder=log.encoder)
    parts = list(log.batches(size))
    assert [len(p) for p in parts[:-1]] == [size] * (len(parts) - 1)
    for name in ("context", "action", "reward", "propensity", "position", "cost", "time"):
        joined = torch.cat([getattr(p, name) for p in parts])
        assert torch.equal(joined, getattr(whole, name))
    codes = torch.cat([p.group for p in parts])
    assert torch.equal(torch.unique(codes, return_inverse=True)[1].bincount(), torch.full((40,), 3))
    assert all(p.about is parts[0].about for p in parts)
    held = HeldLog("held", whole)
    assert torch.equal(torch.cat([b.reward for b in held.batches(size)]), whole.reward)


def test_a_folder_is_its_parts_in_order(rich: Rows, put: Put) -> None:
    whole = open_log(put(rich, "log.csv")).read()
    for ending in ("csv", "parquet", "jsonl"):
        folder = Path(f"parts-{ending}")
        (folder / "day=2").mkdir(parents=True)
        for name, cut in (("a", slice(0, 50)), ("b", slice(50, 90)), ("day=2/c", slice(90, 120))):
            put({k: v[cut] for k, v in rich.items()}, f"{folder}/{name}.{ending}")
        (folder / "_SUCCESS").touch()
        (folder / "notes.txt").write_text("not a log")
        assert same(open_log(folder).read(), whole)


def test_numbers_of_several_types_in_a_folder(rows: Rows, put: Put) -> None:
    whole = open_log(put(rows, "log.csv")).read()
    Path("parts").mkdir()
    halves = ({k: v[:60] for k, v in rows.items()}, {k: v[60:] for k, v in rows.items()})
    put(halves[0] | {"age": [float(a) for a in halves[0]["age"]]}, "parts/a.parquet")
    put(halves[1] | {"reward": [int(r) for r in halves[1]["reward"]]}, "parts/b.parquet")
    assert same(open_log("parts").read(), whole)


def test_types_that_change_late_in_a_text_file(rows: Rows, put: Put, monkeypatch: Any) -> None:
    """A column whole in the first blocks and fractional, or text, later."""
    import surpass.data.files as files

    monkeypatch.setattr(files, "BLOCK", 1024)
    ages = [*rows["age"][:119], 30.5]
    for ending in ("csv", "jsonl"):
        late = {**rows, "age": ages, "note": [None] * 118 + ["x", "y"]}
        table = pa.Table.from_batches(list(open_log(put(late, f"log.{ending}")).raw()))  # type: ignore[attr-defined]
        assert table["age"].to_pylist() == ages
        assert table["note"].to_pylist() == late["note"]


def test_the_scan(rich: Rows, put: Put) -> None:
    log = open_log(put(rich, "log.parquet"))
    assert isinstance(log, TableLog)
    scan = log.scan
    assert scan.rows == 120 and scan.actions == ("a", "b", "c") and scan.counts == (40, 40, 40)
    assert scan.values == (0.0, 1.0)
    assert scan.reward_mean == pytest.approx(np.mean(rich["reward"]))
    assert scan.smallest_propensity == 1 / 3
    assert scan.positions == ("1", "2", "3")
    assert scan.in_order and scan.time is not None and scan.time[1] - scan.time[0] == 119 * 60
    backwards = open_log({k: v[::-1] for k, v in rich.items()})
    assert isinstance(backwards, TableLog) and not backwards.scan.in_order


def test_full_rows_of_propensities(rows: Rows) -> None:
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 120)
    arms = [["a", "b", "c"].index(a) for a in rows["arm"]]
    held = {k: v for k, v in rows.items() if k != "propensity"}
    by_name = open_log({**held, **{f"propensity_{a}": p[:, k] for k, a in enumerate("abc")}}).read()
    by_list = open_log({**held, "arm": arms, "propensities": p}).read()
    for log in (by_name, by_list):
        assert log.propensities is not None
        np.testing.assert_array_equal(log.propensities.numpy(), p)
        np.testing.assert_array_equal(log.propensity.numpy(), p[np.arange(120), arms])
        assert log.action.tolist() == arms


def test_rounded_propensities_sum_to_one(rows: Rows) -> None:
    rounded = {"propensity_a": 0.333, "propensity_b": 0.333, "propensity_c": 0.3335}
    log = open_log({**rows, **{name: [p] * 120 for name, p in rounded.items()}}).read()
    assert log.propensities is not None
    first = log.propensities[0].tolist()
    assert first == pytest.approx([0.333 / 0.9995, 0.333 / 0.9995, 0.3335 / 0.9995], rel=1e-12)
    own = log.propensities.gather(1, log.action[:, None])[:, 0]
    assert torch.equal(log.propensity, own)


def test_lists_name_actions_that_were_never_logged(rows: Rows) -> None:
    held = {**rows, "arm": [i % 2 for i in range(120)], "propensity": np.full((120, 4), 0.25)}
    log = open_log(held).read()
    assert log.about.actions == ("0", "1", "2", "3") and log.n_actions == 4


def test_uniform_over_what_is_available(rows: Rows) -> None:
    offers = [
        ["a", "b", "c"] if i % 2 else ["a", "b", "c"][: 1 + i % 3] or ["a"] for i in range(120)
    ]
    held = {**rows, "offers": offers}
    log = open_log(held, propensity="uniform", available="offers").read()
    assert log.available is not None and log.propensities is not None
    assert log.available.sum(1).tolist() == [len(o) for o in offers]
    assert log.propensity.tolist() == [1 / len(o) for o in offers]
    assert torch.equal(log.propensities > 0, log.available)
    flags = {f"available_{a}": [a in o for o in offers] for a in "abc"}
    assert torch.equal(open_log({**rows, **flags}).read().available, log.available)  # type: ignore[arg-type]


def test_named_actions_keep_their_order(rows: Rows) -> None:
    log = open_log(rows, actions="c,b,a,never").read()
    assert log.about.actions == ("c", "b", "a", "never")
    assert log.action.tolist() == ["cba".index(a) for a in rows["arm"]]


def test_the_encoder_sees_the_first_learning_rows_only(rows: Rows) -> None:
    first = learning_rows(120, seed=5)
    words = ["late"] * 120
    for i in first:
        words[i] = "early"
    log = from_table({**rows, "word": words}, seed=5).read()
    assert log.about.encoder.fitted_on == len(first) == 36
    assert "word=early" in log.about.names["context"]
    assert "word=late" not in log.about.names["context"]
    other = log.context[:, log.about.names["context"].index("word=(other)")]
    assert other.nonzero()[:, 0].tolist() == [i for i in range(120) if words[i] == "late"]
    chosen = from_table({**rows, "word": words}).read(fit_on=range(120))
    assert {"word=early", "word=late"} <= set(chosen.about.names["context"])


def test_an_encoder_of_another_log(rows: Rows) -> None:
    encoder = Encoder.fit({"age": [0.0, 100.0], "city": ["Rome", "Bern"]}, min_count=1)
    log = open_log(rows, encoder=encoder).read()
    assert log.about.names["context"] == ("age", "city=Bern", "city=Rome", "city=(other)")
    assert log.context[:, 0].tolist() == rows["age"]


def test_positions_are_looked_at_by_the_policy(rich: Rows) -> None:
    names = open_log(rich).read().about.names["context"]
    assert tuple(n for n in names if n.startswith("slot"))[:3] == ("slot=1", "slot=2", "slot=3")


def test_times_of_every_kind(rows: Rows) -> None:
    moments = pd.date_range("2026-01-01", periods=120, freq="h")
    wanted = [1767225600.0 + 3600 * i for i in range(120)]
    forms: list[Any] = [
        moments, moments.tz_localize("UTC"), [m.isoformat() for m in moments],
        [m.isoformat() + "+00:00" for m in moments], wanted,
        [f"{m.isoformat()}Z" if i % 2 else m.isoformat() for i, m in enumerate(moments)],
    ]  # fmt: skip
    for form in forms:
        time = open_log(pd.DataFrame({**rows, "time": form})).read().time
        assert time is not None and time.tolist() == wanted


MEMORY = """
import resource, sys
from surpass.data import open_log
for path in sys.argv[1:]:
    log = open_log(path)
    total = sum(float(b.reward.sum()) for b in log.batches())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, total)
"""


def test_a_stream_takes_constant_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 60_000
    columns = {f"x{j}": rng.normal(size=n) for j in range(10)}
    columns |= {"action": rng.integers(0, 5, n), "reward": (rng.random(n) < 0.1).astype(float)}
    table = pa.table({**columns, "propensity": np.full(n, 0.2)})
    paths = []
    for copies in (4, 16):  # 25 and 100 MB of columns
        paths.append(str(tmp_path / f"{copies}.parquet"))
        with pq.ParquetWriter(paths[-1], table.schema) as writer:
            for _ in range(copies):
                writer.write_table(table)
    command = [sys.executable, "-c", MEMORY, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (small, first), (large, second) = (map(float, s.split()) for s in done.stdout.splitlines())
    once = columns["reward"].sum()
    assert (first, second) == (4 * once, 16 * once)
    assert large - small < 40  # MB; the larger log has 75 MB more
