"""Open Bandit Pipeline's feedback dict, taken as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from surpass.data.arrays import first_true
from surpass.data.checks import SUM_TOLERANCE, summing_to_one
from surpass.data.files import at
from surpass.data.records import About, Decisions
from surpass.data.truth import Truth
from surpass.errors import InputError

__all__ = ["from_obp", "truth_of_obp"]

_NAME = "bandit feedback"


def from_obp(feedback: Mapping[str, Any]) -> Decisions:
    """Decisions from `n_rounds, n_actions, context, action, reward, pscore`, and where there are,
    `position`, `pi_b` [N, A, positions] (the row of the logged position becomes `propensities`)
    and `action_context` [A, k].

    Raises:
        InputError: when an entry is missing or a row is bad.
    """
    for key in ("n_actions", "context", "action", "reward", "pscore"):
        if feedback.get(key) is None:
            raise InputError(
                f"{_NAME}: {key!r} is missing; give the dict of obtain_batch_bandit_feedback()"
            )
    action = np.asarray(feedback["action"]).astype(np.int64)
    n, a = len(action), int(feedback["n_actions"])
    columns = {
        k: np.asarray(feedback[k], dtype=np.float64) for k in ("reward", "pscore", "context")
    }
    for key, values in columns.items():
        if len(values) != n:
            raise at(_NAME, key, None, f"{len(values)} rows, but {n} actions", "give one per round")
    position = feedback.get("position")
    position = None if position is None else np.asarray(position).astype(np.int64)
    _check_rows(action, columns["reward"], columns["pscore"], a)
    full = _propensities(feedback.get("pi_b"), position, action, columns["pscore"], a)
    own = columns["pscore"] if full is None else full[np.arange(n), action]
    features = feedback.get("action_context")
    context = columns["context"]
    about = About(
        name=_NAME,
        actions=tuple(str(k) for k in range(a)),
        action_features=None if features is None else torch.as_tensor(np.asarray(features)).float(),
        names={"context": tuple(f"context[{j}]" for j in range(context.shape[1]))},
        provenance={"source": "Open Bandit Pipeline"},
    )
    return Decisions(
        context=torch.from_numpy(context).float(),
        action=torch.from_numpy(action),
        reward=torch.from_numpy(columns["reward"]),
        propensity=torch.from_numpy(own),
        propensities=None if full is None else torch.from_numpy(full),
        position=None if position is None else torch.from_numpy(position),
        batch_size=[n],  # type: ignore[call-arg]
    ).described(about)


def _check_rows(action: np.ndarray, reward: np.ndarray, pscore: np.ndarray, a: int) -> None:
    checks = (
        ("action", ~((action >= 0) & (action < a)), action, f"is none of the {a} actions"),
        ("reward", ~np.isfinite(reward), reward, "is not a finite reward"),
        ("pscore", ~((pscore > 0) & (pscore <= 1)), pscore, "is not a probability in (0, 1]"),
    )
    for name, bad, values, what in checks:
        if (i := first_true(bad)) is not None:
            raise at(_NAME, name, i + 1, f"{values[i]:g} {what}", "mend or drop the row")


def _propensities(
    pi_b: Any, position: np.ndarray | None, action: np.ndarray, pscore: np.ndarray, a: int
) -> np.ndarray | None:
    if pi_b is None:
        return None
    table = np.asarray(pi_b, dtype=np.float64)
    if table.ndim == 3:
        slot = np.zeros(len(action), dtype=np.int64) if position is None else position
        table = table[np.arange(len(action)), :, slot]
    if table.shape != (len(action), a):
        raise at(_NAME, "pi_b", None, f"has the shape {table.shape}", f"give [{len(action)}, {a}]")
    totals = table.sum(1)
    if (i := first_true(~(np.abs(totals - 1) <= SUM_TOLERANCE))) is not None:
        raise at(_NAME, "pi_b", i + 1, f"the probabilities sum to {totals[i]:.6g}, not to 1",
                 "give the probability of every action")  # fmt: skip
    own = table[np.arange(len(action)), action]
    if (i := first_true(np.abs(own - pscore) > 1e-3 * pscore + 1e-6)) is not None:
        raise at(
            _NAME, "pscore", i + 1, f"{pscore[i]:g} is not pi_b of the logged action, {own[i]:g}",
            "give the propensity of the action that was taken",
        )  # fmt: skip
    return summing_to_one(table)


def truth_of_obp(feedback: Mapping[str, Any]) -> Truth | None:
    """The truth of synthetic feedback, whose `expected_reward` [N, A] is known in its own rounds;
    else None."""
    expected, pi_b = feedback.get("expected_reward"), feedback.get("pi_b")
    if expected is None or pi_b is None:
        return None
    table = np.asarray(pi_b, dtype=np.float64)
    return Truth(
        torch.as_tensor(np.asarray(feedback["context"])).float(),
        torch.as_tensor(np.asarray(expected, dtype=np.float64)),
        torch.from_numpy(table[:, :, 0] if table.ndim == 3 else table),
    )
