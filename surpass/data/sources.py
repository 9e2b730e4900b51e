"""Logs by name: the Open Bandit samples, and classification data as logged decisions."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from surpass.data.files import open_part
from surpass.data.truth import from_classification
from surpass.errors import InputError, nearest

if TYPE_CHECKING:
    from surpass.data.logs import Log

__all__ = ["SOURCES", "is_source", "open_source"]

_POLICIES = ("random", "bts")
_CAMPAIGNS = {"all": 80, "men": 34, "women": 46}
_CLASSIFICATION = {
    "digits": "load_digits", "iris": "load_iris", "wine": "load_wine",
    "breast-cancer": "load_breast_cancer",
}  # fmt: skip
_OPTIONS = {"rows": int, "quality": float, "exploration": float, "noise": float, "seed": int}
SOURCES = (
    *(f"open-bandit:{p}/{c}" for p in _POLICIES for c in _CAMPAIGNS),
    *_CLASSIFICATION,
)


def is_source(name: str) -> bool:
    """Whether a name is that of a source rather than a path."""
    return name.split(":")[0] in ("open-bandit", *_CLASSIFICATION)


def open_source(name: str, **options: Any) -> Log:
    """The log of a named source.

    `open-bandit:POLICY/CAMPAIGN` with POLICY `random` or `bts` and CAMPAIGN `all`, `men` or
    `women`; `digits`, `iris`, `wine`, `breast-cancer`, with options as in
    `digits:rows=20000,exploration=0.3` (`rows`, `quality`, `exploration`, `noise`, `seed`).

    Raises:
        InputError: when there is no such source or option, or its package is not installed.
    """
    head, _, tail = name.partition(":")
    if head == "open-bandit":
        return _open_bandit(name, tail, options)
    if head not in _CLASSIFICATION:
        raise InputError(
            f"there is no source {name!r}{nearest(name, SOURCES)}; sources: {', '.join(SOURCES)}"
        )
    if options:
        raise InputError(
            f"{name} has no column {next(iter(options))!r} to name; leave the option out"
        )
    return _classification(name, head, tail)


# ----------------------------------------------------------------------------------------------
# Open Bandit


def _open_bandit(name: str, tail: str, options: dict[str, Any]) -> Log:
    """10,000 rounds of the Open Bandit Dataset, as the wheel of Open Bandit Pipeline ships them.

    Saito, Aihara, Matsutani and Narita, "Open Bandit Dataset and Pipeline: Towards Realistic and
    Reproducible Off-Policy Evaluation" (2021). A round is one position of the three that a page
    shows; the propensity is that of the item in that position. The context is the user's four
    hashed features and the position. The random policy's propensity is 1/A, so its rows are known
    in full.
    """
    from dataclasses import replace

    from surpass.data.tables import open_table

    known = [s for s in SOURCES if s.startswith("open-bandit")]
    policy, _, campaign = tail.partition("/")
    if policy not in _POLICIES or campaign not in _CAMPAIGNS:
        raise InputError(
            f"there is no log {name!r}{nearest(name, known)}; there are {', '.join(known)}"
        )
    folder = _obp_files(name, f"obd/{policy}/{campaign}/")
    items = _CAMPAIGNS[campaign]
    roles: dict[str, Any] = {
        "action": "item_id", "reward": "click", "time": "timestamp", "position": "position",
        "propensity": "uniform" if policy == "random" else "propensity_score",
        "context": ",".join([*(f"user_feature_{j}" for j in range(4)), "position"]),
        "actions": [str(k) for k in range(items)],
    }  # fmt: skip
    log = open_table(folder / f"{campaign}.csv", **{**roles, **options})
    return replace(
        log,
        name=name,
        action_features=_item_features(folder / "item_context.csv"),
        provenance={"source": name, "policy": policy, "package": "obp==0.4.1"},
    )


def _obp_files(name: str, inside: str) -> Path:
    """The folder of the sample within the installed distribution, which is never imported."""
    try:
        files = distribution("obp").files or []
    except PackageNotFoundError as error:
        raise InputError(
            f"{name}: the package that ships this log is not installed; "
            "pip install --no-deps obp==0.4.1"
        ) from error
    for file in files:
        if inside in file.as_posix() and file.name == "item_context.csv":
            return Path(str(file.locate())).parent
    raise InputError(
        f"{name}: the installed obp has no such sample; pip install --no-deps obp==0.4.1"
    )


def _item_features(path: Path) -> Tensor:
    """What describes each item: its number, then one-hot categories, [A, k]."""
    from surpass.data.encoders import Encoder

    part = open_part(path)
    table = next(iter(part.batches([f"item_feature_{j}" for j in range(4)], part.rows)))
    return Encoder.fit(table, min_count=2, max_levels=64).transform(table)


# ----------------------------------------------------------------------------------------------
# classification


def _classification(name: str, head: str, tail: str) -> Log:
    import sklearn.datasets

    from surpass.data.logs import HeldLog

    chosen: dict[str, Any] = {}
    for setting in filter(None, tail.split(",")):
        key, equals, value = setting.partition("=")
        if key not in _OPTIONS or not equals:
            raise InputError(
                f"{name}: there is no option {setting!r}{nearest(key, tuple(_OPTIONS))}; "
                f"options: {', '.join(k + '=' for k in _OPTIONS)}"
            )
        try:
            chosen[key] = _OPTIONS[key](float(value)) if _OPTIONS[key] is int else float(value)
        except ValueError as error:
            raise InputError(f"{name}: {key}={value!r} is not a number; give one") from error
    data = getattr(sklearn.datasets, _CLASSIFICATION[head])()
    features = np.asarray(data.data, dtype=np.float64)
    if head == "digits":
        features = features / 16.0
    columns = tuple(str(c) for c in data.feature_names)
    log, truth = from_classification(features, data.target, name=name, columns=columns, **chosen)
    return HeldLog(name, log, truth)
