"""The families' pages: every family, honest about what is built, pictures with all seeds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from surpass.registry import FAMILIES, systems

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def families():
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("families", ROOT / "docs" / "families.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_family_has_a_page_that_names_all_its_systems(families):
    written = families.written()
    assert tuple(sorted(written)) == tuple(sorted(FAMILIES))
    for family, text in written.items():
        page = families.page(family, text)
        for system in systems().values():
            if system.family == family:
                assert f"`{system.key}`" in page


def test_advice_names_systems_that_exist_and_marks_those_that_cannot_be_run(families):
    known = systems()
    for text in families.written().values():
        advice = families._honest(text["choose"])
        for key, mark in re.findall(r"`([\w-]+)`( \(not built yet\))?", advice):
            assert key in known, key
            assert bool(mark) == (not known[key].built), key


def test_advice_says_what_evidence_says(families, monkeypatch):
    said = {"dpo": "holds", "rso": "fails", "wpo": "inconclusive"}
    monkeypatch.setattr(
        families, "entry_of", lambda key: {"verdict": said[key]} if key in said else None
    )
    advice = families._honest("`dpo`, `rso`, `wpo`, `ipo`, `no-key`")
    assert advice == "`dpo` ✓, `rso` ✗, `wpo` ○, `ipo`, `no-key`"


def test_a_picture_has_a_dot_for_every_seed_on_a_common_scale(families):
    entry = {"metric": "|m| < 1", "ours": [3.0, 1.0], "theirs": [1.0, 2.0]}
    svg = families.picture(entry)
    left, right = 8, families.WIDTH - 8
    dots = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg)]
    assert dots == [right, left, left, (left + right) / 2]
    assert "&#124;m&#124; &lt; 1: 1 to 3" in svg and "|" not in svg and svg.count("<line") == 2


def test_text_in_a_table_cannot_break_it(families):
    assert families._safe("a|b *c* <d>") == r"a\|b \*c\* &lt;d&gt;"


def test_a_cell_is_a_whole_sentence(families):
    assert families._cell("For tasks (e.g. users) here. More.") == "For tasks (e.g. users) here."


def test_the_examples_of_the_evaluation_page_run(families, capsys):
    """Five systems from their calls; some 4 s of one core, since each trains a little."""
    blocks = re.findall(r"```python\n(.*?)```", families.written()["ope"]["start"], re.DOTALL)
    assert len(blocks) == 5
    names: dict = {}
    for block in blocks:
        exec(compile(block, "families.toml", "exec"), names)
    assert capsys.readouterr().out.startswith("tensor")
    assert float(names["found"].theta[0]) > 0.6
    assert names["rule"].rounds[-1] > 60
    assert names["served"].log.propensities.shape == (500, 10)
    assert 0 < float(names["predictor"](names["met"].seen).mean()) < 1


def test_the_generator_and_the_drift_of_the_online_page_run(families, capsys, monkeypatch):
    monkeypatch.setenv("SURPASS_COMPILE", "0")
    blocks = re.findall(r"```python\n(.*?)```", families.written()["online"]["start"], re.DOTALL)
    names: dict = {}
    for block in blocks[1:]:
        exec(compile(block, "families.toml", "exec"), names)
    assert len(blocks) == 3 and capsys.readouterr().out.startswith("tensor")
    assert float(names["world"].proxy(names["classes"], names["tuned"].policy.act(
        names["classes"]).action).mean()) > 3.0  # fmt: skip
    assert names["agent"].form.trust.drift == names["found"].drift


def test_the_example_of_the_settings_page_runs(families, capsys):
    (block,) = re.findall(
        r"```python\n(.*?)```", families.written()["settings"]["start"], re.DOTALL
    )
    names: dict = {}
    exec(compile(block, "families.toml", "exec"), names)
    assert names["hybrid"].spaces.high == (2.0,)
    told, obs = names["told"].policy, names["log"].obs[:50]
    away = told.given(obs=names["log"].obs, reward=(names["log"].obs[:, :2] - 1.0).norm(dim=-1))
    assert (names["corner"].predict(obs) != away.predict(obs)).any()
    assert capsys.readouterr().out


def test_the_examples_of_the_theory_page_run(families, capsys):
    """Traces that contract, a critic from a log, and a model out of values; some 3 s."""
    blocks = re.findall(r"```python\n(.*?)```", families.written()["theory"]["start"], re.DOTALL)
    names: dict = {}
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    for block in blocks:
        exec(compile(block, "families.toml", "exec"), names)
    cut, kept = (float(x) for x in re.findall(r"lam=0.9\) ([\d.]+)", capsys.readouterr().out))
    assert kept < cut < 0.8
    assert names["critic"].predict(torch.eye(5)).tolist() == [1] * 5
    assert float((names["P"] - names["world"].P).abs().max()) < 1e-6
    best = names["Wanted"](names["world"].P, torch.eye(68)[60].double(), 0.95).mdp.solve()
    assert float(names["plan"].value) == pytest.approx(float(best.value))


def test_the_examples_of_the_agents_page_run(families, capsys, monkeypatch):
    """A model of a small world with a search tool, warmed up and trained, some 6 s; an agent that
    was shown two of four quests wins about those two, some 3 s, uncompiled."""
    pytest.importorskip("transformers")
    monkeypatch.setenv("SURPASS_COMPILE", "0")
    block, quests = re.findall(
        r"```python\n(.*?)```", families.written()["agents"]["start"], re.DOTALL
    )
    names: dict = {}
    exec(compile(block, "families.toml", "exec"), names)
    out = capsys.readouterr().out
    before, after = (float(x) for x in re.findall(r"([\d.]+) then ([\d.]+)", out)[0])
    assert before == names["before"] and after > before + 0.1
    assert names["worth"].there.any(-1).all() and out.count("\n") == 4
    exec(compile(quests, "families.toml", "exec"), names)
    assert float(capsys.readouterr().out.split(":")[1]) >= 0.4


def test_commands_on_the_pages_name_systems_that_are_built(families):
    known = systems()
    for text in families.written().values():
        for line in re.findall(r"^surpass train .+", text["start"], re.MULTILINE):
            form = known[line.split()[2]].form
            assert form, line
            assert form == "Stages" or "--steps" in line or "--model" in line, line  # else refused


def test_a_claim_with_a_note_shows_it(families):
    shown = families.evidence("exp-smoothing")
    entry = families.entry_of("exp-smoothing")
    assert entry["note"][:30] in shown and shown.count("<circle") == 2 * len(entry["ours"])
    assert families.evidence("no-such-key") == "not measured yet"


def test_the_example_of_the_online_page_runs(families, capsys, tmp_path, monkeypatch):
    """A cache learns whom to evict, as a graph that ONNX Runtime runs; some 3 s, uncompiled."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SURPASS_COMPILE", "0")
    block = re.findall(r"```python\n(.*?)```", families.written()["online"]["start"], re.DOTALL)[0]
    names: dict = {}
    exec(compile(block, "families.toml", "exec"), names)
    rule, ratio = capsys.readouterr().out.rsplit(maxsplit=1)
    assert rule in names["found"] and 0 < float(ratio) < names["found"][rule].ratio() + 0.3
    evictions, k = names["evictions"], 16  # the second replay does what the graph says
    sure = (evictions.episode == 0) & evictions.available.all(1)
    obs = evictions.obs[sure].reshape(-1, k, 6).numpy()
    best = [int(names["score"](rows).argmax()) for rows in obs[:50]]
    assert best == evictions.action[sure][:50].tolist()
    assert (tmp_path / "scores.onnx").exists()
