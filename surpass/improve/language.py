"""The main job on language models: train candidates on some prompts, choose one on others, test it
on the rest, and say PROMOTE, HOLD or REJECT.

With a reward of answers, candidate and reference answer the same held-out prompts, and the paired
differences per prompt go through the guarded test. Without one, logged answers with their scores
and log-probabilities judge, importance weighted. With preference pairs alone, a reward model fitted
on held-out pairs gives an opinion, which cannot promote.
"""

from __future__ import annotations

import tempfile
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surpass.critics.verifiers import CHECKS, Reward, open_reward
from surpass.data.language import LanguageLog, open_language
from surpass.errors import InputError
from surpass.improve.improvement import Improvement
from surpass.improve.language_candidates import (
    Chosen,
    chosen_methods,
    learning_rate,
    train_candidate,
)
from surpass.improve.language_report import told
from surpass.improve.language_scores import (
    Answers,
    Weighed,
    answer_all,
    logged_logp,
    weigh,
)
from surpass.improve.scoring import RewardRange, reward_range
from surpass.policies.language import LanguagePolicy, load_model
from surpass.registry import build
from surpass.training.module_run import train_language

__all__ = ["Judged", "Run", "improve_language", "split_prompts"]

SHARES = (0.5, 0.2)  # of the prompts: to learn on, to choose on; the rest judges
LEAST_PROMPTS = 20
Say = Callable[[str], None]


@dataclass
class Judged:
    """A candidate with what was found out about it.

    Attributes:
        folder: where its weights wait. answers: what it said to choosing and judging prompts.
            logged: its log-probs of the logged answers instead.
        choosing, judging: scores per prompt, as gains, and their lower limit `floor`; `losses`:
            scores of judging prompts as losses.
    """

    chosen: Chosen
    params: dict[str, Any]
    folder: Path
    updates: int
    answers: Answers | None = None
    logged: Tensor | None = None
    weighed: Weighed | None = None
    choosing: Tensor = field(default_factory=lambda: torch.zeros(0))
    judging: Tensor = field(default_factory=lambda: torch.zeros(0))
    losses: Tensor = field(default_factory=lambda: torch.zeros(0))
    floor: float = 0.0

    def promise(self, rows: int) -> float:
        """The t statistic to expect on the judging prompts, the guard counted."""
        gain, sd = float(self.choosing.mean()), float(self.choosing.std()) + 1e-9
        return (rows * gain - abs(self.floor)) / (sd * rows**0.5)


@dataclass
class Run:
    """One run of the main job: what was asked for, and what was found."""

    start: LanguagePolicy
    reference: LanguagePolicy
    log: LanguageLog
    name: str
    reward: Reward | None
    reward_name: str
    horizon: int
    samples: int
    stop: tuple[str, ...]
    level: float
    margin: float
    seed: int
    accept_observed: bool
    accept_estimated: bool
    parts: tuple[list[int], list[int], list[int]]
    work: tempfile.TemporaryDirectory[str]
    reference_given: bool = False
    judge_is_fitted: bool = False
    range: RewardRange = field(default_factory=lambda: RewardRange(0.0, 1.0, "observed"))
    base: Answers | None = None
    behavior: Tensor | None = None
    estimated: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


def improve_language(
    data: Any,
    model: Any,
    methods: str | Sequence[str] | Mapping[str, Any] = "auto",
    *,
    reward: Any = None,
    reference: Any = None,
    tokenizer: Any = None,
    level: float = 0.05,
    margin: float = 0.0,
    seed: int = 0,
    reward_limits: tuple[float, float] | None = None,
    accept_observed_range: bool = False,
    accept_estimated_behavior: bool = False,
    samples: int = 4,
    horizon: int | None = None,
    steps: int | None = None,
    lora: Any = None,
    stop: tuple[str, ...] = (),
    columns: Mapping[str, str] | None = None,
    name: str = "",
    say: Say = lambda _: None,
) -> Improvement:
    """From a language model and data to a verdict on mean rewards per answer.

    Args:
        data: prompts (with answers), preference pairs, scored answers or demonstrations: a JSONL or
            Parquet file, rows, a data set, a `LanguageLog`.
        model: a folder or a causal language model; it is left as it is.
        methods: recipes by key, with hyperparameters where wanted (`"dpo:lr=1e-4"`), "auto", or
            forms by name.
        reward: of answers: "exact", "numeric", "math", "regex:PATTERN", "module:function", the
            folder of a reward model, or a function.
        reference: the model to surpass; `model` by default, and of answers that were logged with
            their log-probs the model that wrote them.
        level, margin, seed: of the verdict; the margin is in units of the reward.
        reward_limits: the smallest and largest reward that may ever occur.
        accept_observed_range: let the observed range stand for it.
        accept_estimated_behavior: for scored answers without logged probabilities: take the
            reference for the model that wrote them.
        samples: answers of each model to each held-out prompt.
        horizon: most tokens of an answer. steps: updates of each recipe. lora: a rank.
        columns: where what stands, such as `{"prompt": "question"}`.

    Raises:
        InputError: when data, model, reward or an option cannot be used.
    """
    if not 0 < level < 0.5:
        raise InputError(f"--level is {level:g}; give a chance between 0 and 0.5")
    if samples < 1:
        raise InputError(f"--samples is {samples}; give at least one answer to each prompt")
    begun = clock.perf_counter()
    say("opening the model")
    start = _opened(model, tokenizer)
    against = start if reference is None else _opened(reference, start.tokenizer)
    log = open_language(
        data, start.tokenizer, context=start.context, vocabulary=start.vocabulary,
        columns=columns, eos=start.eos,
    )  # fmt: skip
    judge = None if reward is None else open_reward(reward)
    _usable(log, judge, reward)
    if judge is None and reference is not None and "behavior_logp" in log.extras:
        raise InputError(
            "logged answers with their log-probs are held against the model that wrote them, not "
            "against another reference; leave that out, or say what a good answer is with --reward"
        )
    chosen = chosen_methods(methods, log, judge is not None)
    parts = split_prompts(log, seed)
    run = Run(
        start, against, log, name or log.about.name or "prompts", judge, _named(reward),
        _horizon(log, start, horizon), samples, stop, level, margin, seed,
        accept_observed_range, accept_estimated_behavior, parts,
        tempfile.TemporaryDirectory(prefix="surpass-"), reference is not None,
    )  # fmt: skip
    if judge is None and log.kind == "pairs":
        _fit_judge(run, say)
    run.seconds["reading"] = clock.perf_counter() - begun
    _judge_reference(run, say)
    judged = [_tried(run, c, steps, lora, say) for c in chosen]
    _settle_range(run, judged, reward_limits)
    for each in judged:
        _score(run, each)
    best = max(judged, key=lambda j: j.promise(len(j.judging)))
    return told(run, judged, best)


def _opened(model: Any, tokenizer: Any) -> LanguagePolicy:
    if isinstance(model, LanguagePolicy):
        return model
    if isinstance(model, str | Path) and Path(model).exists() and tokenizer is None:
        return LanguagePolicy.load(model)
    return LanguagePolicy(*load_model(model, tokenizer))


def _named(reward: Any) -> str:
    return reward if isinstance(reward, str) else getattr(reward, "__name__", "the reward")


def _usable(log: LanguageLog, judge: Reward | None, reward: Any) -> None:
    if judge is None and log.kind in ("prompts", "demonstrations"):
        what = "prompts" if log.kind == "prompts" else "demonstrations, good for imitation"
        raise InputError(
            f"the data are {what}: say what a good answer is with --reward exact (or numeric, "
            "math, regex:PATTERN, module:function, the folder of a reward model)"
        )
    wants_truth = isinstance(reward, str) and reward in CHECKS
    if wants_truth and log.truth is not None and isinstance(log.truth[0], dict):
        raise InputError(
            f"the reward {reward!r} compares with the right answer, but the data have no column "
            "'answer'; name it with --columns answer=COLUMN"
        )


def _horizon(log: LanguageLog, policy: LanguagePolicy, asked: int | None) -> int:
    """The most tokens of an answer: the longest in the data, or what the context leaves, up to
    256."""
    room = policy.context - max(len(p) for p in log.prompts)
    longest = max((len(a) for side in log.answers.values() for a in side), default=256)
    found = asked or min(longest, 256, room)
    if found < 1 or found > room:
        raise InputError(
            f"the longest prompt leaves room for {max(room, 0)} tokens of the model's context of "
            f"{policy.context}, and answers may have {max(found, 1)}; drop long prompts or lower "
            "--horizon"
        )
    return found


def split_prompts(log: LanguageLog, seed: int = 0) -> tuple[list[int], list[int], list[int]]:
    """Rows to learn on, to choose on, and to judge by; rows of one prompt stay together.

    Raises:
        InputError: when there are too few different prompts.
    """
    prompts = list(dict.fromkeys(log.prompts))
    if len(prompts) < LEAST_PROMPTS:
        raise InputError(
            f"the data have {len(prompts)} different prompts; at least {LEAST_PROMPTS} are needed "
            "to learn on some and judge by others"
        )
    place = np.random.default_rng(seed).permutation(len(prompts))
    first, second = round(SHARES[0] * len(prompts)), round(sum(SHARES) * len(prompts))
    part = {}
    for rank, i in enumerate(place.tolist()):
        part[prompts[i]] = 0 if rank < first else 1 if rank < second else 2
    rows: tuple[list[int], list[int], list[int]] = ([], [], [])
    for i, prompt in enumerate(log.prompts):
        rows[part[prompt]].append(i)
    return rows


def _once(log: LanguageLog, rows: list[int]) -> list[int]:
    """One row of each prompt: a prompt is asked once, `samples` times."""
    return list({log.prompts[i]: i for i in reversed(rows)}.values())[::-1]


# ------------------------------------------------------------------------------------- judging


def _fit_judge(run: Run, say: Say) -> None:
    """A reward model of the choosing and judging pairs, which no candidate learns from."""
    say("fitting a reward model to held-out pairs")
    begun = clock.perf_counter()
    held = run.log.rows([*run.parts[1], *run.parts[2]])
    form = build("reward-model", lr=min(learning_rate(run.start), 1e-3), batch=32)
    steps = max(20, min(300, 3 * len(held) // 32))
    run.reward = train_language(form, held, model=run.start, steps=steps, seed=run.seed)
    run.reward_name, run.judge_is_fitted = "a reward model fitted to held-out pairs", True
    run.seconds["reward model"] = clock.perf_counter() - begun


def _judge_reference(run: Run, say: Say) -> None:
    """What the reference answers and earns; or the log-probs of the logged answers."""
    begun = clock.perf_counter()
    if run.reward is None:
        logged = run.log.extras.get("behavior_logp")
        run.estimated = logged is None
        if logged is None:
            say("computing the reference's log-probs of the logged answers")
            logged = logged_logp(run.reference, run.log)
        run.behavior = logged.double()
    else:
        say("asking the reference")
        rows = [*_once(run.log, run.parts[1]), *_once(run.log, run.parts[2])]
        run.base = answer_all(
            run.reference, run.log, rows, run.reward, samples=run.samples, horizon=run.horizon,
            stop=run.stop, seed=run.seed,
        )  # fmt: skip
    run.seconds["reference"] = clock.perf_counter() - begun


def _tried(run: Run, chosen: Chosen, steps: int | None, lora: Any, say: Say) -> Judged:
    begun = clock.perf_counter()
    policy, params, updates = train_candidate(
        chosen, run.start, run.log.rows(run.parts[0]), reward=run.reward, steps=steps,
        horizon=run.horizon, lora=lora, stop=run.stop, seed=run.seed, say=say,
    )  # fmt: skip
    folder = Path(run.work.name) / f"{len(run.seconds)}"
    policy.save(folder)
    run.seconds[f"training {chosen.key}"] = clock.perf_counter() - begun
    begun = clock.perf_counter()
    say(f"judging {chosen.key}")
    made = Judged(chosen, params, folder, updates)
    if run.reward is None:
        made.logged = logged_logp(policy, run.log.rows([*run.parts[1], *run.parts[2]]))
    else:
        rows = [*_once(run.log, run.parts[1]), *_once(run.log, run.parts[2])]
        made.answers = answer_all(
            policy, run.log, rows, run.reward, samples=run.samples, horizon=run.horizon,
            stop=run.stop, seed=run.seed, reference=run.reference,
        )  # fmt: skip
    run.seconds[f"judging {chosen.key}"] = clock.perf_counter() - begun
    return made


def _settle_range(run: Run, judged: list[Judged], stated: tuple[float, float] | None) -> None:
    """The range of rewards: that of a check, the stated one, two values, or what was seen."""
    if run.reward is None:
        assert run.log.score is not None
        run.range = reward_range(run.log.score.double(), stated)
        return
    assert run.base is not None
    seen = torch.cat([run.base.reward, *(j.answers.reward for j in judged if j.answers)])
    checks = run.reward_name in CHECKS or run.reward_name.startswith("regex:")
    if stated is not None:  # rewards are single precision, so limits are too
        near = torch.tensor(stated, dtype=torch.float32).tolist()
        stated = min(stated[0], near[0]), max(stated[1], near[1])
    run.range = reward_range(seen.flatten(), (0.0, 1.0) if checks else stated)


def _score(run: Run, judged: Judged) -> None:
    """Scores per prompt, choosing and judging."""
    cut = len(_once(run.log, run.parts[1]))
    judged.floor = run.range.lo - run.range.hi
    if judged.answers is not None:
        assert run.base is not None
        apart = (judged.answers.reward - run.base.reward).mean(-1)
        judged.choosing, judged.judging, judged.losses = apart[:cut], apart[cut:], -apart[cut:]
        return
    assert judged.logged is not None and run.behavior is not None
    n, limits = len(run.parts[1]), (run.range.lo, run.range.hi)
    logps = judged.logged[:n], judged.logged[n:]
    found = [
        weigh(logp - run.behavior[part], run.log.rows(part), limits)
        for logp, part in zip(logps, run.parts[1:], strict=True)
    ]
    judged.choosing, judged.judging = found[0].gains, found[1].gains
    judged.losses, judged.weighed = found[1].losses, found[1]
