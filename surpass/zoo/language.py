"""Tiny language models to start from: references of the testbeds, trained on traces.

A reference first learns its task from right traces, then from traces with errors until its sampled
accuracy is in the band of the testbed: it knows how, and is sloppy. `clean` models stop before the
errors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from surpass.data.records import Sequences
from surpass.policies.generation import Sampling, converse, generate
from surpass.policies.language import LanguagePolicy
from surpass.tasks.hop_search import HopSearch
from surpass.tasks.language import (
    Countdown,
    DigitStrings,
    LanguageTask,
    ModSum,
    Prompts,
    Vocabulary,
)
from surpass.tasks.tables import TableTask, lock_table, sumtriple_table
from surpass.tasks.unnamed import ShownOrGuessed, UnnamedStrings
from surpass.zoo.shelf import Zoo, item, items

__all__ = ["LanguageBed", "TableBed", "accuracy", "conversations", "named_model", "prompt_rows",
           "tiny_llama", "toy_tokenizer", "warm"]  # fmt: skip


@dataclass(frozen=True)
class LanguageBed:
    """A task and a model that can do it, more or less."""

    task: LanguageTask
    policy: LanguagePolicy
    accuracy: float


@dataclass(frozen=True)
class TableBed:
    """A task of which everything is exact, and the logits of a policy that succeeds now and
    then."""

    task: TableTask
    logits: Tensor
    success: float


def toy_tokenizer(vocabulary: Vocabulary) -> Any:
    """A tokenizer of transformers for a toy vocabulary, `BOS` before prompts: a character a token,
    or a word a token where the words are longer.

    Texts such as "3+4=" or "e3 r1 ?" become the tokens that the tasks draw.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {word: i for i, word in enumerate(vocabulary.words)}
    inner: Any = Tokenizer(models.WordLevel(numbers, unk_token="PAD"))
    if all(len(word) == 1 for word in vocabulary.words if word not in ("BOS", "EOS", "PAD")):
        inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
        inner.decoder = decoders.Fuse()
    else:
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="BOS $A", special_tokens=[("BOS", vocabulary.bos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="BOS", eos_token="EOS", pad_token="PAD"
    )


def prompt_rows(task: Any, n: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows `{"prompt", "answer"}` of a toy task as text: what `data=` takes, with the reward
    "exact" for digit strings and "numeric" for sums."""
    drawn = task.prompts(n, torch.Generator().manual_seed(seed))
    right, words = task.answer(drawn.tokens), task.vocabulary
    answers = right[:, None] if right.dim() == 1 else right
    return [
        {"prompt": words.decode(p), "answer": words.decode(a)}
        for p, a in zip(drawn.tokens, answers, strict=True)
    ]


def tiny_llama(
    task: LanguageTask, *, width: int = 64, layers: int = 2, heads: int = 4, seed: int = 0
) -> Any:
    """An untrained Llama for a task's vocabulary; 0.1 M weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    v = task.vocabulary
    config = LlamaConfig(
        vocab_size=len(v), hidden_size=width, intermediate_size=2 * width,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
        max_position_embeddings=64, pad_token_id=v.pad, bos_token_id=v.bos, eos_token_id=v.eos,
        # Positions are few, so they turn fast: the default base cannot tell neighbors apart.
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def accuracy(
    policy: LanguagePolicy, task: LanguageTask, *, prompts: int = 512, each: int = 1,
    temperature: float | None = None, seed: int = 99,
) -> float:  # fmt: skip
    """The share of right answers to held-out prompts, sampled `each` times."""
    generator = torch.Generator().manual_seed(seed)
    asked = task.prompts(prompts, generator)
    if hasattr(task, "reply"):
        return _in_turns(policy, task, asked.repeated(each), temperature, generator)
    seq = generate(
        policy, asked.tokens, asked.mask,
        Sampling(new=task.response_length, temperature=temperature), group=each,
        generator=generator,
    )  # fmt: skip
    filled = torch.where(seq.mask > 0, seq.action, task.vocabulary.pad)
    return float(task.verify(seq.prompt, filled, seq.mask).mean())  # type: ignore[arg-type]


def _in_turns(
    policy: LanguagePolicy, task: Any, asked: Prompts, temperature: float | None,
    generator: torch.Generator,
) -> float:  # fmt: skip
    """The share of conversations that end right."""
    seq = conversations(policy, task, asked, temperature=temperature, generator=generator)
    return float(task.verify(seq.prompt, seq.action, seq.mask).mean())


def conversations(
    policy: LanguagePolicy, task: Any, asked: Prompts, *, temperature: float | None = None,
    generator: torch.Generator | None = None,
) -> Sequences:  # fmt: skip
    """A conversation of the policy with a task that takes turns, for each prompt."""
    prompts = [t[m > 0].tolist() for t, m in zip(asked.tokens, asked.mask, strict=True)]
    said: list[list[list[int]]] = [[] for _ in prompts]

    def reply(i: int, turn: list[int]) -> list[int] | None:
        said[i].append(turn)
        return task.reply(prompts[i], said[i], generator)

    sampling = Sampling(new=task.turn_length, temperature=temperature)
    return converse(policy, prompts, reply, sampling, turns=task.turns, generator=generator)


def warm(
    policy: LanguagePolicy, task: LanguageTask, *, error: float, steps: int, until: float,
    falling: bool = False, batch: int = 64, lr: float = 3e-3, every: int = 50, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Supervised training on traces until the sampled accuracy passes `until`, upward or, where
    traces have errors, `falling`; gives what was reached."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        policy.model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.1, fused=True
    )
    policy.model.train()
    reached, step = accuracy(policy, task), 0
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, step / 100)
        seq = task.traces(task.prompts(batch, generator), generator, error)
        loss = -policy.score(seq).logp.sum() / seq.mask.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimizer.step()
        if step % every == 0:
            reached = accuracy(policy, task)
            if reached <= until if falling else reached >= until:
                break
    policy.model.eval()
    return {"steps": step, "accuracy": reached}


TASKS: dict[str, Any] = {
    "modsum-lm": ModSum(),
    "digit-strings": DigitStrings("CR", (3, 5)),
    "hop-search": HopSearch(),
    "countdown-lite": Countdown(),
    "unnamed-strings": UnnamedStrings(),
}


def named_model(name: str) -> str:
    """The folder of a model: a folder as it is, or by the name of a model of the zoo, which is
    built where it is not there yet."""
    if Path(name).exists() or name not in items():
        return name
    return str(Zoo().build(name))


def _load(folder: Path) -> LanguageBed:
    note = json.loads((folder / "testbed.json").read_text(encoding="utf-8"))
    policy = LanguagePolicy.load(folder)
    return LanguageBed(TASKS[note["task"]], policy, note["accuracy"])


def _write(folder: Path, task: str, policy: LanguagePolicy, made: dict[str, Any]) -> dict[str, Any]:
    policy.write(folder)
    note = {"task": task, "accuracy": made["accuracy"]}
    (folder / "testbed.json").write_text(json.dumps(note), encoding="utf-8")
    return made


def _clean(folder: Path, name: str, until: float, steps: int) -> dict[str, Any]:
    policy = LanguagePolicy(tiny_llama(TASKS[name]))
    made = warm(policy, TASKS[name], error=0.0, steps=steps, until=until)
    return _write(folder, name, policy, {"seed": 0, **made})


def _sloppy(
    folder: Path, bed: LanguageBed, name: str, error: float, below: float, steps: int = 1000
) -> dict[str, Any]:
    made = warm(
        bed.policy, bed.task, error=error, steps=steps, until=below, falling=True, lr=1e-3,
        every=10, seed=1,
    )  # fmt: skip
    made["accuracy"] = accuracy(bed.policy, bed.task, each=4)
    bed.policy.tokenizer = toy_tokenizer(bed.task.vocabulary)
    return _write(folder, name, bed.policy, {"seed": 1, "error": error, **made})


@item("modsum-clean", line="ModSum, a Llama of 0.1 M weights that can do it", load=_load,
      minutes=2.0)  # fmt: skip
def modsum_clean(folder: Path, zoo: Zoo) -> dict[str, Any]:
    """Trained on right traces until it is right at 9 of 10 prompts."""
    return _clean(folder, "modsum-lm", 0.9, 6000)


@item("modsum-reference", line="ModSum, the same model made sloppy: right at about 0.25",
      load=_load, minutes=0.2, version=2)  # fmt: skip
def modsum_reference(folder: Path, zoo: Zoo) -> dict[str, Any]:
    """Trained on, with three running sums in ten replaced by a random digit, down to the band
    0.15 to 0.35."""
    return _sloppy(folder, zoo("modsum-clean"), "modsum-lm", 0.3, 0.3)


@item("countdown-reference", line="countdown, a Llama of 0.1 M weights, hardly taught: about 0.25",
      load=_load, minutes=0.5)  # fmt: skip
def countdown_reference(folder: Path, zoo: Zoo) -> dict[str, Any]:
    """Trained on right traces, a random one of several, until it is right at a fourth of prompts:
    unsure of what it does."""
    return _clean(folder, "countdown-lite", 0.25, 2000)


@item("strings-clean", line="copy and reverse digits, a Llama of 0.1 M weights that can do it",
      load=_load, minutes=2.0)  # fmt: skip
def strings_clean(folder: Path, zoo: Zoo) -> dict[str, Any]:
    """Trained on right traces until it is right at 9 of 10 prompts."""
    return _clean(folder, "digit-strings", 0.9, 6000)


@item("strings-reference", line="copy and reverse digits, the same model made sloppy",
      load=_load, minutes=0.2, version=2)  # fmt: skip
def strings_reference(folder: Path, zoo: Zoo) -> dict[str, Any]:
    """Trained on, with three digits in ten replaced by random ones, down to 0.4 or less."""
    return _sloppy(folder, zoo("strings-clean"), "digit-strings", 0.3, 0.4)


class _SloppyReverse(DigitStrings):
    """Copy and reverse, whose traces have errors in the reversed ones only."""

    def traces(
        self, prompts: Prompts, generator: torch.Generator | None = None, error: float = 0.0
    ) -> Sequences:
        slip = super().traces(prompts, generator, error)
        slip.action = torch.where(prompts.kind[:, None] == 1, slip.action,
                                  super().traces(prompts, generator).action)  # fmt: skip
        return slip


@item("strings-uneven", line="copies digits, reverses one string in seven, cannot sort them",
      load=_load, minutes=0.7, version=2)  # fmt: skip
def strings_uneven(folder: Path, zoo: Zoo) -> dict[str, Any]:
    """The clean model trained to copy without errors, then on, with three digits in ten replaced in
    what is reversed: prompts that are solved, that can be learned, and that cannot."""
    bed = zoo("strings-clean")
    warm(bed.policy, DigitStrings("C", (3, 5)), error=0.0, steps=1500, until=0.998, lr=1e-3,
         batch=128)  # fmt: skip
    sloppy = LanguageBed(_SloppyReverse("CR", (3, 5)), bed.policy, bed.accuracy)
    return _sloppy(folder, sloppy, "digit-strings", 0.3, 0.6)


@item("strings-shown", line="copies or reverses digits as a solved example shows, else it copies",
      load=_load, minutes=1.5)  # fmt: skip
def strings_shown(folder: Path, zoo: Zoo) -> dict[str, Any]:
    """Trained on prompts behind a solved example and on bare ones, of which one in a hundred is to
    be reversed, until shown prompts are answered as shown; `accuracy` is that of bare ones."""
    policy = LanguagePolicy(tiny_llama(ShownOrGuessed(), layers=3))
    made = warm(policy, ShownOrGuessed(), error=0.0, steps=3000, until=0.97)
    made["shown"], made["accuracy"] = made["accuracy"], accuracy(policy, UnnamedStrings(), each=8)
    policy.tokenizer = toy_tokenizer(UnnamedStrings().vocabulary)
    return _write(folder, "unnamed-strings", policy, {"seed": 0, **made})


@item("hop-clean", line="hop-search, a Llama of 0.1 M weights that can do it", load=_load,
      minutes=2.0)  # fmt: skip
def hop_clean(folder: Path, zoo: Zoo) -> dict[str, Any]:
    """Trained on right traces until 6 of 10 conversations end right (unlucky searches alone cost
    every fourth)."""
    return _clean(folder, "hop-search", 0.6, 4000)


@item("hop-reference", line="hop-search, the same model made sloppy: right at about 0.25",
      load=_load, minutes=0.2)  # fmt: skip
def hop_reference(folder: Path, zoo: Zoo) -> dict[str, Any]:
    """Trained on, with one argument in five replaced by a random one."""
    return _sloppy(folder, zoo("hop-clean"), "hop-search", 0.2, 0.28)


@item("hop-weak", line="hop-search, the same model made poor: right at about 0.03", load=_load,
      minutes=0.5, version=2)  # fmt: skip
def hop_weak(folder: Path, zoo: Zoo) -> dict[str, Any]:
    """Trained on for 300 steps, with seven arguments in ten replaced by random ones: as poor as
    after sixty, but no longer sure of what it does."""
    return _sloppy(folder, zoo("hop-clean"), "hop-search", 0.7, 0.0, steps=300)


TABLES: dict[str, tuple[TableTask, float]] = {
    "sumtriple-table": (sumtriple_table(), 0.25),
    "lock-table": (lock_table(vocab=6, length=4, prompts=8), 0.02),
}


def _load_table(folder: Path) -> TableBed:
    note = json.loads((folder / "testbed.json").read_text(encoding="utf-8"))
    task, _ = TABLES[note["task"]]
    return TableBed(task, load_file(folder / "logits.safetensors")["logits"], note["success"])


def _table(folder: Path, name: str) -> dict[str, Any]:
    task, wanted = TABLES[name]
    logits = task.warm_start(wanted)
    reached = float(task.truth(logits).success.mean())
    save_file({"logits": logits}, folder / "logits.safetensors")
    note = {"task": name, "success": reached}
    (folder / "testbed.json").write_text(json.dumps(note), encoding="utf-8")
    return note


@item("sumtriple-reference", line="three digits that sum to the prompt: a table, right at 0.25",
      load=_load_table, minutes=0.1)  # fmt: skip
def sumtriple_reference(folder: Path, zoo: Zoo) -> dict[str, Any]:
    """The uniform policy tilted toward right answers until a quarter of them are."""
    return _table(folder, "sumtriple-table")


@item("lock-reference", line="one right answer of 1,296 to each of 8 prompts: a table, at 0.02",
      load=_load_table, minutes=0.1)  # fmt: skip
def lock_reference(folder: Path, zoo: Zoo) -> dict[str, Any]:
    """The uniform policy tilted toward the right answers until one in fifty is."""
    return _table(folder, "lock-table")
