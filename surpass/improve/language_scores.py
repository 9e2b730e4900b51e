"""What judges a language model in the main job: fresh answers to held-out prompts beside the
reference's, or logged answers, importance weighted.

A prompt is one unit: several answers to it are averaged. With fresh answers the score of a prompt
is mean reward of the candidate - mean reward of the reference, in [lo - hi, hi - lo]. With answers
that the reference logged, (min(w, cap) - 1)(r - lo), w = candidate / behavior of the whole answer:
E w = 1, so its mean is at most the gain, and it is never below lo - hi; for losses,
(min(w, cap) - 1)(hi - r).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.critics.verifiers import Answered
from surpass.data.language import LanguageLog, collate
from surpass.objectives.order_statistics import best_at_k
from surpass.policies.generation import Sampling, generate
from surpass.policies.language import LanguagePolicy

__all__ = ["Answers", "Weighed", "answer_all", "best_of_curve", "by_prompt", "logged_logp", "weigh"]

CAP = 20.0
CHUNK = 256  # answers that are generated at a time


@dataclass(frozen=True)
class Answers:
    """Fresh answers to P prompts, S to each: rewards [P, S], texts, and how many were cut at the
    horizon or could not be judged."""

    reward: Float[Tensor, "P S"]
    texts: list[list[str]]
    cut: int
    failed: int
    length: float
    kl: float = float("nan")


@torch.no_grad()
def answer_all(
    policy: LanguagePolicy, log: LanguageLog, rows: Sequence[int], reward: Any, *, samples: int,
    horizon: int, stop: tuple[str, ...] = (), seed: int = 0,
    reference: LanguagePolicy | None = None,
) -> Answers:  # fmt: skip
    """Let a model answer some prompts of a log, and judge the answers.

    The same seed gives the same draws, so two models answer with common random numbers. With
    `reference`, `kl` is the mean over answers of log policy - log reference.
    """
    generator = torch.Generator(device=policy.device).manual_seed(seed)
    found: list[Tensor] = []
    texts: list[list[str]] = []
    cut = length = apart = 0.0
    before = reward.failed
    step = max(1, CHUNK // samples)
    for start in range(0, len(rows), step):
        part = list(rows[start : start + step])
        asked = collate([log.prompts[i] for i in part], [[0]] * len(part)).to(policy.device)
        assert asked.prompt is not None and asked.prompt_mask is not None
        seq = generate(policy, asked.prompt, asked.prompt_mask, Sampling(horizon, stop=stop),
                       group=samples, generator=generator)  # fmt: skip
        said = [_text(policy, seq.action[j][seq.mask[j] > 0].tolist()) for j in range(len(seq))]
        asked_texts = [_prompt(policy, log, i) for i in part]
        truth = [None if log.truth is None else log.truth[i] for i in part]
        judged = reward([
            Answered(asked_texts[j // samples], text, truth[j // samples])
            for j, text in enumerate(said)
        ])  # fmt: skip
        found.append(judged.double().view(len(part), samples))
        texts += [said[j : j + samples] for j in range(0, len(said), samples)]
        last = seq.action.gather(1, (seq.length.long() - 1).clamp_min(0)[:, None])[:, 0]
        full = seq.length >= horizon
        cut += float((full & (last != policy.eos)).sum()) if policy.eos is not None else 0.0
        length += float(seq.length.sum())
        if reference is not None:
            theirs, mine = reference.score(seq).logp, policy.score(seq).logp
            apart += float(((mine - theirs) * seq.mask).sum())
    count = len(rows) * samples
    return Answers(torch.cat(found), texts, round(cut), reward.failed - before, length / count,
                   apart / count if reference is not None else float("nan"))  # fmt: skip


def _text(policy: LanguagePolicy, ids: list[int]) -> str:
    if policy.tokenizer is None:
        return " ".join(map(str, ids))
    return policy.tokenizer.decode(ids, skip_special_tokens=True)


def _prompt(policy: LanguagePolicy, log: LanguageLog, row: int) -> str:
    return log.texts[row] if log.texts is not None else _text(policy, list(log.prompts[row]))


def best_of_curve(reward: Float[Tensor, "P S"]) -> dict[int, float]:
    """The mean best reward of k answers, for k = 1, 2, 4 ... up to S: pass@k where rewards are 0
    and 1, unbiased."""
    samples, out, k = reward.shape[1], {}, 1
    while k <= samples:
        out[k] = float(best_at_k(reward, k).mean())
        k *= 2
    return out


# ------------------------------------------------------------------------------- logged answers


@dataclass(frozen=True)
class Weighed:
    """Logged answers as judges of a candidate: scores per prompt as gains and as losses, the
    effective number of answers, and the self-normalized estimate of the candidate's value."""

    gains: Float[Tensor, "P"]
    losses: Float[Tensor, "P"]
    ess: float
    largest: float
    normalized: float
    ratio: Tensor = field(repr=False)


@torch.no_grad()
def logged_logp(policy: LanguagePolicy, log: LanguageLog, size: int = 64) -> Float[Tensor, "N"]:
    """log pi of every logged answer, summed over its tokens."""
    out = []
    for start in range(0, len(log), size):
        seq = log.sequences(range(start, min(start + size, len(log)))).to(policy.device)
        out.append((policy.score(seq).logp * seq.mask).sum(-1).double().cpu())
    return torch.cat(out)


def by_prompt(value: Float[Tensor, "N"], log: LanguageLog) -> Float[Tensor, "P"]:
    """The mean over the answers to each prompt."""
    group = torch.tensor([log.group_of[p] for p in log.prompts])
    group = torch.unique(group, return_inverse=True)[1]
    count = torch.bincount(group).double()
    return torch.zeros_like(count).index_add(0, group, value.double()) / count


def weigh(
    log_ratio: Float[Tensor, "N"], log: LanguageLog, limits: tuple[float, float], cap: float = CAP
) -> Weighed:
    """Score a candidate on logged, scored answers, from log candidate - log behavior of each; a
    prompt is a unit."""
    assert log.score is not None
    lo, hi = limits
    ratio = log_ratio.double().exp()
    held, r = ratio.clamp(max=cap), log.score.double()
    return Weighed(
        gains=by_prompt((held - 1) * (r - lo), log), losses=by_prompt((held - 1) * (hi - r), log),
        ess=float(ratio.sum() ** 2 / ratio.square().sum().clamp_min(1e-300)),
        largest=float(ratio.max()), normalized=float((ratio * r).sum() / ratio.sum()),
        ratio=ratio,
    )  # fmt: skip
