"""Preference problems: closed forms, label frequencies, equilibria."""

import pytest
import torch

from surpass.errors import InputError
from surpass.tasks.preference import PreferenceGame, preference_bandit, preference_game


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_reference_wins_half_and_has_no_divergence():
    task = preference_bandit(seed=1)
    worth = task.truth(task.reference)
    assert float(worth.win_rate) == pytest.approx(0.5)
    assert float(worth.kl) == pytest.approx(0.0, abs=1e-12)
    assert float(task.reward.std()) == pytest.approx(2.0)


def test_the_tilted_reference_is_optimal():
    task = preference_bandit(16, 5, seed=2)
    beta = 0.7

    def objective(logits):
        worth = task.truth(logits)
        return worth.reward - beta * worth.kl

    best = task.optimal(beta).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(best), best)
    assert float(gradient.abs().max()) < 1e-12
    closed = beta * (task.reference + task.reward / beta).logsumexp(-1).mean()
    torch.testing.assert_close(objective(best).detach(), closed)


def test_labels_follow_bradley_terry():
    task = preference_bandit(2, 3, seed=3, scale=1.0)
    pairs = task.pairs(100_000, seeded(4))
    a, b, x = pairs.chosen.action[:, 0], pairs.rejected.action[:, 0], pairs.chosen.group
    assert (a != b).all()
    for i, j in ((0, 1), (1, 2)):
        here = (x == 0) & (((a == i) & (b == j)) | ((a == j) & (b == i)))
        wins = (a[here] == i).double().mean()
        expected = torch.sigmoid(task.reward[0, i] - task.reward[0, j])
        assert float(wins) == pytest.approx(float(expected), abs=4 * 0.5 / int(here.sum()) ** 0.5)
    flipped = task.pairs(100_000, seeded(4), flip=1.0)
    assert torch.equal(flipped.chosen.action, pairs.rejected.action)
    torch.testing.assert_close(
        pairs.chosen.behavior_logp[:, 0].double(), task.reference[x, a], atol=1e-6, rtol=0
    )


def test_rock_paper_scissors():
    game = PreferenceGame(torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]))
    torch.testing.assert_close(game.nash(), torch.full((3,), 1 / 3).double())
    assert float(game.truth(torch.tensor([1.0, 0.0, 0.0]))) == 0.5
    assert float(game.truth(torch.tensor([0.5, 0.5, 0.0]))) == 0.25  # scissors win .75 or .25


@pytest.mark.parametrize("cyclic", [0.0, 0.5, 1.0])
def test_equilibria_cannot_be_exploited(cyclic):
    game = preference_game(6, cyclic=cyclic, scale=2.0, seed=5)
    p = game.nash()
    assert abs(float(game.truth(p))) < 1e-8
    if cyclic == 0:  # a Bradley-Terry model has a best response
        assert float(p.max()) == pytest.approx(1.0)


def test_regularized_equilibrium_is_its_own_best_response():
    game = preference_game(5, cyclic=0.8, scale=2.0, seed=6)
    reference = torch.tensor([0.1, 0.3, 0.2, 0.2, 0.2]).double()
    for tau in (1.0, 0.1):
        p = game.nash_to(reference, tau)
        best = (reference.log() + game.P @ p / tau).softmax(-1)
        torch.testing.assert_close(p, best, atol=1e-9, rtol=0)
    assert float(game.truth(game.nash_to(reference, 0.03))) < 0.1


def test_bad_games():
    with pytest.raises(InputError, match=r"P \+ P\^T = 1"):
        PreferenceGame(torch.tensor([[0.5, 0.7], [0.4, 0.5]]))
    with pytest.raises(InputError, match="tau must be positive"):
        preference_game().nash_to(torch.ones(3) / 3, 0.0)
