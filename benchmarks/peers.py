"""The peers' own virtual environments, made in the user's cache folder on first use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

__all__ = ["peer"]


def peer(name: str, *installs: Sequence[str]) -> Path:
    """The Python of a peer's environment; each of `installs` is the arguments of one `pip install`.

    An environment that was made half is made again.
    """
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "surpass" / "peers" / name
    python, done = folder / "bin" / "python", folder / "complete"
    if done.exists():
        return python
    print(f"making the environment of {name} in {folder}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    for arguments in installs:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *arguments], check=True)
    done.touch()
    return python
