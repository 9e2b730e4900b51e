"""Tables updated step by step: one run by hand, many runs at once, and values that are known."""

from __future__ import annotations

import pytest
import torch

from surpass.objectives.traces import recency_bounded, retrace, truncated_is
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.worlds import grid_world, random_mdp
from surpass.training.backward_view import backward_view, epsilon_greedy_rows, fixed

F64 = torch.float64


def by_hand(mdp, rule, mu, pi, alpha, steps, g):
    """The same with lists, one run: the pairs of the episode, and the products of each."""
    q = torch.zeros(mdp.n_states, mdp.n_actions, dtype=F64)
    place = lambda p: int((torch.rand(1, generator=g, dtype=F64) >= p.cumsum(-1)).sum())  # noqa: E731
    s, pairs, ages, ratios = place(mdp.d0), [], [], []
    for _ in range(steps):
        a = place(mu[s])
        after = place(mdp.P[s, a])
        over = bool(mdp.terminal_states[after])
        delta = mdp.r[s, a] + (not over) * mdp.gamma * (pi[after] * q[after]).sum() - q[s, a]
        rho = float(pi[s, a] / mu[s, a])
        for past in ratios:
            past.append(rho)
        pairs.append((s, a)), ages.append(0), ratios.append([])
        for pair, past in zip(pairs, ratios, strict=True):
            q[pair] += alpha * mdp.gamma ** len(past) * beta_of(rule, past) * delta
        if over:
            pairs, ages, ratios = [], [], []
        fresh = place(mdp.d0)
        s = fresh if over else after
    return q


def beta_of(rule, past, lam=0.9):
    beta, product = 1.0, 1.0
    for t, rho in enumerate(past, 1):
        product *= rho
        if rule is retrace:
            beta *= lam * min(1, rho)
        elif rule is truncated_is:
            beta = lam**t * min(1, product)
        else:
            beta = min(lam**t, rho * beta)
    return beta


@pytest.mark.parametrize("rule", [retrace, truncated_is, recency_bounded])
def test_one_run_is_the_one_by_hand(rule):
    mdp = grid_world(("S.G", "..."), gamma=0.9, leaving=True)
    g = torch.Generator().manual_seed(0)
    mu, pi = (torch.softmax(torch.randn(mdp.n_states, 4, generator=g).double(), -1) for _ in "ab")
    want = by_hand(mdp, rule, mu, pi, 0.3, 120, torch.Generator().manual_seed(5))
    start = torch.zeros(1, mdp.n_states, 4, dtype=F64)
    found = backward_view(mdp, rule(0.9), fixed(mu, pi), start, 0.3, 120, window=200,
                          generator=torch.Generator().manual_seed(5))  # fmt: skip
    torch.testing.assert_close(found.q[0], want)


def test_predictions_come_to_the_value_of_the_policy():
    mdp = random_mdp(4, 2, gamma=0.8, generator=torch.Generator().manual_seed(0))
    pi = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.7, 0.3]], dtype=F64)
    g = torch.Generator().manual_seed(1)
    start = torch.zeros(200, 4, 2, dtype=F64)
    truth = mdp.evaluate(pi).q
    found = backward_view(
        mdp, recency_bounded(0.8), fixed(mdp.uniform(), pi), start, 0.1, 1500, generator=g,
        watch=lambda q: (q - truth).square().mean((1, 2)).sqrt(), every=500,
    )  # fmt: skip
    assert found.watched.shape == (200, 3) and start.abs().max() == 0
    assert (found.q.mean(0) - truth).abs().max() < 0.1 < truth.min()
    assert found.watched[:, -1].mean() < 0.5 * found.watched[:, 0].mean()


def test_with_lam_zero_all_rules_are_one_step_learning():
    mdp = grid_world("bifurcation-1", gamma=0.9, leaving=True)
    start = 0.01 * torch.randn(3, mdp.n_states, 4, generator=torch.Generator().manual_seed(2))

    def run(rule):
        def follow(rows, s, episode):
            return epsilon_greedy_rows(rows, 0.5), epsilon_greedy_rows(rows, 0.1)

        g = torch.Generator().manual_seed(3)
        return backward_view(mdp, rule(0.0), follow, start, 0.5, 300, generator=g).q

    want = run(retrace)
    assert torch.equal(run(recency_bounded), want) and torch.equal(run(truncated_is), want)


def test_lambdas_and_step_sizes_differ_by_run():
    mdp = grid_world("open", gamma=0.9)
    lam, rate = torch.tensor([0.0, 0.9]), torch.tensor([0.1, 0.5])
    follow = fixed(mdp.uniform(), mdp.uniform())
    start = torch.zeros(2, mdp.n_states, 4)
    both = backward_view(mdp, retrace(lam[:, None]), follow, start, rate, 400,
                         generator=torch.Generator().manual_seed(0)).q  # fmt: skip
    # the step that enters the goal for the first time credits one pair or many
    assert (both[0] != 0).sum() < (both[1] != 0).sum()


def test_ties_share_what_is_not_explored():
    q = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0]])
    want = [[0.475, 0.475, 0.025, 0.025], [0.025, 0.025, 0.025, 0.925]]
    torch.testing.assert_close(epsilon_greedy_rows(q, 0.1), torch.tensor(want))


def test_leaving_pays_one_step_after_entering():
    entered = grid_world("bifurcation-1", gamma=0.9)
    left = grid_world("bifurcation-1", gamma=0.9, leaving=True)
    assert isinstance(left, TabularMDP) and left.n_states == entered.n_states + 1
    assert float(left.solve().value) == pytest.approx(0.9 * float(entered.solve().value))
    assert float(left.solve().value) == pytest.approx(0.9**6)
