"""Mixtures of tokens: targets by hand, what is random about them, and a model that learns."""

import itertools

import pytest
import torch

from surpass.data.records import Transitions
from surpass.methods.rlvr.cot2 import cot2
from surpass.objectives.soft_tokens import (
    dirichlet_logp,
    least_signed_sum,
    multi_token_logp,
    partial_sums,
    states_of,
)
from surpass.policies.superposed import Superposed
from surpass.training.run import train

V = 13  # states -6 .. 6


def test_targets_by_hand():
    numbers = torch.tensor([[3.0, 2.0]])
    whole = partial_sums(numbers, V)[0]
    assert whole[0].nonzero()[:, 0].tolist() == [3, 9] and whole[0, 9] == 0.5  # -3 and 3
    assert whole[1].argmax() == 7 and whole[1].sum() == 1.0  # 3 - 2 = 1
    one = partial_sums(numbers, V, budget=1)[0]
    assert one[0, 9] == 1.0 and torch.equal(one[1], whole[1])
    three = partial_sums(numbers, V, budget=3)[0]  # sums 1, 5, then -1
    assert three[0, 9] == pytest.approx(2 / 3) and three[0, 3] == pytest.approx(1 / 3)
    assert states_of(torch.tensor([[4.0, 3.0], [1.0, 1.0]])) == 15


def test_the_least_signed_sum_is_that_of_all_signs():
    numbers = torch.randint(1, 11, (50, 4), generator=torch.Generator().manual_seed(0)).float()
    found, _ = least_signed_sum(numbers)
    for row, want in zip(numbers.tolist(), found.tolist(), strict=True):
        sums = [sum(s * x for s, x in zip(sign, row, strict=True))
                for sign in itertools.product((1, -1), repeat=4)]  # fmt: skip
        assert want == min(s for s in sums if s >= 0)


def test_ratios_of_several_tokens_are_geometric_means_and_dirichlet_is_torch_s():
    g = torch.Generator().manual_seed(0)
    new, old = (torch.randn(5, V, generator=g).log_softmax(-1) for _ in range(2))
    draws = torch.randint(0, V, (5, 3), generator=g)
    ratio = (multi_token_logp(new, draws) - multi_token_logp(old, draws)).exp()
    each = (new.gather(-1, draws) - old.gather(-1, draws)).exp()
    torch.testing.assert_close(ratio, each.prod(-1) ** (1 / 3))
    one = draws[:, :1]
    torch.testing.assert_close(multi_token_logp(new, one), new.gather(-1, one)[:, 0])
    torch.manual_seed(0)
    law = torch.distributions.Dirichlet(20.0 * new.exp())
    mixture = law.sample()
    torch.testing.assert_close(dirichlet_logp(new, mixture, 20.0), law.log_prob(mixture) / V)


def test_thinking_feeds_back_its_own_mixtures():
    torch.manual_seed(0)
    model = Superposed(3, V, 16, 2, 2)
    numbers = torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 1.0]])
    own = model.steps(numbers)
    fed = own.softmax(-1)
    torch.testing.assert_close(model.steps(numbers, fed), own, rtol=1e-4, atol=1e-5)
    other = torch.roll(fed, 1, -1)
    torch.testing.assert_close(model.steps(numbers, other)[:, 0], own[:, 0])
    assert not torch.allclose(model.steps(numbers, other)[:, -1], own[:, -1])


def sums(n=36):
    numbers = torch.tensor(list(itertools.product(range(1, 4), range(1, 4)))).float()
    answer, _ = least_signed_sum(numbers)
    count = len(numbers)
    return numbers, Transitions(
        obs=numbers, action=(answer + 6).long(), reward=torch.zeros(count), next_obs=numbers,
        terminated=torch.ones(count, dtype=torch.bool),
        truncated=torch.zeros(count, dtype=torch.bool), episode=torch.arange(count),
        batch_size=[count],
    )  # fmt: skip


def test_a_model_learns_small_sums():
    from surpass.data.records import About

    numbers, log = sums()
    log = log.described(About(actions=tuple(str(i - 6) for i in range(V))))
    made = train(cot2(width=16, lr=1e-2, batch=32), log, steps=250, compile=False)
    found = made.nets["model"].steps(numbers)[:, -1].argmax(-1)
    assert (found == log.action).float().mean() >= 8 / 9
