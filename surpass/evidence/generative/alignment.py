"""Evidence of aligning a diffusion model with the values of a hundred labeled rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.evidence.generative.ring import RING
from surpass.forms import Stage, Stages, adam, train
from surpass.methods.generative.alignment import eda
from surpass.objectives.value import clone
from surpass.objectives.weights import exponential, over_value
from surpass.parts import cosine, set_at, stop
from surpass.policies.acting import InEnvironment, best_of, sampled
from surpass.policies.diffusion import diffusion
from surpass.training.run import Trained
from surpass.training.run import train as fit

ROWS, LABELED = 10_000, 100
PRETRAIN, JUDGE, STEPS = 1_600, 800, 400
TEMPERATURES = (3, 10)
LEARNING = cosine(2e-3, 1e-4, steps=PRETRAIN)


def small(form: Stages) -> Stages:
    """Two residual blocks of twice the width."""
    for stage in (0, 3):
        for name in ("blocks", "expansion"):
            form = set_at(form, f"stages.{stage}.do.nets.pi.{name}", 2)
    return form


def beside(form: Stages) -> Stages:
    """The same, and plain diffusion models, cloned on as much and then fine-tuned by weights from
    the same critic on the same labeled rows."""
    cloned, judged, draw, better = form.stages
    plain = {f"weighted{t}": diffusion(50, 48, 2, "cosine", expansion=2) for t in TEMPERATURES}
    before = tuple(train(name, clone(name), adam(LEARNING)) for name in plain)
    advantage = over_value("q_target")
    after = tuple(
        train(f"weighted{t}", stop(exponential(advantage, float(t), 100.0)) * clone(f"weighted{t}"),
              adam(5e-4)) for t in TEMPERATURES
    )  # fmt: skip

    def more(stage: Any, steps: Any) -> Stage:
        nets, update = {**stage.do.nets, **plain}, (*stage.do.update, *steps)
        return replace(stage, do=replace(stage.do, nets=nets, update=update))

    return Stages((more(cloned, before), judged, draw, more(better, after)))


def learned(labeled: int, seed: int) -> Trained:
    """EDA on so many rows with rewards, beside all of them without."""
    form = small(
        eda(tau=0.5, behavior="unlabeled", levels=100, lr=2e-3, align_lr=5e-4, width=48,
            hidden=(48, 48), batch=128, pretrain=PRETRAIN, judge=JUDGE, steps=STEPS)
    )  # fmt: skip
    form = set_at(form, "stages.0.do.update.0.optimizer.lr", LEARNING)
    rows = RING.log(ROWS, seed)
    form = beside(form) if labeled < ROWS else form
    return fit(form, rows[:labeled].described(rows.about), seed=seed, compile=False, unlabeled=rows)


def measured(act: Any, trained: Trained) -> tuple[float, float]:
    """The expected reward, and the share of actions near a mode."""
    contexts = RING.contexts(1_000)
    action = InEnvironment(act(trained.nets, {}), trained.spaces).act(contexts).action
    return float(RING.worth(contexts, action).mean()), float(RING.supported(action).mean())


@evidence(
    "eda",
    claim="aligned with the values of 100 of 10,000 rows, single draws of a diffusion model earn "
    "nine tenths of what all labels give, and more than the same critic's weights on those rows",
    setting="ring bandit, 6 modes of deviation 0.1, 10,000 rows without rewards, whose behavior "
    "earns 0; 100 levels, width 48, 1,600 updates of cloning, 800 of the critic, 400 of the "
    "alignment",
    baseline="a diffusion model cloned on all rows and fine-tuned on the labeled 100 by "
    "advantage-weighted regression with the same critic, the better of temperatures 3 and 10",
    metric="expected reward of single draws",
    bar=at_least(0.15), seeds=5, minutes=3,
)  # fmt: skip
def eda_evidence(seed: int, zoo: Any) -> Result:
    """Also: the best of 4 draws, before the alignment and after."""
    few, all_of_them = learned(LABELED, seed), learned(ROWS, seed)
    ours, full = measured(sampled(), few), measured(sampled(), all_of_them)
    weighted = max(measured(sampled(f"weighted{t}"), few) for t in TEMPERATURES)
    return Result(
        ours[0], weighted[0],
        {
            "reward beside all labels": (ours[0], full[0], at_least(0.9, times=True)),
            "share near a mode, beside weighted regression": (ours[1], weighted[1]),
            "reward of the best of 4, after the alignment and before": (
                measured(best_of("pi", "q_target", 4), few)[0],
                measured(best_of("mu", "q_target", 4), few)[0]),
        },
    )  # fmt: skip
