"""From columns of numbers to `Transitions`, checked: what is wrong is said by column and row.

Columns are known by several names, those of D4RL, d3rlpy, Minari and OGBench among them. Rows are
counted from 1, as in every message about a log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from tensordict import TensorDict

from surpass.data.files import at
from surpass.data.records import About, Transitions
from surpass.errors import InputError

__all__ = ["NAMES_OF", "columns_of", "from_columns"]

NAMES_OF: dict[str, tuple[str, ...]] = {
    "obs": ("obs", "observations", "observation"),
    "action": ("action", "actions"),
    "reward": ("reward", "rewards"),
    "next_obs": ("next_obs", "next_observations", "next_observation"),
    "terminated": ("terminated", "terminals", "terminal", "terminations"),
    "truncated": ("truncated", "timeouts", "timeout", "truncations"),
    "episode": ("episode", "episode_id", "episodes"),
    "behavior_logp": (
        "behavior_logp", "infos/action_log_probs", "infos/behavior_logp", "action_log_probs",
        "infos/logp", "logp",
    ),
    "available": ("available",),
    "cost": ("cost", "costs"),
    "goal": ("goal", "goals"),
    "instrument": ("instrument",),
    "weight": ("weight",),
    "source": ("source",),
    "task": ("task",),
}  # fmt: skip
"""What a column may be called, by the field of `Transitions` that it fills."""

_FLOATS = ("obs", "reward", "next_obs", "behavior_logp", "cost", "goal", "instrument", "weight")
_NEEDED = {
    "obs": "give the observations, one row per step",
    "action": "give the actions, one row per step",
    "reward": "give the rewards, one per step",
    "terminated": "say which steps ended their episode for good (terminated, terminals), all false "
    "where episodes only run out of time; it is not guessed",
}


def from_columns(
    columns: Mapping[str, Any],
    name: str = "log",
    *,
    spaces: Mapping[str, Any] | None = None,
    actions: tuple[str, ...] = (),
    provenance: Mapping[str, Any] | None = None,
) -> Transitions:
    """Steps in order, as arrays by name, to a checked log.

    Where `next_obs` is missing it is the observation of the next row; the last row of an episode
    that was truncated then has none, so it is dropped and the row before it is the truncated one
    (`about.provenance["dropped"]` counts them).

    Args:
        columns: arrays [N] or [N, ...] by a name of `NAMES_OF`; columns named `extras/...` are kept
            as extras. A truncated row that is terminated too counts as terminated.
        name: what errors call the log.
        spaces: shapes and bounds that the rows have to keep, as in `About.spaces`.
        actions: names of discrete actions.
        provenance: how the log was made.

    Raises:
        InputError: when a column is missing, has another length, holds NaN or infinity, an action
            lies outside its bounds, or an episode does not end.
    """
    called, found = _found(columns, name)
    spaces = dict(spaces or {})
    rows = len(found["obs"])
    if rows == 0:
        raise at(name, None, None, "the log has no steps", "give at least one episode")
    for field, held in found.items():
        if len(held) != rows:
            raise at(
                name, called[field], None,
                f"has {len(held)} rows, but {called['obs']} has {rows}", "write one row per step",
            )  # fmt: skip
    for field in _FLOATS:
        if field in found:
            found[field] = _finite(found[field], name, called[field])
    found["action"] = _actions(found["action"], spaces, name, called["action"])
    _shapes(found, called, spaces, name)
    for field in ("terminated", "truncated"):
        held = found.get(field, np.zeros(rows, dtype=bool))
        found[field] = _flags(held, name, called.get(field, field))
    found["truncated"] = found["truncated"] & ~found["terminated"]
    found["episode"] = _episodes(found, called, name)
    if "behavior_logp" in found and found["action"].dtype.kind == "i":
        above = np.flatnonzero(found["behavior_logp"] > 1e-6)
        if len(above):
            row = int(above[0])
            raise at(
                name, called["behavior_logp"], row + 1,
                f"{float(found['behavior_logp'][row]):g} is above 0",
                "log the logarithm of the probability of the action",
            )  # fmt: skip
    dropped = 0
    if "next_obs" not in found:
        found, dropped = _with_next(found, name)
    origin = {**(provenance or {}), **({"dropped": dropped} if dropped else {})}
    about = About(name=name, actions=actions, spaces=spaces, provenance=origin)
    return _record(found).described(about)


def _found(columns: Mapping[str, Any], name: str) -> tuple[dict[str, str], dict[str, Any]]:
    called: dict[str, str] = {}
    for field, names in NAMES_OF.items():
        known = [n for n in names if n in columns]
        if known:
            called[field] = known[0]
    for field, mend in _NEEDED.items():
        if field not in called:
            like = ", ".join(list(columns)[:6]) or "nothing"
            raise at(name, None, None, f"there is no column {field} (it has {like})", mend)
    found = {field: np.asarray(columns[n]) for field, n in called.items()}
    for key in columns:
        if key.startswith("extras/"):
            called[key], found[key] = key, np.asarray(columns[key])
    for field, held in found.items():
        if held.dtype.kind not in "fiub":
            raise at(name, called[field], None, f"holds {held.dtype}, not numbers",
                     "write arrays of numbers")  # fmt: skip
    return called, found


def _finite(held: np.ndarray, name: str, column: str) -> np.ndarray:
    bad = ~np.isfinite(held)
    if bad.any():
        place = np.argwhere(bad)[0]
        where = f"dimension {', '.join(str(i) for i in place[1:])} " if len(place) > 1 else ""
        value = float(held[tuple(place)])
        what = "is NaN" if np.isnan(value) else f"is {value:g}"
        raise at(name, column, int(place[0]) + 1, f"{where}{what}",
                 "every number has to be finite; drop the episode or mend the logger")  # fmt: skip
    return held.astype(np.float32)


def _actions(
    held: np.ndarray, spaces: Mapping[str, Any], name: str, column: str
) -> np.ndarray:  # fmt: skip
    discrete = held.dtype.kind in "iub"
    if spaces.get("n_actions") and not discrete and np.equal(np.floor(held), held).all():
        discrete = True
    if discrete:
        whole = held.reshape(len(held), -1)
        if whole.shape[1] != 1:
            raise at(
                name, column, None, f"holds whole numbers of shape {list(held.shape[1:])}",
                "discrete actions are one number per step, continuous ones decimals",
            )  # fmt: skip
        whole = whole[:, 0].astype(np.int64)
        most = spaces.get("n_actions")
        wrong = np.flatnonzero((whole < 0) | (whole >= (most or np.iinfo(np.int64).max)))
        if len(wrong):
            row = int(wrong[0])
            last = f"0 .. {most - 1}" if most else "0 or more"
            raise at(name, column, row + 1, f"action {whole[row]} is not in {last}",
                     "number the actions from 0")  # fmt: skip
        return whole
    values = _finite(held, name, column)
    values = values[:, None] if values.ndim == 1 else values.reshape(len(values), -1)
    if "action_low" in spaces:
        shape = values.shape[1]
        low, high = (_bound(spaces[k], shape, name, k) for k in ("action_low", "action_high"))
        outside = (values < low - 1e-4) | (values > high + 1e-4)
        if outside.any():
            row, k = (int(i) for i in np.argwhere(outside)[0])
            raise at(
                name, column, row + 1,
                f"dimension {k} is {values[row, k]:g}, outside [{low[k]:g}, {high[k]:g}]",
                "clip the actions before they are logged, or state the right bounds",
            )  # fmt: skip
    return values


def _bound(value: Any, k: int, name: str, which: str) -> np.ndarray:
    held = np.asarray(value, dtype=np.float64).reshape(-1)
    if held.size not in (1, k):
        raise at(name, None, None, f"{which} has {held.size} numbers, actions have {k}",
                 "state one bound per dimension")  # fmt: skip
    return np.broadcast_to(held, (k,))


def _shapes(
    found: Mapping[str, Any], called: Mapping[str, str], spaces: Mapping[str, Any], name: str
) -> None:
    shape = found["obs"].shape[1:]
    if "next_obs" in found and found["next_obs"].shape[1:] != shape:
        raise at(
            name, called["next_obs"], None,
            f"has shape {list(found['next_obs'].shape[1:])} per row, but {called['obs']} has "
            f"{list(shape)}", "write both alike",
        )  # fmt: skip
    stated = spaces.get("obs")
    if stated is not None and tuple(stated) != tuple(shape):
        raise at(name, called["obs"], None,
                 f"has shape {list(shape)} per row, but the log says {list(stated)}",
                 "state the right shape")  # fmt: skip
    stated = spaces.get("action")
    if stated is not None and tuple(stated) != tuple(found["action"].shape[1:]):
        raise at(name, called["action"], None,
                 f"has shape {list(found['action'].shape[1:])} per row, but the log says "
                 f"{list(stated)}", "state the right shape")  # fmt: skip
    for field in ("reward", "terminated", "truncated", "episode", "behavior_logp"):
        if field in found and found[field].reshape(len(found[field]), -1).shape[1] != 1:
            raise at(
                name, called[field], None,
                f"has shape {list(found[field].shape[1:])} per row", "write one number a step",
            )  # fmt: skip


def _flags(held: np.ndarray, name: str, column: str) -> np.ndarray:
    flat = held.reshape(len(held))
    odd = np.flatnonzero((flat != 0) & (flat != 1))
    if len(odd):
        row = int(odd[0])
        raise at(name, column, row + 1, f"{flat[row]} is neither true nor false",
                 "write true or false (1 or 0)")  # fmt: skip
    return flat.astype(bool)


def _episodes(found: Mapping[str, Any], called: Mapping[str, str], name: str) -> np.ndarray:
    """Numbers 0, 1, ... of the episodes, each checked to end in its last row and nowhere else."""
    ends = found["terminated"] | found["truncated"]
    rows = len(ends)
    if "episode" in found:
        given = found["episode"].reshape(rows)
        first = np.ones(rows, dtype=bool)
        first[1:] = given[1:] != given[:-1]
        starts = np.flatnonzero(first)
        again = np.flatnonzero(np.bincount(np.unique(given[starts], return_inverse=True)[1]) > 1)
        if len(again):
            which = np.unique(given[starts])[again[0]]
            raise at(
                name, called["episode"], None,
                f"episode {which} is in several places", "sort the rows by episode and step",
            )  # fmt: skip
    else:
        starts = np.concatenate([[0], np.flatnonzero(ends[:-1]) + 1])
    last = np.concatenate([starts[1:], [rows]]) - 1
    open_ = np.flatnonzero(~ends[last])
    if len(open_):
        begin, end = int(starts[open_[0]]) + 1, int(last[open_[0]]) + 1
        raise at(
            name, None, None, f"the episode in rows {begin} to {end} does not end",
            "mark its last row as truncated (timeouts), or leave the episode out",
        )  # fmt: skip
    inner = ends.copy()
    inner[last] = False
    if inner.any():
        raise at(
            name, None, int(np.flatnonzero(inner)[0]) + 1,
            "an episode goes on after its end", "give what follows another episode number",
        )  # fmt: skip
    number = np.zeros(rows, dtype=np.int64)
    number[starts[1:]] = 1
    return number.cumsum()


def _with_next(found: dict[str, Any], name: str) -> tuple[dict[str, Any], int]:
    """The next row's observation as `next_obs`; truncated last rows, which have none, are
    dropped."""
    rows = len(found["obs"])
    found["next_obs"] = np.concatenate([found["obs"][1:], found["obs"][-1:]])
    lost = found["truncated"].copy()
    if not lost.any():
        return found, 0
    new_end = np.zeros(rows, dtype=bool)
    new_end[:-1] = lost[1:] & (found["episode"][1:] == found["episode"][:-1])
    found["truncated"] = new_end
    kept = {field: held[~lost] for field, held in found.items()}
    if len(kept["obs"]) == 0:
        raise at(name, None, None, "every episode is one truncated step without a next observation",
                 "give next_observations")  # fmt: skip
    kept["episode"] = np.unique(kept["episode"], return_inverse=True)[1]
    return kept, int(lost.sum())


def _record(found: Mapping[str, Any]) -> Transitions:
    rows = len(found["obs"])
    fields: dict[str, Any] = {
        k: torch.from_numpy(np.require(v, requirements=["C", "W"]))
        for k, v in found.items()
        if not k.startswith("extras/")
    }
    for field in ("reward", "behavior_logp", "cost", "instrument", "weight"):
        if field in fields:
            fields[field] = fields[field].reshape(rows)
    for field in ("source", "task"):
        if field in fields:
            fields[field] = fields[field].reshape(rows).long()
    if "available" in fields:
        fields["available"] = fields["available"].reshape(rows, -1).bool()
    extras = {
        k.removeprefix("extras/"): torch.from_numpy(np.require(v, requirements=["C", "W"]))
        for k, v in found.items()
        if k.startswith("extras/")
    }
    if extras:
        fields["extras"] = TensorDict(extras, batch_size=[rows])
    return cast(Transitions, Transitions(**fields, batch_size=[rows]))  # pyright: ignore[reportCallIssue]


def columns_of(log: Transitions, *, d4rl: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a log by name; with `d4rl` by the names that D4RL's readers know.

    Raises:
        InputError: when the log is not on the processor's memory and cannot be copied there.
    """
    names = {
        "obs": "observations", "action": "actions", "reward": "rewards",
        "next_obs": "next_observations", "terminated": "terminals", "truncated": "timeouts",
        "behavior_logp": "infos/behavior_logp",
    }  # fmt: skip
    out: dict[str, np.ndarray] = {}
    for field in NAMES_OF:
        held = getattr(log, field)
        if held is not None:
            out[names.get(field, field) if d4rl else field] = held.detach().cpu().numpy()
    if log.extras is not None:
        for key, held in log.extras.items():
            out[f"extras/{key}"] = held.detach().cpu().numpy()
    if not out:
        raise InputError("the log has no columns")
    return out
