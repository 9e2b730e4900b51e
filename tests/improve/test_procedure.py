from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from surpass.errors import InputError
from surpass.evaluation.guarded import guarded_p
from surpass.improve.nominate import Candidate, ClosedFormTilts, Label, nominate, score_candidate
from surpass.improve.procedure import decide, decide_given
from surpass.improve.scoring import RewardRange, Rows, reward_range
from surpass.improve.stages import plan_stages
from surpass.policies.tilted import Capped, Constant, Mixture

UNIT = RewardRange(0.0, 1.0, "stated")


def _t(x):
    return torch.as_tensor(np.asarray(x, dtype=np.float64))


def _log(seed, n=2000, actions=4, lift=0.0, table=True, shares=None):
    """A log of `actions` with rate 0.3; action 1 pays `lift` more where the first column is
    positive, less where not."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    mu = np.tile(np.full(actions, 1 / actions) if shares is None else shares, (n, 1))
    action = (rng.random(n)[:, None] > mu.cumsum(1)[:, :-1]).sum(1)
    rate = 0.3 + lift * np.sign(x[:, 0]) * (action == 1)
    reward = (rng.random(n) < rate).astype(float)
    known = _t(mu) if table else None
    taken = mu[np.arange(n), action]
    return Rows(
        _t(x), torch.from_numpy(action), _t(reward), _t(taken), actions, 0.0, 1.0, known, known
    )


def test_a_clear_gain_is_promoted_and_the_bound_holds():
    rows = _log(0, 4000, lift=0.25)
    found = decide(rows, reward_range(rows.reward))
    assert found.verdict == "PROMOTE"
    assert found.best.p <= 0.05
    x = _t(np.random.default_rng(99).normal(size=(50_000, 3)))
    rho = torch.full((50_000, 4), 0.25, dtype=torch.float64)
    pi = found.best.policy(x, rho)
    truth = float(((pi - rho)[:, 1] * 0.25 * x[:, 0].sign()).mean())
    assert found.best.gain_low <= truth <= found.best.gain_high
    assert found.best.gain_low > 0.02
    assert "gain" in found.reason


@pytest.mark.parametrize("table", [True, False])
def test_no_gain_is_rarely_promoted(table):
    promoted = sum(
        decide(_log(s, 300, table=table), UNIT, seed=s).verdict == "PROMOTE" for s in range(30)
    )
    assert promoted <= 4  # more than 4 of 30 at 5 % happens in 1.6 % of all cases; here 2 % promote


def test_only_the_logged_propensity_suffices_for_a_promotion():
    rows = _log(1, 4000, lift=0.25, table=False)
    found = decide(rows, UNIT)
    assert found.verdict == "PROMOTE"
    assert found.best.policy(rows.context[:5]).shape == (5, 4)  # carries its model of rho
    full = decide(_log(1, 4000, lift=0.25), UNIT)
    assert found.best.gain == pytest.approx(full.best.gain, abs=0.02)


def test_the_tested_number_is_the_gain_of_the_mixture():
    rows = _log(2, 1500, lift=0.2)
    best = decide(rows, UNIT, walk=False).best
    assert isinstance(best.policy, Mixture)
    gain = sum(a * float(s.phi.mean()) for a, s in zip(best.shares, best.stages, strict=True))
    assert best.gain == pytest.approx(gain, abs=1e-12)
    assert best.policy.weights.tolist() == pytest.approx(best.shares)
    assert best.gain == pytest.approx(best.scores.mean(), abs=1e-12)
    assert best.p == pytest.approx(guarded_p(best.scores, best.guard), abs=1e-9)
    scored = best.rows.tolist()
    assert len(scored) == len(set(scored)) == 1050


def test_scored_rows_never_taught_their_policy():
    """Rewards of a stage's scored rows and of later ones change nothing in what was nominated for
    it."""
    rows = _log(3, 900, lift=0.2)
    plan = plan_stages(900, seed=0)
    changed = rows.reward.clone()
    changed[plan.order[450:]] = 1.0 - changed[plan.order[450:]]
    other = Rows(**{**rows.__dict__, "reward": changed})
    a, b = (decide(r, UNIT, plan, walk=False) for r in (rows, other))
    assert a.nominations[0].table == b.nominations[0].table
    assert (
        a.nominations[1].best.label.key != "" and a.nominations[2].table != b.nominations[2].table
    )
    x = rows.context[:20]
    first = [
        n.candidates["tilt(300,300,c=2)"].policy(x, rows.reference[:20])
        for n in (a.nominations[0], b.nominations[0])
    ]
    assert torch.equal(*first)


def test_fast_cross_validation_is_that_of_refitting():
    rows = _log(4, 300, lift=0.2)
    same = rows.context[:100].repeat(3, 1)  # every fold has the same contexts, so the same scaling
    rows = Rows(**{**rows.__dict__, "context": same})
    fold = torch.arange(3).repeat_interleave(100)
    learner = ClosedFormTilts()
    fast = learner.validate(rows, fold, 3, None)
    lowest = torch.full((28,), torch.inf, dtype=torch.float64)
    for k in range(3):
        train, held = rows.take(fold != k), rows.take(fold == k)
        for place, candidate in enumerate(learner.fit(train, None, 0)):
            found = score_candidate(candidate, held, None, candidate.critic)
            torch.testing.assert_close(found.phi, fast.phi[place, fold == k])
            lowest[place] = torch.minimum(lowest[place], found.lower)
    torch.testing.assert_close(lowest, fast.lower)


def test_batched_scores_are_those_of_the_modules():
    rows = _log(5, 400, lift=0.2)
    learn, held = rows.take(torch.arange(200)), rows.take(torch.arange(200, 400))
    learner = ClosedFormTilts()
    fast = learner.scores(learn, held)
    for place, candidate in enumerate(learner.fit(learn, None, 0)):
        assert candidate.label == fast.labels[place]
        found = score_candidate(candidate, held, None, candidate.critic)
        torch.testing.assert_close(found.phi, fast.phi[place])
        torch.testing.assert_close(found.lower, fast.lower[place])


def test_the_walk_is_a_fixed_sequence_of_sharper_tilts():
    rows = _log(6, 6000, lift=0.3)
    found = decide(rows, UNIT)
    assert len(found.tested) > 1
    assert all(found.proven[:-1])
    best = max(
        (t for t, ok in zip(found.tested, found.proven, strict=True) if ok),
        key=lambda t: t.predicted,
    )
    assert found.best is best
    strengths = [[s.candidate.policy.strength for s in t.stages] for t in found.tested]
    for before, after in pairwise(strengths):
        assert all(b >= a for a, b in zip(before, after, strict=True))
    alone = decide(rows, UNIT, walk=False)
    assert len(alone.tested) == 1
    assert alone.tested[0].p == found.tested[0].p


def test_a_larger_margin_is_harder():
    rows = _log(7, 3000, lift=0.25)
    p = [decide(rows, UNIT, margin=m, walk=False).best.p for m in (-0.05, 0.0, 0.02, 0.3)]
    assert p == sorted(p)
    assert decide(rows, UNIT, margin=0.3).verdict == "REJECT"


def test_groups_count_once():
    rows = _log(8, 600, lift=0.2)
    twice = rows.take(torch.arange(600).repeat_interleave(2))
    group = torch.arange(600).repeat_interleave(2)
    plan = plan_stages(1200, group=group, seed=0)
    with_groups = decide(twice, UNIT, plan, walk=False).best
    scored = torch.unique(group[with_groups.rows])
    assert with_groups.scores.size == len(scored)
    # the pairs' scores are equal, so p is that of one score per pair with half the guard
    singles = with_groups.x.view(-1, 2)
    torch.testing.assert_close(singles[:, 0], singles[:, 1])
    least = min(s.lower / s.scale for s in with_groups.stages)
    assert with_groups.p == pytest.approx(guarded_p(singles[:, 0].numpy(), least), abs=1e-9)


def test_an_unstated_range_holds_unless_accepted():
    rows = _log(9, 4000, lift=0.25)
    rows = Rows(
        **{**rows.__dict__, "reward": rows.reward * (1 + rows.context[:, 1] * 0.01), "hi": 2.0}
    )
    span = reward_range(rows.reward)
    assert span.source == "observed"
    rows = Rows(**{**rows.__dict__, "lo": span.lo, "hi": span.hi})
    held = decide(rows, span)
    assert held.verdict == "HOLD"
    assert "state the range" in held.reason and "at least" in held.reason
    accepted = decide(rows, span, accept_observed=True)
    assert accepted.verdict == "PROMOTE"
    assert "no reward lies outside the observed range" in accepted.reason
    assert accepted.held("the check failed").verdict == "HOLD"
    assert held.held("another").reason == held.reason


def test_nothing_to_learn_is_a_hold():
    rows = _log(10, 300)
    rows = Rows(**{**rows.__dict__, "reward": torch.zeros(300, dtype=torch.float64)})
    found = decide(rows, UNIT)
    assert (found.verdict, found.best) == ("HOLD", None)
    assert "no candidate differs" in found.reason


@dataclass
class _Oracle:
    """A learner without a fast path whose one policy is not capped."""

    name: str = "always"

    def fit(self, rows, fitted, seed):
        return [Candidate(Label("always 1", self.name, {"action": 1}), Constant(4, [0, 1, 0, 0]))]


def test_other_learners_join_the_nomination_and_are_capped():
    rng = np.random.default_rng(11)
    rows = _log(11, 3000, shares=[0.9, 0.02, 0.04, 0.04])
    better = torch.where(rows.action == 1, _t(rng.random(3000) < 0.9), rows.reward)
    rows = Rows(**{**rows.__dict__, "reward": better})
    found = decide(rows, UNIT, learners=[ClosedFormTilts(), _Oracle()])
    for nomination in found.nominations:
        assert nomination.best.label.key in nomination.candidates
        candidate = nomination.candidates["always 1"]
        assert isinstance(candidate.policy, Capped)
        pi = candidate.policy(rows.context[:3], rows.reference[:3])
        torch.testing.assert_close(pi[:, 1], _t([0.4 + 0.6 * 0.02] * 3))
    assert "always 1" in {t.label.key for t in found.nominations[0].table}
    assert found.verdict == "PROMOTE"


def test_the_nominee_has_the_largest_statistic():
    rows = _log(12, 600, lift=0.2)
    found = nominate(rows, torch.arange(600), [ClosedFormTilts()], scored_units=1400)
    best = max(found.table, key=lambda t: t.statistic)
    assert found.best is best
    again = (1400 * best.gain - max(-best.lower, 0)) / (best.sd * np.sqrt(1400))
    assert best.statistic == pytest.approx(again)
    assert len(found.table) == len(found.candidates) == 28


def test_given_policies_are_scored_on_every_row_with_holm():
    rows = _log(13, 3000)
    better = torch.where(
        rows.action == 2, _t(np.random.default_rng(1).random(3000) < 0.5), rows.reward
    )
    rows = Rows(**{**rows.__dict__, "reward": better})
    policies = {
        "bad": Constant(4, [1, 0, 0, 0]),
        "good": Constant(4, [0, 0, 1, 0]),
        "fair": Constant(4, [0.2, 0.2, 0.4, 0.2]),
    }
    found = decide_given(rows, UNIT, policies)
    assert found.verdict == "PROMOTE"
    assert found.best.key == "good"
    assert found.proven == (False, True, True)
    assert len(found.best.rows) == 3000
    assert found.best.gain == pytest.approx(0.15, abs=0.06)
    in_order = decide_given(
        rows, UNIT, policies, ordered=True
    )  # the first fails, so none is proven
    assert in_order.proven == (False, False, False)
    assert in_order.verdict == "HOLD"
    assert decide_given(rows, UNIT, {"bad": policies["bad"]}).verdict == "REJECT"
    with pytest.raises(InputError, match="no candidate"):
        decide_given(rows, UNIT, {})


@pytest.mark.parametrize("units", [4, 6])
def test_a_handful_of_groups_is_one_line_and_not_a_traceback(units):
    rows, group = _log(15, 300), torch.arange(300) % units
    with pytest.raises(InputError, match="too few"):
        if units == 4:
            decide_given(rows, UNIT, {"fair": Constant(4)}, group=group)
        else:
            decide(rows, UNIT, plan_stages(300, group=group), learners=[_Oracle()])


def test_holm_needs_more_of_the_first_than_of_the_last():
    from surpass.improve.procedure import _holm, _in_order

    assert _holm([0.02, 0.01, 0.9], 0.05) == [True, True, False]
    assert _holm([0.03, 0.03, 0.03], 0.05) == [False, False, False]
    assert _holm([0.04, 0.02, 0.001], 0.05) == [True, True, True]
    assert _in_order([0.01, 0.2, 0.01], 0.05) == [True, False, False]


def test_the_other_candidates_get_wider_bounds():
    rows = _log(14, 800, lift=0.2)
    found = decide(rows, UNIT, walk=False)
    others = {t.key: t for t in found.others()}
    assert len(others) == 28
    key = found.best.key
    if key in others:  # the same candidate in every stage
        assert others[key].gain == pytest.approx(found.best.gain)
        assert others[key].gain_low < found.best.gain_low
    assert all(t.level == pytest.approx(0.05 / 28) for t in others.values())
