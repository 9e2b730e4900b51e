"""Weights of episodes against hand-computed ones, and what they do to draws."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_logs import random_log

from surpass.errors import InputError
from surpass.forms import log
from surpass.methods.offline.weighting import trajectory_weighting
from surpass.methods.online.actor_critic import sac
from surpass.objectives.trajectory_weights import (
    by_advantage,
    by_return,
    episode_returns,
    positive_variance,
    top_share,
)
from surpass.training.streams import LogStream, spaces_of


def three_episodes(rewards=((1.0, 1.0), (0.0,), (2.0, 1.0, 1.0)), starts=(0.0, 1.0, 2.0)):
    rows = random_log(n=sum(map(len, rewards)), obs=1)
    rows.reward = torch.tensor([r for episode in rewards for r in episode])
    rows.episode = torch.tensor([i for i, e in enumerate(rewards) for _ in e])
    rows.obs = torch.tensor([[starts[i]] for i, e in enumerate(rewards) for _ in e])
    return rows


def test_rows_weigh_by_the_return_of_their_episode():
    found = by_return(alpha=0.5)(three_episodes())  # returns 2, 0, 4: c = 0.5, 0, 1
    one = [math.e, math.e, 1.0, *[math.e**2] * 3]
    assert found.tolist() == pytest.approx(one)


@given(st.floats(0.1, 50.0), st.floats(-20.0, 20.0))
def test_the_scale_of_rewards_does_not_count(scale, shift):
    log = three_episodes(((1.0,), (0.0,), (4.0,)))
    before = by_return()(log)
    log.reward = scale * log.reward + shift
    torch.testing.assert_close(by_return()(log), before, rtol=1e-4, atol=1e-4)


def test_luck_with_the_start_does_not_count():
    """Returns 10 s + (0, 1, 0, 1): what is above the line decides."""
    starts = (0.0, 0.0, 5.0, 5.0)
    log = three_episodes(tuple((10 * s + e,) for s, e in zip(starts, (0.0, 1.0, 0.0, 1.0))), starts)  # noqa: B905
    found = by_advantage(alpha=1.0)(log)
    assert found.tolist() == pytest.approx([1.0, math.e, 1.0, math.e], rel=1e-5)
    assert by_return(alpha=1.0)(log)[2] > by_return(alpha=1.0)(log)[1]


def test_the_best_share_of_episodes():
    assert top_share(1 / 3)(three_episodes()).tolist() == [0, 0, 0, 1, 1, 1]
    assert top_share(0.01)(three_episodes()).tolist() == [0, 0, 0, 1, 1, 1]


def test_what_is_to_be_gained():
    assert positive_variance(three_episodes()) == pytest.approx((0 + 0 + 2.0**2) / 3)


def test_rows_are_drawn_in_proportion():
    rows = three_episodes()
    stream = LogStream(rows, log(60_000, weigh=by_return(0.5)), spaces_of(rows))
    torch.manual_seed(0)
    index = stream.sample(stream.tables).index
    share = torch.bincount(index, minlength=6) / len(index)
    weights = by_return(0.5)(rows)
    torch.testing.assert_close(share.double(), weights / weights.sum(), atol=0.01, rtol=0)
    assert "weight" not in stream.sample(stream.tables, 4)  # drawn, not weighed once more


def test_rewards_may_be_scaled_by_the_range_of_returns():
    rows = three_episodes()
    stream = LogStream(rows, log(4, reward_scale="range"), spaces_of(rows))
    # episodes of at most three steps, returns between 0 and 4
    torch.testing.assert_close(stream.tables["reward"], 3 / 4 * rows.reward)
    assert episode_returns(rows)[0].tolist() == [2.0, 0.0, 4.0]


def test_any_learner_from_a_log_takes_it():
    form = trajectory_weighting(rule="return", alpha=0.3)
    assert form.source.options["weigh"] == by_return(0.3)
    with pytest.raises(InputError, match="no rule 'returns'"):
        trajectory_weighting(rule="returns")
    with pytest.raises(InputError, match="learns from a log"):
        trajectory_weighting(sac())
