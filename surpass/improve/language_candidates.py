"""Candidates of the main job on language: which recipes fit the data, what each learns from, and
one trained model per recipe."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from surpass.data.language import LanguageLog
from surpass.errors import InputError
from surpass.policies.language import LanguagePolicy, load_model
from surpass.registry import build, find, recipe
from surpass.training.module_run import kind_of, train_language

__all__ = ["Chosen", "as_kind", "chosen_methods", "learning_rate", "train_candidate"]

FITTING = {
    ("prompts", True): ("best-of-n", "grpo"),
    ("demonstrations", True): ("sft", "grpo"),
    ("demonstrations", False): (),
    ("pairs", True): ("dpo", "grpo"),
    ("pairs", False): ("dpo", "sft"),
    ("scored", True): ("sft", "grpo"),
    ("scored", False): ("sft", "dpo", "kto"),
}
FRESH_UPDATES, EPOCHS, MOST_UPDATES = 100, 3, 500


@dataclass(frozen=True)
class Chosen:
    """A recipe to try, with the hyperparameters that are not its defaults."""

    key: str
    params: Mapping[str, Any] = field(default_factory=dict)
    form: Any = None  # where a form was given instead of a key


def learning_rate(policy: LanguagePolicy) -> float:
    """A rate that fits a model's size: papers' 1e-6 is for billions of weights, a model of a
    hundred thousand takes 1e-3; adapters take ten times as much."""
    size = sum(p.numel() for p in policy.model.parameters())
    rate = 1e-3 if size < 1e6 else 1e-4 if size < 3e7 else 1e-5 if size < 1e9 else 1e-6
    return 10 * rate if policy.adapted else rate


def chosen_methods(
    methods: str | Sequence[str] | Mapping[str, Any], log: LanguageLog, generates: bool
) -> list[Chosen]:
    """The recipes to try: those that fit the data, named ones (`dpo`, or `dpo:lr=1e-4:beta=0.3`),
    or forms by name.

    Raises:
        InputError: for an unknown key, one that is no recipe for language, or one that the data
            cannot feed.
    """
    if isinstance(methods, Mapping):
        return [Chosen(name, {}, form) for name, form in methods.items()]
    if methods == "auto" or list(methods) == ["auto"]:
        return [Chosen(key) for key in FITTING[log.kind, generates]]
    out = []
    for text in [methods] if isinstance(methods, str) else methods:
        key, *settings = text.split(":")
        if settings and "=" not in settings[0]:  # a variant, such as humanline:kto
            key = f"{key}:{settings.pop(0)}"
        if find(key).form not in ("PolicyGradient", "Pairwise", "Scored"):
            raise InputError(f"{key} does not train language models; try sft, dpo, kto or grpo")
        params = dict(_setting(key, s) for s in settings)
        if kind_of(build(key)) == "prompts" and not generates:
            raise InputError(
                f"{key} lets the model answer and needs a reward of answers: --reward exact, a "
                "module:function, or the folder of a reward model"
            )
        out.append(Chosen(key, params))
    return out


def _setting(key: str, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    known = inspect.signature(recipe(key)).parameters
    if not equals or name not in known:
        raise InputError(f"--methods {key}:{text}: {key} takes {', '.join(known)}, as in {key}:"
                         f"{next(iter(known))}=...")  # fmt: skip
    default = known[name].default
    try:
        return name, int(value) if isinstance(default, int) else float(value)
    except ValueError:
        raise InputError(f"--methods {key}:{text}: a number expected") from None


# --------------------------------------------------------------------------------------- data


def as_kind(log: LanguageLog, kind: str) -> LanguageLog:
    """The same rows as another kind of data: pairs are demonstrations (the chosen) and labels,
    scored answers are demonstrations (the better half of each prompt's) and pairs.

    Raises:
        InputError: when they cannot be.
    """
    if log.kind == kind or kind == "prompts":
        return log
    if log.kind == "pairs" and kind == "demonstrations":
        return _rebuilt(log, kind, [(i, "chosen", 1.0) for i in range(len(log))])
    if log.kind == "pairs" and kind == "scored":
        rows = [(i, side, float(side == "chosen")) for i in range(len(log))
                for side in ("chosen", "rejected")]  # fmt: skip
        return _rebuilt(log, kind, rows)
    if log.kind == "scored" and log.score is not None:
        if kind == "demonstrations":
            bar = _bars(log)
            return log.rows([i for i in range(len(log)) if float(log.score[i]) >= bar[i]])
        if kind == "pairs":
            return _paired(log)
    raise InputError(f"{log.kind} cannot serve as {kind}; leave that method out")


def _rebuilt(log: LanguageLog, kind: str, rows: list[tuple[int, str, float]]) -> LanguageLog:
    masks = None
    if log.masks is not None:
        masks = {"completion": tuple(log.masks[side][i] for i, side, _ in rows)}
    cut = [i for i, _, _ in rows]
    return replace(
        log.rows(cut), kind=kind, masks=masks,
        answers={"completion": tuple(log.answers[side][i] for i, side, _ in rows)},
        score=torch.tensor([label for _, _, label in rows]) if kind == "scored" else None,
    )  # fmt: skip


def _bars(log: LanguageLog) -> list[float]:
    """What an answer must reach to be imitated: the mean of its prompt, where there are several;
    else the mean of all."""
    assert log.score is not None
    group = torch.tensor([log.group_of[p] for p in log.prompts])
    total = torch.zeros(int(group.max()) + 1).index_add(0, group, log.score.float())
    count = torch.zeros_like(total).index_add(0, group, torch.ones(len(group)))
    overall = float(log.score.mean())
    return [
        max(float(total[g] / count[g]), overall) if float(count[g]) > 1 else overall
        for g in group.tolist()
    ]


def _paired(log: LanguageLog) -> LanguageLog:
    """The best and the worst answer to each prompt whose scores differ."""
    assert log.score is not None
    by: dict[Any, list[int]] = {}
    for i, prompt in enumerate(log.prompts):
        by.setdefault(prompt, []).append(i)
    score = log.score.tolist()
    best = [(max(r, key=lambda i: score[i]), min(r, key=lambda i: score[i])) for r in by.values()]
    best = [(a, b) for a, b in best if score[a] > score[b]]
    if not best:
        raise InputError("no prompt has two answers of different score, so there are no pairs; "
                         "leave out methods that learn from pairs")  # fmt: skip
    answers = log.answers["completion"]
    return replace(
        log.rows([a for a, _ in best]), kind="pairs", masks=None, score=None, extras={},
        answers={"chosen": tuple(answers[a] for a, _ in best),
                 "rejected": tuple(answers[b] for _, b in best)},
    )  # fmt: skip


# ------------------------------------------------------------------------------------- training


def train_candidate(
    chosen: Chosen, start: LanguagePolicy, log: LanguageLog, *, reward: Any, steps: int | None,
    horizon: int, lora: Any, stop: tuple[str, ...], seed: int, say: Callable[[str], None],
) -> tuple[LanguagePolicy, dict[str, Any], int]:  # fmt: skip
    """A copy of the model, trained; the hyperparameters that were set, and how many updates."""
    model = copy.deepcopy(start.model)
    if lora is not None:
        model, _ = load_model(model, lora=lora)
    policy = LanguagePolicy(model, start.tokenizer, start.temperature)
    form, params = _form(chosen, policy, horizon)
    kind = kind_of(form)
    data = as_kind(log, kind)
    updates = steps or _updates(kind, len(data), int(form.source.size))
    say(f"training {chosen.key} ({updates} updates)")
    trained = train_language(
        form, data, model=policy, reward=reward if kind == "prompts" else None, steps=updates,
        seed=seed, temperature=start.temperature, stop=stop,
        callback=_progress(chosen.key, updates, say),
    )  # fmt: skip
    return trained, params, updates


def _form(chosen: Chosen, policy: LanguagePolicy, horizon: int) -> tuple[Any, dict[str, Any]]:
    if chosen.form is not None:
        return chosen.form, {}
    known = inspect.signature(recipe(chosen.key)).parameters
    params = dict(chosen.params)
    if "lr" in known and "lr" not in params:
        params["lr"] = learning_rate(policy)
    hidden = {"horizon": horizon} if "horizon" in known and "horizon" not in params else {}
    return build(chosen.key, **params, **hidden), params


def _updates(kind: str, rows: int, batch: int) -> int:
    if kind == "prompts":
        return FRESH_UPDATES
    return max(10, min(MOST_UPDATES, EPOCHS * -(-rows // max(min(batch, rows), 1))))


def _progress(key: str, updates: int, say: Callable[[str], None]) -> Callable[..., None]:
    marks = {round(updates * part / 4) for part in (1, 2, 3)}

    def told(step: int, notes: dict[str, float], _: Any) -> None:
        if step in marks and "reward" in notes:
            say(f"training {key}: update {step} of {updates}, reward {notes['reward']:.3g}")

    return told
