"""`surpass improve` on the command line: progress, the verdict, and where the report is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from surpass.errors import InputError
from surpass.improve.improvement import Improvement

__all__ = ["default_folder", "run"]


def default_folder(logs: str) -> Path:
    """`surpass-report-NAME`, with the log's name made safe for a folder."""
    stem = Path(logs).stem if Path(logs).exists() else logs
    return Path("surpass-report-" + re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-"))


def run(
    logs: str,
    *,
    reference: str | None,
    methods: str | Sequence[str],
    out: Path | None,
    overwrite: bool,
    journal: Path | None,
    looks: int | None,
    env: str | None,
    model: str | None,
    columns: dict[str, Any],
    options: dict[str, Any],
    language: dict[str, Any] | None = None,
) -> None:
    """Run the main job with a line of progress per stage, then say the verdict.

    Raises:
        InputError: when the input or an option cannot be used.
    """
    given = {k: v for k, v in (language or {}).items() if v is not None}
    if model is None and given:
        raise InputError(
            f"--{next(iter(given))} is for language models; name one with --model PATH"
        )
    console = Console()
    folder = out or default_folder(logs)
    overwrite = overwrite or (out is None and _is_report(folder))
    accept_estimated = options.pop("accept_estimated_behavior")
    if model is not None:
        from surpass.policies.language import without_bars

        without_bars()
    with Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        current: list[Any] = []

        def say(line: str) -> None:
            if line.startswith("column "):
                progress.console.print(f"  [dim]{line}[/dim]", highlight=False)
                return
            if current:
                progress.update(current[-1], total=1, completed=1)
            current.append(progress.add_task(line, total=None))

        result = _job(
            logs,
            reference=reference,
            methods=methods,
            out=folder,
            overwrite=overwrite,
            journal=journal,
            looks=looks,
            env=env,
            model=model,
            language=given if model is not None else None,
            accept_estimated=accept_estimated,
            say=say,
            **columns,
            **options,
        )
        if current:
            progress.update(current[-1], total=1, completed=1)
    console.print(result)
    console.print(f"Report: {folder / 'report.html'}", highlight=False)


def _is_report(folder: Path) -> bool:
    """A folder of the default name that an earlier run made may be replaced."""
    return (folder / "report.json").exists() and (folder / "verdict.md").exists()


def _job(logs: str, *, env: str | None, accept_estimated: bool, **options: Any) -> Improvement:
    from surpass.improve.job import improve

    return improve(logs, env=env, accept_estimated_behavior=accept_estimated, **options)
