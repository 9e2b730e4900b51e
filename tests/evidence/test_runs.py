"""The ledger: the rule that decides, resuming, and that only runs write numbers."""

import json

import numpy as np
import pytest
from scipy import stats

from surpass.errors import InputError
from surpass.evidence import declaration, runs
from surpass.evidence.declaration import Result, at_least, at_most, evidence, judge, overall


def test_the_interval_is_students_and_the_side_of_the_bar_decides():
    ours, theirs = [3.0, 4.0, 5.0], [1.0, 1.0, 1.0]
    found = judge("score", ours, theirs, at_least(0.5))
    half = stats.t.ppf(0.975, 2) * 1.0 / np.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((3.0, 3 - half, 3 + half))
    assert found.verdict == "holds"
    assert judge("score", ours, theirs, at_least(3.0)).verdict == "inconclusive"
    assert judge("score", ours, theirs, at_least(6.0)).verdict == "fails"
    assert judge("score", ours, theirs, at_most(6.0)).verdict == "holds"
    assert judge("score", ours, theirs, at_most(0.1)).verdict == "fails"


def test_ratios_are_averaged_as_logarithms():
    found = judge("error", [1.0, 4.0, 2.0], [2.0, 8.0, 4.0], at_most(0.6, times=True))
    assert found.mean == pytest.approx(0.5) and found.verdict == "holds"


def test_ours_alone_is_compared_with_the_bar_itself():
    assert (
        judge("rate", [0.96, 0.97, 0.95], [0, 0, 0], at_least(0.9, alone=True)).verdict == "holds"
    )


def test_exact_results_hold_at_the_bar_itself():
    assert judge("gap", [0.0] * 3, [0.0] * 3, at_most(0.0)).verdict == "holds"
    assert judge("gap", [0.0] * 3, [0.0] * 3, at_least(0.0)).verdict == "holds"


def test_not_a_number_decides_nothing():
    assert judge("score", [float("nan"), 1, 1], [0, 0, 0], at_least(0)).verdict == "inconclusive"


def test_every_bar_must_hold():
    good = judge("a", [1, 1, 1], [0, 0, 0], at_least(0.5))
    bad = judge("b", [0, 0, 0], [1, 1, 1], at_least(0.5))
    open_ = judge("c", [1, -1, 1], [0, 0, 0], at_least(0.5))
    shown = judge("d", [0, 0, 0], [1, 1, 1], None)
    assert overall([good, shown]) == "holds"
    assert overall([good, open_]) == "inconclusive"
    assert overall([good, open_, bad]) == "fails"


@pytest.fixture
def counted(tmp_path, monkeypatch):
    calls: list[int] = []

    @evidence("bapo", claim="c", baseline="b", metric="m", bar=at_least(0.5), seeds=3)
    def run(seed, zoo):
        calls.append(seed)
        return Result(seed + 1.0, 0.0, {"cost": (1.0, 2.0, at_most(0.9, times=True))})

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(runs, "LEDGER", tmp_path / "ledger")
    yield calls, tmp_path / "ledger" / "bapo.json"
    declaration._EXPERIMENTS.pop("bapo")


def test_a_run_resumes_with_the_seeds_it_has_and_writes_what_it_measured(counted):
    calls, path = counted
    first = runs.run_one("bapo", [0])
    assert calls == [0] and first["verdict"] == "inconclusive"
    entry = runs.run_one("bapo")
    assert calls == [0, 1, 2]
    stored = json.loads(path.read_text())
    assert stored["ours"] == [1.0, 2.0, 3.0] == entry["ours"]
    assert stored["seeds"] == [0, 1, 2] and stored["mean"] == 2.0
    assert stored["also"][0]["verdict"] == "holds" and stored["also"][0]["mean"] == 0.5


def test_fewer_than_three_seeds_or_unknown_systems_are_refused():
    with pytest.raises(InputError, match="too few"):
        evidence("bapo", claim="", baseline="", metric="", bar=at_least(0), seeds=2)
    with pytest.raises(InputError, match="no system"):
        evidence("bapoo", claim="", baseline="", metric="", bar=at_least(0))
