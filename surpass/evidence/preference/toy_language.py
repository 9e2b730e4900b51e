"""Evidence of the preference family on a toy language: digit strings, and sums modulo 10."""

from __future__ import annotations

import copy
from typing import Any

import torch

from surpass.data.language import LanguageLog
from surpass.evidence.declaration import Result, at_least, evidence
from surpass.methods.preference.humanline import humanline
from surpass.methods.preference.luffy import luffy
from surpass.methods.preference.mixed import chord, hpt
from surpass.methods.preference.online import online_dpo
from surpass.methods.preference.pairs import dpo
from surpass.methods.preference.regression import tbrm
from surpass.methods.preference.scored import sft
from surpass.methods.rlvr.policy_gradients import grpo, reinforce
from surpass.parts import cosine
from surpass.policies.generation import Sampling, generate
from surpass.policies.language import LanguagePolicy
from surpass.tasks.language import DigitStrings, LanguageTask
from surpass.training.module_run import train_language
from surpass.zoo.language import accuracy

__all__ = ["right", "trained"]

HARD, EASY = DigitStrings("CR", (6, 6)), DigitStrings("CR", (3, 5))


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
    "eight to each, from equal numbers of answers",
    baseline="grpo (groups of 8); the better of two learning rates for every method",
    metric="percent of held-out prompts solved after 15 updates of 256 answers (MODSUM-LM)",
    bar=at_least(-1.0), seeds=8, minutes=12.0,
    note="Eight seeds leave both open: against GRPO 0.6 points (-0.8 to 2.0), and every method "
    "ends near 97 percent; over REINFORCE it gains only on the one seed on which that stalled.",
)  # fmt: skip
def tbrm_evidence(seed: int, zoo: Any) -> Result:
    """Also: against REINFORCE with the mean of the batch, which it is to beat by 2 points."""
    bed = zoo("modsum-reference")
    horizon = bed.task.response_length

    def reached(form: Any) -> float:
        return right(trained(form, bed.policy, bed.task, 15, seed), bed.task)

    ours = reached(tbrm(0.05, lr=3e-3, batch=256, horizon=horizon))
    theirs = reached(grpo(beta=0.0, group=8, batch=256, horizon=horizon, lr=1e-3))
    plain = reached(reinforce(batch=256, horizon=horizon, lr=1e-3))
    return Result(ours, theirs, also={"percent solved, against REINFORCE": (
        ours, plain, at_least(2.0))})  # fmt: skip


# ----------------------------------------------------------------------------------- humanline


def checked_pairs(policy: LanguagePolicy, task: Any, n: int, seed: int) -> LanguageLog:
    """A right and a wrong answer out of eight, to prompts that have both."""
    draw = torch.Generator().manual_seed(seed)
    prompts, chosen, rejected = [], [], []
    while len(prompts) < n:
        asked = task.prompts(256, draw)
        seq = generate(policy, asked.tokens, asked.mask, Sampling(task.response_length), group=8,
                       generator=draw)  # fmt: skip
        filled = torch.where(seq.mask > 0, seq.action, task.vocabulary.pad)
        score = task.verify(seq.prompt, filled, seq.mask).view(-1, 8)
        for i in ((score > 0).any(-1) & (score < 1).any(-1)).nonzero()[:, 0].tolist():
            prompts.append(tuple(asked.tokens[i][asked.mask[i] > 0].tolist()))
            for into, j in ((chosen, score[i].argmax()), (rejected, score[i].argmin())):
                row = 8 * i + int(j)
                into.append(tuple(seq.action[row][seq.mask[row] > 0].tolist()))
    return LanguageLog("pairs", tuple(prompts[:n]),
                       {"chosen": tuple(chosen[:n]), "rejected": tuple(rejected[:n])})  # fmt: skip


@evidence(
    "humanline",
    claim="on offline pairs, clamped token ratios to a synced reference close half of the gap "
    "between DPO on the same pairs and online DPO",
    baseline="the middle between both; beta and learning rate (and for ours how often the "
    "reference syncs: 1, 4 or 16) from one grid on another seed",
    metric="percent of held-out prompts solved (MODSUM-LM, 2,000 pairs, 60 updates of 32)",
    bar=at_least(0.0), seeds=8, minutes=4.0,
    note="It closes 51 percent of the gap on average (95.0 percent solved; DPO 90.7, online 99.1); "
    "eight seeds do not settle whether that is half.",
)  # fmt: skip
def humanline_evidence(seed: int, zoo: Any) -> Result:
    """Also, reported: DPO on the same pairs, online, and the reference synced at every step."""
    bed = zoo("modsum-reference")
    data = checked_pairs(bed.policy, bed.task, 2000, 500 + seed)

    def reached(form: Any, **more: Any) -> float:
        return right(trained(form, bed.policy, bed.task, 60, seed, **more), bed.task)

    ours = reached(humanline(0.1, sync=16, lr=3e-4, batch=32), data=data)
    every = reached(humanline(0.5, sync=1, lr=1e-4, batch=32), data=data)
    offline = reached(dpo(0.1, lr=1e-4, batch=32), data=data)
    fresh = online_dpo(0.1, group=8, lr=1e-3, batch=256, horizon=bed.task.response_length)
    online = reached(fresh)
    return Result(
        ours, (offline + online) / 2,
        also={"percent solved by DPO": (ours, offline),
              "percent solved by online DPO": (ours, online),
              "percent solved with a reference one step behind": (ours, every)},
    )  # fmt: skip


# ----------------------------------------------------------------------- own answers and traces


class Mixed:
    """Half of the prompts of a length the model never saw (it solves none), half familiar."""

    name, summary, vocabulary = "mixed", "digit strings, half of them too long", HARD.vocabulary
    prompt_length, response_length = HARD.prompt_length, HARD.response_length

    def __init__(self, hard: float = 0.5, error: float = 0.0) -> None:
        self.hard, self.error = hard, error
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
        """Responses with as many wrong digits as the expert makes."""
        return self.whole.traces(prompts, generator, error or self.error)


def traces_of(task: Any, n: int, seed: int) -> list[dict[str, Any]]:
    """Prompts with their right answers, as demonstrations."""
    asked = task.prompts(n, torch.Generator().manual_seed(seed))
    seq = task.traces(asked, torch.Generator().manual_seed(seed))
    return [
        {"prompt": p[m > 0].tolist(), "completion": a[k > 0].tolist()}
        for p, m, a, k in zip(asked.tokens, asked.mask, seq.action, seq.mask, strict=True)
    ]


@evidence(
    "luffy",
    claim="on prompts that the policy never solves, an expert trace in each group teaches what "
    "GRPO finds no signal for",
    baseline="grpo with as many answers a group, the same rate",
    metric="percent of held-out prompts solved, strings of 6 digits (base: 0), 30 updates",
    bar=at_least(7.0), seeds=3, minutes=1.0,
    setting="DIGIT-STRINGS, a model that learned 3 to 5 digits only; right traces of 6.",
    note="The expert's traces teach it on each of three seeds where GRPO finds nothing, by 14.5 "
    "points on average, but by 8 to 23, which leaves a bar of 7 open; with a start model made"
    " on another processor it was 45 to 47. Supervised training on the same traces solves "
    "more of these strings (40 percent).",
)  # fmt: skip
def luffy_evidence(seed: int, zoo: Any) -> Result:
    """Also, reported: supervised training on the same traces, on both lengths; nobody keeps the
    short ones, which are not trained here."""
    policy, horizon = zoo("strings-clean").policy, HARD.response_length
    ours = trained(luffy(group=7, batch=112, horizon=horizon, lr=1e-3), policy, HARD, 30, seed,
                   expert="task")  # fmt: skip
    plain = trained(grpo(beta=0.0, group=8, batch=128, horizon=horizon, lr=1e-3), policy, HARD, 30,
                    seed)  # fmt: skip
    traces = traces_of(HARD, 16 * 30, 7 + seed)
    copied = trained(sft(lr=1e-3, batch=16), policy, HARD, 30, seed, data=traces)
    return Result(
        right(ours, HARD), right(plain, HARD),
        also={"percent solved, against supervised training": (
                  right(ours, HARD), right(copied, HARD)),
              "percent of 3 to 5 digits, against supervised training": (
                  right(ours, EASY), right(copied, EASY))},
    )  # fmt: skip


UPDATES = 60


def mixed_arms(seed: int, zoo: Any) -> dict[str, float]:
    """Percent solved, over familiar and impossible prompts alike, of GRPO, supervised training on
    noisy traces, and one after the other; at equal updates and rate."""
    policy, task = zoo("strings-reference").policy, Mixed(error=0.1)
    data = traces_of(task, 8 * UPDATES, 7 + seed)

    def copied(steps: int) -> LanguagePolicy:
        return trained(sft(lr=1e-3, batch=8), policy, task, steps, seed, data=data)

    def reinforced(start: LanguagePolicy, steps: int) -> LanguagePolicy:
        form = grpo(beta=0.0, group=8, batch=64, horizon=task.response_length, lr=1e-3)
        return trained(form, start, task, steps, seed)

    half = UPDATES // 2
    return {
        "grpo": overall(reinforced(policy, UPDATES)), "sft": overall(copied(UPDATES)),
        "sft, then grpo": overall(reinforced(copied(half), half)),
    }  # fmt: skip


def overall(policy: LanguagePolicy) -> float:
    """The mean of both halves."""
    return (right(policy, HARD) + right(policy, EASY)) / 2


def mixture(form: Any, seed: int, zoo: Any) -> float:
    """Percent solved by a recipe that takes own answers and traces."""
    policy, task = zoo("strings-reference").policy, Mixed(error=0.1)
    return overall(trained(form, policy, task, UPDATES, seed, expert="task"))


SIZES: dict[str, Any] = {"group": 8, "batch": 64, "horizon": Mixed.response_length, "lr": 1e-3}


@evidence(
    "chord",
    claim="imitation beside GRPO, small where the model is certain, ends above GRPO, supervised "
    "training, and one after the other",
    baseline="the best of the three on each seed, at equal updates and the same rate",
    metric="percent solved (DIGIT-STRINGS: half familiar, half impossible at first; 60 updates)",
    bar=at_least(0.0), seeds=10, minutes=4.0,
    setting="A sloppy model; traces with one digit in ten wrong; CHORD-phi with mu 0.5.",
    note="Phi also mutes what the model does not know yet, which here is half of the prompts: 5 "
    "points behind; the falling weight without phi is 11 points ahead over the same ten seeds.",
)  # fmt: skip
def chord_evidence(seed: int, zoo: Any) -> Result:
    """Also: CHORD-mu, whose weight falls from 0.9 to 0.05."""
    others = max(mixed_arms(seed, zoo).values())
    falling = chord(cosine(0.9, 0.05, steps=UPDATES // 2), phi=False, **SIZES)
    return Result(
        mixture(chord(0.5, **SIZES), seed, zoo), others,
        also={"percent solved, CHORD-mu": (mixture(falling, seed, zoo), others)},
    )  # fmt: skip


@evidence(
    "hpt",
    claim="imitating where every answer fails and reinforcing elsewhere beats GRPO and supervised "
    "training by 3 points",
    baseline="the better of both on each seed, at equal updates and the same rate",
    metric="percent solved (DIGIT-STRINGS: half familiar, half impossible at first; 60 updates)",
    bar=at_least(3.0), seeds=10, minutes=4.0,
    setting="A sloppy model; traces with one digit in ten wrong; the weight of imitation is 0.3.",
    note="Ahead by 5 points on average over ten seeds; the interval (0.1 to 10) reaches below 3.",
)  # fmt: skip
def hpt_evidence(seed: int, zoo: Any) -> Result:
    """Also, reported: one after the other."""
    arms = mixed_arms(seed, zoo)
    ours = mixture(hpt(sft=0.3, **SIZES), seed, zoo)
    return Result(
        ours, max(arms["grpo"], arms["sft"]),
        also={"percent solved, against one after the other": (ours, arms["sft, then grpo"])},
    )  # fmt: skip
