"""Evidence of the preference family on a toy language: digit strings, and sums modulo 10."""

from __future__ import annotations

import copy
from typing import Any

import torch

from surpass.data.language import LanguageLog
from surpass.evidence.declaration import Result, at_least, evidence
from surpass.methods.preference.humanline import humanline
from surpass.methods.preference.online import online_dpo
from surpass.methods.preference.pairs import dpo
from surpass.methods.preference.regression import tbrm
from surpass.methods.rlvr.policy_gradients import grpo, reinforce
from surpass.policies.generation import Sampling, generate
from surpass.policies.language import LanguagePolicy
from surpass.tasks.language import DigitStrings, LanguageTask
from surpass.training.module_run import train_language
from surpass.zoo.language import accuracy

__all__ = ["right", "trained"]


def right(policy: LanguagePolicy, task: LanguageTask) -> float:
    """Percent of right answers to 512 held-out prompts, four each."""
    return 100 * accuracy(policy, task, each=4, seed=12345)


def trained(
    form: Any, policy: LanguagePolicy, task: Any, steps: int, seed: int, **more: Any
) -> LanguagePolicy:
    """A copy of a model, trained on a task (or on data) for so many updates."""
    own = copy.deepcopy(policy)
    data = more.pop("data", None)
    where = {} if data is not None else {"task": task}
    return train_language(form, data, model=own, steps=steps, seed=seed, **where, **more)


# ---------------------------------------------------------------------------------------- tbrm


@evidence(
    "tbrm",
    claim="with one answer to each prompt, squared Bellman residuals learn no less than GRPO with "
    "eight to each, and more than REINFORCE, from equal numbers of answers",
    baseline="grpo (groups of 8) and reinforce (batch mean); two learning rates for every method",
    metric="percent of held-out prompts solved after 15 updates of 256 answers (MODSUM-LM)",
    bar=at_least(-1.0), seeds=3, minutes=2.0,
)  # fmt: skip
def tbrm_evidence(seed: int, zoo: Any) -> Result:
    """Also: against REINFORCE."""
    bed = zoo("modsum-reference")
    horizon = bed.task.response_length

    def reached(form: Any) -> float:
        return right(trained(form, bed.policy, bed.task, 15, seed), bed.task)

    ours = reached(tbrm(0.2, lr=1e-3, batch=256, horizon=horizon))
    theirs = reached(grpo(beta=0.0, group=8, batch=256, horizon=horizon, lr=1e-3))
    plain = reached(reinforce(batch=256, horizon=horizon, lr=1e-3))
    return Result(ours, theirs, also={"percent solved, against REINFORCE": (
        ours, plain, at_least(2.0))})  # fmt: skip


# ----------------------------------------------------------------------------------- humanline


def graded_pairs(policy: LanguagePolicy, task: DigitStrings, n: int, seed: int) -> LanguageLog:
    """The better and the worse of four answers by the share of right digits."""
    draw = torch.Generator().manual_seed(seed)
    prompts, chosen, rejected = [], [], []
    while len(prompts) < n:
        asked = task.prompts(256, draw)
        seq = generate(policy, asked.tokens, asked.mask, Sampling(task.response_length), group=4,
                       generator=draw)  # fmt: skip
        score = graded(task, seq).view(-1, 4)
        for i in range(256):
            good, bad = int(score[i].argmax()), int(score[i].argmin())
            if score[i, good] > score[i, bad]:
                prompts.append(tuple(asked.tokens[i][asked.mask[i] > 0].tolist()))
                for into, j in ((chosen, good), (rejected, bad)):
                    row = 4 * i + j
                    into.append(tuple(seq.action[row][seq.mask[row] > 0].tolist()))
    return LanguageLog("pairs", tuple(prompts[:n]),
                       {"chosen": tuple(chosen[:n]), "rejected": tuple(rejected[:n])})  # fmt: skip


def graded(task: DigitStrings, seq: Any) -> torch.Tensor:
    """The share of right digits of each answer."""
    filled = torch.where(seq.mask > 0, seq.action, task.vocabulary.pad)
    return task.graded(seq.prompt, filled, seq.mask)


def mean_graded(policy: LanguagePolicy, task: DigitStrings) -> float:
    """100 times the mean share of right digits on held-out prompts."""
    draw = torch.Generator().manual_seed(12345)
    asked = task.prompts(512, draw)
    seq = generate(policy, asked.tokens, asked.mask, Sampling(task.response_length), group=4,
                   generator=draw)  # fmt: skip
    return 100 * float(graded(task, seq).mean())


@evidence(
    "humanline",
    claim="on offline pairs, clamped token ratios to a synced reference reach a higher reward than "
    "DPO, and close half of the gap to online DPO",
    baseline="dpo on the same pairs; beta and learning rate of both from the same grid",
    metric="100 x mean share of right digits (DIGIT-STRINGS, 3,000 pairs, 120 updates of 64)",
    bar=at_least(0.5), seeds=3, minutes=2.0,
)  # fmt: skip
def humanline_evidence(seed: int, zoo: Any) -> Result:
    """Also: clamp or sync alone, and online DPO with as many pairs."""
    bed = zoo("strings-reference")
    data = graded_pairs(bed.policy, bed.task, 3000, 500 + seed)

    def reached(form: Any, **more: Any) -> float:
        return mean_graded(trained(form, bed.policy, bed.task, 120, seed, **more), bed.task)

    ours = reached(humanline(0.1, lr=3e-4, batch=64), data=data)
    theirs = reached(dpo(0.1, lr=3e-4, batch=64), data=data)
    clamp = reached(humanline(0.1, sync=10**6, lr=3e-4, batch=64), data=data)
    sync = reached(humanline(0.1, low=-1e9, high=1e9, lr=3e-4, batch=64), data=data)
    online = reached(online_dpo(0.1, group=4, lr=3e-4, batch=256, horizon=bed.task.response_length))
    return Result(
        ours, theirs,
        also={"with the clamp alone": (clamp, theirs), "with the sync alone": (sync, theirs),
              "with online DPO": (online, theirs)},
    )  # fmt: skip


# ----------------------------------------------------------------------- own answers and traces

HARD, EASY = DigitStrings("CR", (6, 6)), DigitStrings("CR", (3, 5))


class Mixed:
    """Half of the prompts of a length the model never saw (it solves none), half familiar."""

    name, summary, vocabulary = "mixed", "digit strings, half of them too long", HARD.vocabulary
    prompt_length, response_length = HARD.prompt_length, HARD.response_length

    def __init__(self, hard: float = 0.5) -> None:
        self.hard = hard
        self.whole = DigitStrings("CR", (3, 6))

    def prompts(self, n: int, generator: torch.Generator | None = None) -> Any:
        """n prompts, shuffled."""
        asked = self.whole.prompts(8 * n, generator)
        long = (asked.tokens < 10).sum(-1) == 6
        count = round(self.hard * n)
        rows = torch.cat([long.nonzero()[:count, 0], (~long).nonzero()[: n - count, 0]])
        rows = rows[torch.randperm(len(rows), generator=generator)]
        return type(asked)(*(x[rows] for x in asked))

    def verify(self, prompt: Any, response: Any, mask: Any = None) -> Any:
        """1 for exactly the right response."""
        return self.whole.verify(prompt, response, mask)

    def traces(self, prompts: Any, generator: Any = None, error: float = 0.0) -> Any:
        """Right responses."""
        return self.whole.traces(prompts, generator, error)
