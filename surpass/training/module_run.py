"""From a recipe, a language model and data to a trained policy: the whole run.

It opens data, reward and model, makes the updates, writes `log.jsonl` (what was measured, and
sample answers), checkpoints that resume exactly, and the policy at the end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch

from surpass.critics.language_rewards import LearnedReward
from surpass.critics.verifiers import CHECKS, open_reward
from surpass.data.language import LanguageLog, open_language
from surpass.errors import InputError
from surpass.forms import Pairwise, PolicyGradient, Scored, Source, Stage, Stages
from surpass.parts import needs_of
from surpass.policies.language import (
    LanguagePolicy,
    chosen_precision,
    load_model,
    temperature_of,
)
from surpass.policies.outside_sampling import open_sampler
from surpass.policies.sharding import average, join, rank
from surpass.training.experts import LoggedTraces, TaskTraces
from surpass.training.language_rollouts import LogPrompts, RolloutStream, TaskPrompts
from surpass.training.language_streams import RowStream
from surpass.training.module_checkpoint import load_checkpoint, save_checkpoint
from surpass.training.modules import LanguageForm, ModuleTrainer

__all__ = ["language_legs", "open_stream", "runs_on_modules", "train_language"]


def runs_on_modules(form: Any, roles: Mapping[str, Any]) -> bool:
    """Whether a form is trained on a language model: it is of a kind that can be, and one is
    given."""
    staged = isinstance(form, Stages) and all(_staged(stage) for stage in form.stages)
    fits = staged or isinstance(form, PolicyGradient | Pairwise | Scored)
    return fits and roles.get("model") is not None


def train_language(
    form: LanguageForm | Stages, data: Any = None, *, model: Any, tokenizer: Any = None,
    task: Any = None, reward: Any = None, steps: int = 100, out: str | Path | None = None,
    seed: int = 0, resume: bool = False, lora: Any = None, dtype: Any = None,
    checkpointing: bool = False, device: str | None = None, piece: int | None = None,
    temperature: float | None = None,
    long: str = "drop", columns: Mapping[str, str] | None = None, stop: tuple[str, ...] = (),
    reference: Any = None, expert: Any = None, reply: Any = None, packing: bool = False,
    precision: str = "auto", sampler: str = "own", log_every: int = 10, save_every: int = 100,
    say: Callable[[str], None] | None = None,
    callback: Callable[[int, dict[str, float], LanguagePolicy], Any] | None = None,
) -> Any:  # fmt: skip
    """Train a language model with a recipe; gives the policy, which is the model, trained in place
    (of a recipe for reward models a `LearnedReward`).

    Args:
        form: what a recipe returned, such as `surpass.grpo()`.
        data: a JSONL or Parquet file, a data set, rows, or a `LanguageLog`; or `task`.
        model: a folder, a causal language model of transformers, or a `LanguagePolicy`.
        task: a language task with an exact verifier, instead of prompts and a reward.
        reward: "exact", "numeric", "math", "regex:PATTERN", the folder of a reward model, or a
            function, for recipes that sample.
        steps: updates (batches), of all stages together where a recipe has several.
        out: a folder for log, checkpoint and policy; `resume` carries on from it.
        lora: a rank or a PEFT configuration.
        piece: rows per forward pass, where a batch does not fit into memory.
        temperature: at which it answers and is trained; by default that of the policy, or of the
            one that the folder holds, else 1.
        long: what happens to rows longer than the context: "drop", "truncate" or "error".
        stop: texts that end a sampled answer.
        reference: another model than the starting one, where the recipe has a reference.
        expert: traces for recipes that learn from them, or solved examples for those that show some
            (rows, a file, or the task's own: "task").
        reply: a tool or environment that answers the model, for sources with several turns.
        packing: put several sequences into a row, where lengths differ much.
        precision: "fp32", "bf16" (weights stay as they are, products are in bfloat16), or "auto":
            "bf16" on a GPU that has it.
        sampler: "own", or "vllm" where it is installed and there is a GPU.
        callback: called with the updates made, what the last measured and the policy, after each;
            may return True to stop.

    Raises:
        InputError: for input that cannot be used, and when the loss stops being a number.
    """
    device = join(device)
    if device is None and isinstance(model, str | Path) and torch.cuda.is_available():
        device = "cuda"  # a model in memory stays where it is
    torch.manual_seed(seed)
    if isinstance(task, str):
        from surpass.tasks.catalog import task as open_task

        task = open_task(task)
    policy = _open_policy(model, tokenizer, lora, dtype, checkpointing, device, temperature)
    policy.packing = packing
    policy.precision = chosen_precision(precision, policy.device)
    if sampler != "own":
        policy.sampler = open_sampler(sampler, policy)
    roles = {} if reference is None else {"reference": _reference(reference, policy)}
    place = None if out is None else Path(out)
    if resume and place is None:
        raise InputError("resume=True needs the out=... of the run that is to go on")
    legs = language_legs(form, steps)
    journal = _Journal(place, say, steps) if rank() == 0 else _Journal(None, None, steps)
    first = _begun(place, len(legs)) if resume and place is not None else 0
    over = False
    for number, (do, before, count) in list(enumerate(legs))[first:]:
        policy.begun = number > 0
        stream = open_stream(
            do, policy, data, task=task, reward=reward, seed=seed + 104_729 * number, steps=count,
            long=long, columns=columns, stop=stop, expert=expert, reply=reply,
        )  # fmt: skip
        trainer = ModuleTrainer(do, policy, stream, seed=seed, piece=piece, roles=roles)
        kept = None if place is None else place / _folder(number)
        if resume and kept is not None and kept.exists():
            load_checkpoint(trainer, kept)
        try:
            while trainer.step < count and not over:
                notes = trainer.update()
                journal.note(trainer, before + trainer.step, notes, log_every)
                if callback is not None:
                    over = callback(before + trainer.step, notes, policy) is True
                if kept is not None and trainer.step % save_every == 0 and trainer.step < count:
                    save_checkpoint(trainer, kept)
        except KeyboardInterrupt as stopped:
            if kept is None:
                raise
            save_checkpoint(trainer, kept)
            raise KeyboardInterrupt(
                f"update {before + trainer.step} is kept in {place}; the same command, or "
                "resume=True, goes on from there"
            ) from stopped
        if kept is not None:
            save_checkpoint(trainer, kept)
        if over:
            break
    policy.model.eval()
    made: Any = policy
    if "score" in trainer.needs:  # what was trained is the judge, not the policy
        made = LearnedReward(cast(Any, trainer.nets["reward"]), policy)
    if place is not None and (rank() == 0 or made is policy):  # a judge is whole on every process
        made.save(place / "policy", overwrite=True)
    return made


def language_legs(form: Any, steps: int) -> list[tuple[LanguageForm, int, int]]:
    """The forms of a run in order, each with the updates made before it and its own number of
    them. Stages have their own lengths, as far as `steps` go; the last takes what is left.

    Raises:
        InputError: for stages that are no forms for language models, or end by a monitor.
    """
    if not isinstance(form, Stages):
        return [(form, 0, steps)]
    legs: list[tuple[LanguageForm, int, int]] = []
    before = 0
    for number, stage in enumerate(form.stages, 1):
        if not _staged(stage):
            raise InputError("stages of language models are Stage(form, steps) without a monitor")
        assert isinstance(stage, Stage)
        left = max(steps - before, 0)
        count = left if number == len(form.stages) else min(stage.steps, left)
        if count or not (legs or number < len(form.stages)):
            legs.append((stage.do, before, count))
        before += count
    return legs


def _staged(stage: Any) -> bool:
    known = PolicyGradient | Pairwise | Scored
    return isinstance(stage, Stage) and isinstance(stage.do, known) and stage.until is None


def _folder(number: int) -> str:
    return f"checkpoint-{number}" if number else "checkpoint"


def _begun(place: Path, legs: int) -> int:
    """The last stage that has a checkpoint."""
    return max((n for n in range(legs) if (place / _folder(n)).exists()), default=0)


def _open_policy(
    model: Any, tokenizer: Any, lora: Any, dtype: Any, checkpointing: bool, device: str | None,
    temperature: float | None,
) -> LanguagePolicy:  # fmt: skip
    own = 1.0
    if isinstance(model, LanguagePolicy):
        tokenizer = model.tokenizer if tokenizer is None else tokenizer
        own, model = model.temperature, model.model
    loaded, found = load_model(
        model, tokenizer, lora=lora, dtype=dtype, device=device, checkpointing=checkpointing
    )
    if isinstance(model, str | Path):
        own = temperature_of(model)
    return LanguagePolicy(loaded, found, own if temperature is None else temperature)


def _reference(reference: Any, policy: LanguagePolicy) -> LanguagePolicy:
    if isinstance(reference, LanguagePolicy):
        return reference
    loaded, _ = load_model(reference, device=str(policy.device))
    loaded.requires_grad_(False)
    return LanguagePolicy(loaded.eval(), policy.tokenizer, policy.temperature)


def kind_of(form: LanguageForm) -> str:
    """What a form learns from: "pairs", "scored", "demonstrations" or "prompts"."""
    if form.source.kind == "rollouts":
        return "prompts"
    if isinstance(form, Pairwise):
        return "pairs"
    scored = isinstance(form, Scored) or form.source.kind == "scored"
    return "scored" if scored else "demonstrations"


def open_stream(
    form: LanguageForm, policy: LanguagePolicy, data: Any, *, task: Any = None, reward: Any = None,
    seed: int = 0, steps: int | None = None, long: str = "drop",
    columns: Mapping[str, str] | None = None, stop: tuple[str, ...] = (), expert: Any = None,
    reply: Any = None,
) -> Any:  # fmt: skip
    """Open a form's source as a stream on data or on a task.

    Raises:
        InputError: when data, task or reward are missing or do not fit the recipe.
    """
    kind, source = kind_of(form), form.source
    if kind != "prompts":
        if data is None:
            raise InputError(f"the recipe learns from {kind}; give data=...")
        log = _log(data, policy, kind, long, columns)
        return RowStream(
            log, source.size, kind="pairs" if kind == "pairs" else "sequences", seed=seed,
            total=steps, device=policy.device, grouped="group" in needs_of(form),
        )  # fmt: skip
    prompts = _prompts(policy, data, task, reward, source, seed, long, columns)
    return RolloutStream(
        policy, prompts, source, seed=seed, pairs=isinstance(form, Pairwise),
        select=getattr(form, "select", None), stop=stop,
        expert=_expert(expert, policy, task, seed), reply=reply,
        answers="answer" in needs_of(form),
    )  # fmt: skip


def _log(
    data: Any, policy: LanguagePolicy, kind: str, long: str, columns: Mapping[str, str] | None,
    room: int = 0,
) -> LanguageLog:  # fmt: skip
    return open_language(
        data, policy.tokenizer, kind=kind, context=policy.context, vocabulary=policy.vocabulary,
        long=long, columns=columns, eos=policy.eos, room=room,
    )  # fmt: skip


def _prompts(
    policy: LanguagePolicy, data: Any, task: Any, reward: Any, source: Source, seed: int,
    long: str, columns: Mapping[str, str] | None,
) -> Any:  # fmt: skip
    if task is not None:
        return TaskPrompts(task, seed, policy.device)
    if data is None:
        raise InputError("the recipe answers prompts; give data=... with a reward, or task=...")
    if reward is None:
        raise InputError("the recipe needs a reward: exact, numeric, math, regex:PATTERN, or a "
                         "function of (prompt, completion, answer)")  # fmt: skip
    room = int(source.options.get("horizon", 256))
    log = _log(data, policy, "prompts", long, columns, room)
    compares = isinstance(reward, str) and reward in CHECKS  # others may do without
    if compares and log.truth is not None and isinstance(log.truth[0], dict):
        raise InputError(
            f"the reward {reward!r} compares with the right answer, but the data have no column "
            "'answer'; name it with columns={'answer': ...}"
        )
    return LogPrompts(log, open_reward(reward), policy.tokenizer, seed, policy.device)


def _expert(expert: Any, policy: LanguagePolicy, task: Any, seed: int) -> Any:
    """Expert traces for prompts: the task's own, or those of a log of demonstrations."""
    if expert is None:
        return None
    if expert == "task":
        return TaskTraces(task, seed + 2, policy.device)
    return LoggedTraces(_log(expert, policy, "demonstrations", "drop", None), seed + 2,
                        policy.device)  # fmt: skip


class _Journal:
    """`log.jsonl`, and a line of progress now and then."""

    def __init__(self, place: Path | None, say: Callable[[str], None] | None, steps: int) -> None:
        self.place, self.say, self.steps = place, say or (lambda _: None), steps
        self.start = time.perf_counter()
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)

    def note(self, trainer: ModuleTrainer, step: int, notes: dict[str, float], every: int) -> None:
        """Write what an update measured, every so many updates and at the last."""
        if step % every and step != self.steps:
            return
        notes = average(notes)
        row: dict[str, Any] = {"step": step, "seconds": time.perf_counter() - self.start}
        row |= {k: round(v, 6) for k, v in notes.items()}
        shown = ("loss", "reward", "accuracy", "kl", "length", "with_signal")
        self.say(f"update {step} of {self.steps}: "
                 + ", ".join(f"{k} {notes[k]:.4g}" for k in shown if k in notes))  # fmt: skip
        samples = getattr(trainer.stream, "samples", None)
        if samples:
            row["samples"] = samples
        if self.place is not None:
            with (self.place / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
