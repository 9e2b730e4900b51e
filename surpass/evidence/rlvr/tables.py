"""Evidence on tables of logits, where success, entropy and diversity are exact: the recipes run as
they do on language models."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.evidence.rlvr.curves import curve
from surpass.forms import PolicyGradient
from surpass.methods.rlvr.gvm import gradient_norms
from surpass.methods.rlvr.optimal_baseline import oblr_po
from surpass.methods.rlvr.policy_gradients import dr_grpo, rloo
from surpass.methods.rlvr.rover import rover
from surpass.methods.rlvr.tsallis import garl
from surpass.objectives.advantage import leave_one_out, with_columns
from surpass.objectives.groups import accepted_mean
from surpass.objectives.optimal_baseline import optimal_baseline
from surpass.objectives.sampling_budget import allocated, budget_weights
from surpass.objectives.tree import random_values
from surpass.policies.table_model import table_policy
from surpass.tasks.language import ModSum
from surpass.tasks.tables import TableTask, lock_table, sumtriple_table
from surpass.training.language_rollouts import RolloutStream, TaskPrompts
from surpass.training.modules import ModuleTrainer

Watch = Callable[[int, Tensor], bool]


def trained(
    form: PolicyGradient, task: TableTask, logits: Tensor, updates: int, seed: int,
    watch: Watch | None = None, every: int = 10,
) -> Tensor:  # fmt: skip
    """The table after some batches; `watch(update, table)` may stop it."""
    policy = table_policy(task, logits)
    stream = RolloutStream(policy, TaskPrompts(task, seed), form.source, seed=seed,
                           select=form.select)  # fmt: skip
    trainer = ModuleTrainer(form, policy, stream, seed=seed)
    table: Any = policy.model.table  # type: ignore[union-attr]
    for number in range(1, updates + 1):
        trainer.update()
        if watch is not None and number % every == 0 and watch(number, table.weight.detach()):
            break
    return table.weight.detach().double()


def success(task: TableTask, table: Tensor) -> float:
    """The exact expected reward over all prompts."""
    return float(task.truth(table.double()).success.mean())


# ----------------------------------------------------------------------------- tsallis-garl-paft


def steps_to_half(form: PolicyGradient, seed: int, most: int = 600) -> float:
    """Updates until the success on a lock is one half (`most` where it never is)."""
    task = lock_table(vocab=10, length=3, prompts=1, seed=seed)
    at = [float(most)]

    def watch(number: int, table: Tensor) -> bool:
        if success(task, table) < 0.5:
            return False
        at[0] = float(number)
        return True

    trained(form, task, task.warm_start(0.006), most, seed, watch, every=1)
    return at[0]


@evidence(
    "tsallis-garl-paft",
    claim="from a success rate of 0.006 GARL with q = 0.75 escapes in at most half the updates of "
    "q = 0",
    baseline="RLOO, which is q = 0; the same groups, plain gradient steps of the same size",
    metric="updates until the exact success is one half",
    bar=at_most(0.5, times=True), seeds=3, minutes=1.0,
    setting="lock-table, 10 tokens, 3 places, one prompt, groups of 64; momentum-free Adam with a "
    "large epsilon, which is a plain gradient step.",
)  # fmt: skip
def tsallis_evidence(seed: int, zoo: Any) -> Result:
    """Also: q = 1."""

    def plain(form: PolicyGradient) -> PolicyGradient:
        # With a large epsilon Adam divides by a constant: a step proportional to the gradient.
        adam = replace(form.optimizer, lr=2e3, betas=(0.0, 0.0), eps=1e3, max_norm=None)
        return replace(form, optimizer=adam)

    named: dict[str, Any] = {"group": 64, "batch": 64, "horizon": 3}
    ours, base, one = (
        steps_to_half(plain(form), seed)
        for form in (garl(0.75, **named), rloo(beta=0.0, **named), garl(1.0, **named))
    )
    return Result(ours, base, also={"updates with q = 1": (one, base)})


# ----------------------------------------------------------------------------------------- rover


def diversity(task: TableTask, table: Tensor) -> tuple[float, float]:
    """Exact success, and the effective number of right answers (geometric mean over prompts)."""
    truth = task.truth(table.double())
    return float(truth.success.mean()), float(truth.solutions.log().mean().exp())


def alive(form: PolicyGradient, seed: int, reach: float = 0.9, most: int = 300) -> list[float]:
    """The effective number of right answers when success first reaches a level; the batch."""
    task, found = sumtriple_table(), [0.0, 0.0]

    def watch(number: int, table: Tensor) -> bool:
        reached, right = diversity(task, table)
        found[:] = [right, float(number)]
        return reached >= reach

    trained(form, task, task.uniform(), most, seed, watch, every=1)
    return found


@evidence(
    "rover",
    claim="ROVER arrives at the same success with at least 1.3 times as many right answers alive "
    "as group REINFORCE",
    baseline="Dr. GRPO, the same answers per batch, minibatches and rate",
    metric="effective number of right answers (of 100) when success first reaches 0.9",
    bar=at_least(1.3, times=True), seeds=20, minutes=0.5,
    setting="sumtriple-table from a uniform policy (0.1), batches of 320 answers, Adam 0.2.",
)  # fmt: skip
def rover_evidence(seed: int, zoo: Any) -> Result:
    """Also: batches to get there; and a softmax of the exact values of the random policy, which
    keeps all of them."""
    named: dict[str, Any] = {
        "group": 8, "batch": 320, "horizon": 3, "lr": 0.2, "minibatches": 4,
    }  # fmt: skip
    ours, theirs = alive(rover(**named), seed), alive(dr_grpo(**named), seed)
    task = sumtriple_table()
    levels = random_values(task.rewards, task.vocab, task.length)
    exact = torch.cat([v.reshape(task.n_prompts, -1, task.vocab) for v in levels], 1) / 0.05
    known = diversity(task, exact.reshape(task.rows, task.vocab))
    return Result(
        ours[0], theirs[0],
        also={"batches to 0.9": (ours[1], theirs[1]),
              "right answers with exact values": (known[1], theirs[0])},
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- gvm


def estimates(
    task: TableTask, logits: Tensor, counts: Tensor, seed: int, draws: int = 64
) -> Tensor:
    """The gradient of imitating what is right, counts[x] answers to each prompt, drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.arange(task.n_prompts).repeat_interleave(counts)
    asked = task.prompts(len(prompt))._replace(
        tokens=prompt[:, None], mask=torch.ones(len(prompt), 1), kind=prompt
    )
    out = []
    for _ in range(draws):
        table = logits.clone().requires_grad_()
        seq = task.sample(table, asked, generator)
        seq.group = prompt
        at = task.row(prompt, seq.action)
        logp = table.log_softmax(-1)[at, seq.action]
        loss = (accepted_mean()(seq) * logp).sum() / len(seq)
        out.append(torch.autograd.grad(loss, table)[0].flatten())
    return torch.stack(out)


@evidence(
    "gvm",
    claim="at the same number of answers the budget of GVM reduces the variance of the gradient to "
    "at most 0.8 of an even one's, trials from which it is planned charged to it",
    baseline="as many answers to every prompt, the trial's included",
    metric="total variance of the gradient over 64 batches",
    bar=at_most(0.8, times=True), seeds=5, minutes=0.5,
    setting="sumtriple-table with one start of success 0.05 to 0.9 per prompt, 1,600 answers.",
)  # fmt: skip
def gvm_evidence(seed: int, zoo: Any) -> Result:
    """Also: without charging the trials."""
    task = sumtriple_table()
    levels = torch.linspace(0.05, 0.9, task.n_prompts).tolist()
    starts = [task.warm_start(level).view(task.n_prompts, -1, task.vocab) for level in levels]
    mixed = torch.stack([starts[x][x] for x in range(task.n_prompts)])
    logits = mixed.reshape(task.rows, task.vocab)
    total, trial = 1600, 8
    policy = table_policy(task, logits)
    stream_seed = torch.Generator().manual_seed(seed + 1)
    prompt = torch.arange(task.n_prompts).repeat_interleave(trial)
    asked = task.prompts(len(prompt))._replace(
        tokens=prompt[:, None], mask=torch.ones(len(prompt), 1), kind=prompt
    )
    seq = task.sample(logits, asked, stream_seed)
    good = seq.total.view(-1, trial)
    norms = gradient_norms(policy, seq, list(range(len(seq)))).view(-1, trial)
    size = (norms * good).sum(-1) / good.sum(-1).clamp_min(1)
    weight = budget_weights(good.mean(-1), size)

    def variance(counts: Tensor) -> float:
        return float(estimates(task, logits, counts, seed).var(0).sum())

    spent = total - len(seq)
    charged = variance(allocated(weight, spent))
    free = variance(allocated(weight, total))
    even = variance(torch.full((task.n_prompts,), total // task.n_prompts))
    return Result(
        charged, even,
        also={"variance, trials free": (free, even)},
    )  # fmt: skip


# --------------------------------------------------------------------------------------- oblr-po


def peaked(task: TableTask, answer: tuple[int, ...], p: float = 0.9) -> Tensor:
    """Logits that give each token of one answer to prompt 0 the probability `p`, and are even
    elsewhere."""
    tokens = torch.tensor([answer])
    at = task.row(torch.zeros(1, dtype=torch.long), tokens)[0]
    logits = task.uniform()
    logits[at, tokens[0]] += math.log(p * (task.vocab - 1) / (1 - p))
    return logits


def gradients_of(advantage: Any, task: TableTask, logits: Tensor, seed: int, draws: int) -> Tensor:
    """The gradient that each of many groups of eight answers to prompt 0 gives, [draws, D], from
    the exact scores of a table."""
    g = torch.Generator().manual_seed(seed)
    n = 8 * draws
    prompt = torch.zeros(n, dtype=torch.long)
    asked = task.prompts(n)._replace(tokens=prompt[:, None], kind=prompt, mask=torch.ones(n, 1))
    seq = task.sample(logits, asked, g)
    at = task.row(prompt, seq.action)
    score = torch.nn.functional.one_hot(seq.action, task.vocab) - logits.softmax(-1)[at]
    seq.group = torch.arange(n) // 8
    out = []
    for i in range(0, n, 512):  # groups are compared by a matrix of rows by rows
        here = slice(i, i + 512)
        one = with_columns(seq[here], score_square=score[here].square().sum((1, 2)).float())
        weighed = advantage(one)[:, :1, None] * score[here]
        flat = torch.zeros(len(weighed), task.prefixes, task.vocab, dtype=weighed.dtype)
        flat.scatter_add_(1, at[here][..., None].expand_as(weighed), weighed)
        out.append(flat.flatten(1).view(-1, 8, flat[0].numel()).mean(1))
    return torch.cat(out)


@evidence(
    "oblr-po",
    claim="where a policy is peaked at a right answer, a baseline weighed by gradients leaves at "
    "most 0.8 of the variance of the gradient that the mean of the others leaves; and with the "
    "rate by signal, a rate of 3e-3 ends 5 points above itself fixed and not a point below 1e-3",
    baseline="leave-one-out means on the same answers; RLOO at the fixed rates 3e-3 and 1e-3",
    metric="total variance of the gradient of a group of eight over 2,000 groups",
    bar=at_most(0.8, times=True), seeds=5, minutes=4.0,
    setting="sumtriple-table, one prompt, each token of one answer at 0.9; and MODSUM-LM, 30 "
    "batches of 128 answers.",
)  # fmt: skip
def oblr_evidence(seed: int, zoo: Any) -> Result:
    """Also: where the answer is a wrong one; and percent solved."""
    task = sumtriple_table()
    found = {
        answer: [gradients_of(a, task, peaked(task, answer), seed, 2000)
                 for a in (optimal_baseline(), leave_one_out())]
        for answer in ((3, 3, 4), (3, 3, 5))  # of prompt 0: their sums are 10 and 11
    }  # fmt: skip
    (ours, theirs), wrong = found.values()
    sizes: dict[str, Any] = {"group": 8, "batch": 128, "horizon": ModSum().response_length}
    adaptive = curve(oblr_po(lr=3e-3, **sizes), zoo, seed, 30, every=30).last
    large, small = (curve(rloo(beta=0.0, lr=lr, **sizes), zoo, seed, 30, every=30).last
                   for lr in (3e-3, 1e-3))  # fmt: skip
    return Result(
        float(ours.var(0).sum()), float(theirs.var(0).sum()),
        also={"variance, peaked at a wrong answer": tuple(float(g.var(0).sum()) for g in wrong),
              "percent solved, against 3e-3 fixed": (adaptive, large, at_least(5.0)),
              "percent solved, against 1e-3 fixed": (adaptive, small, at_least(-1.0))},
    )  # fmt: skip
