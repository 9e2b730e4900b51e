"""Monitors: when, what and how sure, on logs whose changes are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import surpass
from surpass.cli import main
from surpass.data.records import About, Decisions
from surpass.data.writers import write_log
from surpass.errors import InputError
from surpass.serve.monitoring import monitor, watching

KNOWN = ("refund my {} please", "where is the {} i ordered", "the {} arrived broken")
THINGS = ("lamp", "chair", "phone", "kettle", "jacket", "mirror", "carpet", "blender")
ODD = "reset the password of my account for {}"


def messages(n, odd=0.0, seed=0):
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        line = ODD if rng.random() < odd else KNOWN[rng.integers(3)]
        out.append(line.format(THINGS[rng.integers(8)]) + " now" * int(rng.integers(2)))
    return out


def test_drift_of_texts_is_found_dated_and_explained(tmp_path):
    usual, later = messages(25 * 40, seed=1), messages(15 * 40, 0.4, seed=2)
    path = tmp_path / "messages.jsonl"
    path.write_text("\n".join(json.dumps({"message": m}) for m in usual + later))
    found = monitor(path, "text-drift", anchor=messages(600, seed=3), every=40, run_length=300)
    assert len(found.entries) == 40
    first = found.alarms[0]
    assert 25 <= first.batch <= 28 and abs(first.reading.since - 25) <= 1
    assert "password" in first.reading.why and first.first == first.batch * 40 + 1
    assert "since batch" in str(found)
    calm = monitor(usual, "text-drift", anchor=messages(600, seed=3), every=40, run_length=300)
    assert len(calm.alarms) == 0 and "No alarm" in str(calm)


def decisions(n, seed=0, turned=False):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g, dtype=torch.float64)
    z = (torch.rand(n, generator=g) < 0.5).long()
    sign = torch.where((z == 1) & torch.tensor(turned), -1.0, 1.0)
    y = (sign * x[:, 0] + 0.3 * torch.randn(n, generator=g) > 0).double()
    action = torch.randint(2, (n,), generator=g)
    return Decisions(
        context=x, action=action, reward=y, propensity=torch.full((n,), 0.5, dtype=torch.float64),
        group=z, batch_size=[n],
    ).described(About(actions=("a", "b"), names={"context": ("w", "x", "y", "z")}))  # fmt: skip


def test_fairness_drift_names_the_column_behind_it():
    calm = monitor(decisions(6000, 1), "feamoe", anchor=decisions(6000), every=500)
    assert not calm.alarms
    both = torch.cat([decisions(3000, 1), decisions(3000, 2, turned=True)])
    found = monitor(both.described(decisions(2).about), "feamoe", anchor=decisions(6000))
    assert found.alarms and 6 <= found.alarms[0].batch <= 8
    assert abs(found.alarms[0].reading.since - 6) <= 1
    assert found.alarms[0].reading.extras["experts"] == 2
    assert found.alarms[0].reading.why.split("from ")[1].startswith("w ")


def test_the_gate_opens_for_the_better_policy_only(tmp_path):
    n = 4000
    g = torch.Generator().manual_seed(0)
    action = torch.randint(2, (n,), generator=g)
    reward = (torch.rand(n, generator=g) < 0.3 + 0.2 * action).double()
    log = Decisions(
        context=torch.zeros(n, 1), action=action, reward=reward,
        propensity=torch.full((n,), 0.5, dtype=torch.float64),
        time=torch.arange(n, dtype=torch.float64), batch_size=[n],
    ).described(About(actions=("a", "b")))  # fmt: skip
    good, bad = torch.tensor([0.1, 0.9]), torch.tensor([0.9, 0.1])
    assert not monitor(log, policy=good).alarms
    shut = monitor(log, "gate", policy=bad, every=2000)
    assert [e.reading.alarm for e in shut.entries] == [True, True]
    assert shut.entries[1].reading.extras["gain"] == pytest.approx(-0.08, abs=0.03)
    assert shut.entries[1].time == 3999
    write_log(log, tmp_path / "log.parquet")
    assert len(monitor(tmp_path / "log.parquet", "gate", policy=good, every=1000).entries) == 4


def test_goodharts_rule_stops_where_the_step_turns_away():
    path = torch.tensor([[0.0, 0.0], [1.0, 0.1], [2.0, 0.3], [2.2, 1.5]])
    found = surpass.monitor(path, "goodhart-rl", anchor=[1.0, 0.0], angle=0.5)
    assert [e.reading.alarm for e in found.entries] == [False, False, False, True]
    assert found.entries[2].reading.statistic == pytest.approx(1 / (1 + 0.04) ** 0.5)
    assert found.entries[3].reading.threshold == pytest.approx(np.sin(0.5))


def test_a_stream_is_watched_as_it_comes():
    stream = (messages(50, 0.9 if k > 25 else 0.0, seed=k) for k in range(100))
    for so_far in watching(stream, "text-drift", anchor=messages(400, seed=200), run_length=300):
        if so_far.alarms:
            break
    assert 26 <= len(so_far.entries) <= 30


def test_the_command_line_says_alarms_and_json(tmp_path, capsys):
    path = tmp_path / "log.parquet"
    write_log(decisions(3000), path)
    assert main(["monitor", str(path), "--every", "100"]) == 0
    assert "No alarm" in capsys.readouterr().out
    assert main(["monitor", str(path), "--every", "100", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["alarms"] == [] and len(said["batches"]) == 21
    assert main(["monitor", str(path), "--watch", "text-dirft"]) == 2
    assert "text-drift" in capsys.readouterr().err


def test_bad_input_is_said_in_a_line():
    with pytest.raises(InputError, match="too few"):
        monitor(torch.randn(120, 3))
    with pytest.raises(InputError, match="two values"):
        log = decisions(3000)
        log.group = None
        monitor(log, "feamoe")
    with pytest.raises(InputError, match="candidate"):
        monitor(decisions(3000), "gate")


@pytest.mark.parametrize(
    ("watch", "options", "said"),
    [
        ("text-drift", {"run_lenght": 200}, "did you mean 'run_length'"),
        ("gate", {"policy": "candidate", "margins": 0.1}, "did you mean 'margin'"),
        ("text-drift", {"every": 0}, "--every is 0"),
        ("text-drift", {"run_length": "abc"}, "run_length=abc: a number is expected"),
    ],
)
def test_misspelled_options_of_a_monitor_are_named(watch, options, said):
    with pytest.raises(InputError, match=said):
        monitor(messages(600), watch, **options)
