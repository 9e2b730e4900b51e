"""What is written is read back as it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from surpass.data import Decisions, open_log, write_log, write_rows
from surpass.data.records import About
from surpass.errors import InputError

ENDINGS = ["parquet", "arrow", "csv", "jsonl"]


@pytest.fixture
def log() -> Decisions:
    """150 decisions with every column, among three actions with unpleasant names."""
    torch.manual_seed(0)
    n = 150
    available = torch.rand(n, 3) < 0.8
    action = torch.arange(n) % 3
    available[torch.arange(n), action] = True
    p = torch.rand(n, 3, dtype=torch.float64) * available + available * 0.1
    p = p / p.sum(1, keepdim=True)
    return Decisions(
        context=torch.randn(n, 2),
        action=action,
        reward=torch.randn(n, dtype=torch.float64),
        propensity=p[torch.arange(n), action],
        propensities=p,
        available=available,
        position=torch.arange(n) % 2,
        cost=torch.rand(n, dtype=torch.float64),
        time=torch.arange(n, dtype=torch.float64) * 1.5,
        group=torch.arange(n) // 5,
        batch_size=[n],  # type: ignore[call-arg]
    ).described(
        About(
            name="made",
            actions=("red_hat", 'a "blue", one', "3"),
            names={"context": ("age", "city=Rome"), "position": ("top", "side")},
        )
    )


@pytest.mark.parametrize("ending", ENDINGS)
def test_round_trip(log: Decisions, tmp_path: Path, ending: str) -> None:
    path = write_log(log, tmp_path / f"log.{ending}")
    back = open_log(
        path, context="age,city=Rome", group="group", actions=list(log.about.actions)
    ).read()
    assert back.about.actions == log.about.actions
    assert back.about.names["context"] == log.about.names["context"]
    for name in ("context", "action", "reward", "propensity", "propensities", "available", "cost",
                 "time", "group"):  # fmt: skip
        assert torch.equal(getattr(back, name), getattr(log, name)), name
    assert back.position is not None and log.position is not None
    for mine, old in zip(back.position, log.position, strict=True):
        assert back.about.names["position"][mine] == log.about.names["position"][old]


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_the_file_says_which_column_is_what(log: Decisions, tmp_path: Path, ending: str) -> None:
    opened: Any = open_log(write_log(log, tmp_path / f"log.{ending}"))
    assert opened.columns.context == ("age", "city=Rome")
    assert opened.read().about.actions == log.about.actions
    assert open_log(tmp_path / f"log.{ending}", reward="age").columns.context == ("city=Rome",)  # type: ignore[attr-defined]


def test_batches_are_one_log(log: Decisions, tmp_path: Path) -> None:
    for ending in ENDINGS:
        whole = write_log(log, tmp_path / f"whole.{ending}")
        batches = (log[i : i + 40].described(log.about) for i in range(0, 150, 40))
        parts = write_log(batches, tmp_path / f"parts.{ending}")
        options = {"context": "age", "actions": list(log.about.actions)}
        one, two = open_log(whole, **options).read(), open_log(parts, **options).read()
        assert torch.equal(one.reward, two.reward) and torch.equal(one.context, two.context)


def test_raw_rows_of_a_service(tmp_path: Path) -> None:
    rows = [
        {"city": "Rome" if i % 2 else None, "age": i, "action": "ab"[i % 2],
         "reward": float(i % 4 == 1), "propensity": 0.5, "time": 1e9 + i} for i in range(100)
    ]  # fmt: skip
    for ending in ENDINGS:
        log = open_log(write_rows(rows, tmp_path / f"log.{ending}")).read()
        assert log.reward.tolist() == [r["reward"] for r in rows]
        assert log.time is not None and log.time.tolist() == [r["time"] for r in rows]
        assert log.context[:, 0].tolist() == list(range(100))


def test_nothing_is_left_when_writing_fails(log: Decisions, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_log(log[:100], path)
    before = path.read_bytes()

    def broken() -> Any:
        yield log[:50]
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        write_log(broken(), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["log.parquet"]


def test_what_cannot_be_written(log: Decisions, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the format '.xlsx' cannot be written; end the name in"):
        write_log(log, tmp_path / "log.xlsx")
    with pytest.raises(InputError, match="there are no rows to write"):
        write_log([], tmp_path / "log.csv")
    with pytest.raises(InputError, match="a column holds values of several types"):
        write_rows([{"a": 1}, {"a": "x"}], tmp_path / "log.csv")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written: "):
        write_log(log, tmp_path / "file" / "log.csv")
    clash = log.clone().described(About(names={"context": ("reward", "x")}))
    with pytest.raises(InputError, match="context has a column 'reward', which another column is"):
        write_log(clash, tmp_path / "log.csv")


def test_metadata_are_plain_json(log: Decisions, tmp_path: Path) -> None:
    path = write_log(log, tmp_path / "log.parquet")
    roles = json.loads(pq.read_schema(path).metadata[b"surpass.roles"])
    assert roles["action"] == "action" and roles["context"] == ["age", "city=Rome"]
    assert roles["propensities"] == [
        "propensity_red_hat",
        'propensity_a "blue", one',
        "propensity_3",
    ]
