"""Precedents: retrieval, revision and judging on attributes where the rule is known."""

from __future__ import annotations

import pytest
import torch

from surpass.critics.precedents import Judge, Precedents, revised, train_judge
from surpass.errors import InputError
from surpass.methods.ope.precedents import Content, precedent_guardrail
from surpass.tasks.sprites import ATTRIBUTES, Rule, rules, sprites


def cases(column, n=30, seed=0):
    """A policy that one attribute of six decides."""
    g = torch.Generator().manual_seed(seed)
    shown = (torch.rand(4 * n, 6, generator=g) < 0.5).float()
    label = shown[:, column]
    keep = torch.cat([(label == v).nonzero()[:n, 0] for v in (0, 1)])
    return Precedents(shown[keep], label[keep], (shown[keep] > 0.5).float())


def test_the_nearest_are_taken_from_both_labels():
    p = Precedents(torch.eye(4), torch.tensor([1.0, 1, 0, 0]), torch.eye(4))
    found = p.nearest(torch.tensor([[1.0, 0.2, 0.1, 0.0]]), 2)[0].tolist()
    assert set(found) == {0, 2}
    assert len(p.nearest(torch.eye(4), 7)[0]) == 7


@pytest.fixture(scope="module")
def judge() -> Judge:
    return train_judge([cases(c, seed=c) for c in range(4)], k=8, steps=200)


def test_a_policy_over_an_attribute_that_no_training_policy_used_is_judged(judge):
    fresh = (torch.rand(300, 6, generator=torch.Generator().manual_seed(9)) < 0.5).float()
    few = cases(5, n=8, seed=7)
    study = precedent_guardrail(judge, k=16)
    found = study.measure(Content(fresh, {"five": few, "four": cases(4, n=8, seed=8)}))
    right = (found.probability[:, 0] > 0.5).float() == fresh[:, 5]
    assert float(right.float().mean()) > 0.85
    wrong = found.blocked.float() != fresh[:, 4:].amax(1)
    assert float(wrong.float().mean()) < 0.25
    alone = study.measure(Content(fresh, {"five": few})).probability[:, 0]
    assert torch.equal(alone, found.probability[:, 0])


def test_a_revised_rationale_leads_to_the_label_on_its_own(judge):
    before = cases(5, n=8, seed=3)
    hidden = Precedents(before.shown, before.label, before.reason.clone())
    hidden.reason[:, 5] = 0.0  # the rationale misses what decides
    after = revised(judge, hidden, k=8)
    assert 2 <= len(after) <= 16
    before_of = {tuple(x.tolist()): r for x, r in zip(hidden.shown, hidden.reason, strict=True)}
    added = sum(r - before_of[tuple(x.tolist())]
                for x, r in zip(after.shown, after.reason, strict=True)).clamp_min(0)  # fmt: skip
    assert float(added[5]) >= float(added.max()) > 0
    with pytest.raises(InputError, match="are needed"):
        train_judge([before], k=16)


def test_sprites_show_what_they_say():
    s = sprites(600, seed=1)
    border = s.attributes[:, ATTRIBUTES.index("border")] > 0
    edge = s.pictures.reshape(-1, 8, 8, 3)[:, 7].mean((1, 2))
    assert float(edge[border].min()) > float(edge[~border].mean())
    colors = s.attributes[:, 3:6]
    assert float(colors.sum(1).max()) == 1.0
    both, either = Rule((0, 3), True), Rule((0, 3), False)
    a = s.attributes
    assert torch.equal(both.violated(a), a[:, 0] * a[:, 3])
    assert torch.equal(either.violated(a), 1 - (1 - a[:, 0]) * (1 - a[:, 3]))
    assert len({r.attributes for r in rules(2)}) == 10
