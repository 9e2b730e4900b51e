"""Credit per turn, against loops in numpy and against group standardization."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from surpass.data.records import Sequences
from surpass.errors import InputError
from surpass.objectives.advantage import group_standardized
from surpass.objectives.turns import discounted_by_turn, turn_credit, turn_ends

T = 7
TURN = [  # -1: the environment; two groups of two
    [0, 0, -1, 1, -1, -1, 2],
    [0, -1, 1, 1, 1, -1, -1],
    [0, 0, 0, -1, -1, -1, -1],
    [0, -1, 1, -1, 2, 2, -1],
]
GAIN = [[0.4, -1.0], [2.0], [], [0.1, 0.7]]
SCORE = [1.0, 0.0, 0.0, 1.0]
GROUP = [0, 0, 1, 1]


def sequences(gain=GAIN):
    turn = torch.tensor(TURN)
    mask = (turn >= 0).float()
    reward, gains = torch.zeros(4, T), torch.full((4, T), 7.0)  # what does not count is not seen
    for i in range(4):
        ends = [int((turn[i] == k).nonzero()[-1]) for k in range(int(turn[i].max()) + 1)]
        reward[i, ends[-1]] = SCORE[i]
        for at, value in zip(ends[:-1], gain[i], strict=True):
            gains[i, at] = value
    return Sequences(
        action=torch.zeros(4, T).long(), mask=mask, reward=reward, turn=turn,
        group=torch.tensor(GROUP), extras=TensorDict({"gain": gains}, batch_size=[4]),
        batch_size=[4],
    )  # fmt: skip


def standardized(values):
    values = np.asarray(values)
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    return (values - values.mean()) / (spread + 1e-6)


def by_hand(normalize, gamma):
    out = np.zeros((4, T))
    credit = [[*GAIN[i], SCORE[i]] for i in range(4)]
    for group in (0, 1):
        rows = [i for i in range(4) if GROUP[i] == group]
        if normalize == "apart":
            gains = iter(standardized([g for i in rows for g in GAIN[i]]))
            scores = iter(standardized([SCORE[i] for i in rows]))
            for i in rows:
                credit[i] = [*(next(gains) for _ in GAIN[i]), next(scores)]
        elif normalize == "together":
            both = iter(standardized([g for i in rows for g in (*GAIN[i], SCORE[i])]))
            for i in rows:
                credit[i] = [next(both) for _ in range(len(GAIN[i]) + 1)]
    for i in range(4):
        for t in range(T):
            k = TURN[i][t]
            if k >= 0:
                out[i, t] = sum(gamma ** (m - k) * credit[i][m] for m in range(k, len(credit[i])))
    if normalize == "position":
        raw = out.copy()
        for i in range(4):
            for t in range(T):
                here = [j for j in range(4) if GROUP[j] == GROUP[i] and TURN[j][t] >= 0]
                if TURN[i][t] >= 0:
                    out[i, t] = raw[i, t] - np.mean([raw[j, t] for j in here])
    return torch.tensor(out).float()


@pytest.mark.parametrize("normalize", ["apart", "together", "position"])
@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_credit_by_hand(normalize, gamma):
    got = turn_credit(gamma, normalize)(sequences())
    torch.testing.assert_close(got, by_hand(normalize, gamma), rtol=1e-5, atol=1e-5)


def test_without_gains_it_is_the_group_standardized_score():
    seq = sequences([[0.0] * len(g) for g in GAIN])
    torch.testing.assert_close(turn_credit()(seq), group_standardized()(seq))


def test_equal_scores_leave_the_gains():
    seq = sequences()
    seq.reward = torch.zeros(4, T)
    assert (group_standardized()(seq) == 0).all()
    credit = turn_credit()(seq)
    assert credit[0, 0] != 0 and credit[0, 6] == 0  # nothing was learned after the last turn


def test_turns_end_at_their_last_decision():
    ends = turn_ends(sequences())
    assert [row.nonzero()[:, 0].tolist() for row in ends] == [[1, 3, 6], [0, 4], [2], [0, 2, 5]]


def test_within_a_turn_nothing_is_discounted():
    seq = sequences()
    back = discounted_by_turn(seq.reward, seq, 0.5)
    assert back[0].tolist() == [0.25, 0.25, 0, 0.5, 0, 0, 1]


def test_an_unknown_normalization_names_those_there_are():
    with pytest.raises(InputError, match=r"normalize='appart'.*did you mean.*apart"):
        turn_credit(normalize="appart")(sequences())
