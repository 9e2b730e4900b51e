"""Language models on two processes: what they come to is what one comes to."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from surpass.policies.language import LanguagePolicy
from tests.training.language_processes import fixed

ROOT = Path(__file__).parents[2]


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder):
    return dict(LanguagePolicy.load(folder / "policy").model.named_parameters())


def test_two_processes_train_as_one(tmp_path):  # two interpreters start: some ten seconds
    script = Path(__file__).with_name("language_processes.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, str(script), str(tmp_path / "two")], capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-20_000:]
    fixed(tmp_path / "one")
    for name in ("dpo", "ipo"):
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        assert losses(one) == pytest.approx(losses(two), rel=1e-4)
        assert losses(one)[-1] != pytest.approx(losses(one)[0], rel=1e-2)
        mine, theirs = weights(one), weights(two)
        for key, value in mine.items():
            torch.testing.assert_close(theirs[key], value, rtol=1e-3, atol=1e-4, msg=key)
    for name in ("dapo", "ppo"):
        found = (tmp_path / "two" / name / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in found] == [1, 2]
