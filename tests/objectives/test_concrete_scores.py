"""Gradients through concrete scores against exact ones of an energy model on 4^5 sequences."""

from __future__ import annotations

import itertools

import pytest
import torch

from surpass.errors import InputError
from surpass.objectives import concrete_scores
from surpass.objectives.concrete_scores import (
    Scored,
    by_neighbors,
    by_probability,
    by_resampling,
    checked,
    conditional_kl,
    log_scores,
    neighbors,
    probabilities,
    resampled_weights,
    score_entropy,
)
from surpass.objectives.views import Steps

SIZE, LENGTH = 4, 5
ALL = torch.tensor(list(itertools.product(range(SIZE), repeat=LENGTH)))
PLACES = SIZE ** torch.arange(LENGTH - 1, -1, -1)


def energies(seed=0):
    """f of every sequence, and a reward of it."""
    g = torch.Generator().manual_seed(seed)
    f = torch.randn(len(ALL), generator=g, dtype=torch.float64)
    return f.requires_grad_(True), torch.randn(len(ALL), generator=g, dtype=torch.float64)


def near(f):
    """Every sequence of the space with its Hamming neighbors."""
    index = (neighbors(ALL, SIZE) * PLACES).sum(-1)
    table = f[index] - f[:, None, None]
    return Scored(ALL, table, lambda x: f[(neighbors(x, SIZE) * PLACES).sum(-1)]
                  - f[(x * PLACES).sum(-1)][:, None, None],
                  lambda x: f.log_softmax(0)[(x * PLACES).sum(-1)])  # fmt: skip


def whole(f):
    """The same space as sequences of one letter out of 4^5: everything is a neighbor."""
    x = torch.arange(len(f))[:, None]
    return Scored(x, (f[None] - f[:, None])[:, None], lambda x: (f[None] - f[x])[:, None],
                  lambda x: f.log_softmax(0)[x[:, 0]])  # fmt: skip


def steps(now, old, advantage, *needs):
    extras = {n.__name__: n(now) for n in (log_scores, *needs)}
    extras |= {f"anchor_{n.__name__}": n(old).detach() for n in (log_scores, *needs)}
    mask = torch.ones_like(now.table[..., 0]).detach()
    return Steps(logp=mask, mask=mask, extras=extras, advantage=advantage[:, None] * mask)


def gradient(see, weights, *needs):
    """Of the surrogate's expectation over all sequences, at the anchor."""
    f, reward = energies()
    pi = f.softmax(0).detach()
    advantage = reward - (pi * reward).sum()
    s = steps(see(f), see(f), advantage, *needs)
    loss = (pi * score_entropy(0.2, weights)(s).sum(-1)).sum()
    return -torch.autograd.grad(loss, f)[0], pi * advantage  # the exact gradient of E[R]


@pytest.mark.parametrize("weights", [by_probability(), by_neighbors()])
def test_over_all_sequences_the_gradient_is_exact(weights):
    found, exact = gradient(whole, weights, probabilities)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("weights", [by_probability(), by_neighbors()])
def test_over_neighbors_it_points_the_same_way(weights):
    found, exact = gradient(near, weights, probabilities)
    assert float(torch.cosine_similarity(found, exact, 0)) > 0.9


def test_resampled_weights_tend_to_the_probability(monkeypatch):
    torch.manual_seed(0)
    f = torch.randn(6, dtype=torch.float64)
    monkeypatch.setattr(concrete_scores, "DRAWS", 3_000)
    found = resampled_weights(whole(f))
    torch.testing.assert_close(found[0, 0], f.softmax(0), rtol=0.1, atol=0.01)
    monkeypatch.undo()
    s = steps(whole(f), whole(f), torch.ones(6).double(), resampled_weights)
    assert score_entropy(0.2, by_resampling())(s).shape == (6, 1)


def test_q_is_the_importance_ratio_and_its_clip_is_pessimistic():
    """With all sequences as neighbors q = pi(x) / pi_old(x), whatever y."""
    f, _ = energies()
    old = (
        f.detach() + 0.5 * torch.randn(len(f), generator=torch.Generator().manual_seed(3)).double()
    )
    a = torch.where(torch.arange(len(f)) % 2 == 0, 1.0, -1.0).double()
    s = steps(whole(f), whole(old), a, probabilities)
    ratio = (f.log_softmax(0) - old.log_softmax(0)).exp().detach()
    held = torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
    pi = f.softmax(0).detach()
    want = held * (pi * (f[None] - f[:, None])).sum(-1)
    got = score_entropy(0.2, by_probability())(s).sum(-1)
    torch.testing.assert_close(got, want)
    assert float((held - ratio * a).abs().max()) > 0.1  # some are held


def test_the_penalty_is_the_divergence_of_the_conditionals():
    g = torch.Generator().manual_seed(0)
    now, ref = (torch.randn(3, 2, 4, generator=g) for _ in range(2))
    mask = torch.tensor([[1.0, 0.0]] * 3)
    s = Steps(logp=mask, mask=mask, extras={"log_scores": now, "ref_log_scores": ref})
    p, q = (torch.distributions.Categorical(logits=t) for t in (now, ref))
    want = torch.distributions.kl_divergence(p, q) * mask
    torch.testing.assert_close(conditional_kl()(s), want)


def test_what_a_model_does_not_know_is_refused():
    f, _ = energies()
    seen = Scored(ALL, near(f).table, near(f).again)
    with pytest.raises(InputError, match="object has no probabilities"):
        checked(lambda need: need(seen), probabilities, object())
