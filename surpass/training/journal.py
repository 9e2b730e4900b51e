"""What a run says of itself: lines of JSON, TensorBoard where it is installed, and one line to
read."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from surpass.errors import InputError, extra

__all__ = ["Journal"]


class Journal:
    """Writes `log.jsonl` and TensorBoard events into `out`, and tells `say` how far the run is.

    A run that goes on keeps the lines up to the update `after`, from which it goes on.
    """

    def __init__(
        self,
        out: Path | None,
        total: int,
        say: Callable[[str], None] | None,
        wandb: bool,
        after: int | None,
    ) -> None:
        self.total, self._say = total, say
        self._file: Any = None
        self._board: Any = None
        self._wandb = extra("wandb").init(project="surpass", resume="allow") if wandb else None
        self._start, self._first = time.monotonic(), -1
        if out is None:
            return
        try:
            out.mkdir(parents=True, exist_ok=True)
            kept = "" if after is None else _until(out / "log.jsonl", after)
            self._file = (out / "log.jsonl").open("w", encoding="utf-8")
            self._file.write(kept)
        except OSError as error:
            raise InputError(f"{out} cannot be written: {error.strerror or error}") from error
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._board = SummaryWriter(str(out / "tensorboard"))

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        for closing in (self._file, self._board):
            if closing is not None:
                closing.close()
        if self._wandb is not None:
            self._wandb.finish()

    def say(self, line: str) -> None:
        """One line to the person who started the run."""
        if self._say is not None:
            self._say(line)

    def note(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log what was measured up to an update."""
        now = time.monotonic()
        if self._first < 0:
            rate = 0.0
            self._first, self._start = step, now
        else:
            rate = (step - self._first) / max(now - self._start, 1e-9)
        if self._file is not None:
            plain = {k: v if math.isfinite(v) else str(v) for k, v in metrics.items()}
            self._file.write(json.dumps({"step": step, **plain}) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in metrics.items():
                self._board.add_scalar(name.replace(".", "/"), value, step)
        if self._wandb is not None:
            self._wandb.log(dict(metrics), step=step)
        left = f", {(self.total - step) / rate:,.0f} s left" if rate else ""
        losses = ", ".join(f"{k} {v:.4g}" for k, v in metrics.items())
        speed = f"{rate:,.0f} updates/s" if rate else "compiling done"
        self.say(f"{step:,} of {self.total:,} updates, {speed}{left}: {losses}")


def _until(path: Path, after: int) -> str:
    """The whole lines of a log up to an update; a line that a kill cut off is dropped."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] <= after:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            break
    return "".join(kept)
