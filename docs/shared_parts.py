"""The page of parts that several domains share, made of the cells of `tests/test_shared_parts.py`:
a cell is filled where a test runs that part in that domain."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
DOMAINS = {
    "cart-pole": "control (cart-pole, compiled)",
    "grid": "a table (grid world, compiled)",
    "tokens": "tokens (a Llama, modules)",
}


def cells() -> dict[str, tuple[str, ...]]:
    """The domains of each part, as the test states them."""
    source = (ROOT / "tests" / "test_shared_parts.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CELLS":
            return ast.literal_eval(node.value)
    raise LookupError("tests/test_shared_parts.py has no CELLS")


def page() -> str:
    """The table."""
    lines = [
        "# One part, several domains\n",
        "A trust rule, an advantage or a preference loss is one function, whether the decisions "
        "are pushes of a cart, moves on a grid or tokens. Each filled cell is a test: it collects "
        "data in that domain, and compares the gradient that the domain's executor makes of the "
        "part with one written down by hand from log-probabilities alone.\n",
        "| part | " + " | ".join(DOMAINS.values()) + " |",
        "|---|" + "---|" * len(DOMAINS),
    ]
    for name, domains in cells().items():
        word, _, rest = name.partition(" ")
        filled = ["✓" if d in domains else "" for d in DOMAINS]
        lines.append(f"| `{word}` {rest} | " + " | ".join(filled) + " |")
    lines += ["", "`pytest tests/test_shared_parts.py` runs them all."]
    return "\n".join(lines) + "\n"


def on_files(files: Files, config: Any) -> Files:
    """Add the page."""
    files.append(File.generated(config, "shared-parts.md", content=page()))
    return files
