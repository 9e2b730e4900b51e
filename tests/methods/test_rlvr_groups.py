"""Recipes on groups and trees of answers: values by hand, exact limits, recipes that coincide."""

import math

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.data.records import Sequences  # noqa: E402
from surpass.errors import InputError  # noqa: E402
from surpass.methods.rlvr.entropy_cov import clip_covariance, kl_covariance  # noqa: E402
from surpass.methods.rlvr.gvm import gradient_norms, gvm  # noqa: E402
from surpass.methods.rlvr.policy_gradients import dr_grpo, rloo  # noqa: E402
from surpass.methods.rlvr.rec import asymre, opmd, rec, red_drop, red_weight  # noqa: E402
from surpass.methods.rlvr.rover import rover  # noqa: E402
from surpass.methods.rlvr.tsallis import garl, paft  # noqa: E402
from surpass.objectives.advantage import leave_one_out  # noqa: E402
from surpass.objectives.groups import (  # noqa: E402
    accepted_mean,
    amplified,
    centered_over,
    no_more_failures,
    posterior,
    success_power,
)
from surpass.objectives.masks import clip_cov, kl_cov, ring, token_covariance, two_side  # noqa: E402
from surpass.objectives.sampling_budget import (  # noqa: E402
    allocated,
    budget_weights,
    gradient_variance,
)
from surpass.objectives.tree import following, random_values, valuation  # noqa: E402
from surpass.objectives.trust import ratio_loss  # noqa: E402
from surpass.objectives.views import Steps  # noqa: E402
from surpass.parts import run  # noqa: E402
from surpass.policies.language import LanguagePolicy, load_model  # noqa: E402
from surpass.policies.table_model import table_policy  # noqa: E402
from surpass.tasks.tables import lock_table, random_tree, sumtriple_table  # noqa: E402
from surpass.training.language_rollouts import RolloutStream, TaskPrompts  # noqa: E402
from surpass.training.modules import ModuleTrainer  # noqa: E402
from tests.methods.language_cases import assert_same, gradient, on_two, tiny  # noqa: E402
from tests.methods.test_rlvr import fixed  # noqa: E402

SMALL = {"batch": 16, "horizon": 6, "group": 4}


def grouped(rewards, group=4):
    r = torch.tensor(rewards, dtype=torch.float32)
    return Sequences(action=torch.zeros(len(r), 1, dtype=torch.long), mask=torch.ones(len(r), 1),
                     reward=r[:, None], group=torch.arange(len(r)) // group,
                     batch_size=[len(r)])  # fmt: skip


# ------------------------------------------------------------------------------------------- rec

MU = torch.tensor([0.3, 0.6, 0.1], dtype=torch.float64)
PAID = torch.tensor([0.0, 0.8, 1.0], dtype=torch.float64)


def settled(form, steps, rate):
    """The value of a softmax policy over three arms after steps along the population gradient of a
    recipe's loss, on data of MU, from MU."""
    logits = MU.log().clone().requires_grad_()
    shift = form.advantage.second.by if form.advantage.kind == "sum" else 0.0
    advantage = (PAID - (MU * PAID).sum() + shift)[:, None]
    for _ in range(steps):
        logp = logits.log_softmax(-1)[:, None]
        s = Steps(logp, MU[:, None], anchor_logp=MU.log()[:, None], advantage=advantage,
                  log_ratio=logp - MU.log()[:, None])  # fmt: skip
        loss = (MU[:, None] * run(form.trust, (s,))[0]).sum()
        (g,) = torch.autograd.grad(loss, logits)
        logits = (logits - rate * g).detach().requires_grad_()
    return float(logits.detach().softmax(-1) @ PAID)


@pytest.mark.parametrize(
    ("form", "value", "near"),
    [
        (rec(mask="none"), 0.800, 2e-3),
        (asymre(0.3), 0.820, 2e-3),
        (opmd(0.1), 0.844, 2e-3),
        (rec(low=0.6, high=2.0), 0.841, 6e-3),
        (rec(), 0.70, 2e-2),
        (rec(mask="none", importance=True), 1.0, 2e-2),
    ],
)
def test_rec_members_settle_where_they_should_on_stale_data(form, value, near):
    assert settled(form, 800, 2.0) == pytest.approx(value, abs=near)


def test_masks_by_hand():
    ratio = torch.tensor([[0.3, 0.7, 0.9, 1.1, 1.5, 3.5]])
    for a, want in ((1.0, [1, 0, 1, 1, 0, 0]), (-1.0, [0, 0, 1, 1, 0, 1])):
        s = Steps(ratio.log(), torch.ones(1, 6), log_ratio=ratio.log(),
                  advantage=torch.full((1, 6), a))  # fmt: skip
        assert two_side()(s).tolist() == [[0, 0, 1, 1, 0, 0]]
        assert ring()(s).tolist() == [want]
    with pytest.raises(InputError, match="did you mean"):
        rec(mask="oneside")


def test_rec_without_a_mask_is_dr_grpo_at_the_first_update_and_its_members_by_weight():
    plain, seq = fixed(dr_grpo(**SMALL))
    want = gradient(plain)
    assert_same(want, gradient(fixed(rec(minibatches=1, **SMALL))[0]))
    assert_same(want, gradient(fixed(opmd(minibatches=1, **SMALL))[0]))  # r = 1: nothing squared
    weighted = gradient(fixed(red_weight(temperature=1e6, minibatches=1, **SMALL))[0])
    assert_same(want, weighted)


def test_drop_keeps_no_more_failures_than_successes_and_centers_over_those():
    seq = grouped([0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0])
    assert no_more_failures()(seq).tolist() == [1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    centered = centered_over()(seq)[:, 0]
    assert centered.tolist() == [-0.5, 0.5, 0, 0, 0.25, 0.25, 0.25, -0.75, 0, 0, 0, 0]
    assert red_drop(**SMALL).select == no_more_failures()


# ----------------------------------------------------------------------------------- entropy-cov


def test_the_covariance_predicts_the_change_of_entropy():
    """Natural gradient, z <- z + eta A: dH = -eta Cov(log pi, A); actions stand in proportion."""
    g = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 30, (20,), generator=g)
    logits, a, eta = counts.double().log(), torch.randn(20, generator=g).double(), 1e-7
    logp = logits.log_softmax(-1)

    def entropy(z):
        p = z.log_softmax(-1)
        return -(p.exp() * p).sum()

    drawn = torch.arange(20).repeat_interleave(counts)[None]
    s = Steps(logp[drawn], torch.ones_like(logp[drawn]), advantage=a[drawn])
    predicted = -eta * token_covariance(s).mean()
    assert float(entropy(logits + eta * a) - entropy(logits)) == pytest.approx(
        float(predicted), rel=1e-3
    )


def covariances():
    logp = torch.tensor([[-1.0, -2.0, -3.0, -4.0], [-2.0, -2.5, -9.0, -9.0]], requires_grad=True)
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])
    a = torch.tensor([[3.0, -1, 0, -2], [1, 0, 9, 9]])
    old = logp.detach() - 0.1
    return Steps(logp, mask, anchor_logp=old, advantage=a,
                 log_ratio=torch.where(mask > 0, logp - old, 0.0))  # fmt: skip


def test_kl_cov_by_hand():
    s = covariances()
    r, own = math.exp(0.1), s.mask > 0
    mean_a, mean_l = 1 / 6, -14.5 / 6
    c = torch.where(own, (s.advantage - mean_a) * (s.logp.detach() - mean_l), 0.0)
    torch.testing.assert_close(token_covariance(s), c)
    top = c[0, 0]  # 2.83 x 1.42
    assert top == c.max()
    loss = kl_cov(share=1e-9, beta=2.0)(s)
    want = -r * s.advantage
    want[0, 0] += 2.0 * 0.1
    torch.testing.assert_close(loss[own], want[own])
    half = kl_cov(share=0.5, beta=2.0)(s)  # three of six
    assert ((half - -r * s.advantage)[own] > 0.19).sum() == 3
    torch.testing.assert_close(kl_cov(beta=0.0)(s)[own], ratio_loss()(s)[own])


def test_the_means_of_the_covariance_are_those_of_all_processes(monkeypatch):
    s = covariances()  # of the rows, one has four decisions and the other two

    def share(row):
        here = s.filled(logp=s.logp[row], mask=s.mask[row], advantage=s.advantage[row])
        return token_covariance(here)

    found = on_two(monkeypatch, share, [slice(0, 1), slice(1, 2)])
    torch.testing.assert_close(torch.cat(found), token_covariance(s))


def test_clip_cov_stops_the_gradient_at_candidates_only():
    s = covariances()
    c = token_covariance(s)
    (g,) = torch.autograd.grad(clip_cov(share=0.3, low=0.5, high=5.0)(s).sum(), s.logp)
    inside = (c > 0.5) & (c < 5.0)
    assert int(inside.sum()) >= 1
    moved = (g != 0) & (s.mask > 0)
    stopped = (s.mask > 0) & (s.advantage != 0) & ~moved
    assert int(stopped.sum()) == 1 and bool(inside[stopped].all())
    s = covariances()
    loss = clip_cov(share=1e-9, quantile=0.8)(s)
    (g,) = torch.autograd.grad(loss.sum(), s.logp)
    assert float(g[0, 0]) == 0.0  # the only candidate above the quantile
    a = s.filled(log_ratio=torch.full_like(s.log_ratio, 3.0), advantage=-torch.ones(2, 4))
    torch.testing.assert_close(clip_cov(quantile=0.9)(a).max(), torch.tensor(10.0))


# --------------------------------------------------------------------------------------- tsallis


def test_garl_is_rloo_at_zero_and_weighs_by_the_success_rate():
    seq = grouped([1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0])
    plain = leave_one_out()(seq)
    torch.testing.assert_close(amplified(leave_one_out(), 0.0)(seq), plain)
    full = amplified(leave_one_out(), 1.0)(seq)[:, 0]
    factor = torch.tensor([4.0] * 4 + [2.0] * 4 + [0.0] * 4)
    torch.testing.assert_close(full, factor * plain[:, 0])
    trainer, _ = fixed(garl(0.0, batch=16, horizon=6, group=4))
    width = trainer.stream.next().sequences.action.shape[1]
    other, _ = fixed(rloo(beta=0.0, **SMALL))
    judge = lambda seq, rows: ((seq.action.sum(-1) % 2).float(), 0)  # noqa: E731
    for each in (trainer, other):
        batch = each.stream.next()
        score, _ = judge(batch.sequences, [])
        batch.sequences.reward = score[:, None] * torch.nn.functional.one_hot(
            batch.sequences.mask.sum(-1).long() - 1, width
        )
    some = (trainer.stream.next().sequences.total.view(4, 4).sum(-1) > 0).all()
    assert some  # else q = 0 would skip what RLOO does not move either
    assert_same(gradient(other), gradient(trainer), factor=width / 6)


def test_paft_redraws_successes_and_averages_over_all_prompts():
    torch.manual_seed(0)
    seq = grouped([1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0])
    drawn = torch.stack([posterior()(seq) for _ in range(400)])
    assert (drawn[:, 0] == 4).all() and (drawn[:, 8:] == 0).all() and (drawn[:, [1, 6]] == 0).all()
    assert (drawn[:, 4] + drawn[:, 5] == 4).all()
    assert float(drawn[:, 4].mean()) == pytest.approx(2.0, abs=0.15)
    power = success_power(0.25)(seq)[:, 0]
    assert power[0] == pytest.approx(0.25**0.25 * 2 / 3) and power[8] == 0.0
    form = paft(q=0.75)
    assert form.select == posterior() and form.advantage == success_power(0.25)


def test_shares_of_prompts_are_those_of_all_processes(monkeypatch):
    one, two = grouped([1, 0, 0, 0]), grouped([0, 0, 0, 0, 1, 1, 0, 0])
    mine, theirs = (a[:, 0] for a in on_two(monkeypatch, success_power(0.25), [one, two]))
    assert mine[0] == pytest.approx(0.25**0.25 * 2 / 3)  # two prompts of three succeed somewhere
    assert theirs[4] == pytest.approx(0.5**0.25 * 2 / 3) and theirs[0] == 0.0
    few, many = grouped([1, 0], group=2), grouped([1, 1, 0, 0], group=4)
    mine, theirs = (a[:, 0] for a in on_two(monkeypatch, accepted_mean(), [few, many]))
    assert mine.tolist() == [3.0, 0.0] and theirs.tolist() == [1.5, 1.5, 0.0, 0.0]  # B / m = 6 / 2


# ----------------------------------------------------------------------------------------- rover


def test_rover_by_hand():
    mask = torch.tensor([[1.0, 0.0, 1.0, 1.0]])
    value = torch.tensor([[5.0, 9.0, 2.0, 7.0]])
    assert following(value, mask).tolist() == [[2.0, 0.0, 7.0, 0.0]]
    q = torch.tensor([[0.1, 0.0, 0.2, -0.3]])
    new, old = torch.tensor([[-2.0, -8, -2.2, -2.4]]), torch.tensor([[-2.1, -9, -2.0, -2.0]])
    s = Steps(q - 1, mask, log_ratio=q, advantage=0.5 * mask,
              extras={"mean_logp": new, "anchor_mean_logp": old})  # fmt: skip
    target = torch.tensor([0.5 - 0.2, 0.0, 0.5 - 0.4, 0.5])
    torch.testing.assert_close(valuation()(s)[0], (q[0] - target).square())


def test_rover_begins_as_reinforce_with_twice_the_step():
    want = gradient(fixed(dr_grpo(**SMALL))[0])
    trainer, seq = fixed(rover(minibatches=1, **SMALL))
    assert_same(want, gradient(trainer), factor=2 * 6 * 16 / float(seq.mask.sum()))


def test_greedy_values_of_the_random_policy_are_optimal():
    for seed in range(50):
        tree = random_tree(seed=seed)
        prefix = torch.zeros(tree.n_prompts, dtype=torch.long)
        best = tree.rewards.amax(-1)
        for level in random_values(tree.rewards, tree.vocab, tree.length):
            token = level[torch.arange(len(prefix)), prefix].argmax(-1)
            prefix = prefix * tree.vocab + token
        assert torch.equal(tree.rewards[torch.arange(len(prefix)), prefix], best)


def test_a_softmax_of_random_values_keeps_every_solution():
    task = sumtriple_table()
    levels = random_values(task.rewards, task.vocab, task.length)
    logits = torch.cat([v.reshape(task.n_prompts, -1, task.vocab) for v in levels], 1)
    truth = task.truth(logits.reshape(task.rows, task.vocab) / 0.05)
    assert truth.success.min() > 0.999
    assert truth.solutions.min() == pytest.approx(100.0, rel=1e-3)


# ------------------------------------------------------------------------------------------- gvm


def test_budget_by_hand():
    g = torch.Generator().manual_seed(0)
    p = torch.distributions.Beta(0.5, 0.8)
    torch.manual_seed(0)
    rate = p.sample((200,)).clamp(0.02, 0.999)
    size = torch.distributions.Gamma(2.0, 1.0).sample((200,))
    even = gradient_variance(rate, size, torch.full((200,), 8.0))
    best = 1600 * (size / rate.sqrt()) / (size / rate.sqrt()).sum()
    ours = 1600 * budget_weights(rate, size) / budget_weights(rate, size).sum()
    least = gradient_variance(rate, size, best)
    assert least < gradient_variance(rate, size, ours) < 0.6 * even
    noise = (best * (1 + 0.1 * torch.randn(200, generator=g))).clamp_min(0.01)
    assert gradient_variance(rate, size, 1600 * noise / noise.sum()) > least
    count = allocated(torch.tensor([1.0, 1.0, 2.0, 0.0]), 7)
    assert count.tolist() == [2, 2, 3, 0]
    assert allocated(torch.tensor([0.5, 0.3, 0.2]), 10).tolist() == [5, 3, 2]
    assert budget_weights(torch.tensor([0.0, 0.25]), torch.ones(2), alpha=0.0).tolist() == [0, 2]


def test_accepted_answers_count_by_prompt_whatever_the_sizes():
    seq = grouped([1, 0, 1, 1, 1, 0])
    seq.group = torch.tensor([0, 0, 1, 1, 1, 2])
    a = accepted_mean()(seq)[:, 0]
    torch.testing.assert_close(a, torch.tensor([1, 0, 1 / 3, 1 / 3, 1 / 3, 0]) * 6 / 3)


def table_trainer(form, task, logits, seed=0):
    policy = table_policy(task, logits)
    stream = RolloutStream(policy, TaskPrompts(task, seed), form.source, seed=seed,
                           select=form.select)  # fmt: skip
    return ModuleTrainer(form, policy, stream, seed=seed)


def test_gvm_spends_its_budget_where_trials_say_and_charges_them():
    task = sumtriple_table()
    trainer = table_trainer(gvm(total=60, batch=64, trial=16, horizon=3, lr=0.5), task,
                            task.warm_start(0.3))  # fmt: skip
    seq = trainer.stream.next().sequences
    assert len(seq) == 60 and trainer.stream.spent == 124
    assert torch.bincount(seq.group).unique().numel() > 1
    before = float(task.truth(trainer.policy.model.table.weight.detach()).success.mean())
    for _ in range(8):
        trainer.update()
    after = float(task.truth(trainer.policy.model.table.weight.detach()).success.mean())
    assert after > before + 0.05


def test_gradients_are_measured_on_embeddings_that_adapters_leave_frozen():
    pytest.importorskip("peft")
    plain, adapted = (LanguagePolicy(load_model(tiny(), lora=rank)[0]) for rank in (None, 2))
    _, seq = fixed(dr_grpo(**SMALL))
    want, found = (gradient_norms(policy, seq, [0, 3]) for policy in (plain, adapted))
    assert (want > 0).all()
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-6)  # new adapters change nothing
    assert not adapted.model.get_input_embeddings().weight.requires_grad


# ------------------------------------------------------------------------------------- the table


def test_a_table_is_a_language_model():
    task = lock_table(vocab=4, length=3, prompts=5)
    logits = torch.randn(task.rows, 4, generator=torch.Generator().manual_seed(0))
    policy = table_policy(task, logits)
    stream = RolloutStream(
        policy, TaskPrompts(task, 0), kl_covariance(batch=32, group=4, horizon=3).source
    )
    seq = stream.next().sequences
    logp = policy.score(seq).logp
    torch.testing.assert_close(logp, seq.behavior_logp, rtol=1e-5, atol=1e-6)
    number = (seq.action * torch.tensor([16, 4, 1])).sum(-1)
    want = task.log_probs(logits)[seq.prompt[:, 0], number]
    torch.testing.assert_close(logp.sum(-1), want, rtol=1e-5, atol=1e-5)
    assert clip_covariance().trust == clip_cov(2e-4, 1.0, 5.0, quantile=0.0)
