"""Pages that are made while the site is built: one per module from its docstrings, the list of
systems, and the contributor's guide."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "surpass"

# The order in which the rooms stand: each imports only from those before it.
ROOMS = {
    "errors": "Errors",
    "parts": "Parts",
    "objectives": "Objectives",
    "registry": "Registry",
    "data": "Data",
    "forms": "Forms",
    "policies": "Policies",
    "critics": "Critics",
    "tasks": "Tasks",
    "training": "Training",
    "evaluation": "Evaluation",
    "methods": "Methods",
    "zoo": "Zoo",
    "improve": "Improve",
    "serve": "Serve",
    "evidence": "Evidence",
    "cli": "Command line",
}


def modules(room: str) -> Iterator[str]:
    """The documented modules of a room, by dotted name."""
    single = PACKAGE / f"{room}.py"
    paths = [single] if single.exists() else sorted((PACKAGE / room).rglob("*.py"))
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        hidden = any(part.startswith("_") for part in name.split("."))
        if not hidden and ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))):
            yield name


def first_sentence(module: str) -> str:
    """What a module is for: the first paragraph of its docstring."""
    path = ROOT / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(doc.split("\n\n")[0].split())


def reference() -> tuple[dict[str, str], list[Any]]:
    """Pages by path, and their place in the navigation."""
    pages: dict[str, str] = {}
    nav: list[Any] = ["reference/index.md"]
    index = [
        "# Reference\n",
        "Generated from the docstrings. The rooms stand in the order in which they may import "
        "one another: each knows only those before it.\n",
    ]
    for room, title in ROOMS.items():
        entries = []
        for name in modules(room):
            path = f"reference/{name.removeprefix('surpass.').replace('.', '/')}.md"
            pages[path] = f"---\ntitle: {name}\n---\n\n::: {name}\n"
            entries.append({name.removeprefix("surpass."): path})
            link = path.removeprefix("reference/")
            index.append(f"- [`{name}`]({link}) {plain(first_sentence(name))}")
        if entries:
            nav.append({title: entries})
            index.insert(len(index) - len(entries), f"\n## {title}\n")
    pages["reference/index.md"] = "\n".join(index) + "\n"
    return pages, nav


def plain(text: str) -> str:
    """A sentence from the source as Markdown text: only code spans keep their meaning."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        p if p.startswith("`") else re.sub(r"([\\*_{}\[\]<>|#])", r"\\\1", p) for p in pieces
    )


def systems() -> str:
    """The catalog by family, with what is built and what its evidence says."""
    from surpass.registry import FAMILIES, systems

    known = systems()
    ready = sum(s.built for s in known.values())
    lines = [
        "# Systems\n",
        f"{len(known)} systems are known by key, {ready} can be used. `surpass show KEY` prints "
        "one with its recipe, its defaults and its evidence; failures are shown like the rest.\n",
    ]
    for family in FAMILIES:
        rows = [s for s in known.values() if s.family == family]
        if not rows:
            continue
        lines += [f"\n## {family}\n", "| key | form | evidence | what it is |", "|---|---|---|---|"]
        lines += [
            f"| `{s.key}` | {plain(s.form) or '-'} | {s.evidence or '-'} | "
            f"{plain(s.summary or s.paper)} |"
            for s in rows
        ]
    return "\n".join(lines) + "\n"


def version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]


def on_config(config: Any) -> Any:
    """Put the reference behind the written pages."""
    sys.path.insert(0, str(ROOT))  # the registry is read from this tree, installed or not
    config["nav"] = [*config["nav"], {"Reference": reference()[1]}]
    config["copyright"] = f"Surpass {version()}, Apache-2.0"
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    pages = reference()[0]
    pages["systems.md"] = systems()
    pages["contributing.md"] = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files
