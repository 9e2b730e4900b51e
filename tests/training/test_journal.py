"""What a run writes of itself: JSON lines, TensorBoard events, Weights & Biases."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from surpass.errors import MissingExtra
from surpass.training.journal import Journal


def test_all_three_outputs_hold_the_same_numbers_under_the_same_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sent: list[tuple[int, dict[str, float]]] = []
    finished: list[bool] = []
    run = SimpleNamespace(
        log=lambda metrics, step: sent.append((step, metrics)),
        finish=lambda: finished.append(True),
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: run))
    noted = [(10, {"q.loss": 2.0}), (20, {"q.loss": 0.5})]
    with Journal(tmp_path, 20, None, wandb=True, after=None) as journal:
        for step, metrics in noted:
            journal.note(step, metrics)

    lines = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [{"step": 10, "q.loss": 2.0}, {"step": 20, "q.loss": 0.5}]
    board = events.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(e.step, e.value) for e in board.Scalars("q/loss")] == [(10, 2.0), (20, 0.5)]
    assert sent == noted and finished == [True]


def test_weights_and_biases_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match="pip install wandb"):
        Journal(tmp_path, 1, None, wandb=True, after=None)


def test_a_run_that_goes_on_drops_the_lines_after_its_checkpoint(tmp_path: Path) -> None:
    whole = '{"step": 10, "loss": 1.0}\n{"step": 20, "loss": 0.5}\n'
    (tmp_path / "log.jsonl").write_text(whole + '{"step": 30, "lo')
    with Journal(tmp_path, 40, None, wandb=False, after=10) as journal:
        journal.note(20, {"loss": 0.25})
    steps = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [{"step": 10, "loss": 1.0}, {"step": 20, "loss": 0.25}]
