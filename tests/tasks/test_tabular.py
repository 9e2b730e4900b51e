"""Tabular problems against hand-solved cases, identities, brute force and Monte Carlo."""

import itertools

import pytest
import torch

from surpass.errors import InputError
from surpass.tasks.protocol import Batched
from surpass.tasks.tabular import TabularMDP, draw, estimate
from surpass.tasks.worlds import chain, combination_lock, grid_world, random_mdp


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_states(gamma: float = 0.9, horizon: int | None = None) -> TabularMDP:
    """Action 0 stays, action 1 moves to the other state; only staying in state 1 pays, one."""
    P = torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]]])
    return TabularMDP(P, torch.tensor([[0.0, 0], [1, 0]]), torch.tensor([1.0, 0]), gamma, horizon)


def random_policy(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).softmax(-1)


def test_two_states_solved_by_hand():
    solution = two_states().solve()
    assert torch.equal(solution.pi, torch.tensor([[0.0, 1], [1, 0]]).double())
    torch.testing.assert_close(solution.v, torch.tensor([9.0, 10.0]).double())
    torch.testing.assert_close(solution.q, torch.tensor([[8.1, 9.0], [10.0, 8.1]]).double())
    assert float(solution.value) == pytest.approx(9.0)


def test_uniform_policy_of_two_states_by_hand():
    mdp = two_states()
    # v0 = .45 (v0 + v1), v1 = .5 + .45 (v0 + v1), so v0 + v1 = .5 / (1 - .9) = 5
    values = mdp.evaluate(mdp.uniform())
    torch.testing.assert_close(values.v, torch.tensor([2.25, 2.75]).double())
    occupancy = mdp.occupancy(mdp.uniform())
    # half of the time in each state but for the start: (1 - g) + g / 2
    torch.testing.assert_close(occupancy.sum(1), torch.tensor([0.55, 0.45]).double())


def test_horizon_by_hand():
    solution = two_states(1.0, 3).solve()
    assert float(solution.value) == 2.0  # move, then stay twice
    torch.testing.assert_close(solution.v, torch.tensor([[2.0, 3], [1, 2], [0, 1]]).double())


def test_soft_solution_of_a_bandit_is_the_closed_form():
    # one state, gamma 0: the soft value is the log-sum-exp of the rewards
    r = torch.tensor([[0.3, -1.0, 2.0]]).double()
    mdp = TabularMDP(torch.ones(1, 3, 1), r, torch.ones(1), 0.0)
    soft = mdp.solve_soft(0.5)
    torch.testing.assert_close(soft.pi, (r / 0.5).softmax(-1))
    torch.testing.assert_close(soft.value, 0.5 * (r[0] / 0.5).logsumexp(-1))
    reference = torch.tensor([[0.2, 0.5, 0.3]]).double()
    tilted = mdp.solve_soft(0.5, reference)
    expected = reference * (r / 0.5).exp()
    torch.testing.assert_close(tilted.pi, expected / expected.sum())
    torch.testing.assert_close(tilted.value, 0.5 * expected.sum().log())


@pytest.mark.parametrize("horizon", [None, 6])
def test_soft_solution_is_a_fixed_point_and_beats_others(horizon):
    mdp = random_mdp(6, 3, gamma=0.9, horizon=horizon, branching=3, generator=seeded(1))
    reference = random_policy((6, 3), 2)
    soft = mdp.solve_soft(0.2, reference)
    torch.testing.assert_close(
        soft.pi, (reference.log() + soft.q / 0.2).softmax(-1), atol=1e-10, rtol=0
    )

    def objective(pi):
        kl = (pi * (pi / reference).log()).sum(-1)
        return mdp.evaluate(pi, -0.2 * kl).value

    torch.testing.assert_close(objective(soft.pi), soft.value)
    for seed in range(20):
        near = (soft.pi.log() + 0.1 * torch.randn(soft.pi.shape, generator=seeded(seed))).softmax(
            -1
        )
        assert objective(near) < soft.value


def test_low_temperature_reaches_the_optimum():
    mdp = random_mdp(8, 4, gamma=0.95, generator=seeded(3))
    assert float(mdp.solve_soft(1e-4).value) == pytest.approx(float(mdp.solve().value), abs=1e-2)


def test_solve_equals_brute_force_over_deterministic_policies():
    mdp = random_mdp(4, 3, gamma=0.9, branching=2, generator=seeded(5))
    best = max(
        float(mdp.evaluate(torch.eye(3).double()[list(choice)]).value)
        for choice in itertools.product(range(3), repeat=4)
    )
    assert float(mdp.solve().value) == pytest.approx(best, abs=1e-10)


@pytest.mark.parametrize(("horizon", "stationary"), [(None, True), (5, True), (5, False)])
def test_value_is_occupancy_times_reward(horizon, stationary):
    mdp = random_mdp(7, 3, gamma=0.9, horizon=horizon, stationary=stationary, generator=seeded(6))
    pi = random_policy((7, 3) if horizon is None else (5, 7, 3), 7)
    d = mdp.occupancy(pi)
    value = mdp.evaluate(pi).value
    if horizon is None:
        assert float(d.sum()) == pytest.approx(1.0)
        torch.testing.assert_close((d * mdp.r).sum() / 0.1, value)
    else:
        torch.testing.assert_close(d.sum((1, 2)), torch.ones(5).double())
        discount = 0.9 ** torch.arange(5).double()
        torch.testing.assert_close((discount[:, None, None] * d * mdp.r).sum(), value)


def test_gradient_of_the_value_is_the_policy_gradient_theorem():
    mdp = random_mdp(5, 3, gamma=0.9, generator=seeded(8))
    theta = torch.randn(5, 3, generator=seeded(9), dtype=torch.float64, requires_grad=True)
    values = mdp.evaluate(theta.softmax(-1))
    (gradient,) = torch.autograd.grad(values.value, theta)
    with torch.no_grad():
        pi = theta.softmax(-1)
        advantage = values.q - values.v[:, None]
        expected = mdp.occupancy(pi) * advantage / (1 - 0.9)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("horizon", [None, 4])
def test_rollouts_have_the_exact_mean_and_exact_log_probs(horizon):
    mdp = random_mdp(5, 3, gamma=0.8, horizon=horizon, branching=3, generator=seeded(10))
    pi = random_policy((5, 3), 11)
    log = mdp.rollout(pi, 20_000, None if horizon else 60, seeded(12), dtype=torch.float64)
    discount = 0.8 ** torch.arange(log.reward.shape[1]).double()
    returns = (log.reward * discount).sum(1)
    error = returns.std() / len(returns) ** 0.5
    assert abs(returns.mean() - mdp.evaluate(pi).value) < 4 * error
    state = log.obs.argmax(-1)
    assert torch.equal(state, log.extras["state"])
    torch.testing.assert_close(log.behavior_logp, pi[state, log.action].log())
    assert torch.equal(log.extras["next_state"][:, :-1], log.extras["state"][:, 1:])
    assert log.terminated.any() == (horizon is not None)
    assert log.truncated[:, -1].all() == (horizon is None)


def test_importance_sampling_of_a_rollout_estimates_another_policy():
    mdp = random_mdp(4, 2, gamma=1.0, horizon=3, generator=seeded(13))
    behavior, target = random_policy((4, 2), 14), random_policy((4, 2), 15)
    log = mdp.rollout(behavior, 50_000, generator=seeded(16), dtype=torch.float64)
    target_logp = target[log.extras["state"], log.action].log()
    scores = (target_logp - log.behavior_logp).sum(1).exp() * log.reward.sum(1)
    error = scores.std() / len(scores) ** 0.5
    assert abs(scores.mean() - mdp.evaluate(target).value) < 4 * error


def test_transitions_stop_at_terminal_states():
    mdp = grid_world("open")
    rows = mdp.transitions(mdp.uniform(), 200, 300, seeded(17))
    goal = int(mdp.terminal.nonzero()[0])
    assert not (rows.extras["state"] == goal).any()
    assert torch.equal(rows.terminated, rows.extras["next_state"] == goal)
    lengths = torch.bincount(rows.episode)
    last = lengths.cumsum(0) - 1
    ended = rows.terminated | rows.truncated
    assert ended[last].all() and int(ended.sum()) == 200
    assert torch.equal(rows.truncated[last], (lengths == 300) & ~rows.terminated[last])
    assert float(rows.reward.sum()) == float(rows.terminated.sum())


def test_the_environment_has_the_exact_value():
    mdp = grid_world("lake", slip=0.3, gamma=1.0, horizon=30)
    pi = mdp.solve().pi
    env = Batched(mdp.as_env(), 20_000, seed=18)
    obs, total = env.reset(19), torch.zeros(20_000)
    alive = torch.ones(20_000, dtype=torch.bool)
    for t in range(30):
        stepped = env.step(draw(pi[t][obs.argmax(-1)], seeded(t)))
        total += stepped.reward * alive
        alive &= ~(stepped.terminated | stepped.truncated)
        obs = stepped.obs
    assert not alive.any()
    expected = float(mdp.evaluate(pi).value)
    assert abs(float(total.mean()) - expected) < 4 * float(total.std()) / 20_000**0.5


def test_estimated_model_converges_to_the_true_one():
    mdp = random_mdp(4, 2, gamma=1.0, horizon=10, branching=2, generator=seeded(20))
    rows = mdp.transitions(mdp.uniform(), 5_000, generator=seeded(21))
    model, seen = estimate(rows, 4, 2, horizon=10)
    assert int(seen.sum()) == 50_000
    torch.testing.assert_close(model.P, mdp.P, atol=0.03, rtol=0)
    torch.testing.assert_close(model.r, mdp.r, atol=1e-6, rtol=0)
    assert float(model.solve().value) == pytest.approx(float(mdp.solve().value), abs=0.1)


def test_termination_and_truncation_lead_to_different_models():
    mdp = two_states()
    rows = mdp.transitions(mdp.uniform(), 2_000, 20, seeded(22))
    right, _ = estimate(rows, 2, 2, gamma=0.9)
    torch.testing.assert_close(right.P[:2, :, :2], mdp.P)  # a cut is no end
    confused = rows.clone()
    confused.terminated = rows.truncated
    wrong, _ = estimate(confused, 2, 2, gamma=0.9)
    assert float(right.solve().value) == pytest.approx(9.0)
    assert float(wrong.solve().value) < 7.0


def test_chain_and_lock_have_their_known_values():
    # six moves to the right end are five without pay
    assert float(chain(6, gamma=0.9).solve().value) == pytest.approx(0.9**5 / 0.1)
    mdp, code = combination_lock(5, 4, anti_reward=0.1, generator=seeded(23))
    assert float(mdp.solve().value) == pytest.approx(1.0)
    pi = mdp.solve().pi
    assert torch.equal(pi[:, :2].argmax(-1), code)
    # uniform: right with 1/4; falls at step h pay 0.05
    p = 0.25
    expected = p**5 + sum(p**h * (1 - p) * 0.05 for h in range(5))
    assert float(mdp.evaluate(mdp.uniform()).value) == pytest.approx(expected)


def test_grid_value_counts_steps():
    mdp = grid_world("open", gamma=0.9)
    assert float(mdp.solve().value) == pytest.approx(0.9**7)  # eight moves, paid on the last
    cliff = grid_world("cliff", step_reward=-1, goal_reward=-1, gamma=1.0, horizon=100)
    assert float(cliff.solve().value) == pytest.approx(-13.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"P": torch.full((2, 2, 2), 0.4)}, r"P\[0, 0\] is no distribution"),
        ({"r": torch.zeros(2, 3)}, "r must be"),
        ({"d0": torch.tensor([0.5, 0.4])}, "d0 is no distribution"),
        ({"gamma": 1.0}, "gamma must lie"),
    ],
)
def test_bad_tables_are_refused(change, message):
    good = two_states()
    tables = {"P": good.P, "r": good.r, "d0": good.d0, "gamma": 0.9} | change
    with pytest.raises(InputError, match=message):
        TabularMDP(**tables)
