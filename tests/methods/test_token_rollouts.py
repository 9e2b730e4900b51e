"""OTR: its expected gradient, weighted imitation as a special case, draws in blocks and by hand."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.forms import PolicyGradient, Spaces, log  # noqa: E402
from surpass.methods.preference.token_rollouts import otr  # noqa: E402
from surpass.objectives.advantage import ones  # noqa: E402
from surpass.objectives.divergence import Draws, read_out  # noqa: E402
from surpass.objectives.token_rollouts import TokenRollout  # noqa: E402
from surpass.objectives.unified import certain, unified  # noqa: E402
from surpass.policies.stochastic import score, stochastic  # noqa: E402
from surpass.policies.token_logps import Head, drawn  # noqa: E402
from tests.methods.language_cases import assert_same, gradient, row_trainer, rows  # noqa: E402

DEMOS = [{"prompt": r["prompt"], "completion": r["chosen"]} for r in rows()]


def slope(logits, target, statistic):
    """The gradient of the mean statistic with respect to one row of logits, repeated."""
    z = logits.clone().requires_grad_()
    many = z.expand(4000, -1)
    action = torch.full((4000,), target)
    value = statistic(read_out(many, action, (), statistic.draws)).mean()
    return torch.autograd.grad(value, z)[0]


LOGITS = torch.tensor([0.3, -1.0, 1.2, 0.0])


def test_the_mean_gradient_is_that_of_imitation_times_the_probability():
    torch.manual_seed(0)
    p = LOGITS.softmax(-1)
    want = 1.1 * p[0] * (torch.eye(4)[0] - p)  # (1 - miss) pi(y) grad log pi(y)
    exact = slope(LOGITS, 0, TokenRollout(0, 1.0, -0.1))
    torch.testing.assert_close(exact, want, atol=1e-6, rtol=1e-5)
    drawn_ones = slope(LOGITS, 0, TokenRollout(64, 1.0, -0.1))
    assert torch.cosine_similarity(drawn_ones, want, dim=0) > 0.999
    torch.testing.assert_close(drawn_ones, want, atol=0.004, rtol=0)


def test_above_temperature_one_a_negative_reward_sharpens():
    p, flat = LOGITS.softmax(-1), (LOGITS / 1.3).softmax(-1)
    only = slope(LOGITS, 0, TokenRollout(0, 1.3, -0.1)) - slope(LOGITS, 0, TokenRollout(0, 1.3, 0))
    # miss (sum_a flat(a) grad log pi(a) - flat(y) grad log pi(y)); the first is flat - p
    torch.testing.assert_close(only, -0.1 * ((flat - p) - flat[0] * (torch.eye(4)[0] - p)))
    assert float((-0.1 * (flat - p))[2]) > 0  # the likeliest action rises


def test_one_draw_by_hand():
    torch.manual_seed(1)
    z = torch.tensor([[0.0, 0.0, -1e9]])
    r = read_out(z, torch.tensor([2]), (), Draws(10))
    assert float(r.hits) == 0.0  # what the policy finds impossible is never drawn
    r = read_out(z, torch.tensor([0]), (), Draws(10))
    share = float(r.hits)
    found = float(TokenRollout(10, 1.0, -0.5)(r))
    half = torch.tensor(0.5).log()
    assert 0 < share < 1
    assert found == pytest.approx(float(share * half - 0.5 * (1 - share) * half), abs=1e-6)


@pytest.mark.parametrize("block", [1, 20, 1000])
@pytest.mark.parametrize("softcap", [0.0, 3.0])
def test_blocks_of_rows_give_what_whole_logits_give(block, softcap):
    torch.manual_seed(0)
    h, w, b = (torch.randn(s).requires_grad_() for s in ((9, 5), (13, 5), (13,)))
    action = torch.randint(13, (9,))

    def gradients(hits, mean):
        return hits, mean, *torch.autograd.grad((mean * torch.arange(9.0)).sum(), (h, w, b))

    z = (h @ w.t() + b) * 0.5
    z = softcap * torch.tanh(z / softcap) if softcap else z
    want = gradients(*Draws(0, 1.3).read(z, action))
    head = Head(w, b, 0.5, softcap)
    found = gradients(*drawn(h, head, action, Draws(0, 1.3), block))
    for got, expected in zip(found, want, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_backward_draws_what_forward_drew():
    """With the identity as head the gradient counts the draws of each action, row by row."""
    torch.manual_seed(0)
    z = torch.randn(6, 7, requires_grad=True)
    action = torch.zeros(6, dtype=torch.long)
    hits, mean = drawn(z, Head(torch.eye(7)), action, Draws(8), 14)
    (share,) = torch.autograd.grad(mean.sum(), z)
    torch.testing.assert_close((share * 8).round().sum(-1), torch.full((6,), 8.0))
    torch.testing.assert_close((share * z).sum(-1), mean)
    torch.testing.assert_close(share[:, 0], hits)


def test_the_expectation_is_imitation_weighed_by_probability():
    """On a language model: pi / 1 as the unified estimator's ratio."""
    form = otr(count=0, temperature=1.0, miss=-0.1, batch=12)
    weighed = PolicyGradient(ones(), unified(denominator=certain()),
                             source=log(12, view="sequences"))  # fmt: skip
    want = gradient(row_trainer(weighed, DEMOS, "sequences"))
    assert_same(want, gradient(row_trainer(form, DEMOS, "sequences")), factor=1.1)


def test_draws_are_those_of_the_expectation_on_average():
    torch.manual_seed(3)
    many = gradient(row_trainer(otr(count=20_000, batch=12), DEMOS, "sequences"))
    exact = gradient(row_trainer(otr(count=0, batch=12), DEMOS, "sequences"))
    a, b = (torch.cat([g.flatten() for g in f.values()]) for f in (many, exact))
    assert torch.cosine_similarity(a, b, dim=0) > 0.99


def test_small_nets_draw_too():

    torch.manual_seed(0)
    policy = stochastic()(Spaces(3, n_actions=4))
    obs, action = torch.randn(2, 5, 3), torch.randint(4, (2, 5))
    logp, found = score(policy, obs, action, (TokenRollout(0, 1.0, 0.0),))
    torch.testing.assert_close(found["token_rollout"], logp.exp() * logp)
