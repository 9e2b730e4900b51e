"""Warm-starting tiny models, and GRPO on what is warm."""

import pytest
import torch

pytest.importorskip("transformers")

from surpass.methods.rlvr.policy_gradients import grpo
from surpass.policies.language import LanguagePolicy
from surpass.tasks.language import DigitStrings
from surpass.training.module_run import train_language
from surpass.zoo.language import LanguageBed, accuracy, tiny_llama, warm
from surpass.zoo.shelf import Zoo, items


def test_a_model_learns_its_task_grows_sloppy_and_is_mended_by_grpo():
    task = DigitStrings("C", (1, 2))
    policy = LanguagePolicy(tiny_llama(task))
    assert accuracy(policy, task) < 0.1
    assert warm(policy, task, error=0.0, steps=300, until=0.95, every=25)["accuracy"] >= 0.95
    sloppy = warm(policy, task, error=0.5, steps=200, until=0.6, falling=True, lr=1e-3, every=10)
    assert sloppy["accuracy"] <= 0.6
    form = grpo(beta=0.0, group=8, batch=64, horizon=4, lr=1e-3)
    train_language(form, model=policy, task=task, steps=40, seed=0)
    assert accuracy(policy, task) > 0.9


def test_the_shelf_has_the_testbeds_and_reads_what_it_wrote(tmp_path, monkeypatch):
    from surpass.zoo import language

    names = {"modsum-clean", "modsum-reference", "strings-clean", "strings-reference"}
    assert names <= set(items())
    monkeypatch.setattr(language, "warm", lambda *_, **__: {"steps": 0, "accuracy": 0.5})
    zoo = Zoo(folder=tmp_path)
    bed = zoo("strings-clean")
    assert isinstance(bed, LanguageBed) and bed.accuracy == 0.5
    same = tiny_llama(bed.task)
    for a, b in zip(same.parameters(), bed.policy.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert "model.safetensors" in zoo.provenance("strings-clean")["files"]
