"""Evidence for judging by precedents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from torch import Tensor

from surpass.critics.precedents import Judge, Precedents, detector, train_judge
from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.ope.precedents import Content, collected, precedent_guardrail
from surpass.tasks.sprites import Rule, rules, sprites

EXAMPLES, DRAWS = (1, 4, 16), 2


def _f1(p: Tensor, y: Tensor) -> float:
    return float(f1_score(y.numpy(), (p > 0.5).numpy(), average="macro"))


def _drawn(y: Tensor, n: int, rng: np.random.Generator) -> Tensor:
    """n violations and n harmless cases."""
    sides = [rng.choice((y == v).nonzero()[:, 0].numpy(), n, replace=False) for v in (0.0, 1.0)]
    return torch.from_numpy(np.concatenate(sides))


class _World:
    """Pictures, what a detector sees in them, seven policies to learn from and three new ones."""

    def __init__(self, seed: int) -> None:
        first, pool, test = (sprites(n, 10 * seed + i) for i, n in enumerate((2500, 1200, 800)))
        net = detector(first.pictures, first.attributes, seed=seed)
        with torch.no_grad():
            self.pool, self.test = (net(s.pictures).sigmoid() for s in (pool, test))
        self.truth, self.test_truth = pool.attributes, test.attributes
        self.rules = rules(seed)
        self.rng = np.random.default_rng(seed)
        raw = [self.cases(r, 60) for r in self.rules[:7]]
        self.plain = train_judge(raw, seed=seed)
        better = [collected(self.plain, p.shown, p.label) for p in raw]
        self.judge = train_judge(better, seed=seed, judge=train_judge(raw, seed=seed))
        self.better = better

    def cases(self, rule: Rule, n: int) -> Precedents:
        """n of each label, as the detector sees them."""
        y = rule.violated(self.truth)
        at = _drawn(y, n, self.rng)
        return Precedents(self.pool[at], y[at], (self.pool[at] > 0.5).float())

    def score(self, judge: Judge, cases: Precedents, rule: Rule) -> float:
        """Macro F1 of a policy on the test pictures."""
        found = precedent_guardrail(judge).measure(Content(self.test, {"one": cases}))
        return _f1(found.probability[:, 0], rule.violated(self.test_truth))


def _others(world: _World, cases: Precedents, rule: Rule) -> tuple[float, float]:
    """A logistic head on what the detector sees, and the labels of the nearest cases."""
    y = rule.violated(world.test_truth)
    head = LogisticRegression(C=1.0).fit(cases.shown.numpy(), cases.label.numpy())
    tuned = torch.from_numpy(head.predict_proba(world.test.numpy())[:, 1])
    close = torch.nn.functional.cosine_similarity(
        world.test[:, None] - 0.5, cases.shown[None] - 0.5, dim=-1
    )
    k = min(3, len(cases))
    nearest = cases.label[close.topk(k, 1).indices].mean(1)
    return _f1(tuned, y), _f1(nearest, y)


def _edited(world: _World) -> tuple[float, float]:
    """A policy loses an attribute: four of its cases that the edit decides otherwise are given with
    the new label; against cases of the new policy only."""
    old = world.rules[7]
    new = Rule(old.attributes[:1], old.every)
    y, z = old.violated(world.truth), new.violated(world.truth)
    kept = _drawn(y, 4, world.rng)
    turned = (y != z).nonzero()[:4, 0]
    kept = torch.cat((kept[y[kept] == z[kept]], turned))
    swapped = collected(world.judge, world.pool[kept], z[kept])
    fresh = world.cases(new, 4)
    fresh = collected(world.judge, fresh.shown, fresh.label)
    return world.score(world.judge, swapped, new), world.score(world.judge, fresh, new)


@evidence(
    "precedent-guardrail",
    claim="with four examples of each label of a policy it never saw, it judges at least 10 points "
    "of F1 better than a tuned head and 5 better than the labels of the nearest cases; revising "
    "the rationales is worth at least 2",
    setting="colored digits with 12 attributes seen by a small detector; policies of two "
    "attributes, seven to learn from, three new; 2 draws of examples a seed",
    baseline="a logistic head on the detected attributes, fitted to the same examples",
    metric="macro F1 on new policies, 4 examples of each label",
    bar=at_least(0.1),
    minutes=3,
    note="With clean attributes a linear head needs little help: precedents win with one example "
    "and lose with sixteen, and revision drops cases that a new policy with few of them misses.",
)
def precedents_evidence(seed: int, zoo: Any) -> Result:
    torch.manual_seed(seed)
    world = _World(seed)
    found: dict[int, list[tuple[float, ...]]] = {n: [] for n in EXAMPLES}
    for n in EXAMPLES:
        for rule in world.rules[7:]:
            for _ in range(DRAWS):
                cases = world.cases(rule, n)
                ours = collected(world.judge, cases.shown, cases.label)
                found[n].append((
                    world.score(world.judge, ours, rule), world.score(world.plain, cases, rule),
                    *_others(world, cases, rule),
                ))  # fmt: skip
    mean = {n: np.mean(rows, axis=0) for n, rows in found.items()}
    shelf = {str(j): p for j, p in enumerate(world.better)}
    study = precedent_guardrail(world.judge)
    before = study.measure(Content(world.test, shelf)).probability
    extra = {**shelf, "new": world.cases(world.rules[7], 4)}
    after = study.measure(Content(world.test, extra)).probability[:, :7]
    moved = float(((before > 0.5) != (after > 0.5)).float().mean())
    return Result(
        mean[4][0],
        mean[4][2],
        {
            "against the labels of the nearest cases": (mean[4][0], mean[4][3], at_least(0.05)),
            "against rationales as they were": (mean[4][0], mean[4][1], at_least(0.02)),
            "1 example of each label, against the head": (mean[1][0], mean[1][2]),
            "16 examples of each label, against the head": (mean[16][0], mean[16][2]),
            "share of old judgments that a new policy moves": (
                moved, 0.0, at_most(0.01, alone=True),
            ),
            "an edited policy after four swapped cases, against a fresh one": (
                *_edited(world), at_least(0.8, times=True),
            ),
        },
    )  # fmt: skip
