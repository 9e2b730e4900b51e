"""What a `Transform` does to a run: a log from the log, or a task from the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.forms import Stage, Stages, Transform

__all__ = ["transformed", "transformed_task"]


def transformed(form: Transform, nets: Any, roles: Mapping[str, Any], seed: int) -> Any:
    """What `form.apply` makes of the task (where it goes into "task"), else of the log.

    Args:
        nets: those trained so far; None: the nets that the caller handed in as roles. The part sees
            them by name, and the logs that were handed in beside.

    Raises:
        InputError: when the task or the log is missing, or what the transform asks for by name.
    """
    what = "task" if form.into == "task" else "log"
    if roles.get(what) is None:
        raise InputError(f"{form.apply!r} transforms the {what}, and none was handed in")
    known: Any = {k: v for k, v in roles.items() if isinstance(v, nn.Module | Transitions)}
    if nets is not None:
        known |= dict(nets.items())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return form.apply(known, roles[what])
        except KeyError as missing:
            raise InputError(
                f"{form.apply!r} needs a net or log called {missing.args[0]!r}: hand it in by that "
                "name"
            ) from missing


def transformed_task(form: Any, roles: Mapping[str, Any]) -> Any:
    """The task as the stages of a form made it, to hand a policy back out.

    Raises:
        InputError: when it was transformed, and the task or a net is not handed in again.
    """
    task = roles.get("task")
    for stage in form.stages if isinstance(form, Stages) else ():
        do = stage.do if isinstance(stage, Stage) else None
        if isinstance(do, Transform) and do.into == "task":
            task = transformed(do, None, {**roles, "task": task}, 0)
    return task
