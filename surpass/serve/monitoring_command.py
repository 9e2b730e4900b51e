"""`surpass monitor` on the command line: alarms as they come, then what was watched."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from surpass.errors import InputError
from surpass.serve.monitoring import Watched, watching

__all__ = ["run"]


def run(
    logs: str,
    *,
    watch: str,
    anchor: str | None,
    policy: str | None,
    every: int | None,
    text: str | None,
    settings: list[str],
    columns: Mapping[str, Any],
    as_json: bool,
    full: bool,
) -> None:
    """Watch a log, or JSON lines from standard input where `logs` is "-".

    Raises:
        InputError: when the data do not fit the monitor.
    """
    data: Any = _lines(text or "text", every or 100) if logs == "-" else logs
    said = 0
    last: Watched | None = None
    for last in watching(
        data, watch, anchor=anchor, policy=policy, every=every, text=text, columns=columns,
        **_settings(settings),
    ):  # fmt: skip
        if logs == "-" and not as_json and len(last.alarms) > said:
            said = len(last.alarms)
            print(str(last).splitlines()[-1].strip(), flush=True)
    if last is None:
        raise InputError("there was no batch to watch; give more rows, or a smaller --every")
    if as_json:
        print(json.dumps(last.to_json(), indent=1))
    elif full:
        Console().print(last.table())
    else:
        print(last)


def _settings(settings: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in settings:
        name, equals, value = one.partition("=")
        if not equals:
            raise InputError(f"--set {one}: write NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _lines(column: str, size: int) -> Iterator[list[str]]:
    """Batches of texts from standard input: JSON objects with that column, or plain lines."""
    held: list[str] = []
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        value: Any = line.strip()
        if value.startswith("{"):
            try:
                value = json.loads(value)[column]
            except (ValueError, KeyError) as error:
                raise InputError(
                    f"standard input, line {number}: no JSON object with {column!r}; name --text"
                ) from error
        held.append(str(value))
        if len(held) == size:
            yield held
            held = []
    if 2 * len(held) >= size:
        yield held
