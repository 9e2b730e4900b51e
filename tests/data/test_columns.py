"""Which column is what."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from surpass.data.columns import Columns, guess
from surpass.errors import InputError


def roles(columns: dict[str, Any], **given: Any) -> Columns:
    table = pa.table(columns)
    return guess(table.schema, table, "log", **given)


BASE: dict[str, Any] = {"action": ["a", "b"], "reward": [0.0, 1.0], "propensity": [0.5, 0.5]}


@pytest.mark.parametrize(
    "names",
    [
        ("item_id", "click", "propensity_score"),
        ("Arm", "Reward", "PScore"),
        ("chosen_action", "converted", "action-prob"),
        ("a", "r", "p"),
    ],
)
def test_the_three_that_every_log_has(names: tuple[str, str, str]) -> None:
    held = dict(zip(names, ([1, 2], [0.0, 1.0], [0.5, 0.5]), strict=True))
    found = roles(held)
    assert (found.action, found.reward, found.propensity) == names
    assert found.context == ()


def test_the_rest_is_context_and_what_comes_after_the_decision_is_not() -> None:
    found = roles(
        {
            **BASE, "Unnamed: 0": [0, 1], "user_id": [7, 8], "shown": [1, 2], "timestamp": [1, 2],
            "click": [1, 0], "pscore": [0.4, 0.4], "slot": [1, 2], "cost": [0.1, 0.2],
            "event_id": ["x", "y"], "age": [30, 40],
        }
    )  # fmt: skip
    assert found.context == ("shown", "age", "slot")
    assert (found.time, found.position, found.group) == ("timestamp", "slot", "user_id")
    assert (found.cost, found.row_id) == ("cost", "event_id")
    assert found.ignored == {
        "Unnamed: 0": "an index",
        "click": "looks like another outcome",
        "pscore": "looks like another propensity",
    }
    assert ("ignored", "click", "looks like another outcome") in found.table()
    assert ("context", "shown, age, slot", "guessed") in found.table()


def test_given_roles_win_and_say_so() -> None:
    found = roles(
        {**BASE, "bought": [0, 1], "who": [1, 2], "age": [3, 4], "city": ["x", "y"]},
        reward="bought", group="who", context="age",
    )  # fmt: skip
    assert (found.reward, found.group, found.context) == ("bought", "who", ("age",))
    assert found.how["reward"] == "given" and found.how["action"] == "guessed"
    assert found.ignored == {"reward": "looks like another outcome", "city": "not asked"}


def test_the_only_moment_is_the_time() -> None:
    moments = pa.array([0, 1], pa.timestamp("s"))
    assert roles({**BASE, "shown_at": moments}).time == "shown_at"
    two = roles({**BASE, "shown_at": moments, "joined_at": moments})
    assert two.time is None and two.context == ("shown_at", "joined_at")


def test_none_means_no_such_role() -> None:
    found = roles({**BASE, "user_id": [1, 2], "time": [1, 2]}, group="none", time="none")
    assert found.group is None and found.time is None
    assert found.context == ("user_id", "time")


def test_full_rows_are_told_from_context_by_the_actions() -> None:
    held = {**BASE, "propensity_b": [0.5, 0.5], "propensity_a": [0.5, 0.5], "prob_rain": [0.1, 0.2]}
    found = roles(held)
    assert found.propensities == ("propensity_a", "propensity_b")
    assert found.actions == ("a", "b")
    assert found.context == ("prob_rain",)
    lonely = roles({**BASE, "prob_rain": [0.1, 0.2], "prob_snow": [0.1, 0.2]})
    assert lonely.propensities == () and lonely.context == ("prob_rain", "prob_snow")


def test_numbered_actions_are_in_numeric_order() -> None:
    held = {f"propensity_{k}": [1 / 12] * 2 for k in (10, 11, *range(10))}
    found = roles({"action": [3, 11], "reward": [0, 1], **held})
    assert found.actions == tuple(str(k) for k in range(12))
    assert found.propensities == tuple(f"propensity_{k}" for k in range(12))
    assert found.propensity is None


def test_a_prefix_names_full_rows() -> None:
    held = {"action": ["a", "b"], "reward": [0, 1], "mu.b": [0.5, 0.5], "mu.a": [0.5, 0.5]}
    found = roles(held, propensity="mu")
    assert found.propensities == ("mu.a", "mu.b") and found.actions == ("a", "b")


def test_a_list_column_of_propensities() -> None:
    for name in ("propensities", "propensity"):
        found = roles({"action": [0, 1], "reward": [0, 1], name: [[0.5, 0.5]] * 2})
        assert found.propensities == (name,) and found.propensity is None


def test_uniform_leaves_out_what_looks_like_propensities() -> None:
    held = {**BASE, "propensity_a": [0.5, 0.5], "propensity_b": [0.5, 0.5]}
    found = roles(held, propensity="uniform")
    assert found.propensity == "uniform" and found.propensities == ()


def test_action_and_reward_are_needed() -> None:
    with pytest.raises(InputError, match="--action cannot be none"):
        roles(BASE, action="none")
    with pytest.raises(InputError, match="no action column was recognized"):
        roles({"x": [1], "reward": [1], "propensity": [1]})
