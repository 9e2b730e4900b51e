"""Values of two groups: exact on tables, what one group may not touch, and shrinkage by hand."""

import pytest
import torch

import surpass as sp
from surpass.critics.ensembles import critic
from surpass.critics.nested import both_values, correction, greedy_fit, nested_td, of_group
from surpass.data.records import About
from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.methods.theory.nested import nested_fqi, nested_fqi_ridge
from surpass.objectives.rows import Rows
from surpass.tasks.control import CartPole
from surpass.tasks.recording import joined
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.worlds import chain


def rows(mdp, group, episodes, seed=0):
    """A log of even actions with the group as its last column."""
    g = torch.Generator().manual_seed(seed)
    log = mdp.transitions(mdp.uniform(), episodes, 40, g)
    said = torch.full((len(log.reward), 1), float(group))
    log.obs, log.next_obs = (torch.cat([x, said], 1) for x in (log.obs, log.next_obs))
    return log


def both(few=3):
    """Going right pays in the background; the foreground is paid at the left end."""
    back = chain(5, gamma=0.8)
    front = TabularMDP(back.P, back.r.flip(0).flip(1), back.d0, 0.8)
    log = joined([rows(back, 0, 30), rows(front, 1, few, seed=1)])
    return back, front, log.described(About(actions=("left", "right")))


def seen(group):
    return torch.cat([torch.eye(5), torch.full((5, 1), float(group))], 1)


def test_the_group_is_told_by_one_column_wherever_it_stands():
    obs = torch.tensor([[1.0, 0.0, 2.0], [3.0, 1.0, 4.0], [5.0, -0.3, 6.0]])
    rest, foreground = of_group(obs, 1)
    assert rest.tolist() == [[1.0, 0.0, 2.0], [3.0, 0.0, 4.0], [5.0, 0.0, 6.0]]
    assert foreground.tolist() == [False, True, False]
    assert of_group(obs)[1].tolist() == [True, True, True]


def test_on_tables_both_groups_get_their_own_optimal_values():
    back, front, log = both(few=30)
    found = nested_fqi_ridge(0.8, features=None, ridge=1e-6, shrink=1e-6).solve(log)
    torch.testing.assert_close(found.q(seen(0)), back.solve().q, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.q(seen(1)), front.solve().q, atol=1e-3, rtol=0)
    assert found.predict(seen(0)).tolist() == [1] * 5
    assert found.predict(seen(1)).tolist() == [0] * 5


def test_a_large_penalty_leaves_the_background_and_no_foreground_row_moves_it():
    back, _, log = both()
    alone = rows(back, 0, 30).described(log.about)
    stiff = nested_fqi_ridge(0.8, shrink=1e12).solve(log)
    free = nested_fqi_ridge(0.8, shrink=0.1).solve(log)
    plain = nested_fqi_ridge(0.8).solve(alone)
    torch.testing.assert_close(stiff.q(seen(1)), plain.q(seen(0)), atol=1e-6, rtol=0)
    for found in (stiff, free):
        assert torch.equal(found.q(seen(0)), plain.q(seen(0)))
    assert float((free.q(seen(1)) - plain.q(seen(0))).abs().max()) > 0.5
    assert not plain.own.any()  # no foreground, no correction


def test_a_correction_shrinks_as_if_so_many_rows_said_nothing():
    """One state, one action, a reward of 2 beside a base of 0.5: 1.5 n / (n + shrink); and with
    gamma 1/2 the values solve q = 2 + q / 2 once nothing shrinks."""
    n = 6
    one, paid = torch.ones(n, 1, dtype=torch.float64), torch.full((n,), 2.0, dtype=torch.float64)
    base = (0.5 * paid / 2, 0.5 * one)
    theta = greedy_fit(one, one, paid, 0 * paid, 0.5, 3.0, 1, base)
    assert float(theta) == pytest.approx(1.5 * n / (n + 3.0))
    theta = greedy_fit(one, one, paid, paid / 2, 0.5, 0.0, 60, base)
    assert 0.5 + float(theta) == pytest.approx(4.0)
    theta = greedy_fit(one, one, paid, paid / 2, 0.5, 0.0, 60, bounds=(0.0, 3.0))
    assert float(theta) == pytest.approx(2 + 3 / 2)


def test_nets_begin_alike_and_a_loss_is_of_one_group():
    torch.manual_seed(0)
    spaces = Spaces(3, n_actions=2)
    nets = {name: critic(1, (8,))(spaces) for name in ("shared", "shared_target")}
    nets |= {name: correction((8,))(spaces) for name in ("own", "own_target")}
    obs = torch.randn(6, 3)
    told = [torch.cat([obs[:, :2], torch.full((6, 1), g)], 1) for g in (0.0, 1.0)]
    assert torch.equal(both_values(nets, told[0]), both_values(nets, told[1]))
    hidden = nets["own"].net.weight0
    assert hidden.abs().max() > 0.1  # random below a last layer of 0, so that it can learn
    nets["own_target"].net.bias1.data.fill_(2.0)
    columns = {
        "obs": torch.cat(told), "next_obs": torch.cat(told), "reward": torch.ones(12),
        "action": torch.ones(12, dtype=torch.long), "terminated": torch.zeros(12),
    }  # fmt: skip
    for group, own in ((0, slice(0, 6)), (1, slice(6, 12))):
        loss = nested_td(0.9, group)(nets, Rows(columns)).detach()
        base = nets["shared_target"].all(torch.cat([obs[:, :2], torch.zeros(6, 1)], 1))[0]
        y = 1.0 + 0.9 * (base.amax(-1) + 2.0 * group)
        want = (nets["shared"].all(told[0])[0, :, 1] - y).square().detach()
        torch.testing.assert_close(loss[own], want)
        assert float(loss.sum()) == pytest.approx(float(want.sum()), rel=1e-5)


def test_nets_learn_both_groups_and_the_second_stage_leaves_the_first_alone():
    back, front, log = both(few=10)
    short, trained = (
        sp.train(nested_fqi(0.8, shared=500, own=own, lr=1e-2, batch=128, hidden=(32,)), log,
                 seed=0, compile=False)
        for own in (1, 500)
    )  # fmt: skip
    for name, before in short.nets.shared.named_parameters():
        assert torch.equal(dict(trained.nets.shared.named_parameters())[name], before)
    assert (short.predict(seen(1)) == 1).all()  # the background's choice, until it has its own
    for mdp, group, best in ((back, 0, 1), (front, 1, 0)):
        assert (trained.predict(seen(group)) == best).all()
        values = both_values(trained.nets, seen(group)).detach().double()
        torch.testing.assert_close(values, mdp.solve().q, atol=0.25, rtol=0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="continuous"):
        log = both()[2]
        log.action = torch.rand(len(log.reward), 1)
        sp.train(nested_fqi(), log, steps=1, compile=False)
    with pytest.raises(InputError, match="gamma"):
        nested_fqi(1.0)


def test_wind_adds_to_the_force():
    calm, windy = CartPole(force=10.0), CartPole(force=6.0, wind=4.0)
    state = {"x": torch.tensor([[0.1, -0.2, 0.05, 0.3]]), "t": torch.zeros(1, dtype=torch.long)}
    right, left = torch.tensor([1]), torch.tensor([0])
    assert torch.equal(calm.step(state, right).obs, windy.step(state, right).obs)
    weak = CartPole(force=2.0)
    assert torch.allclose(windy.step(state, left).obs, weak.step(state, left).obs)
