"""Recipes of the rlvr family: gradients by hand, and recipes that must coincide."""

import math

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.forms import PolicyGradient, copy, rollouts  # noqa: E402
from surpass.methods.rlvr.bapo import bapo  # noqa: E402
from surpass.methods.rlvr.policy_gradients import (  # noqa: E402
    dapo,
    dr_grpo,
    grpo,
    gspo,
    ppo_lm,
    reinforce,
    rloo,
)
from surpass.objectives.advantage import group_centered  # noqa: E402
from surpass.objectives.divergence import k3  # noqa: E402
from surpass.objectives.ratio import per_decision  # noqa: E402
from surpass.objectives.reduce import sum_over  # noqa: E402
from surpass.objectives.trust import balanced_clip, clip, gain, nll, ratio_loss  # noqa: E402
from surpass.objectives.views import Steps  # noqa: E402
from surpass.parts import run, stop  # noqa: E402
from surpass.policies.language import LanguagePolicy  # noqa: E402
from tests.methods.language_cases import assert_same, fresh_trainer, gradient, tiny  # noqa: E402

SMALL = {"batch": 16, "horizon": 6}
INF = 1e9


def fixed(form, **more):
    """A trainer, and the batch that it will see every time."""
    trainer = fresh_trainer(form, **more)
    batch = trainer.stream.next()
    trainer.stream.next = lambda: batch
    return trainer, batch.sequences


def by_hand(seq, weight):
    """The gradient of -sum of weight x log pi over decisions, from the model's own logits."""
    model = tiny()
    total = 0.0
    for i in range(len(seq)):
        prompt = seq.prompt[i][seq.prompt_mask[i] > 0]
        answer = seq.action[i][seq.mask[i] > 0]
        logp = model(input_ids=torch.cat([prompt, answer])[None]).logits[0].log_softmax(-1)
        logp = logp[len(prompt) - 1 : -1].gather(-1, answer[:, None])[:, 0]
        total = total - (weight[i][seq.mask[i] > 0] * logp).sum()
    total.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters()}


def centered(seq):
    r = seq.total.view(-1, 4)
    return (r - r.mean(-1, keepdim=True)).flatten(), r.std(-1).repeat_interleave(4)


def test_grpo_by_hand():
    trainer, seq = fixed(grpo(beta=0.0, group=4, **SMALL))
    apart, std = centered(seq)
    weight = (apart / (std + 1e-6) / seq.length / 16)[:, None] * seq.mask
    assert_same(by_hand(seq, weight), gradient(trainer))


def test_dr_grpo_by_hand_and_as_rloo():
    trainer, seq = fixed(dr_grpo(group=4, **SMALL))
    apart, _ = centered(seq)
    want = by_hand(seq, (apart / 6 / 16)[:, None] * seq.mask)
    assert_same(want, gradient(trainer))
    width = seq.action.shape[1]
    other, _ = fixed(rloo(beta=0.0, group=4, **SMALL))
    assert_same(want, gradient(other), factor=4 / 3 * 6 / width)


def test_dapo_without_its_additions_is_grpo_over_tokens():
    signal = dapo(low=0.2, high=0.28, group=4, **SMALL)
    trainer, seq = fixed(signal)
    apart, std = centered(seq)
    assert (std > 0).all()  # every group left has signal
    weight = (apart / (std + 1e-6) / seq.mask.sum())[:, None] * seq.mask
    assert_same(by_hand(seq, weight), gradient(trainer))


def test_dapo_draws_until_its_groups_have_signal():
    calls = []

    def judged(seq):
        calls.append(len(seq))
        lucky = (seq.group % 2 == 0) & (torch.arange(len(seq)) % 4 == 0)
        return lucky.float()

    trainer, seq = fixed(dapo(group=4, **SMALL), reward=judged)
    assert calls == [16, 16] and len(seq) == 16
    assert len(seq.group.unique()) == 4
    assert (seq.total.view(4, 4).sum(-1) == 1).all()


def test_gspo_at_length_one_is_grpo():
    def off_policy(form):
        trainer, _ = fixed(form)
        return gradient(trainer, updates=3)

    one = {"batch": 16, "horizon": 1, "group": 4, "lr": 1e-2, "minibatches": 1, "epochs": 2}
    assert_same(off_policy(grpo(0.2, beta=0.0, **one)), off_policy(gspo(0.2, 0.2, **one)))


def test_gspo_first_step_is_grpo_and_later_ones_share_a_ratio():
    first, _ = fixed(gspo(group=4, minibatches=1, **SMALL))
    other, _ = fixed(grpo(beta=0.0, group=4, **SMALL))
    assert_same(gradient(other), gradient(first))


def test_grpo_without_clip_and_one_epoch_is_reinforce_with_the_group_baseline():
    source = rollouts(16, 6, 4)
    plain = PolicyGradient(group_centered(), ratio_loss(), reduce=sum_over(6.0), source=source)
    score = PolicyGradient(
        group_centered(), stop(gain()) * nll(), reduce=sum_over(6.0), source=source
    )
    want = gradient(fixed(dr_grpo(eps=INF, group=4, **SMALL))[0])
    assert_same(want, gradient(fixed(plain)[0]))
    assert_same(want, gradient(fixed(score)[0]))


def test_a_penalty_pulls_back_to_the_reference():
    form = PolicyGradient(
        group_centered(), ratio_loss() + 0.5 * k3(), reduce=sum_over(6.0),
        nets={"reference": copy("policy")}, source=rollouts(16, 6, 4),
    )  # fmt: skip
    at_start = gradient(fixed(form)[0])  # k3 has no gradient where policy is reference
    bare = PolicyGradient(group_centered(), ratio_loss(), reduce=sum_over(6.0),
                          source=rollouts(16, 6, 4))  # fmt: skip
    assert_same(gradient(fixed(bare)[0]), at_start)
    trainer, _ = fixed(form)
    reference = tiny(seed=1)
    trainer.twins["reference"].shown = LanguagePolicy(reference)
    flat, seq = fixed(form, reward=lambda seq: torch.ones(len(seq)))
    flat.twins["reference"].shown = LanguagePolicy(reference)
    flat.main.adam = type(flat.main.adam)(3e-3)
    kls = [flat.update()["kl"] for _ in range(30)]
    assert kls[-1] < 0.5 * kls[0]


def test_reinforce_by_hand():
    trainer, seq = fixed(reinforce(**SMALL))
    a = seq.total - seq.total.mean()
    want = by_hand(seq, (a / seq.action.shape[1] / 16)[:, None] * seq.mask)
    assert_same(want, gradient(trainer))


def test_ppo_with_a_blind_critic_and_no_discount_is_whitened_reinforce():
    trainer, seq = fixed(ppo_lm(eps=INF, lam=1.0, beta=0.0, epochs=1, **SMALL))
    a = seq.total[:, None].expand_as(seq.mask)[seq.mask > 0]  # a zero head: A is the return
    weight = torch.where(seq.mask > 0, (seq.total[:, None] - a.mean()) / a.std(), 0.0)
    assert_same(by_hand(seq, weight / seq.mask.sum()), gradient(trainer), atol=1e-5)


def test_the_critic_of_ppo_learns_returns():
    form = ppo_lm(beta=0.0, lr=0.0, value_lr=1e-2, epochs=4, lam=1.0, eps=1e9, **SMALL)
    trainer, seq = fixed(form, reward=lambda seq: (seq.group % 2).float())
    losses = [trainer.update()["value_loss"] for _ in range(25)]
    assert losses[-1] < 0.1 * losses[0]
    value = trainer.nets["value"](seq).detach()
    assert ((value - seq.total[:, None]).abs() * seq.mask).sum() / seq.mask.sum() < 0.3


def test_the_search_of_bapo_by_hand():
    def steps(ratio, advantage):
        logp = torch.tensor(ratio).log()[None]
        s = Steps(logp, torch.ones_like(logp), anchor_logp=torch.zeros_like(logp),
                  advantage=torch.tensor(advantage)[None])  # fmt: skip
        return s.filled(log_ratio=per_decision()(s))

    # 1.0 of positive gradient against 0.7 + 1.0: raising c_low above 0.7 balances them.
    s = steps([1.0, 0.7, 1.0], [1.0, -1.0, -1.0])
    got = run(balanced_clip(0.5, (0.6, 0.9), (1.2, 3.0)), (s,))[0]
    torch.testing.assert_close(got, torch.tensor([[-1.0, 0.75, 1.0]]))
    # Raising c_low to 0.9 is not enough; c_high has to let 1.5 in.
    s = steps([1.5, 1.0], [1.0, -1.0])
    got = run(balanced_clip(0.5, (0.6, 0.9), (1.2, 3.0)), (s,))[0]
    torch.testing.assert_close(got, torch.tensor([[-1.5, 1.0]]))
    # Nothing to balance: the first bounds stay.
    s = steps([1.5, 0.5], [1.0, -1.0])
    plain = clip(0.4, 0.2)
    got = run(balanced_clip(0.0, (0.6, 0.9), (1.2, 3.0)), (s,))[0]
    torch.testing.assert_close(got, run(plain, (s,))[0])


def test_bapo_with_fixed_bounds_is_grpo_s_clip():
    form = bapo(0.5, (0.8, 0.8), (1.2, 1.2), group=4, lr=1e-2, epochs=2, minibatches=1, **SMALL)
    other = PolicyGradient(form.advantage, clip(), source=form.source, epochs=2,
                           optimizer=form.optimizer)  # fmt: skip
    assert_same(
        gradient(fixed(other)[0], updates=2), gradient(fixed(form)[0], updates=2), atol=1e-5
    )


def test_entropy_falls_and_reward_rises_on_a_task_of_one_token():
    form = grpo(beta=0.0, lr=1e-2, batch=64, horizon=1, group=8)
    trainer = fresh_trainer(form, reward=lambda seq: (seq.action[:, 0] == 7).float())
    notes = [trainer.update() for _ in range(25)]
    assert notes[-1]["reward"] > 0.9 and notes[0]["reward"] < 0.3
    assert notes[-1]["sampled_entropy"] < 0.5 < notes[0]["sampled_entropy"] <= math.log(18) + 0.1
