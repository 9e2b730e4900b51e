"""Logs of episodes come back as they were written, by us and by others; bad ones say why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from surpass.data import open_log, write_trajectories
from surpass.data.episodes import from_columns
from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.tasks.point import point_log

Columns = dict[str, np.ndarray]


@pytest.fixture
def columns() -> Columns:
    """Two episodes of three steps: one terminates, one runs out of time."""
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(6, 2)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(6, 1)).astype(np.float32),
        "rewards": np.arange(6, dtype=np.float32),
        "next_observations": rng.normal(size=(6, 2)).astype(np.float32),
        "terminals": np.array([0, 0, 1, 0, 0, 0], dtype=bool),
        "timeouts": np.array([0, 0, 0, 0, 0, 1], dtype=bool),
    }


def same(a: Transitions, b: Transitions) -> None:
    for field in ("obs", "action", "reward", "next_obs", "terminated", "truncated", "episode"):
        assert torch.equal(getattr(a, field), getattr(b, field)), field
    assert (a.behavior_logp is None) == (b.behavior_logp is None)
    if a.behavior_logp is not None and b.behavior_logp is not None:
        assert torch.equal(a.behavior_logp, b.behavior_logp)


@pytest.mark.parametrize("ending", [".hdf5", ".npz", ".parquet"])
def test_our_own_files_keep_every_column_and_the_bounds(tmp_path, ending):
    log = point_log("medium", 180)
    path = write_trajectories(log, tmp_path / f"log{ending}")
    back: Any = open_log(path).read()
    same(log, back)
    assert back.about.spaces["action_low"] == -1.0
    assert torch.equal(log.extras["aim"], back.extras["aim"])  # type: ignore[index]


def test_d4rl_files_with_their_own_names_are_read(tmp_path, columns):
    path = tmp_path / "d4rl.hdf5"
    with h5py.File(path, "w") as file:
        for name, held in columns.items():
            file[name] = held
        file["infos/action_log_probs"] = -np.arange(6, dtype=np.float32)
        file["infos/qpos"] = np.zeros((6, 5))
        file["metadata/algorithm"] = "SAC"
    log: Any = open_log(path).read()
    assert log.episode.tolist() == [0, 0, 0, 1, 1, 1]
    assert log.terminated.tolist() == [False, False, True, False, False, False]
    assert log.truncated.tolist() == [False] * 5 + [True]
    assert log.behavior_logp.tolist() == [0, -1, -2, -3, -4, -5]
    assert log.extras is None


def test_without_next_observations_the_next_row_is_meant_and_cut_ends_are_dropped(columns):
    del columns["next_observations"]
    log = from_columns(columns)
    assert log.reward.tolist() == [0, 1, 2, 3, 4]
    assert log.truncated.tolist() == [False, False, False, False, True]
    assert torch.equal(
        log.next_obs[[0, 1, 3, 4]], torch.from_numpy(columns["observations"])[[1, 2, 4, 5]]
    )
    assert log.about.provenance["dropped"] == 1


def test_ogbench_terminals_stop_a_trajectory_but_do_not_terminate_it(tmp_path):
    path = tmp_path / "ogbench.npz"
    obs = np.arange(8, dtype=np.float32).reshape(8, 1)
    stops = np.array([0, 0, 0, 1, 0, 0, 0, 1], dtype=np.float32)
    np.savez(path, observations=obs, actions=np.zeros((8, 1), np.float32), terminals=stops)
    log: Any = open_log(path).read()
    assert log.obs[:, 0].tolist() == [0, 1, 2, 4, 5, 6]
    assert log.next_obs[:, 0].tolist() == [1, 2, 3, 5, 6, 7]
    assert not log.terminated.any() and log.truncated.nonzero()[:, 0].tolist() == [2, 5]
    masks = np.array([1, 1, 1, 0, 1, 1, 1, 1], dtype=np.float32)
    np.savez(path, observations=obs, actions=np.zeros((8, 1), np.float32), terminals=stops,
             masks=masks, rewards=-masks, next_observations=obs + 1)  # fmt: skip
    log = open_log(path).read()
    assert log.terminated.nonzero()[:, 0].tolist() == [3]
    assert log.truncated.nonzero()[:, 0].tolist() == [7]


def test_minari_loads_what_was_written_and_we_read_it_back(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    log = point_log("medium", 180)
    write_trajectories(log, "minari:point/medium-v0", algorithm_name="PD controller")
    theirs = minari.load_dataset("point/medium-v0")
    assert (theirs.total_episodes, theirs.total_steps) == (3, 180)
    assert np.allclose(next(theirs.iterate_episodes()).rewards, log.reward[:60].numpy())
    same(log, open_log("minari:point/medium-v0").read())  # type: ignore[arg-type]
    same(log, open_log(tmp_path / "point" / "medium-v0").read())  # type: ignore[arg-type]


def put(name: str, row: int, value: Any) -> Callable[[Columns], None]:
    def change(columns: Columns) -> None:
        held = columns[name].astype(float)
        held[(row - 1, *[0] * (held.ndim - 1))] = value
        columns[name] = held

    return change


FINITE = "every number has to be finite; drop the episode or mend the logger"
BAD: list[tuple[Callable[[Columns], Any], str]] = [
    (
        lambda c: c.pop("terminals"),
        "log: there is no column terminated (it has observations, actions, rewards, "
        "next_observations, timeouts); say which steps ended their episode for good (terminated, "
        "terminals), all false where episodes only run out of time; it is not guessed",
    ),
    (
        lambda c: c.update(actions=c["actions"][:5]),
        "log: column 'actions': has 5 rows, but observations has 6; write one row per step",
    ),
    (
        lambda c: c.update(next_observations=np.zeros((6, 3))),
        "log: column 'next_observations': has shape [3] per row, but observations has [2]; write "
        "both alike",
    ),
    (put("observations", 4, np.nan),
     f"log: column 'observations', row 4: dimension 0 is NaN; {FINITE}"),
    (put("rewards", 2, np.inf), f"log: column 'rewards', row 2: is inf; {FINITE}"),
    (
        put("actions", 3, 1.5),
        "log: column 'actions', row 3: dimension 0 is 1.5, outside [-1, 1]; clip the actions "
        "before they are logged, or state the right bounds",
    ),
    (
        lambda c: c.update(timeouts=np.zeros(6)),
        "log: the episode in rows 4 to 6 does not end; mark its last row as truncated (timeouts), "
        "or leave the episode out",
    ),
    (
        lambda c: c.update(episode=np.array([0, 0, 0, 0, 1, 1])),
        "log: the episode in rows 1 to 4 does not end; mark its last row as truncated (timeouts), "
        "or leave the episode out",
    ),
    (
        lambda c: c.update(episode=np.zeros(6)),
        "log: row 3: an episode goes on after its end; give what follows another episode number",
    ),
    (
        put("terminals", 2, 0.5),
        "log: column 'terminals', row 2: 0.5 is neither true nor false; write true or false "
        "(1 or 0)",
    ),
    (
        lambda c: c.update(actions=np.array(list("abcdef"))),
        "log: column 'actions': holds <U1, not numbers; write arrays of numbers",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "line"), BAD)
def test_bad_episodes_are_refused_in_one_exact_line(columns, change, line):
    change(columns)
    with pytest.raises(InputError) as caught:
        from_columns(columns, spaces={"action_low": -1.0, "action_high": 1.0})
    assert str(caught.value) == line


def test_discrete_actions_are_checked_against_their_number_and_their_logp(columns):
    columns["actions"] = np.array([0, 1, 2, 3, 0, 1])
    with pytest.raises(InputError, match=r"row 4: action 3 is not in 0 .. 2; number the actions"):
        from_columns(columns, spaces={"n_actions": 3})
    columns["behavior_logp"] = np.array([-1.0, 0.2, -1, -1, -1, -1])
    with pytest.raises(InputError, match=r"column 'behavior_logp', row 2: 0.2 is above 0; log the"):
        from_columns(columns)


def test_broken_files_and_foreign_options_are_refused(tmp_path: Path):
    broken = tmp_path / "x.hdf5"
    broken.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    with pytest.raises(InputError, match=r"x.hdf5: is not a whole HDF5 file \(.*copy or write it"):
        open_log(broken)
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(InputError, match=r"x.npz: is not a whole npz file"):
        open_log(tmp_path / "x.npz")
    with pytest.raises(InputError, match=r"y.hdf5 does not exist; give an HDF5, npz or Parquet"):
        open_log(tmp_path / "y.hdf5")
    good = write_trajectories(point_log("medium", 60), tmp_path / "good.hdf5")
    with pytest.raises(InputError, match=r"reward=... does not fit .*good.hdf5, a log of episodes"):
        open_log(good, reward="r")
    with pytest.raises(InputError, match=r"episodes are not written as .csv; end the name in"):
        write_trajectories(point_log("medium", 60), tmp_path / "good.csv")


def test_vectors_of_different_lengths_in_parquet_are_named(tmp_path: Path):
    path = tmp_path / "log.parquet"
    table = pa.table({"obs": [[0.0, 1.0], [0.0]], "terminated": [False, True]})
    pq.write_table(table, path)
    with pytest.raises(InputError, match=r"'obs', row 2: has 1 numbers, the rows before have 2"):
        open_log(path)
