"""Priorities by hand, and draws against them."""

import pytest
import torch

from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.forms import Learner, Prioritized, Spaces, log, train
from surpass.objectives.bellman import td, td_error
from surpass.objectives.greedy import best_action
from surpass.parts import linear
from surpass.policies.acting import greedy
from surpass.training.engine import Engine
from surpass.training.prioritized import PrioritizedLog, priorities
from surpass.training.streams import open_stream


def rows(n=4):
    obs = torch.eye(n)
    return Transitions(
        obs=obs, action=torch.zeros(n, dtype=torch.long), reward=torch.arange(n).float(),
        next_obs=obs, terminated=torch.ones(n, dtype=torch.bool),
        truncated=torch.zeros(n, dtype=torch.bool), episode=torch.arange(n), batch_size=[n],
    )  # fmt: skip


def learner(**rule):
    from surpass.critics.ensembles import critic

    backup = best_action(double=False, target="q")
    source = log(64, prioritize=Prioritized(td_error(backup), **rule))
    return Learner({"q": critic(1, (8,))}, (train("q", td(backup)),), greedy(), source)


SPACES = Spaces(obs_dim=4, n_actions=2)


def opened(form, data=None):
    stream = open_stream(form.source, {"log": rows() if data is None else data}, SPACES, ())
    assert isinstance(stream, PrioritizedLog)
    engine = Engine(form, stream, SPACES, compile=False)
    stream.bind(engine, {})
    return stream, engine


def test_priorities_by_hand():
    chance, weight = priorities(torch.tensor([3.0, 0.0, 8.0]), alpha=0.5, beta=1.0, eps=1.0)
    torch.testing.assert_close(chance, torch.tensor([2.0, 1.0, 3.0]).double() / 6)
    torch.testing.assert_close(weight, torch.tensor([0.5, 1.0, 1 / 3]).double())
    even, ones = priorities(torch.tensor([3.0, 0.0]), alpha=0.0, beta=0.4)
    assert even.tolist() == [0.5, 0.5] and ones.tolist() == [1.0, 1.0]


def test_rows_are_drawn_by_the_error_of_the_nets():
    stream, engine = opened(learner(alpha=1.0, beta=0.5, eps=0.0))
    stream.before(1)
    values = engine.bank["q"](rows().obs, rows().action).detach()[0]
    error = (rows().reward - values).abs()
    chance, weight = priorities(error, 1.0, 0.5, 0.0)
    torch.testing.assert_close(stream.tables["cumulative"], chance.cumsum(0))
    torch.manual_seed(0)
    batch = stream.sample(stream.tables, 20_000)
    found = torch.bincount(batch.index, minlength=4) / 20_000
    assert (found - chance).abs().max() < 0.015
    torch.testing.assert_close(batch.weight, weight.float()[batch.index])
    torch.testing.assert_close((batch.weight / weight.max()).double() * chance[batch.index] ** 0.5,
                               torch.full((20_000,), float((chance ** 0.5 * weight)[0])).double(),
                               atol=1e-4, rtol=1e-3)  # fmt: skip


def test_they_are_renewed_when_due_and_beta_follows_its_schedule():
    stream, engine = opened(learner(every=3, beta=linear(0.0, 1.0, steps=6)))
    stream.before(1)
    assert stream.tables["weight"].tolist() == [1.0] * 4  # beta is 0
    before = stream.tables["cumulative"].clone()
    engine.advance(3)
    assert torch.equal(stream.tables["cumulative"], before)
    engine.advance(1)
    assert not torch.equal(stream.tables["cumulative"], before)
    chance = stream.tables["cumulative"].diff(prepend=torch.zeros(1).double())
    expected = (4 * chance) ** -0.5
    torch.testing.assert_close(stream.tables["weight"], (expected / expected.max()).float())
    other, _ = opened(learner(every=3, beta=linear(0.0, 1.0, steps=6)))
    other.load_state_dict(stream.state_dict())
    assert torch.equal(other.tables["cumulative"], stream.tables["cumulative"])
    assert other.due == stream.due == 6


def test_weights_of_the_log_stay_factors():
    data = rows()
    data.weight = torch.tensor([1.0, 3.0, 1.0, 3.0])
    stream, _ = opened(learner(alpha=0.0), data)
    stream.before(1)
    assert stream.tables["weight"].tolist() == [0.5, 1.5, 0.5, 1.5]


def test_bad_input():
    form = learner()
    stream = open_stream(form.source, {"log": rows()}, SPACES, ())
    engine = Engine(form, stream, SPACES, seeds=2, compile=False)
    with pytest.raises(InputError, match="one seed at a time"):
        stream.bind(engine, {})
    windows = log(4, "n_step", prioritize=Prioritized(td_error(best_action())))
    with pytest.raises(InputError, match="single rows"):
        open_stream(windows, {"log": rows()}, SPACES, ())
