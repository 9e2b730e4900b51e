"""The command line: one clear line and exit status 2 on bad input, nothing half-written."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from surpass.cli import main


def table(path: Path, rows: int = 400, **columns) -> Path:
    """A CSV log of three actions under uniform logging; action b pays more."""
    rng = np.random.default_rng(0)
    action = rng.integers(0, 3, rows)
    reward = (rng.uniform(size=rows) < 0.2 + 0.5 * (action == 1)).astype(int)
    data = {
        "age": rng.integers(18, 80, rows),
        "action": np.array(list("abc"))[action],
        "reward": reward,
        "propensity": np.full(rows, 1 / 3),
    } | columns
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(data)
        writer.writerows(zip(*data.values(), strict=True))
    return path


def failing(capsys, *argv: str) -> str:
    """The one line on standard error of a command that ends with status 2."""
    assert main(list(argv)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_list_is_json_with_the_promised_fields(capsys):
    assert main(["list", "--family", "ope", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    fields = {"key", "name", "paper", "family", "form", "kind", "evidence"}
    assert all(set(e) == fields for e in entries)
    assert {e["family"] for e in entries} == {"ope"}
    assert next(e for e in entries if e["key"] == "ips")["form"] == "Estimator"


def test_the_catalogue_is_in_the_list_whole(capsys):
    assert main(["list", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert len({e["key"] for e in entries}) == len(entries)
    assert sum(e["paper"] != "" for e in entries) == len(entries) >= 248


def test_what_cannot_be_trained_as_asked_is_said_in_a_line(tmp_path, capsys):
    from surpass.data.trajectories import write_trajectories
    from surpass.tasks.worlds import chain

    mdp = chain(3)
    log = str(tmp_path / "log.parquet")
    write_trajectories(mdp.transitions(mdp.uniform(), 4, 5), tmp_path / "log.parquet")
    line = failing(capsys, "train", "p-learning:net", "--data", log, "--steps", "1")
    assert "needs low, high" in line and "surpass show p-learning:net" in line
    line = failing(capsys, "train", "p-learning", "--data", log, "--steps", "1")
    assert "a Planner is called, not trained" in line


def test_show_prints_what_further_bars_came_to(capsys):
    assert main(["show", "spo"]) == 0
    assert "[holds; ours <= 0.35]" in capsys.readouterr().out


def test_show_prints_paper_recipe_and_defaults(capsys):
    assert main(["show", "clipped-ips"]) == 0
    out = capsys.readouterr().out
    assert "clipped_ips(tau: float | None = None)" in out and "Estimator" in out


def test_show_prints_a_variant_under_its_own_name(capsys):
    assert main(["show", "edp:crr"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("edp:crr") and "edp_crr(" in out


def test_what_has_no_recipe_but_a_module_is_built_and_shows_its_evidence(capsys):
    from surpass.registry import systems

    assert {k for k, s in systems().items() if s.built and not s.form} == {
        "scope-rl", "sharpe-ratio-at-k",
    }  # fmt: skip
    assert main(["show", "scope-rl"]) == 0
    out = capsys.readouterr().out
    assert "Not built yet" not in out
    assert "surpass.evaluation.compare" in out and "Evidence:" in out
    assert "has no recipe" in failing(capsys, "train", "scope-rl")
    assert "bcel has no variant 'nope'; it has bcel:" in failing(capsys, "show", "bcel:nope")
    assert "iql has no variant 'nope'" in failing(capsys, "train", "iql:nope")


def test_a_misspelled_system_names_the_nearest(capsys):
    assert "did you mean 'bapo'" in failing(capsys, "show", "bapoo")
    assert "did you mean 'bapo'" in failing(capsys, "evidence", "table", "bapoo")


def test_improve_writes_a_report_and_refuses_to_replace_it(tmp_path, capsys):
    log, out = table(tmp_path / "log.csv"), tmp_path / "report"
    argv = ["improve", str(log), "--out", str(out), "--methods", "tilt"]
    assert main(argv) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["verdict"] == "PROMOTE" and report["rows"] == 400
    assert {"report.html", "report.json", "verdict.md", "policy"} <= set(os.listdir(out))
    capsys.readouterr()
    before = (out / "report.html").read_bytes()
    assert "exists" in failing(capsys, *argv)
    assert (out / "report.html").read_bytes() == before
    assert main([*argv, "--overwrite"]) == 0


def test_a_handed_over_policy_can_be_the_next_reference(tmp_path):
    import surpass

    log, out = table(tmp_path / "log.csv"), tmp_path / "first"
    surpass.improve(log, methods="tilt", out=out)
    again = surpass.improve(log, reference=out / "policy", methods="tilt")
    assert again.verdict != "PROMOTE"  # it takes b nearly always already
    assert again.reference.value > 0.5


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--reward", "rewrd"], "rewrd"),
        (["--methods", "boostng"], "did you mean 'boosting'"),
        (["--level", "0.7"], "--level"),
        (["--reward-range", "0", "0.5"], "outside the stated range"),
        (["--looks", "5"], "--journal"),
        (["--winsorize", "5"], "--winsorize is 5"),
        (["--seed", "-1"], "--seed is -1"),
        (["--columns", "reward=clicked"], "--columns is for language models"),
        (["--samples", "8"], "--samples is for language models"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(tmp_path, capsys, argv, said):
    log, out = table(tmp_path / "log.csv"), tmp_path / "report"
    assert said in failing(capsys, "improve", str(log), "--out", str(out), *argv)
    assert sorted(os.listdir(tmp_path)) == ["log.csv"]


def test_a_reference_for_other_actions_is_refused(tmp_path, capsys):
    import surpass

    log = table(tmp_path / "log.csv")
    surpass.improve(log, methods="tilt", out=tmp_path / "first")
    four = table(tmp_path / "four.csv", action=np.array(list("abcd") * 100))
    line = failing(
        capsys, "improve", str(four), "--reference", str(tmp_path / "first" / "policy"),
        "--propensity", "propensity", "--out", str(tmp_path / "second"),
    )  # fmt: skip
    assert "other actions" in line
    assert not (tmp_path / "second").exists()


def test_an_unwritable_output_folder_is_one_line(tmp_path, capsys):
    log = table(tmp_path / "log.csv")
    (tmp_path / "file").write_text("")
    argv = ["improve", str(log), "--methods", "tilt", "--out", str(tmp_path / "file" / "report")]
    assert "cannot write" in failing(capsys, *argv)


def test_what_cannot_be_written_is_said_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    inside = str(tmp_path / "file" / "it.png")
    for argv in (
        ("improve", "nowhere.csv", "--out", inside),
        ("improve", "nowhere.csv", "--journal", inside),
        ("evaluate", "nowhere", "--env", "cart-pole", "--picture", inside),
    ):
        assert f"file is a file; give another {argv[-2]}" in failing(capsys, *argv)


def test_ctrl_c_leaves_no_partial_folder_and_says_so(tmp_path):
    log = table(tmp_path / "log.csv", rows=60_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "surpass", "improve", str(log), "--out", str(tmp_path / "r")],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    assert any("column reward" in line for line in process.stdout)  # it is at work now
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped" in err
    assert sorted(os.listdir(tmp_path)) == ["log.csv"]


def test_a_seed_below_zero_is_refused_before_anything_plays(capsys):
    line = failing(capsys, "evaluate", "random", "--env", "cart-pole", "--seed", "-1")
    assert "--seed is -1" in line


def test_what_the_disk_refuses_is_one_line(tmp_path, capsys, monkeypatch):
    from surpass import cli

    def tasks() -> None:
        (tmp_path / "missing" / "file").write_text("")

    monkeypatch.setitem(cli.COMMANDS, "tasks", tasks)
    line = failing(capsys, "tasks")
    assert "missing/file: No such file or directory; check the path" in line


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "surpass", "list", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(1) == b"["  # more is on its way than a pipe holds
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(timeout=60) == 0


def test_a_gain_that_rests_on_a_few_large_rewards_is_held_when_winsorized():
    import surpass

    rng = np.random.default_rng(0)
    action = rng.integers(0, 3, 3000)
    reward = np.where((action == 1) & (rng.uniform(size=3000) < 0.04), 10.0, 0.5)
    log = {"action": action, "reward": reward, "propensity": np.full(3000, 1 / 3)}
    log["age"] = rng.normal(size=3000)
    plain = surpass.improve(log, methods="tilt", reward_range=(0, 10))
    cut = surpass.improve(log, methods="tilt", reward_range=(0, 10), winsorize=0.95)
    assert plain.verdict == "PROMOTE"
    assert cut.verdict == "HOLD" and "rewards cut at 0.5" in cut.reason


def test_columns_of_a_log_are_named_for_evaluate_as_for_improve(tmp_path, capsys):
    log = table(tmp_path / "log.csv")
    rows = log.read_text().split("\n", 1)[1]
    log.write_text("age,banner,sold,chance\n" + rows)
    named = ["--action", "banner", "--reward", "sold", "--propensity", "chance"]
    out = str(tmp_path / "r")
    assert main(["improve", str(log), "--methods", "tilt", "--out", out, *named]) == 0
    capsys.readouterr()
    assert "name it with --action" in failing(capsys, "evaluate", out, "--logs", str(log))
    line = failing(capsys, "evaluate", out, "--env", "cart-pole", "--reward", "sold")
    assert "--reward names a column of --logs" in line
    assert main(["evaluate", out, "--logs", str(log), "--json", *named]) == 0
    assert '"dr"' in capsys.readouterr().out


def test_a_policy_folder_is_evaluated_on_a_named_log(tmp_path, capsys):
    import surpass

    surpass.improve("digits:rows=1000", methods="tilt", out=tmp_path / "r")
    capsys.readouterr()
    argv = ["evaluate", str(tmp_path / "r"), "--logs", "digits:rows=1000", "--json"]
    assert main(argv) == 0
    assert '"dr"' in capsys.readouterr().out
