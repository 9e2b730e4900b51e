"""OBLR-PO: variances of bandits in closed form, no bias, norms by autograd, the rate by hand."""

import itertools
from dataclasses import replace

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.data.records import Sequences  # noqa: E402
from surpass.errors import InputError  # noqa: E402
from surpass.forms import Adam  # noqa: E402
from surpass.methods.rlvr.optimal_baseline import oblr_po  # noqa: E402
from surpass.objectives.advantage import with_columns  # noqa: E402
from surpass.objectives.optimal_baseline import (  # noqa: E402
    by_signal,
    in_parts,
    optimal_baseline,
)
from surpass.objectives.trust import clip  # noqa: E402
from surpass.objectives.views import Steps  # noqa: E402
from surpass.policies.language import LanguagePolicy, tokens_of  # noqa: E402
from surpass.policies.score_norms import squares_of  # noqa: E402
from surpass.policies.table_model import table_policy  # noqa: E402
from surpass.policies.token_logps import head_squares  # noqa: E402
from surpass.tasks.tables import sumtriple_table  # noqa: E402
from tests.methods.language_cases import assert_same, fresh_trainer, gradient, tiny  # noqa: E402
from tests.methods.test_rlvr import fixed  # noqa: E402

SIZES = {"group": 4, "batch": 16, "horizon": 6}


def bandit(actions, rewards, square):
    """One group of one-decision answers."""
    a = torch.tensor(actions)
    one = torch.ones(len(a), 1).double()
    seq = Sequences(action=a[:, None], mask=one, reward=rewards[a][:, None],
                    group=torch.zeros(len(a), dtype=torch.long), batch_size=[len(a)])  # fmt: skip
    return with_columns(seq, score_square=square[a])


def scores(p):
    """grad log pi of each action of a softmax bandit, [A, A], and its squared norm."""
    s = torch.eye(len(p), dtype=p.dtype) - p
    return s, s.square().sum(-1)


@pytest.mark.parametrize(
    ("rewards", "none", "mean", "best"),
    [((1, 0, 0), 0.00135, 0.12690, 0.00036), ((1, 1, 0), 0.0950, 0.0734, 0.0417)],
)
def test_the_variance_of_a_bandit_in_closed_form(rewards, none, mean, best):
    p, r = torch.tensor([0.9, 0.05, 0.05]).double(), torch.tensor(rewards).double()
    s, square = scores(p)

    def variance(b):
        g = (r - b)[:, None] * s
        return float((p * g.square().sum(-1)).sum() - (p @ g).square().sum())

    # 20 answers in the proportions of the policy: the group's sums are its expectations
    seq = bandit([0] * 18 + [1, 2], r, square)
    b = float((seq.total - optimal_baseline(leave_out=False)(seq)[:, 0])[0])
    assert b == pytest.approx(float((p * square * r).sum() / (p * square).sum()))
    found = [variance(x) for x in (0.0, float(p @ r), b)]
    assert found == pytest.approx([none, mean, best], abs=6e-5)
    assert all(variance(b + e) > variance(b) for e in (-0.01, 0.01))


def test_leaving_out_makes_no_bias():
    """The mean gradient over all groups of three answers, each as likely as it is."""
    p, r = torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([1.0, 0.3, 0.0]).double()
    s, square = scores(p)
    total = torch.zeros(3).double()
    for group in itertools.product(range(3), repeat=3):
        a = optimal_baseline()(bandit(list(group), r, square))[:, 0]
        total += p[list(group)].prod() * (a[:, None] * s[list(group)]).mean(0)
    torch.testing.assert_close(total, (p * r) @ s)


# ---------------------------------------------------------------------------------- norms


def test_norms_are_those_of_autograd():
    policy = LanguagePolicy(tiny(), temperature=0.7)
    seq = fixed(oblr_po(**SIZES))[1]
    head, whole = squares_of(policy, seq), squares_of(policy, seq, "all")
    blocks = head_squares(policy.model, tokens_of(seq), 0.7, block=20)
    for i in range(len(seq)):
        policy.model.zero_grad()
        policy.score(seq[i : i + 1]).logp.sum().backward()
        matrix = policy.model.lm_head.weight.grad.square().sum()
        every = sum(p.grad.square().sum() for p in policy.model.parameters())
        for found, want in ((head, matrix), (blocks, matrix), (whole, every)):
            torch.testing.assert_close(found[i], want, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="layer='tail'"):
        squares_of(policy, seq, "tail")


def test_a_table_is_its_own_head():
    task = sumtriple_table()
    logits = task.warm_start(0.3)
    policy = table_policy(task, logits)
    g = torch.Generator().manual_seed(0)
    seq = task.sample(logits, task.prompts(5, g), g)
    table = logits.softmax(-1)[task.row(seq.prompt[:, 0], seq.action)]
    v = torch.nn.functional.one_hot(seq.action, 10) - table
    want = v.square().sum((1, 2)).float()
    torch.testing.assert_close(squares_of(policy, seq), want, rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------------- rate


class Shares:
    def __init__(self, *gradients):
        self.terms = {f"part{i}": torch.tensor(0.0) for i in range(len(gradients))}
        self._by = dict(zip(self.terms, gradients, strict=True))

    def grad(self, *names):
        return {"p": torch.tensor(self._by[names[0]])}


def rate_of(state, *gradients, **more):
    found, after = by_signal(**more)(state, Shares(*gradients))
    return found["p"].tolist(), after


def test_the_rate_by_hand():
    start = {k: torch.zeros(()) for k in ("signal", "noise", "rate")}
    found, after = rate_of(start, [1.0, 0.0], [0.5, 0.5], keep=0.5)
    # g_m = (2, 0), (1, 1); mean (1.5, 0.5); noise = (0.5 + 0.5) / 2; signal = 2.5 - 0.5
    assert found == [1.5, 0.5]
    assert float(after["noise"]) == pytest.approx(0.25)
    assert float(after["signal"]) == pytest.approx(1.0)
    assert float(after["rate"]) == pytest.approx(0.8)
    _, later = rate_of(after, [1.0, 0.0], [-0.2, 0.0], keep=0.5, floor=0.0)
    # g_m = (2, 0), (-0.4, 0); |g|^2 = 0.64, noise 1.44: signal (1 - 0.8) / 2, noise 0.125 + 0.72
    assert float(later["rate"]) == pytest.approx(0.1 / (0.1 + 0.845))


def test_shares_that_agree_take_the_whole_step_and_others_the_floor():
    start = {k: torch.zeros(()) for k in ("signal", "noise", "rate")}
    assert float(rate_of(start, [1.0], [1.0], [1.0])[1]["rate"]) == pytest.approx(1.0)
    assert float(rate_of(start, [1.0], [-1.0], floor=0.05)[1]["rate"]) == pytest.approx(0.05)


def test_shares_add_up_to_the_loss():
    torch.manual_seed(0)
    logp = torch.randn(6, 3)
    s = Steps(logp, torch.ones(6, 3), log_ratio=logp, advantage=torch.randn(6, 3),
              group=torch.tensor([0, 0, 1, 1, 2, 2]))  # fmt: skip
    terms = in_parts(parts=2)(s)
    torch.testing.assert_close(terms["part0"] + terms["part1"], clip()(s))
    assert terms["part1"][[0, 1, 4, 5]].abs().sum() == 0 and terms["part1"][2:4].abs().min() > 0


def test_the_step_is_multiplied_by_the_rate():
    """The gradient is that of the whole batch; Adam's first step has the size lr x rate."""
    form = oblr_po(**SIZES)
    plain = replace(form, trust=clip(), gradient=None)
    assert_same(gradient(fixed(plain)[0]), gradient(fixed(form)[0]))
    trainer = fresh_trainer(replace(oblr_po(floor=0.3, **SIZES), optimizer=Adam(1e-3)))
    before = {n: p.detach().clone() for n, p in trainer.policy.model.named_parameters()}
    rate = trainer.update()["rate"]
    moved = max(float((p.detach() - before[n]).abs().max())
                for n, p in trainer.policy.model.named_parameters())  # fmt: skip
    assert 0.3 <= rate < 1.0 and moved == pytest.approx(1e-3 * rate, rel=0.02)
