"""Rollouts against exact values; the interquartile mean by hand; the interval against coverage."""

import pytest
import torch

from surpass.errors import InputError
from surpass.evaluation.rollouts import during, interquartile_mean, roll_out, stratified
from surpass.tasks.catalog import task


def test_the_mean_return_is_the_exact_value_of_the_policy():
    grid = task("grid-lake")
    pi = grid.mdp.uniform()
    truth = float(grid.truth(pi).value)

    def uniform(obs):
        return torch.randint(grid.spaces.n_actions, (len(obs),))

    torch.manual_seed(0)
    found = roll_out(uniform, grid, 4_000, copies=1_000)
    assert abs(found.mean - truth) < 4 * found.error
    assert len(found.returns) == 4_000


def test_copies_count_alike_however_long_their_episodes_are():
    # always pushing left ends soon; every copy gives exactly as many episodes as the others
    found = roll_out(lambda obs: torch.zeros(len(obs), dtype=torch.long), "cart-pole", 10, copies=5)
    assert len(found.returns) == 10
    assert torch.equal(found.returns.long(), found.lengths)  # one point a step
    assert found.returns.min() >= 8 and found.returns.max() <= 11


def test_measuring_during_training_gives_mean_and_error():
    def left(obs):
        return torch.zeros(len(obs), dtype=torch.long)

    again = roll_out(left, "cart-pole", 20)
    assert during("cart-pole", 20)(left) == {"return": again.mean, "error": again.error}


def test_the_interquartile_mean_drops_a_quarter_at_each_end():
    scores = torch.tensor([100.0, 1.0, 2.0, 3.0, 4.0, -50.0, 0.0, 5.0])
    assert interquartile_mean(scores) == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert interquartile_mean(torch.tensor([7.0, 9.0])) == 8.0


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    hits = 0
    for trial in range(60):
        seeds = torch.randn(10, 1, generator=generator)
        scores = 3.0 + seeds + torch.randn(10, 20, generator=generator)
        found = stratified(scores, lambda x: x.mean(-1), draws=300, seed=trial)
        hits += found.low <= 3.0 <= found.high
    assert hits >= 48  # ten seeds: a percentile bootstrap covers a little less than 95 %


def test_unequal_seeds_and_no_episodes_are_refused():
    with pytest.raises(InputError, match="one length"):
        stratified([torch.zeros(3), torch.zeros(4)])
    with pytest.raises(InputError, match="at least one episode"):
        roll_out(lambda obs: obs, "pendulum", 0)
