"""Advantages, trust rules, reductions, penalties and preference losses against values by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surpass.data.records import Sequences
from surpass.objectives.advantage import (
    at_last,
    batch_centered,
    best_of_group,
    gae,
    group_centered,
    group_standardized,
    kl_in_reward,
    leave_one_out,
    ones,
    overlong,
    returns,
    value_loss,
    whitened,
    with_columns,
    with_signal,
)
from surpass.objectives.divergence import k1, k2, k3
from surpass.objectives.preference import (
    chosen_nll,
    hinge,
    kto,
    logistic,
    odds_ratio,
    regression,
    robust,
    squared,
)
from surpass.objectives.ratio import (
    averaged,
    clamped,
    per_decision,
    per_sequence,
    per_turn,
    summed,
)
from surpass.objectives.reduce import sequence_mean, sum_over, token_mean
from surpass.objectives.trust import (
    clip,
    decoupled_clip,
    dual_clip,
    gain,
    importance,
    nll,
    off_policy,
    ratio_loss,
    unclipped,
)
from surpass.objectives.views import Side, Sides, Steps
from surpass.parts import run, stop

MASK = torch.tensor([[1.0, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]])


def sequences(reward, group=(0, 0, 1, 1), mask=MASK, **more):
    return Sequences(
        action=torch.zeros(mask.shape, dtype=torch.long), mask=mask,
        reward=torch.as_tensor(reward, dtype=torch.float32), group=torch.tensor(group),
        batch_size=[len(mask)], **more,
    )  # fmt: skip


def outcome(scores, **more):
    seq = sequences(torch.zeros_like(MASK), **more)
    seq.reward = at_last(seq, torch.tensor(scores))
    return seq


def assert_same(got, want, **tolerance):
    want = torch.as_tensor(want, dtype=torch.float32)
    torch.testing.assert_close(got, want, **(tolerance or {"rtol": 1e-5, "atol": 1e-6}))


# --------------------------------------------------------------------------------- advantages


def test_an_outcome_is_paid_at_the_last_decision():
    assert_same(outcome([1.0, 2.0, 3.0, 4.0]).reward, [[0, 0, 1], [0, 2, 0], [0, 0, 3], [0, 0, 4]])


def test_advantages_of_groups_by_hand():
    seq = outcome([1.0, 0.0, 3.0, 2.0])
    half = torch.tensor([0.5, -0.5, 0.5, -0.5])[:, None] * MASK
    assert_same(group_centered()(seq), half)
    assert_same(leave_one_out()(seq), 2 * half)
    assert_same(
        group_standardized(eps=0.0)(seq), math.sqrt(2) * half
    )  # std of {0, 1} is 1 / sqrt 2
    assert_same(group_standardized(eps=0.0, unbiased=False)(seq), 2 * half)
    assert_same(ones()(seq), MASK)
    assert_same(batch_centered()(seq), torch.tensor([-0.5, -1.5, 1.5, 0.5])[:, None] * MASK)


def test_a_group_of_equal_rewards_has_no_signal():
    seq = outcome([0.7, 0.7, 1.0, 0.0])
    assert_same(group_standardized()(seq)[:2], torch.zeros(2, 3))
    assert_same(with_signal()(seq), [0, 0, 1, 1])
    assert_same(best_of_group()(seq), [1, 0, 1, 0])


@given(st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6))
def test_group_advantages_sum_to_zero(scores):
    mask = torch.ones(6, 1)
    seq = sequences(torch.tensor(scores)[:, None], group=(4, 4, 4, 9, 9, 9), mask=mask)
    for part in (group_centered(), group_standardized(), leave_one_out()):
        sums = part(seq).view(2, 3).sum(-1)
        assert_same(sums, [0.0, 0.0], rtol=0, atol=2e-4)
    # leave-one-out: brute force
    r = torch.tensor(scores)
    want = [r[i] - (r[:3].sum() - r[i]) / 2 for i in range(3)]
    assert_same(leave_one_out()(seq)[:3, 0], torch.stack(want), rtol=1e-4, atol=1e-4)


def test_rewards_to_go_discount_at_decisions_only():
    seq = sequences([[1.0, 2, 4], [0, 0, 0], [0, 1, 2], [0, 0, 1]])
    assert_same(returns(0.5)(seq)[0], [1 + 0.5 * (2 + 0.5 * 4), 4.0, 4.0])
    assert_same(returns(0.5)(seq)[2], [0.5 * 3.0, 0, 2.0])  # a tool's turn takes no time


def test_gae_by_hand_and_its_two_ends():
    mask = torch.ones(1, 3)
    seq = sequences([[1.0, 0, 2]], group=(0,), mask=mask)
    value = torch.tensor([[0.5, -1.0, 1.5]])
    seen = with_columns(seq, value=value)
    g, lam = 0.9, 0.8
    d = [1 + g * -1.0 - 0.5, 0 + g * 1.5 + 1.0, 2 - 1.5]
    a2 = d[2]
    a1 = d[1] + g * lam * a2
    a0 = d[0] + g * lam * a1
    out = gae(g, lam)(seen)
    assert_same(out["advantage"], [[a0, a1, a2]])
    assert_same(out["value_target"], [[a0 + 0.5, a1 - 1, a2 + 1.5]])
    assert_same(gae(g, 1.0)(seen)["advantage"], returns(g)(seq) - value)  # lam = 1: Monte Carlo
    assert_same(gae(g, 0.0)(seen)["advantage"], [d])  # lam = 0: one step


def test_gae_stops_at_ends_and_bootstraps_at_truncation():
    mask = torch.ones(1, 4)
    seq = sequences(
        torch.ones(1, 4), group=(0,), mask=mask,
        terminated=torch.tensor([[False, True, False, False]]),
        truncated=torch.tensor([[False, False, False, True]]),
    )  # fmt: skip
    value = torch.tensor([[1.0, 2, 3, 4]])
    after = torch.tensor([[2.0, 9, 4, 7]])
    out = gae(0.5, 0.5)(with_columns(seq, value=value, next_value=after))["advantage"]
    d = [1 + 1 - 1, 1 - 2.0, 1 + 2 - 3, 1 + 3.5 - 4]
    assert_same(out, [[d[0] + 0.25 * d[1], d[1], d[2] + 0.25 * d[3], d[3]]])


def test_gae_passes_over_what_the_policy_did_not_decide():
    tool = torch.tensor([[1.0, 0, 0, 1]])
    value = torch.tensor([[0.5, 9.0, 9.0, 2.0]])
    seq = with_columns(sequences([[0.0, 0, 3, 1]], group=(0,), mask=tool), value=value)
    short = with_columns(
        sequences([[3.0, 1]], group=(0,), mask=torch.ones(1, 2)), value=value[:, [0, 3]]
    )
    for lam in (0.0, 0.7):
        assert_same(gae(0.9, lam)(seq)["advantage"][:, [0, 3]], gae(0.9, lam)(short)["advantage"])


def test_whitening_has_mean_zero_and_deviation_one_over_decisions():
    seq = with_columns(outcome([1.0, 5, 3, 2]), value=torch.randn(4, 3))
    a = whitened(gae(1.0, 0.9))(seq)["advantage"][MASK > 0]
    assert_same(a.mean(), 0.0, rtol=0, atol=1e-6)
    assert_same(a.std(), 1.0)


def test_value_loss_clips_around_the_old_value():
    seq = with_columns(
        sequences([[0.0]], group=(0,), mask=torch.ones(1, 1)), value=torch.zeros(1, 1),
        value_target=torch.ones(1, 1),
    )  # fmt: skip
    nets = {"value": lambda s: torch.full((1, 1), 0.5)}
    assert_same(run(value_loss(), (nets, seq))[0], 0.5 * 0.25)
    assert_same(run(value_loss(0.2), (nets, seq))[0], 0.5 * 0.64)  # (0.2 - 1)^2 is the larger


def test_soft_punishment_of_length():
    seq = outcome([1.0, 1, 1, 1])
    shaped = run(overlong(longest=3, cache=2), (None, seq))[0]
    assert_same(shaped.total, [0.0, 0.5, 0.5, 0.5])  # lengths 3, 2, 2, 2


def test_divergence_in_the_reward():
    seq = with_columns(outcome([1.0, 0, 0, 0]), ref_logp=torch.full((4, 3), -2.0))
    seq.behavior_logp = torch.full((4, 3), -1.0)
    shaped = run(kl_in_reward(0.1), (None, seq))[0]
    assert_same(shaped.total, [1 - 0.3, -0.2, -0.2, -0.2])


# ------------------------------------------------------------------------------- trust, reduce


def steps(log_ratio, advantage, mask=None, **more):
    logp = torch.as_tensor(log_ratio, dtype=torch.float32).clone().requires_grad_()
    mask = torch.ones_like(logp) if mask is None else mask
    s = Steps(logp=logp, mask=mask, anchor_logp=torch.zeros_like(logp),
              advantage=torch.as_tensor(advantage, dtype=torch.float32), **more)  # fmt: skip
    return s.filled(log_ratio=per_decision()(s))


def test_clipped_surrogates_by_hand():
    ratio = torch.tensor([[1.5, 0.5, 1.5, 0.5, 5.0]])
    s = steps(ratio.log(), [[1.0, 1.0, -1.0, -1.0, -1.0]])
    assert_same(clip()(s), [[-1.2, -0.5, 1.5, 0.8, 5.0]])
    assert_same(clip(0.4, 0.6)(s), [[-1.5, -0.5, 1.5, 0.6, 5.0]])
    assert_same(dual_clip(cap=3.0)(s), [[-1.2, -0.5, 1.5, 0.8, 3.0]])
    assert_same(ratio_loss()(s), [[-1.5, -0.5, 1.5, 0.5, 5.0]])


def test_decoupled_clip_corrects_for_the_collector():
    s = steps([[0.5, -0.1]], [[1.0, 2.0]]).filled(behavior_logp=torch.tensor([[-1.0, 0.5]]))
    assert_same(decoupled_clip(0.2)(s), [[-math.e * 1.2, -math.exp(-0.5) * 2 * math.exp(-0.1)]])
    assert_same(off_policy(2.0)(s), [[2.0, math.exp(-0.5)]])
    centered = s.filled(behavior_logp=torch.zeros(1, 2))
    assert_same(decoupled_clip(0.2)(centered), clip()(centered).detach())


@given(st.integers(0, 10_000))
def test_the_gradient_is_mask_times_ratio_times_advantage_times_score(seed):
    g = torch.Generator().manual_seed(seed)
    log_ratio = torch.randn(3, 4, generator=g) * 0.5
    advantage = torch.randn(3, 4, generator=g)
    one, two = steps(log_ratio, advantage), steps(log_ratio, advantage)
    clip(0.2, 0.3)(one).sum().backward()
    factors = stop(unclipped(0.2, 0.3) * importance() * gain()) * nll()
    run(factors, (two,))[0].sum().backward()
    torch.testing.assert_close(one.logp.grad, two.logp.grad)


def test_ratios_of_sequences_and_turns():
    s = Steps(logp=torch.tensor([[0.2, 0.4, 9.0, 0.9]]), mask=torch.tensor([[1.0, 1, 0, 1]]),
              anchor_logp=torch.zeros(1, 4), turn=torch.tensor([[0, 0, -1, 1]]))  # fmt: skip
    assert_same(per_decision()(s), [[0.2, 0.4, 0, 0.9]])
    assert_same(per_sequence()(s), [[0.5, 0.5, 0, 0.5]])
    assert_same(per_turn()(s), [[0.3, 0.3, 0, 0.9]])
    assert_same(clamped(-0.3, 0.3)(s), [[0.2, 0.3, 0, 0.3]])
    assert_same(summed()(s), [1.5])
    assert_same(averaged()(s), [0.5])
    assert_same(summed()(s.filled(ref_logp=torch.full((1, 4), 0.1))), [1.2])


def test_reductions_by_hand():
    s = Steps(logp=MASK, mask=MASK, loss=torch.tensor(
        [[1.0, 2, 3], [4, 5, 99], [6, 99, 7], [99, 8, 9]]))  # fmt: skip
    assert_same(token_mean()(s), 45 / 9)
    assert_same(sequence_mean()(s), (2 + 4.5 + 6.5 + 8.5) / 4)
    assert_same(sum_over(10.0)(s), 45 / 40)
    assert_same(sum_over()(s), 45 / 12)
    doubled = s.filled(mask=MASK * torch.tensor([2.0, 1, 1, 1])[:, None])
    twice = Steps(logp=MASK[[0, 0, 1, 2, 3]], mask=MASK[[0, 0, 1, 2, 3]],
                  loss=s.loss[[0, 0, 1, 2, 3]])  # fmt: skip
    for part in (token_mean(), sequence_mean(), sum_over(10.0)):
        assert_same(part(doubled), part(twice))  # a weight of two is the row twice


def test_masked_entries_change_nothing():
    wild = torch.where(MASK > 0, 0.1, 1e4)
    for part in (clip(), dual_clip(), ratio_loss(), nll(), clip() + 0.1 * k3(), clip() + k2()):
        outs = []
        for filled in (wild, torch.where(MASK > 0, 0.1, -1e4)):
            s = steps(filled, torch.ones(4, 3), MASK, ref_logp=torch.zeros(4, 3))
            for reduce in (token_mean(), sequence_mean(), sum_over()):
                value = reduce(s.filled(loss=run(part, (s,))[0]))
                (grad,) = torch.autograd.grad(value, s.logp, retain_graph=True)
                outs.append(torch.cat([value.detach()[None], grad.flatten()]))
        for one, two in zip(outs[:3], outs[3:], strict=True):
            torch.testing.assert_close(one, two)


def test_penalties_estimate_the_divergence():
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.25, 0.25])
    kl = (p * (p / q).log()).sum()
    s = Steps(logp=p.log()[None], mask=torch.ones(1, 3), ref_logp=q.log()[None])
    assert_same((p * k1()(s)[0]).sum(), kl)
    assert_same((p * k3()(s)[0]).sum(), kl)
    assert (k3()(s) >= 0).all()
    # The gradient of k2 on samples of pi is that of KL(pi || ref): compare on logits.
    z = p.log().clone().requires_grad_()
    logp = z.log_softmax(-1)
    ((logp.exp() * (logp - q.log())).sum()).backward()
    want, z.grad = z.grad.clone(), None
    logp = z.log_softmax(-1)
    s = Steps(logp=logp[None], mask=torch.ones(1, 3), ref_logp=q.log()[None])
    (p * k2()(s)[0]).sum().backward()
    torch.testing.assert_close(z.grad, want)


# -------------------------------------------------------------------------------- preferences


def sides(chosen, rejected, lengths=(2, 2)):
    def side(delta, n):
        delta = torch.tensor(delta)
        logp = delta[:, None].expand(-1, n) / n
        return Side(delta, torch.full_like(delta, n), Steps(logp, torch.ones_like(logp)))

    return Sides(side(chosen, lengths[0]), side(rejected, lengths[1]))


def softplus(x):
    return math.log1p(math.exp(x))


def test_pair_losses_by_hand():
    s = sides([1.0, -2.0], [-1.0, 1.0])  # margins 2 and -3
    assert_same(logistic(0.5)(s), [softplus(-1), softplus(1.5)])
    assert_same(logistic(0.5, margin=0.25)(s), [softplus(-0.75), softplus(1.75)])
    assert_same(logistic(0.5, smoothing=0.1)(s)[0], 0.9 * softplus(-1) + 0.1 * softplus(1))
    assert_same(robust(0.5, rate=0.2)(s)[0], (0.8 * softplus(-1) - 0.2 * softplus(1)) / 0.6)
    assert_same(hinge(0.25)(s), [0.5, 1.75])
    assert_same(squared(0.5)(s), [1.0, 16.0])


def test_losses_that_coincide():
    s = sides([0.3, -0.2], [0.1, 0.4])
    assert_same(logistic(0.1, smoothing=0.0)(s), logistic(0.1)(s))
    assert_same(robust(0.1, rate=0.0)(s), logistic(0.1)(s))
    flips = 0.3  # the average over flips is the clean loss
    mixed = (1 - flips) * robust(0.1, flips)(s) + flips * robust(0.1, flips)(s.swapped)
    assert_same(mixed, logistic(0.1)(s))


def test_odds_ratio_by_hand():
    p, q = 0.6, 0.3
    s = sides([math.log(p)], [math.log(q)])
    odds = (p / (1 - p)) / (q / (1 - q))
    assert_same(odds_ratio()(s), [-math.log(odds / (1 + odds))])
    assert_same(chosen_nll()(s), [-math.log(p) / 2])
    assert_same(chosen_nll(mean=False)(s), [-math.log(p)])


def test_kto_by_hand():
    steps_ = Steps(torch.zeros(2, 1), torch.ones(2, 1),
                   extras={"mismatched": torch.tensor([0.4, 0.2])})  # fmt: skip
    s = Side(torch.tensor([1.0, 2.0]), torch.ones(2), steps_, reward=torch.tensor([1.0, -1.0]))
    z0 = 0.5 * 0.3
    good, bad = 1 / (1 + math.exp(-(0.5 - z0))), 1 / (1 + math.exp(-(z0 - 1.0)))
    assert_same(kto(0.5, 2.0, 3.0)(s), [2 * (1 - good), 3 * (1 - bad)])
    low = steps_.filled(extras={"mismatched": torch.tensor([-4.0, 0.2])})
    s = Side(s.delta, s.length, low, s.reward)
    assert_same(
        kto(0.5)(s)[0], 1 - 1 / (1 + math.exp(-0.5))
    )  # the reference point is never negative


def test_regression_on_rewards_is_zero_where_implicit_rewards_fit():
    reward, group = torch.tensor([1.0, 0.0, 3.0]), torch.tensor([0, 0, 0])
    steps_ = Steps(torch.zeros(3, 1), torch.ones(3, 1))
    fits = Side(reward / 0.1 + 7, torch.ones(3), steps_, reward, group)
    assert_same(regression(0.1)(fits), [0.0, 0, 0], rtol=0, atol=1e-10)
    flat = Side(torch.zeros(3), torch.ones(3), steps_, reward, group)
    assert_same(regression(0.1)(flat), (reward - 4 / 3).square())


@pytest.mark.parametrize("part", [logistic(0.1), hinge(0.1), squared(0.1), robust(0.1, 0.2)])
def test_pair_losses_fall_with_the_margin(part):
    low, high = sides([0.1], [0.0]), sides([0.6], [0.0])
    assert float(part(high)) < float(part(low))
