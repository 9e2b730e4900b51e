"""An example for every kind of part: what it sees, made from named tensors, so that a test can run
it traced, for several seeds at once, and with other entries behind the mask."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import surpass
from surpass.critics.domains import domains
from surpass.critics.dynamics import dynamics, inverse_dynamics
from surpass.critics.ensembles import critic, dual, value
from surpass.critics.state_values import state_values
from surpass.critics.transition_rewards import transition_reward
from surpass.forms import Outlook, Spaces
from surpass.objectives.advantage import gae
from surpass.objectives.bellman import sarsa
from surpass.objectives.dual_values import chi_square
from surpass.objectives.prompt_choice import Outcomes
from surpass.objectives.reduce import decided
from surpass.objectives.rows import Rows
from surpass.objectives.scores import importance
from surpass.objectives.trajectory_scores import trajectory
from surpass.objectives.value import clone, maximize
from surpass.objectives.views import Query, Side, Sides, Steps, TrajectoryQuery
from surpass.objectives.weights import over_value
from surpass.parts import PARTS, initial_state, run
from surpass.parts.part import Definition, Part
from surpass.policies.borrowed import Borrowed
from surpass.policies.exploring import inverse_gap
from surpass.policies.flow import flow
from surpass.policies.gaussian import gaussian
from surpass.policies.many_agents import agent_gaussian
from surpass.policies.stochastic import stochastic
from surpass.policies.variational import action_vae
from surpass.training.rollouts import SequenceRows

__all__ = ["Example", "discovered", "example", "kind_of"]

Tensors = dict[str, Tensor]
SPACES, DISCRETE = Spaces(3, 2), Spaces(3, n_actions=4)
B, T, A = 8, 5, 4


@dataclass(frozen=True)
class Example:
    """A part with hyperparameters, the tensors that it sees, and how it is called with them."""

    part: Any
    tensors: Tensors
    see: Callable[[Tensors], tuple[Any, ...]]
    masked: tuple[str, ...] = ()

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensors:
        """What the part gives, as named tensors."""
        value, after = run(self.part, self.see(dict(tensors)), state=initial_state(self.part))
        found = {"": value} if isinstance(value, Tensor) else _columns(value)
        return {**found, **{f"{p}:{k}": v for p, held in after.items() for k, v in held.items()}}


def _columns(value: Any) -> Tensors:
    if isinstance(value, Rows):
        return value.columns
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return {str(i): v for i, v in enumerate(value)}
    raise TypeError(f"{type(value).__name__} is not made of tensors")


def discovered() -> dict[str, Definition]:
    """Every part of the package, by home."""
    for module in pkgutil.walk_packages(surpass.__path__, "surpass."):
        if not module.name.startswith(("surpass.cli", "surpass.evidence", "surpass.__main__")):
            importlib.import_module(module.name)
    return dict(sorted(PARTS.items()))


def kind_of(definition: Definition) -> tuple[str, ...]:
    """What a part sees, as its signature names it, without its state."""
    seen = [str(p.annotation) for p in inspect.signature(definition.function).parameters.values()
            if p.kind is p.POSITIONAL_ONLY]  # fmt: skip
    return tuple(seen[1:] if definition.state is not None else seen)


# ----------------------------------------------------------------------------------------------
# hyperparameters without a default


def _logged_action(nets: Any, rows: Rows) -> Tensor:
    return rows.action


REQUIRED: dict[str, Any] = {
    "backup": sarsa(), "advantage": over_value(), "outer": maximize(), "good": over_value(),
    "target": Part(Definition("logged_action", _logged_action)), "term": "down", "keep": "up",
    "project": "down", "members": ("pi", "pi_other"), "choose": inverse_gap(), "f": chi_square(),
    "guide": maximize(), "weight": over_value(),
}  # fmt: skip
BY_KIND = {
    "inner": {"Sequences": gae(), "Rows": clone()},
    "score": {"Query": importance(), "TrajectoryQuery": trajectory()},
}


def _built(definition: Definition, kind: tuple[str, ...]) -> Part[Any, Any]:
    wanted = [p.name for p in inspect.signature(definition.function).parameters.values()
              if p.kind is not p.POSITIONAL_ONLY and p.default is p.empty]  # fmt: skip
    values = {n: BY_KIND[n][kind[-1]] if n in BY_KIND else REQUIRED[n] for n in wanted}
    return Part(definition, tuple(values.items()))


# ----------------------------------------------------------------------------------------------
# nets by name

NETS: dict[str, Any] = {
    "q": critic(3, (8,)), "v": value(2, (8,)), "pi": gaussian((8,)), "alpha": dual(),
    "policy": stochastic((8,)), "value": state_values((8,)), "median": state_values((8,)),
    "reward": critic(2, (8,)), "anchor": gaussian((8,)), "reference": stochastic((8,)),
    "base": flow((8,)), "latent": critic(1, (8,)), "model": dynamics(3, (8,)),
    "transitions": transition_reward((8,)), "behavior": agent_gaussian(1, (8,)),
    "domains": domains((8,)), "density": action_vae((8,)),
    "inverse": inverse_dynamics((8,)), "returns": critic(1, (8,), head="gaussian"),
}  # fmt: skip


def _net_names(part: Any) -> set[str]:
    """Text among a part's hyperparameters, held parts included: names of nets."""
    found: set[str] = set()
    for held in part.hyper.values():
        if isinstance(held, Part):
            found |= _net_names(held)
        elif isinstance(held, str):
            found.add(held)
        elif isinstance(held, tuple):
            found |= {name for name in held if isinstance(name, str)}
    return found


def _net(name: str) -> Any:
    """The kind of net that a name stands for: `q_target` and `q_h` are critics."""
    first = name.split("_")[0]
    return NETS.get(name) or NETS.get(first)


CHOOSING = ("objectives.greedy.best_action",)  # parts for discrete actions only


def _with_nets(part: Any) -> tuple[Tensors, Callable[[Tensors], Any]]:
    spaces = DISCRETE if part.definition.home in CHOOSING else SPACES
    other = {"reward": "transitions"} if "adversarial" in part.definition.home else {}
    if "gaussian_returns" in part.definition.home:
        other = {"q": "returns", "q_target": "returns"}
    nets = {n: _net(other.get(n, n))(spaces) for n in sorted(_net_names(part)) if _net(n)}
    tensors = {f"net.{n}.{k}": p.detach() for n, net in nets.items()
               for k, p in [*net.named_parameters(), *net.named_buffers()]}  # fmt: skip

    def lent(held: Tensors) -> Any:
        def of(name: str) -> Tensors:
            start = f"net.{name}."
            return {k.removeprefix(start): v for k, v in held.items() if k.startswith(start)}

        return _Nets({n: Borrowed(net, of(n)) for n, net in nets.items()})

    return tensors, lent


class _Nets(dict):
    __getattr__ = dict.__getitem__


# ----------------------------------------------------------------------------------------------
# records


def _rows() -> Tensors:
    floats = {n: torch.randn(B) for n in ("reward", "return_to_go", "cost", "observed")}
    return {
        "obs": torch.randn(B, 3), "action": torch.rand(B, 2) * 1.8 - 0.9,
        "next_obs": torch.randn(B, 3), "next_action": torch.rand(B, 2) * 1.8 - 0.9,
        "target_action": torch.rand(B, 2) * 1.8 - 0.9, "clean": torch.rand(B, 2) * 1.8 - 0.9,
        "outcome": torch.randn(B, 4),
        "terminated": torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]), **floats,
        "multiplier": torch.rand(B, 3),
        "labeled": torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0]),
        "source": torch.tensor([0, 1, 0, 0, 1, 0, 1, 0]), "age": torch.rand(B),
        "q_target": torch.randn(B), "progress": torch.rand(B), "earned": torch.randn(B),
        "feedback": torch.tensor([0, 1, 2, 3, 0, 2, 3, 0]),
    }  # fmt: skip


MASK = (torch.arange(T) < torch.tensor([5, 3, 4, 5, 1, 2, 5, 4])[:, None]).float()
GROUP = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
LOGPS = ("logp", "anchor_logp", "behavior_logp", "ref_logp")


GAUSSIAN = ("center", "standard", "anchor_center", "anchor_standard", "ref_center", "spread")
LAWS = ("law", "anchor_law")
TABLES = ("log_scores", "anchor_log_scores", "ref_log_scores", "probabilities",
          "anchor_probabilities", "resampled_weights", "anchor_resampled_weights")  # fmt: skip


def _steps() -> Tensors:
    found = {n: -torch.rand(B, T) - 0.2 for n in LOGPS}
    found |= {n: torch.randn(B, T) for n in ("advantage", "loss", "lean", "log_partition")}
    found |= {"entropy": torch.rand(B, T), "collision": -torch.rand(B, T)}
    found |= {n: -torch.rand(B, T) - 1.0 for n in ("mean_logp", "anchor_mean_logp")}
    found |= {"token_rollout": -torch.rand(B, T)}
    found |= {"accuracy": torch.rand(B, T), "age": 1.0 * torch.randint(0, 3, (B, T))}
    found |= {n: torch.randn(B, T, 2) for n in GAUSSIAN} | {"stride": torch.rand(B, T) + 0.1}
    found |= {n: torch.randn(B, T, A).log_softmax(-1) for n in LAWS}
    tables = {n: torch.randn(B, T, A) for n in TABLES}
    found |= {n: v - v[..., :1] if n.endswith("scores") else v for n, v in tables.items()}
    found["log_ratio"] = torch.where(MASK > 0, found["logp"] - found["anchor_logp"], 0.0)
    return found


def _as_steps(t: Tensors, rows: slice = slice(None)) -> Steps:
    turn = torch.where(MASK > 0, torch.arange(T) // 2, -1)
    columns = ("collision", "lean", "log_partition", "entropy", "ref_logp", "mean_logp",
               "anchor_mean_logp", "accuracy", "age", "stride", "token_rollout", *GAUSSIAN,
               *LAWS, *TABLES)  # fmt: skip
    extras = {n: t[n][rows] for n in columns}
    named = {n: t[n][rows] for n in (*LOGPS, "log_ratio", "advantage", "loss", "entropy")}
    return Steps(
        mask=MASK[rows], turn=turn[rows], group=GROUP[rows], extras=extras,
        source=torch.tensor([0, 1, 0, 1, 0, 0, 1, 0])[rows], sources=("own", "expert"), **named,
    )  # fmt: skip


def _sequences() -> Tensors:
    names = ("value", "next_value", "value_target", "median", "soft_value", "log_partition",
             "gain", "log_ratio", "q", "advantage")  # fmt: skip
    found = {n: torch.randn(B, T) for n in names}
    found |= {n: -torch.rand(B, T) - 0.2 for n in ("behavior_logp", "ref_logp")}
    return {**found, "reward": torch.randn(B, T) * MASK, "obs": torch.randn(B, T, 3),
            "next_obs": torch.randn(B, T, 3), "action": torch.randn(B, T, 2)}  # fmt: skip


JUDGED = tuple(n for n in _sequences() if n != "reward")  # what is paid between decisions counts


def _as_sequences(t: Tensors) -> SequenceRows:
    ended = torch.zeros(B, T, dtype=torch.bool)
    ended[0, 4] = True
    return SequenceRows(
        {**t, "mask": MASK, "group": GROUP, "terminated": ended, "truncated": ~ended & False},
        ("own", "expert"),
    )


def _as_side(t: Tensors, rows: slice = slice(None)) -> Side:
    steps = _as_steps(t, rows)
    apart = torch.where(steps.mask > 0, steps.logp - t["ref_logp"][rows], 0.0)
    columns = ("mismatched", "reference_rewards", "distance")
    extras = {**steps.extras, **{n: t[n][rows] for n in columns}}
    return Side(
        delta=apart.sum(-1), length=decided(steps.mask).sum(-1), reward=t["score"][rows],
        group=steps.group, steps=steps.filled(extras=extras),
    )  # fmt: skip


def _side() -> Tensors:
    return {**_steps(), "score": torch.randn(B), "mismatched": torch.randn(B),
            "reference_rewards": torch.randn(B, 8), "distance": 2 * torch.rand(B)}  # fmt: skip


def _query() -> Tensors:
    def chances() -> Tensor:
        return torch.softmax(torch.randn(B, A, dtype=torch.float64), -1)

    return {"reward": torch.rand(B, dtype=torch.float64), "propensities": chances(),
            "target": chances(), "reference": chances(),
            "q": torch.rand(B, A, dtype=torch.float64)}  # fmt: skip


def _as_query(t: Tensors) -> Query:
    action = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    return Query(
        action=action, propensity=t["propensities"].gather(-1, action[:, None])[:, 0],
        weights=torch.ones_like(t["reward"]), **t,
    )  # fmt: skip


def _trajectories() -> Tensors:
    def chances() -> Tensor:
        return torch.softmax(torch.randn(B, T, A, dtype=torch.float64), -1)

    return {"reward": torch.rand(B, T, dtype=torch.float64), "behavior": chances(),
            "target": chances(), "q": torch.rand(B, T, A, dtype=torch.float64),
            "marginal": torch.rand(B, T, dtype=torch.float64),
            "state_marginal": torch.rand(B, T, dtype=torch.float64)}  # fmt: skip


def _as_trajectories(t: Tensors) -> TrajectoryQuery:
    action = torch.arange(B * T).reshape(B, T) % A
    return TrajectoryQuery(
        action=action, reward=t["reward"], target=t["target"], q=t["q"], mask=MASK.double(),
        propensity=t["behavior"].gather(-1, action[..., None])[..., 0], gamma=0.9,
        weights=torch.ones(B, dtype=torch.float64),
        extras={n: t[n] for n in ("marginal", "state_marginal")},
    )  # fmt: skip


class _Slopes:
    """A descent of two terms, by their gradients."""

    def __init__(self, t: Tensors) -> None:
        self.terms = {"up": t["up"].sum(), "down": t["down"].sum()}
        self._slopes = t

    def grad(self, *names: str) -> Tensors:
        return {"p": sum((self._slopes[n] for n in names or ("up", "down")), torch.zeros(4))}


Maker = tuple[Callable[[], Tensors], Callable[[Tensors], tuple[Any, ...]], tuple[str, ...]]
SEEN: dict[tuple[str, ...], Maker] = {
    ("Steps",): (_steps, lambda t: (_as_steps(t),), tuple(_steps())),
    ("Sequences",): (_sequences, lambda t: (_as_sequences(t),), JUDGED),
    ("Side",): (_side, lambda t: (_as_side(t),), tuple(_steps())),
    ("Sides",): (
        _side, lambda t: (Sides(_as_side(t, slice(0, 4)), _as_side(t, slice(4, 8))),),
        tuple(_steps()),
    ),
    ("Query",): (_query, lambda t: (_as_query(t),), ()),
    ("TrajectoryQuery",): (
        _trajectories, lambda t: (_as_trajectories(t),), ("reward", "behavior", "target", "q"),
    ),
    ("Outlook",): (
        lambda: {"mean": torch.randn(B, A), "spread": torch.rand(B, A)},
        lambda t: (Outlook(**t, round=3),), (),
    ),
    ("Descent",): (
        lambda: {"up": torch.randn(4), "down": torch.randn(4)}, lambda t: (_Slopes(t),), (),
    ),
    ("Outcomes",): (
        lambda: {"asked": torch.tensor([0.0, 4.0, 4.0, 0.0]), "good": torch.tensor([0.0, 1, 4, 0])},
        lambda t: (Outcomes(**t, wanted=2),), (),
    ),
    ("Tensors",): (
        lambda: {"net.weight0": 90 * torch.randn(2, 3, 4), "net.bias0": torch.randn(2, 1, 4)},
        lambda t: (t,), (),
    ),
}  # fmt: skip
WITH_NETS: dict[str, Maker] = {
    "Rows": (_rows, lambda t: (Rows(t, log=t),), ()),
    "Sequences": (_sequences, lambda t: (_as_sequences(t),), JUDGED),
}


def example(definition: Definition) -> Example:
    """An example of a part.

    Raises:
        KeyError: when there is none for what it sees, or for a hyperparameter without a default.
    """
    kind = kind_of(definition)
    part = _built(definition, kind)
    if kind in SEEN:
        make, see, masked = SEEN[kind]
        return Example(part, make(), see, masked)
    if len(kind) != 2 or kind[0] != "Nets":
        raise KeyError(kind)
    make, see, masked = WITH_NETS[kind[1]]
    tensors, lent = _with_nets(part)

    def seen(t: Tensors) -> tuple[Any, ...]:
        own = {k: v for k, v in t.items() if not k.startswith("net.")}
        return (lent(t), *see(own))

    return Example(part, {**tensors, **make()}, seen, masked)
