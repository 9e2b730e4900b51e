"""Rankings by hand, against the closed-form optimum, and against DPO's loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import surpass as sp
from surpass.data.language import open_language
from surpass.errors import InputError
from surpass.evaluation.rankings import ranked_pairs
from surpass.objectives.rankings import RankedPairs, flips, ideal_margin
from surpass.policies.language import LanguagePolicy
from surpass.tasks.preference import preference_bandit

pytest.importorskip("transformers")

from tests.methods.language_cases import rows, scored_rows, tiny


def pairs(**more):
    return RankedPairs(
        torch.tensor([-1.0, -2.0, -3.0, -4.0]), torch.tensor([-2.0, -1.0, -2.5, -8.0]),
        torch.tensor([-1.0, -3.0, -2.0, -6.0]), torch.tensor([-0.5, -1.0, -3.0, -6.5]), **more,
    )  # fmt: skip


def test_shares_by_hand():
    lengths = torch.tensor([[1, 1], [4, 1], [1, 1], [1, 4]])
    found = sp.ranking_accuracy(beta=0.5).measure(pairs(lengths=lengths))
    assert found.accuracy == 0.5  # the first and the last
    assert found.by_mean == 0.5  # -1 > -2, -1/2 > -1, -3 < -2.5, -4 < -2
    assert found.reference == 0.5  # the last two
    assert found.implicit == 0.75  # all but the third moved toward the chosen
    assert found.table.tolist() == [[0.25, 0.25], [0.25, 0.25]]
    assert found.hardness.tolist() == [0.25, 1.0, -0.5, -0.25]
    # logit 0.75 = 1.0986, over 0.5: 2.197 turns both that the reference has wrong, by 0.5 and by 2
    assert found.ideal[0.75] == 1.0 and found.ideal[0.6] == 0.75  # 0.811 turns the first only
    assert found.gap == 0.5


def test_the_ideal_is_the_optimum_of_the_regularized_problem():
    """A Bradley-Terry bandit: log pi* = log ref + r / beta, and logit a = r_w - r_l."""
    bandit = preference_bandit(6, 5, seed=0)
    beta, x = 0.7, torch.arange(6)
    best = bandit.optimal(beta)
    a = (bandit.reward[:, 0] - bandit.reward[:, 1]).sigmoid()
    want = best[x, 0] - best[x, 1]
    torch.testing.assert_close(
        ideal_margin(bandit.reference[:, 0] - bandit.reference[:, 1], a, beta), want
    )
    two = RankedPairs(best[:, 0], best[:, 1], bandit.reference[:, 0], bandit.reference[:, 1],
                      proportion=a)  # fmt: skip
    found = sp.ranking_accuracy(beta).measure(two)
    assert found.accuracy == found.ideal["log"]


def test_the_loss_tells_the_order():
    g = torch.Generator().manual_seed(0)
    lp = torch.randn(4, 500, generator=g, dtype=torch.float64)
    two = RankedPairs(*lp)
    found = sp.ranking_accuracy(0.3).measure(two)
    loss = F.softplus(-0.3 * (two.margin - two.ref_margin))
    assert torch.equal(flips(loss, found.hardness), two.margin >= 0)


def test_bad_input():
    with pytest.raises(InputError, match="no pairs"):
        sp.ranking_accuracy().measure(RankedPairs(*torch.zeros(4, 0)))
    with pytest.raises(InputError, match="proportions"):
        sp.ranking_accuracy(proportions=(1.0,)).measure(pairs())


def test_a_language_models_pairs_are_scored_token_by_token():
    policy, reference = LanguagePolicy(tiny(0)), LanguagePolicy(tiny(1))
    log = open_language(rows(5), None)
    two = ranked_pairs(policy, reference, log, size=2)
    for i, row in enumerate(rows(5)):
        for side in ("chosen", "rejected"):
            for name, model in (("", policy), ("ref_", reference)):
                ids = torch.tensor([row["prompt"] + row[side]])
                logits = model.model(input_ids=ids).logits.log_softmax(-1)[0].detach()
                start = len(row["prompt"])
                want = sum(float(logits[t - 1, ids[0, t]]) for t in range(start, ids.shape[1]))
                got = float(getattr(two, name + side)[i])
                assert got == pytest.approx(want, abs=1e-3)
        assert two.lengths[i].tolist() == [len(row["chosen"]), len(row["rejected"])]
    with pytest.raises(InputError, match="need pairs"):
        ranked_pairs(policy, reference, open_language(scored_rows(3), None))
