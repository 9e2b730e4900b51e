"""Games of preferences: mirror prox against the exact equilibrium, and the sampled step."""

import pytest
import torch

from surpass.data.records import Sequences
from surpass.objectives.advantage import with_columns
from surpass.objectives.games import mirror_prox, prox_advantage, prox_step
from surpass.tasks.preference import PreferenceGame, preference_game

CYCLE = PreferenceGame(torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.95], [0.8, 0.05, 0.5]]))
REF = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)


def kl(p, logq):
    return float((p * (p.log() - logq)).sum())


def test_mirror_prox_converges_at_its_rate_where_mirror_descent_does_not():
    beta = 0.02
    path = mirror_prox(CYCLE.P, REF.log(), beta, 1000)
    goal = path[-1].exp()
    settled = prox_step(CYCLE.P, path[-1], path[-1], REF.log(), beta, 2 * beta)
    torch.testing.assert_close(settled, path[-1], rtol=0, atol=1e-9)  # a fixed point
    start = kl(goal, path[0])
    for k in range(0, 101, 10):
        assert kl(goal, path[k]) <= start / beta * (1 + 2 * beta) ** -k
    assert kl(goal, path[100]) < 1e-9
    assert kl(goal, mirror_prox(CYCLE.P, REF.log(), beta, 200, inner=1)[-1]) > 0.1


def test_it_finds_the_regularized_equilibrium():
    game = preference_game(6, cyclic=0.5, seed=3)
    ref = torch.full((6,), 1 / 6, dtype=torch.float64)
    got = mirror_prox(game.P, ref.log(), 0.3, 300)[-1].exp()
    torch.testing.assert_close(got, game.nash_to(ref, 0.3), rtol=1e-6, atol=1e-8)


def test_clones_change_nothing():
    def drawn(times):
        P = CYCLE.P.repeat_interleave(times, 0).repeat_interleave(times, 1)
        log_ref = (REF / times).repeat_interleave(times).log()
        last = mirror_prox(P, log_ref, 0.05, 40)[-1].exp()
        return last.reshape(3, times).sum(-1)

    torch.testing.assert_close(drawn(10), drawn(1))


def test_a_step_by_hand():
    log = torch.log(torch.tensor([0.5, 0.5], dtype=torch.float64))
    P = torch.tensor([[0.5, 1.0], [0.0, 0.5]], dtype=torch.float64)
    got = prox_step(P, log, log, log, beta=0.5, eta=1.0)
    # P mu = (0.75, 0.25): the odds are exp((1 / 0.5) (0.75 - 0.25) / 2) = exp(0.5)
    assert float(got[0] - got[1]) == pytest.approx(0.5)


def group(reward, mine, target, ref):
    n = len(reward)
    seq = Sequences(
        action=torch.zeros(n, 1, dtype=torch.long), mask=torch.ones(n, 1),
        reward=torch.tensor(reward)[:, None], behavior_logp=torch.tensor(mine)[:, None],
        group=torch.zeros(n, dtype=torch.long), batch_size=[n],
    )  # fmt: skip
    columns = {"target_logp": torch.tensor(target)[:, None], "ref_logp": torch.tensor(ref)[:, None]}
    return with_columns(seq, **columns)


def test_the_sampled_advantage_by_hand_and_its_two_opponents():
    even = group([1.0, 0.0, 0.0], [-1.0] * 3, [-1.0] * 3, [-1.0] * 3)
    got, state = prox_advantage(0.5)(
        {"turn": torch.zeros(())}, even
    )  # wins 1, 1/4, 1/4, less the mean of the others
    torch.testing.assert_close(got[:, 0], torch.tensor([0.75, -0.375, -0.375]))
    assert float(state["turn"]) == 1
    moved = group([1.0, 0.0, 0.0], [-1.0] * 3, [-1.0, -1.0, 2.0], [-1.0] * 3)
    half, state = prox_advantage(0.5, eta=1e9)({"turn": torch.zeros(())}, moved)
    full, _ = prox_advantage(0.5, eta=1e9)(state, moved)
    torch.testing.assert_close(full, got, rtol=0, atol=1e-5)  # the policy as opponent: no weights
    # The target writes the third answer e^3 times as often: the second mostly meets a tie.
    weight = torch.tensor(3.0).exp()
    wins = torch.tensor([1.0, 0.5 * weight / (1 + weight), 0.25])
    want = wins - (wins.sum() - wins) / 2
    torch.testing.assert_close(half[:, 0], want, rtol=0, atol=1e-5)
