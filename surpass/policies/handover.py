"""Handing a policy over: a folder that holds all of it and no code, and its way back.

    policy.safetensors   every number
    policy.json          which class, of what size; encoder, action names, reference, versions
    policy.onnx          the same policy from raw columns to probabilities, for other programs

A file names classes of this library only, by name; nothing in it is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn

from surpass.data.encoders import Encoder
from surpass.data.records import About
from surpass.errors import InputError, MissingExtra, atomic
from surpass.policies.action_values import ActionValues
from surpass.policies.categorical import (
    WithReference,
    draw,
    n_inputs_of,
    needs_reference,
    probabilities,
)
from surpass.policies.tilted import Constant, rebuild, specification

__all__ = ["HandedPolicy", "load", "save", "storable"]

FORMAT = 1
_ROOMS = ("surpass.policies.trees", "surpass.policies.mixed_logit")
NUMBERS, CARD, GRAPH = "policy.safetensors", "policy.json", "policy.onnx"


class HandedPolicy(nn.Module):
    """A policy with what it needs to act on raw rows: its encoder and the names of its actions.

    As a module it is the policy itself: `forward(context [N, d], reference [N, A]) -> [N, A]`.

    Attributes:
        policy: the module. actions: names, in the order of their numbers.
        encoder: from raw columns to context; None where the policy reads numbers as they are.
        context: the names of the context's columns. needs_reference: whether every decision needs
            the reference's probabilities.
        card: the content of policy.json.
    """

    def __init__(
        self, policy: nn.Module, actions: Sequence[str], encoder: Encoder | None = None,
        context: Sequence[str] = (), card: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.policy = policy
        self.actions = tuple(actions)
        self.encoder = encoder
        self.context = tuple(context)
        self.needs_reference = needs_reference(policy)
        self.card = dict(card or {})

    @property
    def n_actions(self) -> int:
        """How many actions there are."""
        return len(self.actions)

    def forward(
        self, context: Float[Tensor, "N d"], reference: Float[Tensor, "N A"] | None = None
    ) -> Float[Tensor, "N A"]:
        if reference is None and self.needs_reference:
            raise self._no_reference()
        if reference is None:
            reference = torch.full((context.shape[0], self.n_actions), 1.0 / self.n_actions)
        return self.policy(context, reference.to(torch.float64))

    def encode(self, rows: Any) -> Float[Tensor, "N d"]:
        """The context of raw rows: a table, a data frame, a dict of columns, or [N, d] numbers.

        Raises:
            InputError: when columns are missing or hold what cannot be read.
        """
        if isinstance(rows, Tensor):
            return rows
        if self.encoder is not None:
            return self.encoder.transform(rows)
        if isinstance(rows, Mapping):
            missing = [c for c in self.context if c not in rows]
            if missing:
                raise InputError(f"context column {missing[0]!r} is missing; give all of "
                                 f"{', '.join(self.context)}")  # fmt: skip
            try:
                columns = [torch.as_tensor(rows[c], dtype=torch.float32) for c in self.context]
            except (TypeError, ValueError) as error:
                raise InputError(f"the context holds what is not a number: {error}") from error
            return torch.stack(columns, -1)
        try:
            return torch.as_tensor(rows, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"the context cannot be read as numbers: {error}") from error

    def probabilities(
        self,
        rows: Any,
        reference: Float[Tensor, "N A"] | None = None,
        available: Bool[Tensor, "N A"] | None = None,
    ) -> Float[Tensor, "N A"]:
        """The probability of every action for raw rows, [N, A] in double precision."""
        context = self.encode(rows)
        d = n_inputs_of(self.policy)
        if context.dim() != 2 or (d and context.shape[1] != d):
            raise InputError(
                f"the context has shape {list(context.shape)}; this policy reads [rows, {d}]"
            )
        if reference is None:
            if self.needs_reference:
                raise self._no_reference()
            reference = torch.full(
                (context.shape[0], self.n_actions), 1.0 / self.n_actions, dtype=torch.float64
            )
        return probabilities(self.policy, context, reference, available)

    def predict(self, rows: Any, reference: Tensor | None = None,
                available: Tensor | None = None) -> list[str]:  # fmt: skip
        """The most probable action of every row, by name."""
        best = self.probabilities(rows, reference, available).argmax(-1)
        return [self.actions[a] for a in best.tolist()]

    def sample(
        self,
        rows: Any,
        reference: Tensor | None = None,
        available: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Int[Tensor, "N"], Float[Tensor, "N"]]:
        """Draw an action per row: `(action numbers, exact propensities)`."""
        return draw(self.probabilities(rows, reference, available), generator)

    def _no_reference(self) -> InputError:
        return InputError(
            "this policy moves away from a reference that depends on the context: give the "
            "reference's probabilities of every action, [rows, actions]"
        )


def storable(policy: nn.Module) -> bool:
    """Whether `save` can write the policy: it is made of the library's own classes."""
    try:
        specification(_bare(policy))
    except (InputError, AttributeError):
        return False
    return True


def _bare(policy: nn.Module) -> nn.Module:
    return policy.policy if isinstance(policy, HandedPolicy) else policy


def save(
    policy: nn.Module,
    folder: str | Path,
    *,
    about: About | None = None,
    reference: nn.Module | Sequence[float] | Tensor | None = None,
    actions: Sequence[str] | None = None,
    notes: Mapping[str, Any] | None = None,
    onnx: bool = True,
) -> str:
    """Write a policy folder.

    Args:
        policy: made of the library's policy classes.
        folder: is made if need be; the files in it appear whole or not at all.
        about: of the log it was learned from: action names, encoder, names of the context.
        reference: a reference that the policy shall carry: a policy, or the probabilities of the
            actions where they are the same in every context. Without one, a policy that moves
            away from the reference is given it at every decision.
        actions: names, where `about` has none.
        notes: further plain values for policy.json.
        onnx: write policy.onnx too, where the extra `serve` is installed.

    Returns:
        What became of policy.onnx: "written", or why it was left out.

    Raises:
        InputError: when the policy holds a class that is not the library's, or the folder cannot
            be written.
    """
    about = about or (policy.card.get("about") if isinstance(policy, HandedPolicy) else None)
    about = about if isinstance(about, About) else About()
    given = policy if isinstance(policy, HandedPolicy) else None
    encoder = given.encoder if given else about.encoder
    names = tuple(actions or (given.actions if given else about.actions))
    context = tuple(given.context if given else about.names.get("context", ()))
    policy = _bare(policy)
    if reference is not None and needs_reference(policy):
        policy = WithReference(policy, _as_policy(reference))
    names = names or tuple(str(a) for a in range(_n_actions(policy)))
    handed = HandedPolicy(policy, names, encoder, context)
    folder = Path(folder)
    numbers = {k: v.detach().cpu().contiguous().clone() for k, v in policy.state_dict().items()}
    payload = safetensors.torch.save(numbers)
    graph, why = _graph(handed) if onnx else (None, "not asked for")
    card = {
        "format": FORMAT,
        "policy": specification(policy),
        "actions": list(names),
        "context": list(context),
        "encoder": None if encoder is None else encoder.to_json(),
        "reference": "given with every decision" if handed.needs_reference else "carried",
        "onnx": why,
        "log": about.name,
        "notes": dict(notes or {}),
        "versions": _versions(),
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    try:
        text = json.dumps(card, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"the policy's description is not plain JSON: {error}") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in ((NUMBERS, payload), (CARD, text.encode()), (GRAPH, graph)):
            if content is None:
                (folder / name).unlink(missing_ok=True)
                continue
            with atomic(folder / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error.strerror or error}; give another folder"
        ) from error
    return why


def _as_policy(reference: Any) -> nn.Module:
    if isinstance(reference, nn.Module):
        return _bare(reference)
    table = torch.as_tensor(reference, dtype=torch.float64)
    if table.dim() != 1:
        raise InputError(
            f"a reference to carry is a policy or one probability per action, not of shape "
            f"{list(table.shape)}"
        )
    return Constant(len(table), table)


def _n_actions(policy: nn.Module) -> int:
    for module in policy.modules():
        if isinstance(found := getattr(module, "n_actions", None), int):
            return found
        if isinstance(module, Constant):
            return len(module.probabilities)
    raise InputError("the policy does not say how many actions it has; give their names")


def _graph(handed: HandedPolicy) -> tuple[bytes | None, str]:
    from surpass.policies.onnx_policy import onnx_bytes

    try:
        return onnx_bytes(handed), "written"
    except MissingExtra as error:
        return None, f"left out: {error}"
    except InputError as error:
        return None, f"left out: {error}"


def _versions() -> dict[str, str]:
    out = {"python": platform.python_version()}
    for name in ("surpass", "torch", "safetensors", "onnx"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed as a package"
    return out


# ----------------------------------------------------------------------------------------------
# the way back


def load(folder: str | Path) -> HandedPolicy:
    """The policy of a folder that `save` (or `surpass improve`, in its `policy`) wrote.

    Raises:
        InputError: when a file is missing or damaged, or names a class that is not the library's.
    """
    folder = Path(folder)
    if not (folder / CARD).exists() and (folder / "policy" / CARD).exists():
        folder = folder / "policy"  # the folder of a report
    card = _card(folder)
    policy = _rebuilt(folder, card)
    encoder = None if card["encoder"] is None else Encoder.from_json(card["encoder"])
    return HandedPolicy(policy.eval(), card["actions"], encoder, card["context"], card)


def _card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} has no {CARD}, so it is not a policy folder; surpass improve writes one "
            "as OUT/policy"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; write the policy again") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else None
        raise InputError(
            f"{path} has format {found!r}, this version reads {FORMAT}; write the policy again"
        )
    kinds = {
        "policy": dict,
        "actions": list,
        "context": list,
        "encoder": dict | None,
        "sha256": str,
    }
    for key, kind in kinds.items():
        if key not in card or not isinstance(card[key], kind):
            raise InputError(f"{path}: {key!r} is missing or of the wrong kind; write it again")
    return card


def _register() -> None:
    """Import the modules whose policy classes a file may name."""
    for room in _ROOMS:
        if importlib.util.find_spec(room) is not None:
            importlib.import_module(room)


def _rebuilt(folder: Path, card: dict[str, Any]) -> nn.Module:
    path = folder / NUMBERS
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(payload).hexdigest() != card["sha256"]:
        raise InputError(
            f"{path} is not the file that {CARD} describes (its checksum differs): it was changed "
            "or damaged; write the policy again"
        )
    _register()
    try:
        policy = rebuild(card["policy"])
        policy.load_state_dict(safetensors.torch.load(payload), strict=True)
    except InputError as error:
        raise InputError(f"{folder / CARD}: {error}; it was changed, or written by another "
                         "version") from error  # fmt: skip
    except (SafetensorError, TypeError, ValueError, KeyError, AttributeError, RuntimeError,
            MemoryError, OverflowError) as error:  # fmt: skip
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"{folder}: the policy cannot be rebuilt ({line}); it was changed, or written by "
            "another version"
        ) from error
    if isinstance(policy, ActionValues):
        raise InputError(f"{folder / CARD} names {type(policy).__name__}, which is not a policy")
    return policy
