"""`surpass evidence table`: by family, failures too."""

from surpass.evidence import command
from surpass.evidence.runs import read
from surpass.registry import systems


def test_the_table_groups_by_family_and_hides_no_failure(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    command.run("table", [])
    told = capsys.readouterr().out
    entries = [e for key in systems() if (e := read(key)) is not None]
    for entry in entries:
        line = next(x for x in told.splitlines() if x.split()[:1] == [entry["key"]])
        assert entry["verdict"] in line and f"{entry['mean']:.3g}" in line
    failed = sum(e["verdict"] == "fails" for e in entries)
    assert f"{failed} fails" in told
    assert told.index("ope") < told.index("preference")


def test_one_family_alone(capsys):
    command.run("table", [], family="preference")
    told = capsys.readouterr().out
    assert "rdpo" in told and "pac-bayes-opl" not in told
