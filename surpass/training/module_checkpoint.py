"""Checkpoints of a language model in training: from one, training goes on as if it had not
stopped.

A folder holds `tensors.safetensors` (trained weights, further nets, moments of Adam, copies of the
model, stored log-probs, states of parts) and `trainer.json` (step, form, stream, generators, and
what the model looks like). It is written whole or not at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from surpass.errors import InputError, atomic_dir
from surpass.parts import to_json
from surpass.policies.sharding import copied, everyone, rank, whole_of, world
from surpass.training.modules import ModuleTrainer, Optimization

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(trainer: ModuleTrainer, folder: str | Path) -> None:
    """Write all that changes in training; of several processes the first writes, and all have to
    call it."""
    tensors = {k: whole_of(v.detach()) for k, v in _tensors(trainer).items()}
    streams, draws = everyone(trainer.stream.state_dict()), everyone(_draws(trainer))
    tensors |= {k: v for part in everyone(_stored(trainer)) for k, v in part.items()}
    if rank() > 0:
        return
    note = {
        "step": trainer.step, "form": _form(trainer), "shape": _shape(trainer.policy.model),
        "streams": streams, "draws": draws,
    }  # fmt: skip
    with atomic_dir(folder, overwrite=True) as place:
        save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()},
                  place / "tensors.safetensors")  # fmt: skip
        (place / "trainer.json").write_text(json.dumps(note))


def load_checkpoint(trainer: ModuleTrainer, folder: str | Path) -> None:
    """Put a trainer of the same form and model where the checkpoint was written.

    Raises:
        InputError: when it is of another model or another recipe, or no checkpoint.
    """
    folder = Path(folder)
    if not (folder / "trainer.json").exists():
        raise InputError(f"{folder} holds no checkpoint of training; give the --out of a run")
    note = json.loads((folder / "trainer.json").read_text())
    if note["shape"] != _shape(trainer.policy.model):
        raise InputError(
            f"{folder} is a checkpoint of another model ({_difference(note, trainer)}); give that "
            "model, or another --out"
        )
    if note["form"] != _form(trainer):
        raise InputError(f"{folder} is a checkpoint of another recipe or other hyperparameters; "
                         "give those, or another --out")  # fmt: skip
    if "draws" not in note:
        raise InputError(f"{folder} is a checkpoint of an earlier version; give another --out")
    tensors = load_file(folder / "tensors.safetensors")
    trainer.stream.load_state_dict(_own_stream(note["streams"], trainer, folder))
    _load_stored(trainer, tensors)
    _load_tensors(trainer, tensors)
    trainer.step = int(note["step"])
    draws = note["draws"]
    _draw_on(trainer, draws[rank()] if len(draws) == world() else draws[0])


def _draws(trainer: ModuleTrainer) -> dict[str, list[int]]:
    """The generators of this process: of minibatches, and those that parts draw from."""
    out = {"generator": trainer.generator.get_state(), "cpu": torch.get_rng_state()}
    if trainer.policy.device.type == "cuda":
        out["cuda"] = torch.cuda.get_rng_state(trainer.policy.device)
    return {name: state.tolist() for name, state in out.items()}


def _draw_on(trainer: ModuleTrainer, draws: dict[str, list[int]]) -> None:
    held = {name: torch.tensor(state, dtype=torch.uint8) for name, state in draws.items()}
    trainer.generator.set_state(held["generator"])
    torch.set_rng_state(held["cpu"])
    if "cuda" in held and trainer.policy.device.type == "cuda":
        torch.cuda.set_rng_state(held["cuda"], trainer.policy.device)


def _own_stream(states: list[Any], trainer: ModuleTrainer, folder: Path) -> Any:
    """The state of this process's stream; rows of a log are dealt out anew to any number."""
    if len(states) == world():
        return states[rank()]
    if trainer.stream.fixed:
        return states[0]
    raise InputError(
        f"{folder} was written by {len(states)} processes that sampled; go on with as many, not "
        f"with {world()}"
    )


def _form(trainer: ModuleTrainer) -> Any:
    try:
        return to_json(trainer.form)
    except InputError:  # holds a lambda: what it prints must do
        return repr(trainer.form)


def _shape(model: nn.Module) -> dict[str, list[int]]:
    return {name: list(p.shape) for name, p in model.named_parameters()}


def _difference(note: dict[str, Any], trainer: ModuleTrainer) -> str:
    theirs, ours = note["shape"], _shape(trainer.policy.model)
    for name in {**theirs, **ours}:
        if theirs.get(name) != ours.get(name):
            there, here = theirs.get(name, "missing"), ours.get(name, "missing")
            return f"{name} is {there} there and {here} here"
    return "other weights"


def _optimizations(trainer: ModuleTrainer) -> dict[str, Optimization]:
    return {"main": trainer.main, **trainer.also}


def _tensors(trainer: ModuleTrainer) -> dict[str, Tensor]:
    model = trainer.policy.model
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    out: dict[str, Tensor] = {f"policy/{n}": p for n, p in trained}
    for name, net in trainer.nets.items():
        out |= {f"net/{name}/{k}": v for k, v in net.state_dict().items()}
    for name, each in _optimizations(trainer).items():
        for i, p in enumerate(each.parameters):
            moments = each.optimizer.state.get(p, {})
            out |= {f"adam/{name}/{i}/{k}": v for k, v in moments.items()}
    for name, each in trainer.twins.items():
        out |= {f"twin/{name}/{k}": v for k, v in each.state().items()}
    for path, state in trainer.running.state.items():
        out |= {f"state/{path}/{k}": v for k, v in state.items()}
    return out


def _stored(trainer: ModuleTrainer) -> dict[str, Tensor]:
    if trainer.stored is None:
        return {}
    return {f"stored/{k}": v for k, v in trainer.stored.state().items()}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _load_stored(trainer: ModuleTrainer, tensors: dict[str, Tensor]) -> None:
    """Stored log-probs; rows that the first run did not plan to visit are computed now, while the
    trainer still holds the model that it starts from."""
    if trainer.stored is None:
        return
    trainer.stored.load(_under(tensors, "stored/"))
    sides = tuple(dict.fromkeys(side for side, _ in trainer.stored.rows))
    coming = trainer.stream.coming()
    if not sides or all((side, i) in trainer.stored.rows for side in sides for i in coming):
        return
    row = next(i for _, i in trainer.stored.rows)
    kept = {side: trainer.stored.rows.pop((side, row)) for side in sides}
    trainer.store(sides, [row])
    again = {side: trainer.stored.rows[side, row] for side in sides}
    if not all(torch.allclose(again[side], kept[side], atol=1e-3) for side in sides):
        raise InputError(
            "to go on for more updates than were planned, give the model that training started from"
        )
    trainer.stored.rows |= {(side, row): kept[side] for side in sides}
    trainer.store(sides, coming)


def _like(parameter: Tensor, name: str, value: Tensor, fused: bool) -> Tensor:
    """A moment of Adam as its parameter is: on its device, spread as it is. The count of steps is
    on the CPU, but with its parameter where one kernel does all."""
    if name == "step":
        return value.to(parameter.device) if fused else value
    with torch.no_grad():
        out = torch.zeros_like(parameter)
        copied(out, value)
    return out


def _load_tensors(trainer: ModuleTrainer, tensors: dict[str, Tensor]) -> None:
    mine = dict(trainer.policy.model.named_parameters())
    with torch.no_grad():
        for name, value in _under(tensors, "policy/").items():
            copied(mine[name], value)
    for name, net in trainer.nets.items():
        net.load_state_dict(_under(tensors, f"net/{name}/"))
    for name, each in _optimizations(trainer).items():
        for i, p in enumerate(each.parameters):
            moments = _under(tensors, f"adam/{name}/{i}/")
            if moments:
                fused = bool(each.optimizer.defaults["fused"])
                each.optimizer.state[p] = {k: _like(p, k, v, fused) for k, v in moments.items()}
    for name, each in trainer.twins.items():
        each.load(_under(tensors, f"twin/{name}/"))
    for path in trainer.running.state:
        held = _under(tensors, f"state/{path}/")
        trainer.running.state[path] = {k: v.to(trainer.policy.device) for k, v in held.items()}
