"""The decision service behind `surpass serve`: it decides, logs what it decided and how likely that
was, and takes the rewards.

    POST /decide  {"context": {"age": 41, "city": "Rome"}}  ->  {"id", "action", "probability"}
    POST /reward  {"id": "...", "reward": 1}
    POST /flush   writes the rewarded decisions as a part of the log now
    GET  /health  what is served, and what is logged

Further fields of a decision: `available` (names of the actions on offer) and, for policies that
move away from a reference that depends on the context, `reference` (a probability per action).
Errors are `{"error": one line}` with status 422, or 404 for the reward of an unknown decision.
"""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from surpass.errors import InputError, extra, nearest
from surpass.policies.categorical import draw, n_inputs_of
from surpass.policies.handover import HandedPolicy, load
from surpass.serve.log import DecisionLog, Unknown, as_arrow, log_schema

__all__ = ["Decider", "create_app", "run"]

_FIELDS = ("context", "available", "reference")


class Decider:
    """A policy and its log: everything of the service but the web.

    Args:
        policy: what decides.
        logs: the folder of the log.
        seed: of the draws; None: not reproducible.
        options: of `DecisionLog`.
    """

    def __init__(
        self, policy: HandedPolicy, logs: str | Path, *, seed: int | None = None, **options: Any
    ) -> None:
        self.policy = policy
        self.columns = _columns(policy)
        version = str(policy.card.get("sha256", ""))
        self.log = DecisionLog(logs, log_schema(self.columns, policy.actions, version), **options)
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)
        self._guard = threading.Lock()

    def decide(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Draw an action and log it.

        Raises:
            InputError: when the request cannot be used, naming the field.
        """
        unknown = [k for k in request if k not in _FIELDS]
        if unknown:
            raise InputError(f"unknown field {unknown[0]!r}{nearest(unknown[0], _FIELDS)}; "
                             f"a decision has {', '.join(_FIELDS)}")  # fmt: skip
        row = _row(request.get("context"), self.columns)
        available = self._available(request.get("available"))
        reference = self._reference(request.get("reference"))
        rows = self._rows(row)
        chances = self.policy.probabilities(rows, reference, available)
        with self._guard:
            action, propensity = draw(chances, self.generator)
        name = self.policy.actions[int(action)]
        exact = (chances[0] / chances[0].sum()).tolist()
        number = self.log.decided({
            **row,
            "action": name,
            "propensity": float(propensity),
            **{f"propensity_{a}": p for a, p in zip(self.policy.actions, exact, strict=True)},
            **{f"available_{a}": bool(ok)
               for a, ok in zip(self.policy.actions, available[0].tolist(), strict=True)},
        })  # fmt: skip
        return {"id": number, "action": name, "probability": float(propensity)}

    def reward(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Take the reward of a decision.

        Raises:
            InputError: when the request cannot be used. Unknown: when the decision is not known.
        """
        for field in ("id", "reward"):
            if field not in request:
                raise InputError(f"{field!r} is missing; a reward has id and reward")
        self.log.rewarded(str(request["id"]), request["reward"])
        return {"id": request["id"], "reward": request["reward"]}

    def health(self) -> dict[str, Any]:
        """What is served, and how many decisions are logged."""
        return {
            "actions": list(self.policy.actions),
            "context": {name: str(kind) for name, kind in self.columns.items()},
            "needs_reference": self.policy.needs_reference,
            "policy": str(self.policy.card.get("sha256", ""))[:12],
            "log": self.log.counts,
        }

    def _rows(self, row: Mapping[str, Any]) -> Any:
        if self.policy.encoder is not None:
            columns = self.columns.items()
            return pa.table({c: pa.array([as_arrow(row[c], k)], k) for c, k in columns})
        numbers = [math.nan if row[c] is None else row[c] for c in self.columns]
        if not np.isfinite(numbers).all():
            missing = list(self.columns)[int(np.argmin(np.isfinite(numbers)))]
            raise InputError(f"context column {missing!r} is missing; this policy needs a number")
        return torch.tensor([numbers], dtype=torch.float32)

    def _available(self, names: Any) -> Tensor:
        actions = self.policy.actions
        if names is None:
            return torch.ones(1, len(actions), dtype=torch.bool)
        if not isinstance(names, Sequence) or isinstance(names, str) or not names:
            raise InputError("available is a list of the names of actions on offer")
        wrong = [a for a in names if a not in actions]
        if wrong:
            raise InputError(f"available names {wrong[0]!r}, which is no action of this policy"
                             f"{nearest(str(wrong[0]), actions)}")  # fmt: skip
        return torch.tensor([[a in names for a in actions]])

    def _reference(self, given: Any) -> Tensor | None:
        actions = self.policy.actions
        if given is None:
            return None
        if isinstance(given, Mapping):
            wrong = [a for a in given if a not in actions]
            if wrong:
                raise InputError(f"reference names {wrong[0]!r}, which is no action of this policy"
                                 f"{nearest(str(wrong[0]), actions)}")  # fmt: skip
            given = [given.get(a, 0.0) for a in actions]
        if not isinstance(given, list) or len(given) != len(actions):
            raise InputError(f"reference is a probability for each of the {len(actions)} actions")
        number = all(isinstance(p, int | float) and not isinstance(p, bool) for p in given)
        if not number or min(given) < 0 or abs(sum(given) - 1) > 1e-6:
            raise InputError("reference holds probabilities in [0, 1] that sum to 1")
        return torch.tensor([given], dtype=torch.float64)


def _columns(policy: HandedPolicy) -> dict[str, pa.DataType]:
    """The raw columns that the policy reads, with their types."""
    if policy.encoder is None:
        names = policy.context or tuple(f"context_{j}" for j in range(n_inputs_of(policy.policy)))
        return dict.fromkeys(names, pa.float64())
    out: dict[str, pa.DataType] = {}
    for number in policy.encoder.numeric:
        kind = pa.timestamp("us", "UTC") if number.time else pa.float64()
        out[number.column] = kind if number.index is None else pa.list_(pa.float64())
    return {**out, **{c.column: pa.string() for c in policy.encoder.categorical}}


def _row(context: Any, columns: Mapping[str, pa.DataType]) -> dict[str, Any]:
    """The context of a request in the types of the log, as JSON can hold them."""
    if isinstance(context, list) and len(context) == len(columns):
        context = dict(zip(columns, context, strict=True))
    if not isinstance(context, Mapping):
        raise InputError(
            f"'context' is missing; give an object with {', '.join(columns) or 'nothing'}"
        )
    for name in context:
        if name not in columns:
            raise InputError(
                f"the policy reads no context column {name!r}{nearest(name, list(columns))}"
            )
    for name in columns:
        if name not in context:
            raise InputError(f"context column {name!r} is missing; null says that it is not known")
    return {name: _value(name, context[name], kind) for name, kind in columns.items()}


def _value(name: str, value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_string(kind):
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        if isinstance(value, str | int | float):
            return str(value)
        raise InputError(f"context column {name!r} holds {value!r}; give a word or a number")
    if pa.types.is_list(kind):
        if not isinstance(value, list) or any(_number(name, v) is None for v in value):
            raise InputError(f"context column {name!r} holds {value!r}; give a list of numbers")
        return [float(v) for v in value]
    if pa.types.is_timestamp(kind) and isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise InputError(
                f"context column {name!r} holds {value!r}; give an ISO 8601 time"
            ) from error
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return _number(name, value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    raise InputError(f"context column {name!r} holds {value!r}; give a number, or null")


# ----------------------------------------------------------------------------------------------
# the web


def create_app(decider: Decider) -> Any:
    """The FastAPI application; its log is closed when it shuts down.

    Raises:
        MissingExtra: when fastapi is not installed.
    """
    fastapi = extra("fastapi")
    responses, exceptions = extra("fastapi.responses"), extra("fastapi.exceptions")

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        decider.log.close()

    app = fastapi.FastAPI(title="Surpass decisions", lifespan=lifespan)

    def told(status: int, text: str) -> Any:
        return responses.JSONResponse({"error": " ".join(text.split())}, status_code=status)

    @app.exception_handler(InputError)
    async def wrong(_: Any, error: InputError) -> Any:
        return told(404 if isinstance(error, Unknown) else 422, str(error))

    @app.exception_handler(exceptions.RequestValidationError)
    async def unreadable(_: Any, error: Any) -> Any:
        why = "; ".join(str(e.get("msg", e)) for e in error.errors())
        return told(422, f"the request is not a JSON object: {why}")

    def decide(request: dict[str, Any]) -> dict[str, Any]:
        """Draw an action for a context, and log it with its exact propensity."""
        return decider.decide(request)

    def reward(request: dict[str, Any]) -> dict[str, Any]:
        """Log the reward of a decision."""
        return decider.reward(request)

    def flush() -> dict[str, Any]:
        """Write the rewarded decisions as a part of the log now."""
        part = decider.log.flush()
        return {"part": None if part is None else part.name}

    app.post("/decide")(decide)
    app.post("/reward")(reward)
    app.post("/flush")(flush)
    app.get("/health")(decider.health)
    return app


def run(
    policy: str | Path,
    *,
    logs: str | Path = "decisions",
    host: str = "127.0.0.1",
    port: int = 8321,
    seed: int | None = None,
    default_reward: float | None = None,
    patience: float = 3600.0,
) -> None:
    """Serve a policy folder until interrupted.

    Args:
        policy: a folder that `surpass improve` wrote.
        logs: where decisions and rewards are logged.
        host, port: the address.
        seed: makes the choices reproducible.
        default_reward: of decisions that got no reward within `patience` seconds.

    Raises:
        InputError: when the folder, the log or the address cannot be used.
        MissingExtra: when the extra `serve` is not installed.
    """
    uvicorn = extra("uvicorn")
    handed = load(policy)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(
                f"{host}:{port} cannot be listened on: {why}; give another --port"
            ) from error
    decider = Decider(handed, logs, seed=seed, default_reward=default_reward, patience=patience)
    app = create_app(decider)
    print(f"serving {len(handed.actions)} actions on http://{host}:{port}, logging to {logs}/")
    print("POST /decide {context}, POST /reward {id, reward}, GET /health; try them on /docs")
    uvicorn.run(app, host=host, port=port, log_level="warning")
