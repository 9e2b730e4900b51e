"""Equilibria of logged games: gaps by hand, intervals against brute force, and the search."""

from __future__ import annotations

import itertools

import pytest
import torch

from surpass.errors import InputError
from surpass.methods.theory.equilibria import bcel, bcel_pessimistic, bcel_plug_in
from surpass.objectives.equilibrium_gap import (
    CountedGame,
    bounds,
    deviations,
    estimated_gap,
    radius,
)
from surpass.tasks.markov_games import MarkovGame, matrix_game, random_zero_sum

PENNIES = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
CHICKEN = torch.tensor([[[6.0, 2.0], [7.0, 0.0]], [[6.0, 7.0], [2.0, 0.0]]]) / 7


def logged(game: MarkovGame, n: torch.Tensor, r: torch.Tensor | None = None) -> CountedGame:
    return CountedGame(game.P, game.r if r is None else r, n, game.d0, game.gamma, game.sizes)


def even(game: MarkovGame) -> torch.Tensor:
    return torch.full(game.P.shape[:2], 1 / game.P.shape[1], dtype=torch.float64)


def test_gaps_by_hand():
    pennies = matrix_game(PENNIES)
    assert pennies.gap(even(pennies)) == pytest.approx(0.0, abs=1e-12)
    sure = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert pennies.gap(sure) == pytest.approx(1.0)  # the second player loses 1 and could win it
    chicken = matrix_game(CHICKEN)
    # (dare not, dare not), (dare, not), (not, dare) evenly: correlated, but no product
    signal = torch.tensor([[1.0, 1.0, 1.0, 0.0]], dtype=torch.float64) / 3
    assert chicken.gap(signal, "correlated") == pytest.approx(0.0, abs=1e-12)
    assert chicken.values(signal).tolist() == pytest.approx([5 / 7, 5 / 7])
    # told to yield, half the others dare not: daring there would gain (7 - 6) / 7 and lose 2 / 7
    both = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert chicken.gap(both, "correlated") == pytest.approx(1 / 7)
    with pytest.raises(InputError, match="nash, correlated or coarse"):
        list(deviations(both, (2, 2), 0, "other"))  # type: ignore[arg-type]


def test_swapping_includes_ignoring():
    game = random_zero_sum(generator=torch.Generator().manual_seed(0))
    pi = torch.rand(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pi = pi / pi.sum(-1, keepdim=True)
    assert game.gap(pi, "correlated") >= game.gap(pi, "coarse") - 1e-12
    seen = logged(game, torch.full((4, 9), 1e12, dtype=torch.float64))
    assert float(estimated_gap(seen, pi, 0.0)) == pytest.approx(game.gap(pi), abs=1e-9)


def test_the_width_is_the_worst_of_all_residuals_that_the_log_allows():
    """max sum d u / (1 - gamma) over sum (n / N) u^2 <= beta, by its multiplier and by search."""
    game = random_zero_sum(2, 2, 0.5, torch.Generator().manual_seed(0))
    n = torch.tensor([[4.0, 1.0, 2.0, 3.0], [5.0, 2.0, 2.0, 1.0]], dtype=torch.float64)
    pi, beta = even(game), 0.004
    ends = bounds(logged(game, n), pi, beta)
    values = game.values(pi)
    half = float(ends.high[0] - values[0])
    d = sum(0.5 * 0.5**t * torch.linalg.matrix_power(
        torch.einsum("sj,sjt->st", pi, game.P), t) for t in range(60))  # fmt: skip
    d = (game.d0 @ d)[:, None] * pi
    share = n / n.sum()
    u = d / share
    u = u * (beta / (share * u.square()).sum()).sqrt()
    assert half == pytest.approx(2 * float((d * u).sum()), rel=1e-6)
    g = torch.Generator().manual_seed(0)
    tried = torch.randn(2000, 2, 4, generator=g, dtype=torch.float64)
    tried = tried * (beta / (share * tried.square()).sum((1, 2), keepdim=True)).sqrt()
    assert float((2 * d * tried).sum((1, 2)).max()) <= half + 1e-12
    torch.testing.assert_close(ends.low, (values - half).clamp(0, 2))


def test_what_was_never_seen_may_be_worth_anything():
    game = matrix_game(PENNIES)
    seen = logged(game, torch.tensor([[50.0, 50.0, 0.0, 50.0]], dtype=torch.float64))
    pure = torch.eye(4, dtype=torch.float64)[2][None]
    low, high = bounds(seen, pure, 1e-6)
    assert low.tolist() == [0.0, 0.0] and high.tolist() == [1.0, 1.0]


def test_the_estimated_gap_is_that_of_every_deterministic_deviation():
    game = random_zero_sum(2, 2, 0.6, torch.Generator().manual_seed(3))
    log = game.log(even(game), 200, torch.Generator().manual_seed(0), noise=0.1)
    pi, beta = even(game), radius(log, 0.1)
    low, best = bounds(log, pi, beta).low, []
    for i in (0, 1):
        table = pi.reshape(2, 2, 2).sum(1 + i)  # the other player's
        for moves in itertools.product((0, 1), repeat=2):
            own = torch.eye(2, dtype=torch.float64)[list(moves)]
            rows = (own, table) if i == 0 else (table, own)
            joint = (rows[0][:, :, None] * rows[1][:, None]).reshape(2, 4)
            best.append(float(bounds(log, joint, beta).high[i] - low[i]))
    assert float(estimated_gap(log, pi, beta)) == pytest.approx(max(best), abs=1e-12)
    big = random_zero_sum(9, 3)
    many = logged(big, torch.ones(9, 9, dtype=torch.float64))
    with pytest.raises(InputError, match="more than 4,096"):
        estimated_gap(many, even(big), 0.1)


def test_an_empty_log_or_a_wrong_radius_is_named():
    empty = logged(matrix_game(PENNIES), torch.zeros(1, 4, dtype=torch.float64))
    with pytest.raises(InputError, match="log is empty"):
        bcel().solve(empty)
    with pytest.raises(InputError, match="delta between 0 and 1"):
        bcel(delta=0.0).solve(empty._replace(n=empty.n + 5))


def test_the_search_finds_equilibria_of_a_well_known_game():
    for kind, payoffs in (("nash", PENNIES), ("correlated", CHICKEN)):
        game = matrix_game(payoffs)
        log = game.log(even(game), 4000, torch.Generator().manual_seed(0))
        found = bcel_plug_in(kind, steps=400).solve(log)
        assert game.gap(found.pi, kind) < 0.03
        assert found.gap >= game.gap(found.pi, kind)


def test_doubt_keeps_to_what_the_log_covers_and_pessimism_alone_is_no_equilibrium():
    """The second row is nearly unseen and looks good by one lucky reward."""
    payoffs = torch.tensor([[[0.6, 0.6], [0.2, 0.2]], [[0.5, 0.4], [0.5, 0.4]]])
    game = matrix_game(payoffs)
    n = torch.tensor([[200.0, 200.0, 1.0, 1.0]], dtype=torch.float64)
    lucky = game.r.clone()
    lucky[0, 0, 2:] = 0.9
    log = logged(game, n, lucky)
    careful, plain = (f(c=0.02, steps=200).solve(log) for f in (bcel, bcel_plug_in))
    assert game.gap(careful.pi) < 0.05 < 0.3 < game.gap(plain.pi)
    assert careful.gap >= game.gap(careful.pi)
    trap = matrix_game(torch.tensor([[[0.9, 0.0], [1.0, 0.1]], [[0.9, 1.0], [0.0, 0.1]]]))
    seen = logged(trap, torch.full((1, 4), 1e6, dtype=torch.float64))
    assert trap.gap(bcel_pessimistic(steps=200).solve(seen).pi) > 0.05
    assert trap.gap(bcel(steps=200).solve(seen).pi) < 0.02
