"""Recipes with soft trust, other normalizations, choices of prompts, rollouts and tokens: values
by hand, closed forms, brute force."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

transformers = pytest.importorskip("transformers")

from surpass.data.records import Sequences  # noqa: E402
from surpass.errors import InputError  # noqa: E402
from surpass.methods.preference.proximal import psft  # noqa: E402
from surpass.methods.preference.scored import sft  # noqa: E402
from surpass.methods.rlvr.calibration import capo_calibration  # noqa: E402
from surpass.methods.rlvr.down_sampling import d3s  # noqa: E402
from surpass.methods.rlvr.normalizations import lite_ppo, mapo  # noqa: E402
from surpass.methods.rlvr.policy_gradients import grpo  # noqa: E402
from surpass.methods.rlvr.prompt_choice import fg_expo, vade  # noqa: E402
from surpass.methods.rlvr.steady import cpgd, r2vpo  # noqa: E402
from surpass.objectives.calibration import area_under_curve, ranked, within_perplexity  # noqa: E402
from surpass.objectives.down_sampling import uncertain_decisions, widest  # noqa: E402
from surpass.objectives.normalizing import by_accuracy, certainty_mixed, normalized  # noqa: E402
from surpass.objectives.prompt_choice import Outcomes, frontier, likely_mixed  # noqa: E402
from surpass.objectives.ratio_penalties import (  # noqa: E402
    drift,
    log_clip,
    quadratic,
    variance_bound,
)
from surpass.objectives.trust import clip  # noqa: E402
from surpass.objectives.views import Steps  # noqa: E402
from surpass.tasks.language import ModSum  # noqa: E402
from surpass.training.language_rollouts import RolloutStream, TaskPrompts  # noqa: E402
from surpass.training.prompt_pool import PromptPool  # noqa: E402
from tests.methods.language_cases import assert_same, gradient, row_trainer, rows  # noqa: E402
from tests.methods.test_rlvr import fixed  # noqa: E402

SMALL = {"batch": 16, "horizon": 6, "group": 4}


def grouped(rewards, group=4, **more):
    r = torch.tensor(rewards, dtype=torch.float32)
    return Sequences(action=torch.zeros(len(r), 1, dtype=torch.long), mask=torch.ones(len(r), 1),
                     reward=r[:, None], group=torch.arange(len(r)) // group,
                     batch_size=[len(r)], **more)  # fmt: skip


def at_ratio(ratio, advantage):
    """Steps of one decision at a ratio, whose log-prob can be differentiated."""
    logp = (torch.tensor([[ratio]]).log() - 1.0).requires_grad_()
    anchor = torch.full((1, 1), -1.0)
    return logp, Steps(logp, torch.ones(1, 1), anchor_logp=anchor, log_ratio=logp - anchor,
                       advantage=torch.tensor([[advantage]]))  # fmt: skip


def slope(part, ratio, advantage):
    """The gradient of a trust rule with respect to the log-prob of one decision."""
    logp, steps = at_ratio(ratio, advantage)
    found = part(steps)
    loss = found[0] if isinstance(found, tuple) else found
    return float(torch.autograd.grad(loss.sum(), logp)[0])


# ------------------------------------------------------------------------------------ soft trust


@pytest.mark.parametrize("advantage", [2.0, -0.5])
def test_the_quadratic_pull_has_its_minimum_at_the_boundary(advantage):
    best = 1 + math.copysign(0.2, advantage)
    assert slope(quadratic(0.2), best, advantage) == pytest.approx(0.0, abs=1e-6)
    out, inside = best + math.copysign(0.1, advantage), best - math.copysign(0.1, advantage)
    toward = math.copysign(1.0, advantage)
    assert slope(quadratic(0.2), out, advantage) * toward > 0  # pulled back
    assert slope(quadratic(0.2), inside, advantage) * toward < 0
    assert slope(clip(0.2, 0.2), out, advantage) == 0.0


@pytest.mark.parametrize(("ratio", "advantage"), [(1.1, 0.7), (0.9, -0.7), (0.9, 0.7), (1.1, -2.0)])
def test_the_log_ratio_has_no_ratio_in_its_gradient(ratio, advantage):
    assert slope(log_clip(), ratio, advantage) == pytest.approx(-advantage, rel=1e-5)
    assert slope(clip(), ratio, advantage) == pytest.approx(-advantage * ratio, rel=1e-5)


def test_drift_has_the_gradient_of_k3_to_the_anchor_up_to_its_cap():
    for ratio in (0.5, 1.0, 1.7, 2.9, 7.0):
        logp = torch.tensor(math.log(ratio), requires_grad=True)
        (want,) = torch.autograd.grad(logp.exp() - 1 - logp, logp)
        assert slope(drift(2.0), ratio, 1.0) == pytest.approx(min(float(want), 2.0), abs=1e-5)


@pytest.mark.parametrize("lr", [1e-3, 1e-2, 1e-1])
def test_one_step_of_cpgd_moves_a_ratio_less_than_one_of_ppo(lr):
    """From |r - 1| = 0.2 in a softmax bandit, with an advantage that still has gradient."""
    old = torch.tensor([0.5, 0.3, 0.2])

    def moved(trust):
        # arm 0 at ratio 1.2, and its advantage below 0 keeps PPO's gradient; or r = 0.8 and A > 0
        out = []
        for ratio, a in ((1.2, 1.0 - 1e-6), (0.8, -1.0)):
            p = torch.tensor([0.5 * ratio, *(old[1:] * (1 - 0.5 * ratio) / 0.5)])
            z = p.log().requires_grad_()
            logp = z.log_softmax(-1)[:1][None]
            ratio_now = logp - old[:1].log()
            edge = Steps(logp, torch.ones(1, 1), anchor_logp=old[:1].log()[None],
                         log_ratio=torch.where(ratio_now > 0, ratio_now - 1e-4, ratio_now + 1e-4),
                         advantage=torch.tensor([[a]]))  # fmt: skip
            (g,) = torch.autograd.grad(trust(edge).sum(), z)
            after = (z - lr * g).log_softmax(-1)[0].exp() / 0.5
            out.append(abs(float(after.detach()) - 1))
        return out

    ppo, ours = moved(clip()), moved(log_clip() + 0.1 * drift())
    assert ours[0] < ppo[0]  # r > 1: PPO multiplies the gradient by r
    with_drift, without = moved(log_clip() + 1.0 * drift()), moved(log_clip())
    assert all(a < b for a, b in zip(with_drift, without, strict=True))


def test_the_variance_bound_by_hand_and_its_multiplier():
    logp = torch.tensor([[1.5, 0.5]]).log().requires_grad_()
    a = torch.tensor([[1.0, -1.0]])
    s = Steps(logp, torch.ones(1, 2), log_ratio=logp, advantage=a)
    loss, state = variance_bound(delta=0.1, rate=2.0)({"weight": torch.tensor([3.0])}, s)
    assert loss.tolist() == [pytest.approx([3 * 0.25 - 1.5, 3 * 0.25 + 0.5])]
    assert float(state["weight"]) == pytest.approx(3 + 2 * (0.25 - 0.1))
    (g,) = torch.autograd.grad(loss.sum(), logp)
    r = logp.detach().exp()
    torch.testing.assert_close(g, -r * (a - 2 * 3 * (r - 1)))


def test_every_age_has_a_multiplier_of_its_own():
    log_ratio = torch.tensor([[0.0, 0.0], [0.4, -0.4]])
    s = Steps(log_ratio, torch.ones(2, 2), log_ratio=log_ratio, advantage=torch.zeros(2, 2),
              extras={"age": torch.tensor([[0.0, 0.0], [7.0, 7.0]])})  # fmt: skip
    start = {"weight": torch.tensor([1.0, 1.0, 1.0])}
    _, state = variance_bound(delta=0.02, ages=3)(start, s)
    fresh, unseen, stale = state["weight"].tolist()
    assert fresh == pytest.approx(1 - 5 * 0.02) and unseen == 1.0 and stale > 1.5


def test_r2vpo_without_a_pull_is_an_unclipped_ratio():
    """With both multipliers at 0 only -r A is left, which has GRPO's first gradient."""
    form = r2vpo(minibatches=1, **SMALL)
    trainer, _ = fixed(form)
    plain, _ = fixed(lite_ppo(scale="group", eps=1e9, minibatches=1, **SMALL))
    assert_same(gradient(plain), gradient(trainer), atol=2e-5)


def test_a_rare_good_arm_goes_on_rising_to_its_fixed_point():
    """On a fixed batch PPO's clip stops at 1.2, the pull at 1 + A / (2 w)."""
    mu = torch.tensor([0.999, 0.001])
    a = torch.tensor([[-0.009, 8.991]])
    for trust, want in ((clip(), 1.2), (quadratic(0.2), 1.2)):
        r = torch.tensor(1.0)
        for _ in range(3000):
            g = slope(trust, float(r), float(a[0, 1]))
            r = r * math.exp(-1e-4 * g)
        assert float(r) == pytest.approx(want, abs=0.01)
    w = 50.0
    r = 1.0
    for _ in range(3000):
        s = variance_bound(rate=0.0)
        logp, steps = at_ratio(r, float(a[0, 1]))
        loss, _ = s({"weight": torch.tensor([w])}, steps)
        r *= math.exp(-1e-4 * float(torch.autograd.grad(loss.sum(), logp)[0]))
    assert r == pytest.approx(1 + float(a[0, 1]) / (2 * w), abs=0.005)
    assert float(mu[1]) * (r - 1) ** 2 < 0.02  # a rare arm costs next to no variance


def test_cpgd_starts_as_dr_grpo_over_tokens():
    trainer, seq = fixed(cpgd(minibatches=1, **SMALL))
    other, _ = fixed(lite_ppo(scale="none", **SMALL))
    assert_same(gradient(other), gradient(trainer))


# -------------------------------------------------------------------------------- normalizations


def test_the_five_normalizations_by_hand():
    r = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]
    seq, t = grouped(r), torch.tensor(r)
    means = torch.tensor([0.25] * 4 + [0.75] * 4)
    cases = {("none", "none"): t, ("group", "none"): t - means,
             ("group", "group"): (t - means) / 0.5, ("batch", "batch"): (t - 0.5) / t.std(),
             ("group", "batch"): (t - means) / t.std()}  # fmt: skip
    for (center, scale), want in cases.items():
        torch.testing.assert_close(normalized(center, scale)(seq)[:, 0], want)
    with pytest.raises(InputError, match="center='tokens'"):
        normalized("tokens")(seq)


def test_easy_groups_are_not_blown_up_by_the_deviation_of_the_batch():
    easy = [1.0] * 7 + [0.0]
    seq = grouped(easy + [1.0, 0.0] * 4, group=8)
    own = normalized("group", "group")(seq)[7, 0]
    batch = normalized("group", "batch")(seq)[7, 0]
    assert own < -2.4 and -2.0 < batch < -1.7


def test_mapo_is_no_mirror_and_a_z_score_in_the_middle():
    def failing(k):
        return grouped([1.0] * k + [0.0] * (8 - k), group=8)

    seven, one, four = (certainty_mixed()(failing(k))[:, 0] for k in (7, 1, 4))
    # p = 7/8: w = 1 - 4 * 7/64 = 0.5625; z = -sqrt(7), relative = -1
    assert float(seven[-1]) == pytest.approx(-(0.4375 * math.sqrt(7) + 0.5625), abs=1e-4)
    # p = 1/8: z = sqrt(7), relative = 7
    assert float(one[0]) == pytest.approx(0.4375 * math.sqrt(7) + 0.5625 * 7, abs=1e-4)
    assert float(four[0]) == pytest.approx(1.0, abs=1e-4)
    assert certainty_mixed()(failing(0)).abs().max() == 0.0
    assert certainty_mixed()(failing(8)).abs().max() == 0.0


def test_ranked_by_hand():
    seq = grouped([1.0, 1, 0, 0], behavior_logp=torch.tensor([[-0.2], [-0.9], [-0.3], [-0.8]]))
    want = torch.tensor([1.212, 2.121, -1.982, -1.351])
    torch.testing.assert_close(ranked(0.6)(seq)[:, 0], want, atol=1e-3, rtol=0)
    per_pair = ranked(0.6, pairs=True)(seq)[:, 0]
    torch.testing.assert_close(per_pair, want / (2 * 2 / 4), atol=1e-3, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(-3, -0.01)), min_size=4, max_size=4))
def test_ranked_is_the_gradient_of_its_surrogate_and_sums_to_nothing(rows):
    r = [float(good) for good, _ in rows]
    lp = torch.tensor([x for _, x in rows], dtype=torch.float64, requires_grad=True)
    loss = torch.zeros((), dtype=torch.float64)
    for i, j in itertools.permutations(range(4), 2):
        if r[i] > r[j]:
            loss = loss + torch.nn.functional.softplus(-(lp[i] - lp[j]) / 0.5)
    want = torch.zeros(4, dtype=torch.float64)
    if loss.requires_grad:
        want = -torch.autograd.grad(loss, lp)[0]
    seq = grouped(r, behavior_logp=lp.detach().float()[:, None])
    found = ranked(0.5)(seq)[:, 0]
    torch.testing.assert_close(found.double(), want, atol=1e-5, rtol=1e-5)
    assert float(found.sum()) == pytest.approx(0.0, abs=1e-5)


def test_lucky_guesses_and_unfair_failures_are_left_out():
    seq = grouped([1.0, 1, 0, 0])
    seq.extras = {"ref_logp": torch.tensor([[-0.1], [-2.0], [-0.01], [-1.0]])}
    keep = within_perplexity(2.5, 1.05)(seq)[:, 0]
    assert keep.tolist() == [1.0, 0.0, 0.0, 1.0]


def test_the_area_under_the_curve():
    score, right = torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([1.0, 1, 0, 0])
    assert area_under_curve(score, right) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert math.isnan(area_under_curve(score, torch.ones(4)))


def test_capo_without_its_mask_needs_no_reference_and_mapo_without_a_penalty_neither():
    form = capo_calibration(right=math.inf, wrong=0.0, **SMALL)
    assert not form.nets and capo_calibration(**SMALL).nets
    trainer, _ = fixed(form)
    assert gradient(trainer)
    assert not mapo(beta=0.0, **SMALL).nets and mapo(**SMALL).nets


# ----------------------------------------------------------------------- what is worth learning


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=3, max_size=9), st.data())
def test_the_widest_subset_is_that_of_brute_force(values, data):
    count = data.draw(st.integers(1, len(values)))
    x = torch.tensor(values, dtype=torch.float64)
    chosen = widest(x, torch.tensor(float(count))) > 0
    assert int(chosen.sum()) == count
    best = max(
        float(x[list(s)].var(unbiased=False)) for s in itertools.combinations(range(len(x)), count)
    )
    assert float(x[chosen].var(unbiased=False)) == pytest.approx(best, abs=1e-9)


def test_uncertain_decisions_are_those_of_advantage_times_entropy():
    mask = torch.tensor([[1.0, 1, 1, 0], [1, 1, 0, 0]])
    a = torch.tensor([[2.0] * 4, [-3.0] * 4])
    h = torch.tensor([[0.1, 0.9, 0.2, 9.0], [0.5, 0.0, 9.0, 9.0]])
    s = Steps(torch.zeros(2, 4), mask, advantage=a, entropy=h)
    keep = uncertain_decisions(0.4)(s)  # two of five
    assert keep.tolist() == [[0, 2.5, 0, 0], [2.5, 0, 0, 0]]


def test_d3s_with_all_of_both_is_grpo_over_tokens():
    form = d3s(first=(1.0, 1.0), last=(1.0, 1.0), batch=16, horizon=6, group=4)
    trainer, _ = fixed(form)
    other, _ = fixed(lite_ppo(scale="group", **SMALL))
    assert_same(gradient(other), gradient(trainer), atol=2e-5)


def test_d3s_relaxes_its_shares():
    trainer, _ = fixed(d3s(first=(0.25, 0.2), last=(1.0, 1.0), over=2, **SMALL))
    kept = [trainer.update()["kept"] for _ in range(3)]
    assert kept == pytest.approx([0.25, 0.62, 1.0], abs=0.02)


# -------------------------------------------------------------------------------- prompt choice


def run_chooser(part, state, asked, good, wanted=1):
    return part(state, Outcomes(torch.tensor(asked), torch.tensor(good), wanted))


def test_beliefs_by_hand():
    part = likely_mixed(own=0.5, every=0.9, anywhere=0.0)
    _, state = run_chooser(part, {}, [0.0, 8.0], [0.0, 2.0])
    assert state["a"].tolist() == [1.0, 3.0] and state["b"].tolist() == [1.0, 7.0]
    _, state = run_chooser(part, state, [0.0, 4.0], [0.0, 4.0])
    assert state["a"][1] == pytest.approx(1 + 0.45 * 2 + 4)
    assert state["b"][1] == pytest.approx(1 + 0.45 * 6)
    score, _ = run_chooser(likely_mixed(thompson=False, anywhere=0.0), {}, [8.0, 8.0], [4.0, 8.0])
    assert score[0] == pytest.approx(0.25, abs=1e-6) and score[1] < 0.1


def test_vade_finds_the_mixed_prompts():
    """Of 300 prompts 10 percent are at 1/2, the others at 0 or 1; after thirty choices most of what
    is asked is mixed."""
    torch.manual_seed(0)
    p = torch.where(torch.arange(300) < 30, 0.5, (torch.arange(300) % 2).float())
    state, asked, good, share = {}, torch.zeros(300), torch.zeros(300), []
    part = likely_mixed()
    for _ in range(60):
        score, state = part(state, Outcomes(asked, good, 16))
        rows = score.topk(16).indices
        share.append(float((rows < 30).float().mean()))
        asked, good = torch.zeros(300), torch.zeros(300)
        asked[rows], good[rows] = 8.0, torch.binomial(torch.full((16,), 8.0), p[rows])
    assert sum(share[:3]) / 3 < 0.3 and sum(share[-20:]) / 20 > 0.6


def test_the_frontier_by_hand_and_its_first_choice_is_uniform():
    part = frontier(keep=0.9, width=0.35)
    _, state = run_chooser(part, {}, [0.0, 8.0], [0.0, 8.0])
    assert state["rate"].tolist() == pytest.approx([0.5, 0.55])
    torch.manual_seed(0)
    firsts = torch.stack([run_chooser(part, {}, [0.0] * 4, [0.0] * 4)[0].argmax()
                          for _ in range(2000)])  # fmt: skip
    counts = torch.bincount(firsts, minlength=4) / 2000
    assert (counts - 0.25).abs().max() < 0.04
    rate = {"rate": torch.tensor([0.5, 0.0, 1.0, 0.85])}
    drawn = torch.stack([run_chooser(part, rate, [0.0] * 4, [0.0] * 4)[0].argmax()
                         for _ in range(4000)])  # fmt: skip
    weight = torch.exp(-(rate["rate"] - 0.5).square() / (2 * 0.35**2))
    found = torch.bincount(drawn, minlength=4) / 4000
    assert (found - weight / weight.sum()).abs().max() < 0.03


def test_by_accuracy_at_its_ends():
    for accuracy, want in ((0.0, 0.5), (1.0, 0.8808)):
        s = Steps(
            torch.zeros(1, 1), torch.ones(1, 1), extras={"accuracy": torch.full((1, 1), accuracy)}
        )
        assert float(by_accuracy()(s)) == pytest.approx(want, abs=1e-4)


def pool_of(form, seed=3):
    from surpass.policies.language import LanguagePolicy
    from tests.methods.language_cases import tiny

    prompts = TaskPrompts(ModSum(), seed)
    return RolloutStream(LanguagePolicy(tiny()), prompts, form.source, seed=seed)


def test_a_pool_asks_its_own_prompts_and_resumes_exactly():
    form = vade(pool=24, **SMALL)
    stream = pool_of(form)
    assert isinstance(stream.prompts, PromptPool)
    known = {tuple(p.tolist()) for p in stream.prompts.fixed[0]}
    for _ in range(3):
        batch = stream.next()
        assert {tuple(p.tolist()) for p in batch.sequences.prompt} <= known
    assert float(stream.prompts.asked.sum()) == 16
    state = stream.state_dict()
    want = [stream.next().sequences.prompt for _ in range(2)]
    other = pool_of(form)
    other.load_state_dict(state)
    for prompt in want:
        assert torch.equal(other.next().sequences.prompt, prompt)


def test_a_pool_that_is_too_small_says_so():
    with pytest.raises(InputError, match="pool of 2"):
        pool_of(vade(pool=2, **SMALL)).next()


def test_fg_expo_trains_with_its_columns():
    trainer, seq = fixed(fg_expo(pool=24, **SMALL))
    same, _ = fixed(grpo(beta=0.0, **SMALL))
    # at the reference the penalty has no gradient, so the first step on the same batch is GRPO's
    batch = trainer.stream.next()
    same.stream.next = lambda: batch
    assert_same(gradient(same), gradient(trainer))


# ---------------------------------------------------------------------------- proximal imitation


def demonstrations():
    return [{"prompt": r["prompt"], "completion": r["chosen"]} for r in rows()]


def test_one_minibatch_of_psft_is_supervised_training():
    ours = row_trainer(psft(batch=12, minibatches=1), demonstrations(), "sequences")
    theirs = row_trainer(sft(batch=12), demonstrations(), "sequences")
    assert_same(gradient(theirs), gradient(ours))


def test_tokens_that_rose_enough_stop_counting():
    assert slope(clip(0.2, 0.28), 1.27, 1.0) < 0
    assert slope(clip(0.2, 0.28), 1.29, 1.0) == 0.0
