"""The persuasion game: experts and people by their rules, its files, and the predictor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surpass.data.choices import Choices, joined, read_choices
from surpass.errors import InputError
from surpass.methods.ope.persuasion import ChoicePredictor, persuasion_ope
from surpass.tasks.persuasion import Hotels, People, Simulated, play

ROWS = """user_id,strategy_id,gameId,roundNum,hotelId,reviewId,didGo,didWin,user_points
7,3,1,1,5,51,1,0,0
7,3,1,2,6,62,0,1,0
7,19,2,1,5,51,1,1,0
9,3,1,1,6,62,0,0,0
9,3,1,2,5,51,1,1,0
9,3,1,3,5,52,1,0,1
12,3,1,1,6,62,1,1,0
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "group.csv").write_text(ROWS)
    (tmp_path / "features.csv").write_text("feature,51,52,62\nclean,1,0,1\nnear,0,1,1\n")
    return tmp_path / "group.csv", tmp_path / "features.csv"


def test_files_become_sequences_of_a_person_with_an_expert(files):
    log = read_choices(*files)
    assert log.user.tolist() == [0, 0, 1, 2] and log.bot.tolist() == [3, 19, 3, 3]
    assert log.mask.sum(1).tolist() == [2.0, 1.0, 3.0, 1.0]
    # second round of the first person: review 62, went and lost before, no points, round 2 of 10
    assert log.seen[0, 1].tolist() == pytest.approx([1, 1, 1, 0, 0, 0.2])
    assert log.seen[2, 2].tolist() == pytest.approx([0, 1, 1, 1, 0.1, 0.3])
    assert log.went[2].tolist() == [0.0, 1.0, 1.0]


def test_every_person_with_an_expert_weighs_the_same(files):
    log = read_choices(*files)
    total = log.weight.sum(1)
    torch.testing.assert_close(total, total[:1].expand(4))
    assert float(log.weight.sum() / log.mask.sum()) == pytest.approx(1.0)


def test_missing_columns_and_reviews_are_named(files, tmp_path):
    rounds, features = files
    (tmp_path / "short.csv").write_text("user_id,strategy_id\n1,2\n")
    with pytest.raises(InputError, match="no column 'gameId'"):
        read_choices(tmp_path / "short.csv", features)
    (tmp_path / "few.csv").write_text("feature,51,62\nclean,1,1\n")
    with pytest.raises(InputError, match="review 52"):
        read_choices(rounds, tmp_path / "few.csv")


def hotels():
    """A good hotel (mean 8) and a bad one (mean 5), scores in order."""
    score = np.array([[6, 7, 8, 8, 8.5, 9, 9.5], [2, 3, 4, 5, 6, 7, 8.0]])
    return Hotels(score, np.zeros((2, 7, 8)))


def test_experts_show_what_their_rules_say():
    both = np.array([0, 1])
    assert hotels().sent(both, np.array([0, 0]), np.ones(2)).tolist() == [6, 6]  # always the best
    assert hotels().sent(both, np.array([4, 4]), np.ones(2)).tolist() == [6, 0]  # honest extremes
    assert hotels().sent(both, np.array([10, 10]), np.ones(2)).tolist() == [3, 3]  # medians
    answers = hotels().sent(both, np.array([20, 20]), np.array([1, 0]))
    assert answers.tolist() == [6, 6]  # who stayed is shown the best next


def test_simulated_people_learn_to_be_right_and_without_learning_they_stay_as_they_are():
    for eta, change in ((0.5, True), (0.0, False)):
        people = Simulated(200, np.random.default_rng(0), eta)
        before = people.chance.copy()
        for _ in range(20):
            people.learn(np.full(200, 9.0), np.ones(200, bool), np.ones(200))
        oracle = 1 - people.chance.sum(1)
        assert (oracle.mean() > 0.9) == change
        assert np.allclose(people.chance, before) != change


def test_who_is_right_gets_the_point():
    rng = np.random.default_rng(0)
    log = play(hotels(), People(50, rng), np.zeros(50, int), rng, games=2)
    assert log.seen.shape == (50, 20, 12)
    points = log.seen[:, :, 10] * 10
    gained = points[:, 1:10] - points[:, :9]
    torch.testing.assert_close(gained, log.seen[:, 1:10, 9])  # won in the round before
    assert bool((points[:, 10] == 0).all())  # a new game begins at none


def test_a_predictor_learns_who_goes_when():
    """People who go exactly where the text is warm."""
    g = torch.Generator().manual_seed(0)
    seen = torch.randn(60, 10, 5, generator=g)
    went = (seen[..., 0] > 0).float()
    log = Choices(seen, went, torch.ones(60, 10), torch.arange(60), torch.zeros(60).long())
    net = persuasion_ope(ratio=0.0, epochs=40, seed=0).measure(log)
    right = ((net(seen) > 0.5) == (went > 0.5)).float().mean()
    assert float(right) > 0.95


def test_the_future_does_not_change_what_was_said():
    net = ChoicePredictor(5, 8)
    seen = torch.randn(2, 6, 5)
    later = seen.clone()
    later[:, 4:] += 1.0
    torch.testing.assert_close(net(seen)[:, :4], net(later)[:, :4])


def test_logs_are_padded_to_the_longest():
    short = Choices(torch.ones(1, 2, 3), torch.ones(1, 2), torch.ones(1, 2),
                    torch.tensor([0]), torch.tensor([1]))  # fmt: skip
    long = Choices(torch.ones(1, 4, 3), torch.ones(1, 4), torch.ones(1, 4),
                   torch.tensor([1]), torch.tensor([2]))  # fmt: skip
    both = joined(short, long)
    assert both.mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]] and len(both) == 2
