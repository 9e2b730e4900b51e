"""`surpass train`: from names on the command line to a run.

What stands above this room is handed in: `load` opens the data, `measure` makes the evaluation
during training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from surpass.errors import InputError
from surpass.parts import set_at
from surpass.registry import build, recipe
from surpass.training.run import Trained, train

__all__ = ["configured", "run"]


def configured(key: str, settings: Sequence[str]) -> Any:
    """The form of a key with `NAME=VALUE` set: a hyperparameter of the recipe, or a dotted path
    into the form.

    Raises:
        InputError: when a setting is not NAME=VALUE, or there is no such name.
    """
    import inspect

    known = inspect.signature(recipe(key)).parameters
    hyper: dict[str, Any] = {}
    paths: list[tuple[str, str]] = []
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting}: write --set NAME=VALUE")
        if "." in name:
            paths.append((name, value))
            continue
        if name in known:
            hyper[name] = _read(value, known[name].default, setting)
        else:
            build(key, **{name: value})  # says what there is
    form = build(key, **hyper)
    for path, value in paths:
        form = set_at(form, path, value)
    return form


def _read(text: str, default: Any, setting: str) -> Any:
    """Text as the type of the hyperparameter's default; as a number where that says nothing."""
    if isinstance(default, str):
        return text
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, tuple):
            kind = type(default[0]) if default else float
            return tuple(kind(v) for v in text.strip("()[]").split(",") if v.strip())
        return float(text)
    except (ValueError, KeyError) as error:
        if not isinstance(default, bool | int | float | tuple):
            raise InputError(f"--set {setting}: a number is expected") from error
        kind = type(default).__name__
        raise InputError(f"--set {setting}: {kind} expected, as in {default!r}") from error


def run(
    key: str,
    *,
    data: str | None = None,
    task: str | None = None,
    roles: Sequence[str] = (),
    model: str | None = None,
    reward: str | None = None,
    language: Mapping[str, Any] | None = None,
    steps: int | None = None,
    settings: Sequence[str] = (),
    seed: int = 0,
    seeds: int = 1,
    out: Path | None = None,
    resume: bool = True,
    evaluate_every: int | None = None,
    device: str | None = None,
    wandb: bool = False,
    load: Callable[[str], Any] | None = None,
    measure: Callable[[str], Any] | None = None,
) -> None:
    """Train, tell how it goes, and say where the policy is.

    Args:
        roles: further logs, each NAME=LOG by the name that the recipe asks for.
        language: what `train_language` takes besides, such as lora, temperature and columns.

    Raises:
        InputError: when names or data do not fit.
    """
    more: dict[str, Any] = {k: v for k, v in (language or {}).items() if v is not None}
    if model is None and (more or reward is not None):
        odd = next(iter(more), "reward")
        raise InputError(f"--{odd} is for language models; name one with --model PATH")
    for name, count in (("seeds", seeds), ("steps", steps)):
        if count is not None and count < 1:
            raise InputError(f"--{name} is {count}; give 1 or more")
    if model is not None and evaluate_every is not None:
        raise InputError("--evaluate-every is not for language models; leave it out")
    console = Console()
    form, place = configured(key, settings), out or Path("runs") / key
    rows: Any = data
    if data is not None and model is None and load is not None:
        rows = load(data)
    for role in roles:
        name, equals, log = role.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--role {role}: write --role NAME=LOG, as in expert=good.parquet")
        if name in ("log", "task"):
            given = "--data LOG" if name == "log" else "--task ID"
            raise InputError(f"--role {role}: this one is given by {given}")
        more[name] = log if load is None else load(log)
    if model is not None:
        from surpass.policies.language import without_bars

        without_bars()
        more |= {"model": model, **({"reward": reward} if reward is not None else {})}
    elif task is not None and measure is not None:
        more["evaluate"] = measure(task)
    if evaluate_every is not None:
        more["evaluate_every"] = evaluate_every
    begun = time.monotonic()
    trained = train(
        form, rows, task, steps=steps, seed=seed, seeds=seeds if seeds > 1 else None, out=place,
        resume=resume, device=device, wandb=wandb,
        say=lambda line: console.print(line, highlight=False), **more,
    )  # fmt: skip
    for found in getattr(trained, "seeds", None) or [trained]:
        if isinstance(found, Trained) and found.history:
            last = {k: v for k, v in found.history[-1].items()
                    if k.startswith(("evaluation", "episode", "env"))}  # fmt: skip
            line = ", ".join(f"{k} {v:.4g}" for k, v in last.items())
            console.print(line, highlight=False)
    if model is not None:
        from surpass.policies.sharding import leave

        leave()
    console.print(f"{place} ({time.monotonic() - begun:.0f} s)", highlight=False)
