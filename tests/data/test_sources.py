"""Logs by name: the Open Bandit samples against their raw files, and bad names."""

from __future__ import annotations

import csv
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import surpass.data.sources as sources
from surpass.data import SOURCES, open_log
from surpass.errors import InputError


def raw(policy: str, campaign: str) -> list[dict[str, str]]:
    try:
        every = files("obp") or []
    except PackageNotFoundError:
        pytest.skip("obp is not installed")
    path = next(
        f for f in every if f.as_posix().endswith(f"obd/{policy}/{campaign}/{campaign}.csv")
    )
    with open(str(path.locate()), newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("policy", "campaign", "items"),
    [("random", "men", 34), ("bts", "women", 46), ("bts", "all", 80)],
)  # fmt: skip
def test_open_bandit_is_its_raw_file(policy: str, campaign: str, items: int) -> None:
    rows = raw(policy, campaign)
    before = "obp" in sys.modules
    log = open_log(f"open-bandit:{policy}/{campaign}").read()
    assert ("obp" in sys.modules) == before
    assert len(log) == len(rows) == 10_000
    assert log.n_actions == items
    assert log.action.tolist() == [int(r["item_id"]) for r in rows]
    assert log.reward.tolist() == [float(r["click"]) for r in rows]
    logged = np.array([float(r["propensity_score"]) for r in rows])
    np.testing.assert_allclose(log.propensity.numpy(), logged, rtol=1e-12)
    assert log.position is not None and log.time is not None
    assert log.position.tolist() == [int(r["position"]) - 1 for r in rows]
    assert bool((log.time.diff() >= 0).all())
    assert float(log.time[0]) == pytest.approx(
        np.datetime64(rows[0]["timestamp"].split("+")[0]).astype("M8[us]").astype(float) / 1e6
    )
    if policy == "random":
        assert log.propensities is not None and torch.all(log.propensities == 1 / items)
    else:
        assert log.propensities is None
    names = log.about.names["context"]
    for k in (1, 2, 3):
        column = log.context[:, names.index(f"position={k}")]
        assert torch.equal(column == 1, log.position == k - 1)
    feature = f"user_feature_0={rows[0]['user_feature_0']}"
    wanted = [float(r["user_feature_0"] == rows[0]["user_feature_0"]) for r in rows]
    assert log.context[:, names.index(feature)].tolist() == wanted
    assert log.about.action_features is not None
    assert log.about.action_features.shape[0] == items


def test_roles_of_a_named_log_can_be_changed() -> None:
    raw("random", "men")
    log = open_log("open-bandit:random/men", context="user_feature_0", time="none")
    assert log.columns.context == ("user_feature_0",)  # type: ignore[attr-defined]
    assert log.read().time is None


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(sources, "distribution", absent)
    with pytest.raises(InputError) as caught:
        open_log("open-bandit:random/men")
    assert str(caught.value) == (
        "open-bandit:random/men: the package that ships this log is not installed; pip install "
        "--no-deps obp==0.4.1"
    )


OPTIONS = "options: rows=, quality=, exploration=, noise=, seed="


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "open-bandit:random/mne",
            "there is no log 'open-bandit:random/mne' (did you mean 'open-bandit:random/men'?); "
            f"there are {', '.join(SOURCES[:6])}",
        ),
        (
            "open-bandit",
            "there is no log 'open-bandit' (did you mean 'open-bandit:bts/all'?); there are "
            f"{', '.join(SOURCES[:6])}",
        ),
        (
            "digits:row=300",
            f"digits:row=300: there is no option 'row=300' (did you mean 'rows'?); {OPTIONS}",
        ),
        ("digits:rows=many", "digits:rows=many: rows='many' is not a number; give one"),
    ],
)
def test_unknown_names(name: str, wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        open_log(name)
    text = str(caught.value)
    assert text.replace("bts/men'?", "bts/all'?") == wanted


def test_digits_is_the_set_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    opened = open_log("digits:rows=400,quality=0.5,exploration=0.2")
    log, truth = opened.read(), opened.truth
    assert truth is not None and opened.rows == 400
    np.testing.assert_allclose(truth.contexts.numpy(), load_digits().data / 16, rtol=1e-6)
    assert torch.equal(truth.rewards.argmax(1), torch.from_numpy(load_digits().target))
    assert truth.value() == pytest.approx(0.8 * 0.5 + 0.02, abs=1e-3)
    assert sorted(log.propensity.unique().tolist()) == pytest.approx([0.02, 0.82])


def test_a_file_wins_over_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    with pytest.raises(InputError, match="digits/: a folder without logs"):
        open_log("digits")
