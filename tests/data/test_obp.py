"""Open Bandit Pipeline's feedback dict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from surpass.data import from_obp, open_log
from surpass.errors import InputError


@pytest.fixture
def feedback() -> dict[str, Any]:
    """Five rounds, three actions, two positions, as `obtain_batch_bandit_feedback` gives them."""
    pi_b = np.zeros((5, 3, 2))
    pi_b[:, :, 0] = [0.2, 0.3, 0.5]
    pi_b[:, :, 1] = [0.1, 0.1, 0.8]
    action, position = np.array([0, 1, 2, 0, 2]), np.array([0, 1, 1, 1, 0])
    return {
        "n_rounds": 5, "n_actions": 3, "context": np.arange(10.0).reshape(5, 2), "action": action,
        "position": position, "reward": np.array([0, 1, 0, 1, 1]), "pi_b": pi_b,
        "pscore": pi_b[np.arange(5), action, position], "action_context": np.eye(3),
    }  # fmt: skip


def test_as_it_is(feedback: dict[str, Any]) -> None:
    log = from_obp(feedback)
    assert log.action.tolist() == [0, 1, 2, 0, 2]
    assert log.propensity.tolist() == [0.2, 0.1, 0.8, 0.1, 0.5]
    assert log.propensities is not None
    assert log.propensities.tolist() == [
        [0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.1, 0.1, 0.8], [0.1, 0.1, 0.8], [0.2, 0.3, 0.5],
    ]  # fmt: skip
    assert log.position is not None and log.position.tolist() == [0, 1, 1, 1, 0]
    assert log.context.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert torch.equal(log.about.action_features, torch.eye(3))  # type: ignore[arg-type]
    assert log.n_actions == 3


def test_real_logs_have_no_full_rows(feedback: dict[str, Any]) -> None:
    log = from_obp({**feedback, "pi_b": None, "action_context": None, "position": None})
    assert log.propensities is None and log.position is None
    assert log.propensity.tolist() == [0.2, 0.1, 0.8, 0.1, 0.5]


def test_synthetic_feedback_knows_its_truth(feedback: dict[str, Any]) -> None:
    expected = np.tile([0.1, 0.5, 0.9], (5, 1))
    one_slot = {
        **feedback, "pi_b": feedback["pi_b"][:, :, :1], "position": None,
        "pscore": np.array([0.2, 0.3, 0.5, 0.2, 0.5]),
    }  # fmt: skip
    opened = open_log({**one_slot, "expected_reward": expected})
    assert opened.truth is not None
    assert opened.truth.value() == pytest.approx(0.2 * 0.1 + 0.3 * 0.5 + 0.5 * 0.9)
    assert opened.truth.best == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        (
            "pscore",
            None,
            "'pscore' is missing; give the dict of obtain_batch_bandit_feedback()",
        ),
        (
            "pscore",
            [0.2, 0.1, 0.0, 0.1, 0.5],
            "column 'pscore', row 3: 0 is not a probability in (0, 1]; mend or drop the row",
        ),
        (
            "pscore",
            [0.2, 0.1, 0.8, 0.3, 0.5],
            "column 'pscore', row 4: 0.3 is not pi_b of the logged action, 0.1; "
            "give the propensity of the action that was taken",
        ),
        (
            "action",
            [0, 1, 3, 0, 2],
            "column 'action', row 3: 3 is none of the 3 actions; mend or drop the row",
        ),
        (
            "reward",
            [0, 1, 0, np.nan, 1],
            "column 'reward', row 4: nan is not a finite reward; mend or drop the row",
        ),
        (
            "pi_b",
            np.tile([[0.2], [0.3], [0.4]], (5, 1, 2)),
            "column 'pi_b', row 1: the probabilities sum to 0.9, not to 1; give the probability of "
            "every action",
        ),
        (
            "reward",
            [0, 1],
            "column 'reward': 2 rows, but 5 actions; give one per round",
        ),
    ],
)
def test_bad_feedback(feedback: dict[str, Any], key: str, value: Any, wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        from_obp({**feedback, key: value})
    assert str(caught.value) == f"bandit feedback: {wanted}"
