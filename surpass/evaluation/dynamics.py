"""What learning does to answers that a language model is not learning: predicted for a step, or
watched along a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from surpass.data.language import LanguageLog
from surpass.data.records import Sequences
from surpass.errors import InputError
from surpass.forms import Pairwise, PolicyGradient
from surpass.objectives.advantage import ones
from surpass.objectives.learning_dynamics import Learning
from surpass.parts import needs_of
from surpass.policies.generation import Sampling, generate
from surpass.policies.language import LanguagePolicy, tokens_of
from surpass.policies.token_logps import TokenStats, aligned, unaligned
from surpass.training.module_losses import Running, gradient_loss, pair_loss
from surpass.training.pieces import joined

__all__ = ["Watched", "learning_of", "probes"]


def learning_of(
    policy: LanguagePolicy, form: Pairwise | PolicyGradient, log: LanguageLog,
    watched: Mapping[str, Sequences], reference: LanguagePolicy | None = None,
) -> Learning:  # fmt: skip
    """A recipe about to take a step on all rows of a log, and the summed log-probabilities of
    watched answers: what `llm-learning-dynamics` measures.

    Args:
        form: of a recipe on pairs, or `sft`. reference: by default the policy as it is.

    Raises:
        InputError: for recipes that need more than the log-probabilities of these rows.
    """
    more = [n for n in needs_of(form) if n not in ("group", "distance")]
    demonstrations = isinstance(form, PolicyGradient) and form.advantage == ones()
    if more or not (isinstance(form, Pairwise) or demonstrations) or form.gradient is not None:
        raise InputError("effects are predicted of losses on pairs or demonstrations that need "
                         "log-probabilities only, such as dpo() and sft()")  # fmt: skip
    seq = (joined(log.side("chosen", range(len(log))), log.side("rejected", range(len(log))))
           if isinstance(form, Pairwise) else log.sequences(range(len(log))))  # fmt: skip
    seq = seq.to(policy.device)
    shown = {name: answers.to(policy.device) for name, answers in watched.items()}
    if isinstance(form, Pairwise):
        with torch.no_grad():
            ref = (reference or policy).score(seq).logp if form.nets else None
        of_stats = pair_loss(form, seq, ref, None, Running())
    else:
        of_stats = gradient_loss(form, seq, {"advantage": ones()(seq)}, Running())

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return of_stats(TokenStats(_logps(policy, parameters, seq)))

    def seen(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: (_logps(policy, parameters, answers) * answers.mask).sum(-1)
                for name, answers in shown.items()}  # fmt: skip

    trained = {n: p for n, p in policy.model.named_parameters() if p.requires_grad}
    return Learning(trained, loss, seen)


def _logps(policy: LanguagePolicy, parameters: dict[str, Tensor], seq: Sequences) -> Tensor:
    """Log-probs of answers, [B, T], by operations that have derivatives in both directions."""
    tokens = tokens_of(seq)
    inner, place = aligned(tokens)
    with sdpa_kernel(SDPBackend.MATH):
        made: Any = torch.func.functional_call(
            policy.model, parameters, (), {"input_ids": inner.ids, "use_cache": False}
        )
    wide = torch.promote_types(made.logits.dtype, torch.float32)
    logp = (made.logits[:, :-1].to(wide) / policy.temperature).log_softmax(-1)
    logp = logp.gather(-1, inner.ids[:, 1:, None])[..., 0] * inner.scored[:, 1:]
    logp = torch.cat([torch.zeros_like(logp[:, :1]), logp], 1)
    return unaligned(logp, place, tokens)[:, 0 if seq.prompt is None else seq.prompt.shape[1] :]


def probes(log: LanguageLog, rows: int = 64, seed: int = 0) -> dict[str, Sequences]:
    """Answers worth watching, to the first rows of a log of pairs: `chosen`, `rejected`, `other`
    (the chosen answer to another prompt) and `shuffled` (the chosen one's tokens in random order,
    its last one kept in place).

    Raises:
        InputError: when the log has fewer than two pairs.
    """
    if log.kind != "pairs" or len(log) < 2:
        raise InputError(f"probes need two pairs or more; this log holds {len(log)} {log.kind}")
    some = log.rows(range(min(rows, len(log))))
    draw, chosen = torch.Generator().manual_seed(seed), some.answers["chosen"]
    moved = tuple(
        (*(a[i] for i in torch.randperm(len(a) - 1, generator=draw).tolist()), a[-1])
        for a in chosen
    )
    answers = {"other": (*chosen[1:], chosen[0]), "shuffled": moved}
    every = range(len(some))
    return {
        **{side: some.side(side, every) for side in ("chosen", "rejected")},
        **{name: replace(some, masks=None, answers={name: a}).side(name, every)
           for name, a in answers.items()},
    }  # fmt: skip


class Watched:
    """The mean log-probability of watched answers along a run, and of what the policy then likes
    best: hand it to `train_language` (or `sp.train`) as `callback`.

    Attributes:
        rows: by look, `step`, each name's mean log-probability of whole answers, `greedy` that of
            the greedy answers to the first name's prompts, and `gap`, `greedy` less the first's.
    """

    def __init__(self, answers: Mapping[str, Sequences], every: int = 10) -> None:
        self.answers, self.every = dict(answers), every
        self.rows: list[dict[str, float]] = []

    @torch.no_grad()
    def __call__(self, step: int, notes: Mapping[str, float], policy: LanguagePolicy) -> None:
        """Look, every so many updates; a run calls it after each, so call it with 0 before."""
        if step % self.every:
            return

        def mean(seq: Sequences) -> float:
            here = seq.to(policy.device)
            return float((policy.score(here).logp * here.mask).sum(-1).mean())

        found = {name: mean(seq) for name, seq in self.answers.items()}
        first = next(iter(self.answers.values()))
        assert first.prompt is not None and first.prompt_mask is not None
        likeliest = generate(
            policy, first.prompt.to(policy.device), first.prompt_mask.to(policy.device),
            Sampling(first.action.shape[1], temperature=0.0),
        )  # fmt: skip
        greedy = mean(likeliest)
        gap = greedy - next(iter(found.values()))
        self.rows.append({"step": float(step), **found, "greedy": greedy, "gap": gap})
