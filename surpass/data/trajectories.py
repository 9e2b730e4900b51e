"""Logs of episodes in files: Minari, D4RL-style HDF5, npz (d3rlpy's and OGBench's), Parquet.

All are read to `Transitions`, and checked by `surpass.data.episodes`. Our own files are D4RL-style
HDF5 or Parquet with spaces and names beside the columns, so that D4RL's readers know the first and
any table tool the second.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surpass.data.episodes import NAMES_OF, columns_of, from_columns
from surpass.data.files import at
from surpass.data.records import Transitions
from surpass.errors import InputError, atomic, extra

__all__ = ["TrajectoryLog", "is_trajectories", "open_trajectories", "write_trajectories"]

_KEY = "surpass.episodes"
_HDF5 = (".hdf5", ".h5", ".hdf")


@dataclass(frozen=True)
class TrajectoryLog:
    """Episodes that are in memory; a `Log` whose records are `Transitions`."""

    name: str
    held: Transitions
    truth: Any = None
    columns: Any = None

    @property
    def rows(self) -> int:
        """How many steps there are."""
        return self.held.batch_size[0]

    def __len__(self) -> int:
        return self.rows

    def read(self) -> Transitions:
        """The steps."""
        return self.held

    def batches(self, rows: int = 65_536) -> Iterator[Transitions]:
        """The steps, `rows` at a time."""
        for start in range(0, self.rows, rows):
            yield self.held[start : start + rows]


def is_trajectories(data: Any) -> bool:
    """Whether a path or name is read here: HDF5, npz, a Minari data set, or a Parquet file with
    columns of episodes."""
    if isinstance(data, str) and data.startswith("minari:"):
        return True
    if not isinstance(data, str | Path):
        return False
    path = Path(data)
    if path.is_dir():
        return _minari_root(path) is not None
    ending = path.suffix.lower()
    if ending in (*_HDF5, ".npz"):
        return True
    if ending not in (".parquet", ".pq") or not path.is_file():
        return False
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return False  # the table reader says what is wrong with it
    names = set(schema.names)
    known = {f for f in ("obs", "terminated", "next_obs") if names & set(NAMES_OF[f])}
    return _KEY.encode() in (schema.metadata or {}) or ("obs" in known and len(known) > 1)


def open_trajectories(data: str | Path) -> TrajectoryLog:
    """A log of episodes.

    Args:
        data: an HDF5 or npz file, a Parquet file, the folder of a Minari data set, or
            `minari:ID` for one that Minari has on this machine.

    Raises:
        InputError: when it cannot be read, naming column and row.
        MissingExtra: when h5py or Minari is needed and not installed.
    """
    name = str(data)
    if name.startswith("minari:"):
        return TrajectoryLog(name, _read_minari(name.removeprefix("minari:"), name))
    path = Path(data)
    if not path.exists():
        raise InputError(f"{path} does not exist; give an HDF5, npz or Parquet file of episodes, "
                         "or the folder of a Minari data set")  # fmt: skip
    root = _minari_root(path)
    if root is not None:
        return TrajectoryLog(name, _read_minari(root, name))
    if path.suffix.lower() == ".npz":
        return TrajectoryLog(name, _read_npz(path))
    if path.suffix.lower() in _HDF5:
        return TrajectoryLog(name, _read_hdf5(path))
    return TrajectoryLog(name, _read_parquet(path))


def write_trajectories(log: Transitions, path: str | Path, **minari: Any) -> Path:
    """Write episodes: `.hdf5` (which D4RL's readers know), `.npz`, `.parquet`, or `minari:ID`.

    Args:
        log: the steps.
        path: where; the ending says what. `minari:point/medium-v0` puts the log among Minari's data
            sets, where `minari.load_dataset("point/medium-v0")` finds it.
        minari: what else Minari should note, such as `env="Hopper-v5"`, `algorithm_name="SAC"`.

    Raises:
        InputError: when the format is not known, or the file cannot be written.
    """
    if str(path).startswith("minari:"):
        return _write_minari(log, str(path).removeprefix("minari:"), minari)
    path = Path(path)
    about = log.about
    note = json.dumps(
        {"name": about.name, "actions": about.actions, "spaces": about.spaces,
         "provenance": about.provenance}, default=str,
    )  # fmt: skip
    ending = path.suffix.lower()
    if ending not in (*_HDF5, ".npz", ".parquet"):
        kind = ending or "a file without ending"
        raise InputError(
            f"{path}: episodes are not written as {kind}; end the name in .hdf5, .npz or .parquet"
        )
    try:
        with atomic(path) as temporary:
            if ending in _HDF5:
                with extra("h5py").File(temporary, "w") as file:
                    file.attrs[_KEY] = note
                    for column, held in columns_of(log, d4rl=True).items():
                        file.create_dataset(column, data=held)
            elif ending == ".npz":
                with temporary.open("wb") as stream:
                    arrays: dict[str, Any] = columns_of(log, d4rl=True)
                    save: Any = np.savez_compressed
                    save(stream, **{**arrays, _KEY: np.array(note)})
            else:
                columns = {k: _arrow(v) for k, v in columns_of(log).items()}
                table = pa.table(columns).replace_schema_metadata({_KEY: note})
                pq.write_table(table, temporary)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}; nothing was kept of it"
        ) from error
    return path


def _noted(text: Any, fallback: str) -> dict[str, Any]:
    try:
        note = json.loads(text) if text else {}
    except ValueError:
        note = {}
    return {
        "spaces": note.get("spaces") or {}, "actions": tuple(note.get("actions") or ()),
        "provenance": {**(note.get("provenance") or {}), "file": fallback},
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------
# HDF5, npz, Parquet


def _read_hdf5(path: Path) -> Transitions:
    h5py = extra("h5py")
    try:
        with h5py.File(path, "r") as file:
            columns: dict[str, Any] = {}

            def collect(name: str, held: Any) -> None:
                if isinstance(held, h5py.Dataset) and held.dtype.kind in "fiub" and held.shape:
                    columns[name] = held[()]

            file.visititems(collect)
            note = file.attrs.get(_KEY)
    except OSError as error:
        raise at(str(path), None, None, f"is not a whole HDF5 file ({_short(error)})",
                 "copy or write it again") from error  # fmt: skip
    wanted = {n for names in NAMES_OF.values() for n in names}
    kept = {k: v for k, v in columns.items() if k in wanted or k.startswith("extras/")}
    return from_columns(kept or columns, str(path), **_noted(note, str(path)))


def _read_npz(path: Path) -> Transitions:
    """d3rlpy's and D4RL's names, or OGBench's: there `terminals` marks where a trajectory stops,
    and `masks` is 0 where it reached an end; a file without rewards pays 0."""
    try:
        with np.load(path, allow_pickle=False) as file:
            columns: dict[str, Any] = {k: file[k] for k in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise at(str(path), None, None, f"is not a whole npz file ({_short(error)})",
                 "write arrays of numbers with numpy.savez") from error  # fmt: skip
    note = columns.pop(_KEY, None)
    told = _noted(None if note is None else str(note), str(path))
    steps = len(columns.get("observations", ()))
    names = set(columns)
    ogbench = "terminals" in names and not names & {"timeouts", "truncated", "terminated"}
    if ogbench and ("masks" in names or not names & set(NAMES_OF["reward"])):
        stops = np.asarray(columns["terminals"]) > 0
        masks = np.asarray(columns.get("masks", np.ones(steps)))
        columns["terminated"] = (masks == 0) & stops
        columns["truncated"] = stops & (masks != 0)
        del columns["terminals"]
        columns.setdefault("rewards", np.zeros(steps, dtype=np.float32))
        told["provenance"]["rewards"] = "logged" if "masks" in names else "none: 0 everywhere"
    return from_columns(columns, str(path), **told)


def _read_parquet(path: Path) -> Transitions:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise at(str(path), None, None, f"the Parquet file is damaged ({_short(error)})",
                 "copy or write it again") from error  # fmt: skip
    note = (table.schema.metadata or {}).get(_KEY.encode())
    columns = {n: _numbers(table[n], str(path), n) for n in table.column_names}
    return from_columns(
        {k: v for k, v in columns.items() if v is not None}, str(path), **_noted(note, str(path))
    )


def _arrow(held: np.ndarray) -> pa.Array:
    if held.ndim == 1:
        return pa.array(held)
    flat = held.reshape(len(held), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def _numbers(column: pa.ChunkedArray, file: str, name: str) -> np.ndarray | None:
    wanted = {n for names in NAMES_OF.values() for n in names}
    if name not in wanted and not name.startswith("extras/"):
        return None
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0]) + 1
        raise at(file, name, row, "the value is missing", "write a number in every row")
    held = column.combine_chunks()
    if pa.types.is_fixed_size_list(held.type) or pa.types.is_list(held.type):
        lengths = np.asarray(held.value_lengths())
        odd = np.flatnonzero(lengths != lengths[0]) if len(lengths) else []
        if len(odd):
            row = int(odd[0])
            raise at(file, name, row + 1,
                     f"has {lengths[row]} numbers, the rows before have {lengths[0]}",
                     "write vectors of one length")  # fmt: skip
        return held.flatten().to_numpy(zero_copy_only=False).reshape(len(held), -1)
    return held.to_numpy(zero_copy_only=False)


def _short(error: Exception) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:120]


# ----------------------------------------------------------------------------------------------
# Minari


def _minari_root(path: Path) -> Path | None:
    """The data folder of a Minari data set, from it, the folder around it, or the file inside."""
    for folder in (path, path / "data", path.parent):
        if (folder / "metadata.json").exists() and (folder / "main_data.hdf5").exists():
            return folder if path.is_dir() or path.name == "main_data.hdf5" else None
    return None


def _read_minari(where: str | Path, name: str) -> Transitions:
    minari = extra("minari")
    gymnasium: Any = extra("gymnasium")
    try:
        data = (
            minari.load_dataset(where)
            if isinstance(where, str)
            else minari.MinariDataset(where)
        )  # fmt: skip
    except (FileNotFoundError, ValueError, OSError) as error:
        raise InputError(f"{name}: Minari cannot open it ({_short(error)}); see minari list local, "
                         "or minari download ID") from error  # fmt: skip
    boxes = gymnasium.spaces
    space, acts = data.observation_space, data.action_space

    def flat(which: Any, held: Any) -> np.ndarray:
        if isinstance(which, boxes.Box | boxes.Discrete):
            return np.asarray(held).reshape(len(held), -1)
        if isinstance(which, boxes.Dict):
            return np.concatenate([flat(which[k], held[k]) for k in which], -1)
        raise InputError(f"{name}: {type(which).__name__} spaces are not read; "
                         "Box, Discrete and Dict of them are")  # fmt: skip

    parts: dict[str, list[np.ndarray]] = {}
    for number, episode in enumerate(data.iterate_episodes()):
        obs = flat(space, episode.observations)
        rows = len(episode.rewards)
        if len(obs) != rows + 1:
            raise at(name, "observations", None,
                     f"episode {number} has {len(obs)} observations for {rows} steps",
                     "write one more observation than steps")  # fmt: skip
        stops = np.asarray(episode.truncations)
        row = {
            "obs": obs[:-1], "next_obs": obs[1:], "reward": np.asarray(episode.rewards),
            "action": np.asarray(episode.actions) if isinstance(acts, boxes.Discrete)
            else flat(acts, episode.actions),
            "terminated": np.asarray(episode.terminations), "truncated": stops,
            "episode": np.full(rows, number),
        }  # fmt: skip
        infos = episode.infos or {}
        for key in ("behavior_logp", "action_log_probs", "logp"):
            if key in infos:
                row["behavior_logp"] = np.asarray(infos[key])[:rows]
                break
        for column, held in row.items():
            parts.setdefault(column, []).append(held)
    if not parts:
        raise at(name, None, None, "the data set has no episodes", "give at least one")
    columns = {k: np.concatenate(v) for k, v in parts.items() if len(v) == len(parts["obs"])}
    spaces: dict[str, Any] = {"obs": tuple(columns["obs"].shape[1:])}
    if isinstance(acts, boxes.Discrete):
        spaces["n_actions"] = int(acts.n)
    elif isinstance(acts, boxes.Box) and np.isfinite([acts.low, acts.high]).all():
        spaces |= {"action_low": acts.low.ravel().tolist(),
                   "action_high": acts.high.ravel().tolist()}  # fmt: skip
    origin = {"minari": str(getattr(data.spec, "dataset_id", where))}
    names = tuple(str(i) for i in range(spaces.get("n_actions", 0)))
    return from_columns(columns, name, spaces=spaces, actions=names, provenance=origin)


def _write_minari(log: Transitions, id: str, note: dict[str, Any]) -> Path:
    minari, gymnasium = extra("minari"), extra("gymnasium")
    buffers_of = extra("minari.data_collector").EpisodeBuffer
    held = columns_of(log)
    ends = np.flatnonzero(held["terminated"] | held["truncated"]) + 1
    buffers = []
    for number, (a, b) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        infos = {}
        if "behavior_logp" in held:  # Minari keeps one more info than steps
            infos["behavior_logp"] = np.append(held["behavior_logp"][a:b], np.float32(0.0))
        buffers.append(
            buffers_of(
                id=number,
                observations=np.concatenate([held["obs"][a:b], held["next_obs"][b - 1 : b]]),
                actions=held["action"][a:b], rewards=held["reward"][a:b],
                terminations=held["terminated"][a:b], truncations=held["truncated"][a:b],
                infos=infos,
            )
        )  # fmt: skip
    boxes: Any = gymnasium.spaces
    if held["action"].dtype.kind == "i":
        many = int(log.about.spaces.get("n_actions", held["action"].max() + 1))
        acts = boxes.Discrete(many)
    else:
        k = held["action"].shape[1]
        stated = log.about.spaces
        low, high = (
            np.broadcast_to(np.float32(stated.get(key, bound)), (k,))
            for key, bound in (("action_low", -np.inf), ("action_high", np.inf))
        )
        acts = boxes.Box(low, high, dtype=np.float32)
    shape = held["obs"].shape[1:]
    try:
        written = minari.create_dataset_from_buffers(
            id, buffers, action_space=acts, data_format="hdf5",
            observation_space=boxes.Box(-np.inf, np.inf, shape, np.float32), **note,
        )  # fmt: skip
    except (ValueError, AssertionError, OSError) as error:
        raise InputError(f"Minari refused {id!r}: {_short(error)}") from error
    return Path(written.storage.data_path)
