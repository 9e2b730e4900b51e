"""Surpass: from a reference policy and its logs to a better policy with the proof.

The short calls: `surpass.improve(logs)`, `surpass.evaluate(policy, logs)`,
`surpass.train(recipe, data)`, `surpass.load(folder)`. Recipes are reached by name:
`surpass.iql(temperature=3.0)`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surpass.data import open_log as open_log
    from surpass.evaluation.policies import evaluate as evaluate
    from surpass.improve.job import improve as improve
    from surpass.serve.monitoring import monitor as monitor
    from surpass.training.opening import load as load
    from surpass.training.run import train as train

__version__ = "0.1.0"

_CALLS = {
    "evaluate": "surpass.evaluation.policies",
    "train": "surpass.training.run",
    "load": "surpass.training.opening",
    "open_log": "surpass.data",
    "monitor": "surpass.serve.monitoring",
    "InputError": "surpass.errors",
    "MissingExtra": "surpass.errors",
}


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name == "improve":  # a room that is also a call
        return importlib.import_module("surpass.improve")
    if name in _CALLS:
        return getattr(importlib.import_module(_CALLS[name]), name)
    from surpass.registry import recipe, systems

    key = name.replace("_", "-")
    if key in systems():
        return recipe(key)
    raise AttributeError(f"surpass has no {name!r}; systems are listed by: surpass list")


def __dir__() -> list[str]:
    return [*_CALLS, "improve", "__version__"]
