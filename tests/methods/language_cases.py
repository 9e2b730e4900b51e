"""A tiny model, data and trainers that the tests of language recipes share."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import torch
import transformers

from surpass.data.language import open_language
from surpass.objectives import reduce
from surpass.policies.language import LanguagePolicy
from surpass.tasks.language import ModSum
from surpass.training.language_rollouts import RolloutStream, TaskPrompts
from surpass.training.language_streams import RowStream
from surpass.training.modules import ModuleTrainer


def tiny(seed=0):
    config = transformers.LlamaConfig(
        vocab_size=18, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, pad_token_id=15,
        eos_token_id=14, bos_token_id=13,
    )  # fmt: skip
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(config)


def rows(n=12):
    g = torch.Generator().manual_seed(1)

    def ids(length):
        return torch.randint(0, 12, (length,), generator=g).tolist()

    return [
        {"prompt": ids(3 + i % 3), "chosen": ids(2 + i % 4), "rejected": ids(5 - i % 3)}
        for i in range(n)
    ]


def scored_rows(n=12):
    return [
        {"prompt": r["prompt"], "completion": r["chosen"], "label": bool(i % 2)}
        for i, r in enumerate(rows(n))
    ]


def row_trainer(form, data, kind):
    policy = LanguagePolicy(tiny())
    stream = RowStream(open_language(data, None), 12, kind=kind, total=9)
    return ModuleTrainer(form, policy, stream)


def pair_trainer(form):
    return row_trainer(form, rows(), "pairs")


def fresh_trainer(form, reward=lambda seq: seq.action.sum(-1).float() % 3, pairs=False,
                  expert=None):  # fmt: skip
    policy = LanguagePolicy(tiny())
    prompts = TaskPrompts(ModSum(), 3)
    prompts.judge = lambda seq, rows: (reward(seq), 0)
    stream = RolloutStream(policy, prompts, form.source, seed=3, pairs=pairs, expert=expert,
                           select=getattr(form, "select", None))  # fmt: skip
    return ModuleTrainer(form, policy, stream)


def gradient(trainer, updates=1):
    """The gradient of the last of some updates; the optimizer moves the model before it."""
    for _ in range(updates - 1):
        trainer.update()
    found = {}

    def keep(step, **_):
        found.update({n: p.grad.clone() for n, p in trainer.policy.model.named_parameters()
                      if p.grad is not None})  # fmt: skip
        return 0.0

    trainer.main.step = keep
    trainer.update()
    return found


def assert_same(a, b, factor=1.0, atol=2e-6):
    assert max(float(g.abs().max()) for g in a.values()) > 1e-5
    for name, value in a.items():
        torch.testing.assert_close(b[name], factor * value, rtol=2e-4, atol=atol, msg=name)


def on_two(monkeypatch, call, shares):
    """What each of two workers finds of its share: threads that meet wherever a sum is taken."""
    meet, seen = threading.Barrier(2, timeout=30), {}

    def all_reduce(value):
        seen[threading.get_ident()] = value.clone()
        meet.wait()
        whole = sum(seen.values())
        meet.wait()
        value.copy_(whole)

    yes = {"is_available": lambda: True, "is_initialized": lambda: True}
    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(reduce, "dist", SimpleNamespace(**yes, get_world_size=lambda: 2,
                                                      all_reduce=all_reduce))  # fmt: skip
        return list(pool.map(call, shares))
