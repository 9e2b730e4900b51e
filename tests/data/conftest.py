"""Small logs on disk, with known numbers in them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROWS = 120
Rows = dict[str, list[Any]]


@pytest.fixture
def rows() -> Rows:
    """120 decisions of a uniform policy over three actions."""
    rng = np.random.default_rng(0)
    return {
        "age": [int(a) for a in rng.integers(18, 90, ROWS)],
        "city": [str(c) for c in rng.choice(["Rome", "Oslo"], ROWS)],
        "arm": ["abc"[i % 3] for i in range(ROWS)],
        "reward": [float(r) for r in rng.integers(0, 2, ROWS)],
        "propensity": [1 / 3] * ROWS,
    }


def write(rows: Rows, path: Path) -> Path:
    """The rows in the format that the name asks for, by other means than the library's own."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(rows)
            writer.writerows(zip(*rows.values(), strict=True))
    else:
        lines = (dict(zip(rows, r, strict=True)) for r in zip(*rows.values(), strict=True))
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Rows, str], str]:
    """Writes rows into the current folder, so that errors name short paths."""
    monkeypatch.chdir(tmp_path)
    return lambda rows, name: str(write(rows, Path(name)))
