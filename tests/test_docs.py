"""The documentation: the tour runs as written, and every module has its page."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
BRITISH = re.compile(
    r"\b(?!promis|premis|compromis|surpris|enterpris|aris)\w+(?:isation|[lrmn]is(?:e|ed|es|ing)\b)"
    r"|\w*(?:behaviour|colour|favour|neighbour|labell|modell|analys(?:e|ed|ing)\b)\w*"
    r"|\b(?:re-)?cent(?:re|red|ring)\b|\b(?:towards|distils|catalogue|programme)\b",
    re.IGNORECASE,
)


def test_the_tour_runs_as_written(tmp_path, capsys):
    names: dict = {}
    blocks = BLOCK.findall((ROOT / "docs" / "tour.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 6
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        for block in blocks:
            exec(compile(block, "docs/tour.md", "exec"), names)
    finally:
        os.chdir(here)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "PROMOTE"
    assert names["early"].verdict == "HOLD"
    written = {p.name for p in (tmp_path / "report").iterdir()}
    assert {"report.html", "report.json", "verdict.md", "policy"} <= written


def test_the_control_page_runs_as_written(tmp_path, capsys, monkeypatch):
    names: dict = {}
    blocks = BLOCK.findall((ROOT / "docs" / "control.md").read_text(encoding="utf-8"))
    assert len(blocks) == 5
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "docs/control.md", "exec"), names)
    assert "PROMOTE tilt" in capsys.readouterr().out
    assert names["held"].verdict == "HOLD" and names["played"].verdict in ("PROMOTE", "HOLD")
    assert (tmp_path / "report" / "policy" / "policy.safetensors").exists()


@pytest.fixture(scope="module")
def generate():
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_module_with_a_docstring_has_a_page(generate):
    pages, _ = generate.reference()
    named = set(re.findall(r"::: ([\w.]+)", "".join(pages.values())))
    for path in (ROOT / "surpass").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        documented = path.read_text(encoding="utf-8").lstrip().startswith(('"""', 'r"""'))
        if documented and name != "surpass" and not path.name.startswith("__main__"):
            assert name in named, name


def test_text_from_the_source_keeps_its_characters_in_markdown(generate):
    assert generate.plain("a [b] `c[d]` <e> | f_g") == r"a \[b\] `c[d]` \<e\> \| f\_g"


def test_the_catalogue_lists_every_system_once(generate):
    from surpass.registry import systems

    keys = re.findall(r"^\| `([^`]+)` \|", generate.systems(), re.MULTILINE)
    assert sorted(keys) == sorted(systems())


def test_every_key_stands_once():
    keys = re.findall(r'^key = "(.+)"$', (ROOT / "surpass" / "systems.toml").read_text(), re.M)
    assert len(keys) > 248 and len(keys) == len(set(keys))


def test_the_language_page_runs_as_written(tmp_path, capsys, monkeypatch):
    """Vital: the quick start of language models, about ten seconds."""
    pytest.importorskip("transformers")
    names: dict = {}
    blocks = BLOCK.findall((ROOT / "docs" / "language.md").read_text(encoding="utf-8"))
    assert len(blocks) == 4
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "docs/language.md", "exec"), names)
    assert "PROMOTE" in capsys.readouterr().out
    assert (tmp_path / "report" / "policy" / "model.safetensors").exists()
    assert (tmp_path / "judge" / "policy" / "reward.safetensors").exists()


def test_summaries_and_pages_are_spelled_the_american_way():
    from surpass.registry import systems

    texts = {s.key: s.summary for s in systems().values()}
    texts |= {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "docs").glob("*.md")}
    texts |= {name: (ROOT / name).read_text(encoding="utf-8")
              for name in ("README.md", "CONTRIBUTING.md", "docs/families.toml")}  # fmt: skip
    found = {name: BRITISH.findall(text) for name, text in texts.items()}
    assert {name: words for name, words in found.items() if words} == {}


def test_flags_and_calls_on_the_pages_exist():
    import surpass
    from surpass.registry import systems

    commands = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "surpass/cli").glob("*.py"))
    flags = {name.replace("_", "-") for name in re.findall(r"^    (\w+): ", commands, re.MULTILINE)}
    flags |= {"help", "json", "nproc-per-node"}  # the last is torchrun's
    calls = {*dir(surpass), *(k.replace("-", "_") for k, s in systems().items() if s.form)}
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "docs" / "families.toml"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", text)) <= flags, page.name
        assert set(re.findall(r"\b(?:surpass|sp)\.(\w+)\(", text)) <= calls, page.name
