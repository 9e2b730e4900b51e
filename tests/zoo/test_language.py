"""Warm-starting tiny models, and GRPO on what is warm."""

import pytest
import torch

pytest.importorskip("transformers")

from surpass.methods.rlvr.policy_gradients import grpo
from surpass.policies.language import LanguagePolicy
from surpass.tasks.hop_search import HopSearch
from surpass.tasks.language import DigitStrings, ModSum
from surpass.training.module_run import train_language
from surpass.zoo.language import (
    LanguageBed,
    accuracy,
    conversations,
    prompt_rows,
    tiny_llama,
    toy_tokenizer,
    warm,
)
from surpass.zoo.shelf import Zoo, items


def test_a_model_learns_its_task_grows_sloppy_and_is_mended_by_grpo():
    task = DigitStrings("C", (1, 2))
    policy = LanguagePolicy(tiny_llama(task))
    assert accuracy(policy, task) < 0.1
    assert warm(policy, task, error=0.0, steps=300, until=0.95, every=25)["accuracy"] >= 0.95
    sloppy = warm(policy, task, error=0.5, steps=200, until=0.6, falling=True, lr=1e-3, every=10)
    assert sloppy["accuracy"] <= 0.6
    form = grpo(beta=0.0, group=8, batch=64, horizon=4, lr=1e-3)
    train_language(form, model=policy, task=task, steps=100, seed=0)
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


def test_texts_of_a_toy_language_are_its_tokens():
    task = ModSum()
    tokenizer = toy_tokenizer(task.vocabulary)
    drawn = task.prompts(20, torch.Generator().manual_seed(5))
    for row, ids, mask in zip(prompt_rows(task, 20, seed=5), drawn.tokens, drawn.mask, strict=True):
        assert tokenizer(row["prompt"]).input_ids == ids[mask > 0].tolist()
        assert int(row["answer"]) == sum(int(c) for c in row["prompt"] if c.isdigit()) % 10
    assert tokenizer.decode([3, 12, 5, 14], skip_special_tokens=True) == "3;5"
    assert {r["answer"] for r in prompt_rows(DigitStrings("R", (2, 2)), 3, seed=0)} == {
        r["prompt"][2:0:-1] for r in prompt_rows(DigitStrings("R", (2, 2)), 3, seed=0)
    }


def test_reference_tables_succeed_as_often_as_they_say(tmp_path):
    zoo = Zoo(folder=tmp_path)
    for name, success in (("sumtriple-reference", 0.25), ("lock-reference", 0.02)):
        bed = zoo(name)
        assert float(bed.task.truth(bed.logits).success.mean()) == pytest.approx(success, abs=1e-6)
        assert bed.success == pytest.approx(success, abs=1e-6)


def test_words_of_hop_search_are_tokens_and_models_have_names(tmp_path, monkeypatch):
    from surpass.zoo import language, shelf

    task = HopSearch()
    tokenizer = toy_tokenizer(task.vocabulary)
    drawn = task.prompts(5, torch.Generator().manual_seed(5))
    for ids, mask in zip(drawn.tokens, drawn.mask, strict=True):
        own = ids[mask > 0].tolist()
        assert tokenizer(task.text(own)).input_ids == own
    monkeypatch.setattr(language, "warm", lambda *_, **__: {"steps": 0, "accuracy": 0.5})
    monkeypatch.setattr(shelf, "cache_folder", lambda: tmp_path)
    place = language.named_model("hop-reference")
    assert LanguagePolicy.load(place).vocabulary == len(task.vocabulary)
    assert language.named_model(place) == place and language.named_model("./mine") == "./mine"


def test_conversations_of_a_perfect_policy_are_limited_by_luck_alone():
    """A policy that was taught everything answers at once, and is right."""
    task = HopSearch(entities=4, relations=2, hops=(1, 1), known=1.0, turns=2)
    policy = LanguagePolicy(tiny_llama(task))
    assert warm(policy, task, error=0.0, steps=300, until=0.99, every=30)["accuracy"] >= 0.99
    seq = conversations(policy, task, task.prompts(20), temperature=0.0)
    assert int(seq.turn.max()) == 0
    assert task.verify(seq.prompt, seq.action, seq.mask).all()
