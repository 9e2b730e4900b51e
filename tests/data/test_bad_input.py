"""Every bad input gives one exact line."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

from surpass.data import open_log
from surpass.errors import InputError

Rows = dict[str, list[Any]]
Put = Callable[[Rows, str], str]
P = "log the probability with which the action was chosen, in (0, 1]"
ALL = "log the probability of every action"


def line(source: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        open_log(source, **options).read()
    text = str(caught.value)
    assert "\n" not in text
    return text


def full(rows: Rows) -> Rows:
    return rows | {f"propensity_{a}": [1 / 3] * len(rows["arm"]) for a in "abc"}


def changed(rows: Rows, column: str, row: int, value: Any) -> Rows:
    """`row` counts from 1."""
    column_values = list(rows[column])
    column_values[row - 1] = value
    return rows | {column: column_values}


def without(rows: Rows, column: str) -> Rows:
    return {k: v for k, v in rows.items() if k != column}


def renamed(rows: Rows, old: str, new: str) -> Rows:
    return {new if k == old else k: v for k, v in rows.items()}


CASES: list[tuple[str, Callable[[Rows], Rows], dict[str, Any], str]] = [
    (
        "propensity 0",
        lambda r: changed(r, "propensity", 17, 0.0), {},
        f"column 'propensity', row 17: propensity 0, but the action was taken; {P}",
    ),
    (
        "propensity negative",
        lambda r: changed(r, "propensity", 120, -0.25), {},
        f"column 'propensity', row 120: propensity -0.25 is negative; {P}",
    ),
    (
        "propensity above 1",
        lambda r: changed(r, "propensity", 1, 1.5), {},
        f"column 'propensity', row 1: propensity 1.5 is above 1; {P}",
    ),
    (
        "propensity missing",
        lambda r: changed(r, "propensity", 40, None), {},
        f"column 'propensity', row 40: the propensity is missing (NaN); {P}",
    ),
    (
        "the first bad row of several columns",
        lambda r: changed(changed(r, "propensity", 40, 2.0), "reward", 39, None), {},
        "column 'reward', row 39: the reward is missing; write the reward, 0 where nothing "
        "happened, or drop the row",
    ),
    (
        "propensity of another action",
        lambda r: changed(
            changed(changed(full(r), "propensity_a", 4, 0.2), "propensity_b", 4, 7 / 15),
            "propensity", 4, 7 / 15,
        ), {},
        "column 'propensity', row 4: propensity 0.466667 is not that of the logged action 'a', "
        "0.2, it is that of action 'b'; log the propensity of the action that was taken",
    ),
    (
        "full row that does not sum to 1",
        lambda r: changed(full(r), "propensity_b", 10, 0.5), {},
        "column 'propensity_a .. propensity_c', row 10: the propensities sum to 1.16667, not to "
        f"1; {ALL}",
    ),
    (
        "full row with a negative entry",
        lambda r: changed(full(r), "propensity_b", 10, -0.5), {},
        f"column 'propensity_b', row 10: propensity -0.5 is not in [0, 1]; {ALL}",
    ),
    (
        "full row with 0 for the logged action",
        lambda r: changed(
            changed(changed(full(without(r, "propensity")), "propensity_a", 4, 0.0),
                    "propensity_b", 4, 1.0), "propensity_c", 4, 0.0,
        ), {},
        f"column 'propensity_a', row 4: propensity 0 of action 'a', but the action was taken; {P}",
    ),
    (
        "constant reward",
        lambda r: r | {"reward": [1.0] * 120}, {},
        "column 'reward': the reward is 1 in every one of 120 rows; nothing can be learned from "
        "it; name another column with --reward",
    ),
    (
        "reward missing everywhere",
        lambda r: r | {"reward": [None] * 120}, {},
        "column 'reward': the reward is missing in every row; name another column",
    ),
    (
        "one action",
        lambda r: r | {"arm": ["a"] * 120}, {},
        "column 'arm': only one action was ever logged, 'a'; nothing can be compared; log with "
        "some exploration",
    ),
    (
        "an id as the action",
        lambda r: r | {"arm": [f"a{i}" for i in range(120)]}, {},
        "column 'arm': 120 different actions in 120 rows; it looks like an id; name the action's "
        "column with --action",
    ),
    (
        "duplicate row id",
        lambda r: r | {"row_id": [*range(119), 7]}, {},
        "column 'row_id', row 120: this row id was already in row 8; drop the duplicates, or "
        "--row-id none if it is not an id",
    ),
    (
        "too few rows",
        lambda r: {k: v[:99] for k, v in r.items()}, {},
        "99 rows, at least 100 are needed; log more decisions",
    ),
    (
        "misnamed column",
        lambda r: renamed(r, "reward", "rewrad"), {},
        "no reward column was recognized (did you mean 'rewrad'?); name it with --reward COLUMN; "
        "it has age, city, arm, rewrad, propensity",
    ),
    (
        "missing propensity",
        lambda r: without(r, "propensity"), {},
        "no propensity column was recognized; name it with --propensity COLUMN, or --propensity "
        "uniform if every action was equally likely; it has age, city, arm, reward",
    ),
    (
        "a column that does not exist",
        lambda r: r, {"group": "citty"},
        "column 'citty' (asked for as group) is missing (did you mean 'city'?); it has age, city, "
        "arm, reward, propensity",
    ),
    (
        "the reward as context",
        lambda r: r, {"context": "age,reward"},
        "column 'reward': is the reward, so a policy cannot look at it; leave it out of --context",
    ),
    (
        "an action that was not named",
        lambda r: r, {"actions": "a,b"},
        "column 'arm', row 3: action 'c' is none of the 2 actions; name all actions, in the order "
        "of the propensities",
    ),
    (
        "not a time",
        lambda r: r | {"time": ["2026-01-31T12:00:00"] * 44 + ["yesterday"] * 76}, {},
        "column 'time', row 45: 'yesterday' is not a time; write it as 2026-01-31T12:00:00, or as "
        "seconds",
    ),
    (
        "a missing group",
        lambda r: r | {"user_id": [*range(60), None, *range(59)]}, {},
        "column 'user_id', row 61: the group is missing; fill it, or --group none",
    ),
]  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize(
    ("change", "options", "wanted"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_bad_rows_and_columns(
    rows: Rows, put: Put, ending: str, change: Callable[[Rows], Rows], options: dict[str, Any],
    wanted: str,
) -> None:  # fmt: skip
    name = put(change(rows), f"log.{ending}")
    assert line(name, **options) == f"{name}: {wanted}"


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_strings_in_numeric_columns(rows: Rows, put: Put, ending: str) -> None:
    texts = rows | {"propensity": ["0.3"] * 120, "age": [f"{20 + i}" for i in range(120)]}
    name = put(changed(texts, "propensity", 6, "hi"), f"log.{ending}")
    assert line(name) == (
        f"{name}: column 'propensity', row 6: 'hi' is not a number; write a number, or leave it "
        "empty if it is missing"
    )
    name = put(changed(texts, "age", 100, "old"), f"log.{ending}")
    assert line(name) == (
        f"{name}: column 'age', row 100: 'old' is not a number, the others are; write a number or "
        "leave it empty, or --categorical age"
    )
    assert "age=(other)" in open_log(name, categorical="age").read().about.names["context"]


def test_mixed_types_in_jsonl(rows: Rows, put: Put) -> None:
    assert line(put(changed(rows, "propensity", 8, "hi"), "log.jsonl")) == (
        "log.jsonl: column 'propensity', row 8: \"hi\" is text, but a number in row 1; write one "
        "type per column"
    )


def test_infinite_reward(rows: Rows, put: Put) -> None:
    assert line(put(changed(rows, "reward", 6, math.inf), "log.parquet")) == (
        "log.parquet: column 'reward', row 6: inf is not a finite reward; write the reward, 0 "
        "where nothing happened, or drop the row"
    )


def test_actions_that_were_not_available(rows: Rows, put: Put) -> None:
    offers: Rows = rows | {"offers": [["a", "b", "c"]] * 120}
    name = put(changed(offers, "offers", 4, ["b", "c"]), "log.parquet")
    assert line(name, available="offers") == (
        "log.parquet: column 'offers', row 4: action 'a' was taken but not available; mend one of "
        "them"
    )
    name = put(changed(full(offers), "offers", 4, ["a", "c"]), "log.parquet")
    assert line(name, available="offers") == (
        "log.parquet: column 'propensity_b', row 4: propensity 0.333333 of action 'b', which was "
        "not available; mend one of them"
    )


def test_lists_of_propensities(rows: Rows, put: Put) -> None:
    lists: Rows = rows | {"propensity": [[0.2, 0.3, 0.5]] * 120}
    name = put(changed(lists, "propensity", 9, [0.5, 0.5]), "log.parquet")
    assert line(name, actions="a,b,c") == (
        "log.parquet: column 'propensity', row 9: the list has 2 entries, 3 are expected; write a "
        "number for each action"
    )
    two = put(lists | {"arm": ["a", "b"] * 60}, "two.parquet")
    assert line(two) == (
        "two.parquet: column 'propensity': 3 propensities a row, but 2 actions were logged; name "
        "all actions in the order of the propensities with --actions"
    )


# ----------------------------------------------------------------------------------------------
# files


def test_truncated_and_damaged_parquet(rows: Rows, put: Put) -> None:
    whole = Path(put(rows, "log.parquet")).read_bytes()
    Path("cut.parquet").write_bytes(whole[:-50])
    assert line("cut.parquet") == (
        "cut.parquet: the Parquet file is truncated: its end is missing; copy or write it again"
    )
    Path("hole.parquet").write_bytes(whole[:100] + bytes(600) + whole[700:])
    assert line("hole.parquet").startswith("hole.parquet: reading stopped, the Parquet file is dam")


@pytest.mark.parametrize("new", [ipc.new_file, ipc.new_stream])
def test_truncated_arrow(rows: Rows, put: Put, new: Any) -> None:
    put(rows, "log.csv")
    table = pa.table(rows)
    with new("log.arrow", table.schema) as writer:
        writer.write_table(table)
    assert open_log("log.arrow").read().reward.tolist() == rows["reward"]
    whole = Path("log.arrow").read_bytes()
    Path("cut.arrow").write_bytes(whole[: len(whole) // 2])
    assert line("cut.arrow").startswith("cut.arrow: the Arrow file is truncated or damaged (")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            {12: '33,"Rome,a,1.0,0.3'},
            "column 'city', row 12: a quote is opened and not closed; close or remove it",
        ),
        (
            {120: '33,Rome,"a,1.0,0.3'},
            "column 'arm', row 120: a quote is opened and not closed; close or remove it",
        ),
        (
            {12: '33,"Rome,a,1.0,0.3', 14: '33,"Rome,a,1.0,0.3'},
            "column 'city', row 12: a quote is opened and not closed; close or remove it",
        ),
        (
            {7: "33,Rome,a,1.0"},
            "row 7: 4 values, but the header has 5; mend the line, or quote values that hold the "
            "separator",
        ),
        (
            {7: "33,Rome, Italy,a,1.0,0.3"},
            "row 7: 6 values, but the header has 5; mend the line, or quote values that hold the "
            "separator",
        ),
    ],
)
def test_broken_csv_lines(rows: Rows, put: Put, change: dict[int, str], wanted: str) -> None:
    lines = Path(put(rows, "log.csv")).read_text().splitlines()
    for row, text in change.items():
        lines[row] = text
    Path("broken.csv").write_text("\n".join(lines))
    assert line("broken.csv") == f"broken.csv: {wanted}"


def test_quotes_that_are_right(rows: Rows, put: Put) -> None:
    lines = Path(put(rows, "log.csv")).read_text().splitlines()
    lines[12] = '33,"Rome,\nthe ""old"" one",a,1.0,0.3'
    lines[20] = '33,5" disk,a,1.0,0.3'
    Path("quotes.csv").write_text("\n".join(lines))
    log = open_log("quotes.csv")
    assert log.rows == 120
    table = next(log.raw())  # type: ignore[attr-defined]
    assert table["city"][11].as_py() == 'Rome,\nthe "old" one'
    assert table["city"][19].as_py() == '5" disk'


@pytest.mark.parametrize(
    ("row", "text", "wanted"),
    [
        (
            6,
            '{"age": 3,',
            "row 6: not valid JSON (Expecting property name enclosed in double quotes); write one "
            "JSON object per line",
        ),
        (9, "[1, 2]", "row 9: not a JSON object; write one JSON object per line"),
    ],
)
def test_broken_json_lines(rows: Rows, put: Put, row: int, text: str, wanted: str) -> None:
    lines = Path(put(rows, "log.jsonl")).read_text().splitlines()
    lines[row - 1] = text
    Path("broken.jsonl").write_text("\n".join(lines))
    assert line("broken.jsonl") == f"broken.jsonl: {wanted}"


def test_files_that_are_not_what_they_say(rows: Rows, put: Put) -> None:
    for really, said in (("csv", "parquet"), ("parquet", "csv"), ("jsonl", "csv")):
        Path(put(rows, f"log.{really}")).rename(f"wrong.{said}")
        names = {"csv": "CSV", "parquet": "Parquet", "jsonl": "JSONL"}
        assert line(f"wrong.{said}") == (
            f"wrong.{said}: the name says {names[said]} but the content is {names[really]}; rename "
            f"it, as in wrong.{really}"
        )
    for name, content, found in (
        ("book.csv", b"PK\x03\x04....", "a zip or Excel file"),
        ("model.parquet", b"\x80\x04....", "a pickle"),
        ("noise.csv", bytes(range(1, 255)) + b"\0", "a binary file of unknown kind"),
    ):
        Path(name).write_bytes(content)
        assert line(name) == f"{name}: is {found}; Parquet, CSV, JSONL or Arrow are read"
    Path("array.json").write_text("[{}]")
    assert line("array.json") == (
        "array.json: one JSON array, not JSONL; write one JSON object per line"
    )
    latin = Path(put(rows | {"city": ["Oslo"] * 4 + ["Rôme"] * 116}, "u.csv")).read_text()
    Path("latin.csv").write_text(latin, encoding="latin-1")
    assert line("latin.csv") == (
        "latin.csv: column 'city', row 5: the text is not UTF-8; save the file as UTF-8"
    )


def test_empty_files_and_folders(rows: Rows, put: Put) -> None:
    put(rows, "log.csv")
    for name in ("empty.csv", "empty.parquet", "empty.jsonl"):
        Path(name).touch()
        assert line(name) == f"{name}: the file is empty; give a log with a row per decision"
    Path("header.csv").write_text("a,reward,propensity\n")
    assert line("header.csv") == (
        "header.csv: the file is empty: it has no rows; give a log with a row per decision"
    )
    Path("none").mkdir()
    has = "Parquet, CSV, JSONL or Arrow are read"
    assert line("none") == f"none/: a folder without logs (it is empty); {has}"
    Path("none/README.md").write_text("nothing")
    assert line("none") == f"none/: a folder without logs (it has README.md); {has}"
    assert line("lgo.csv") == (
        "lgo.csv does not exist; give a file or a folder of logs (did you mean 'log.csv'?)"
    )


def test_two_columns_of_one_name(rows: Rows, put: Put) -> None:
    text = Path(put(rows, "log.csv")).read_text().replace("city", "age", 1)
    Path("twice.csv").write_text(text)
    assert line("twice.csv") == (
        "twice.csv: column 'age': two columns have this name; rename one of them"
    )


def test_mixed_schemas_in_a_folder(rows: Rows, put: Put) -> None:
    put(rows, "seed.csv")
    Path("logs").mkdir()
    put(rows, "logs/a.parquet")
    texts = rows | {"age": [str(a) for a in rows["age"]]}
    same = "write all parts with the same"
    cases = (
        (texts, f"column 'age': is text, but number in logs/a.parquet; {same} types"),
        (
            without(rows, "age"),
            f"column 'age': is missing, but logs/a.parquet has it; {same} columns",
        ),
        (
            rows | {"extra": rows["age"]},
            f"column 'extra': is in this file but not in logs/a.parquet; {same} columns",
        ),
        (
            changed(rows, "propensity", 3, 0.0),
            f"column 'propensity', row 3: propensity 0, but the action was taken; {P}",
        ),
    )
    for changed_rows, wanted in cases:
        put(changed_rows, "logs/b.parquet")
        assert line("logs") == f"logs/b.parquet: {wanted}"
    put(rows, "logs/b.parquet")
    put(rows, "logs/c.csv")
    assert line("logs") == (
        "logs/c.csv: is CSV while logs/a.parquet is Parquet; keep files of one kind in a folder"
    )


def test_duplicate_ids_across_files(rows: Rows, put: Put) -> None:
    put(rows, "seed.csv")
    Path("logs").mkdir()
    ids = [f"r{i}" for i in range(240)]
    put(rows | {"row_id": ids[:120]}, "logs/a.parquet")
    put(rows | {"row_id": [*ids[120:239], "r4"]}, "logs/b.parquet")
    assert line("logs") == (
        "logs/b.parquet: column 'row_id', row 120: this row id was already in row 5 of "
        "logs/a.parquet; drop the duplicates, or --row-id none if it is not an id"
    )
    assert open_log("logs", row_id="none").rows == 240


def test_bad_rows_late_in_a_large_file(rows: Rows, put: Put) -> None:
    name = put(rows, "log.parquet")
    big = pa.concat_tables([pa.table(rows)] * 3000).combine_chunks()
    p = big["propensity"].to_numpy().copy()
    p[300_000] = 2.0
    big = big.set_column(4, "propensity", pa.array(p))
    pq.write_table(big, name, row_group_size=50_000)
    assert line(name) == (
        f"log.parquet: column 'propensity', row 300001: propensity 2 is above 1; {P}"
    )


def test_unknown_roles_and_tables(rows: Rows) -> None:
    assert line(rows, acton="arm").startswith(
        "there is no column role 'acton' (did you mean 'action'?); roles: action, reward, "
    )
    assert line(rows | {"age": [1]}) == (
        "the columns are not equally long: age 1, city 120, arm 120, reward 120, propensity 120; "
        "give one value per row"
    )
    assert line(3) == (
        "a int is not a table; give a pandas or polars DataFrame, a pyarrow Table, or a dict of "
        "columns"
    )
