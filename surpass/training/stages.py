"""A form as the legs of a run: learners one after the other, and episodes collected between them.

Nets carry over by name. What a leg does not name it can still call, frozen: a later loss may ask an
earlier critic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.forms import (
    Best,
    Collect,
    Copy,
    Ema,
    Learner,
    Monitor,
    Planner,
    Pool,
    Reading,
    Repeat,
    Spaces,
    Stage,
    Stages,
    Transform,
)
from surpass.parts import State, initial_state, run
from surpass.policies.acting import InEnvironment, mean, sampled
from surpass.tasks.recording import about_env, joined
from surpass.training.on_policy import lowered, updates_for

__all__ = ["Leg", "Watch", "collect", "gather", "last_learner", "legs_of"]


@dataclass(frozen=True)
class Leg:
    """A learner for some updates, or until a monitor's alarm; or episodes to collect, or a role to
    transform (`steps` 0). `roles` are handed in for this leg only."""

    do: Learner | Collect | Transform
    steps: int = 0
    until: Monitor | None = None
    roles: Mapping[str, Any] = field(default_factory=dict)


def legs_of(
    form: Any, steps: int | None, roles: Mapping[str, Any], once: bool = False
) -> list[Leg]:
    """The legs of a form, in order.

    Args:
        once: go through what is repeated for each log of a role once, without the logs.
        steps: updates in all (environment steps where a form learns from its own rollouts); stages
            share them in proportion to their own lengths, which hold where this is None.

    Raises:
        InputError: when a length or a role is missing, or a form is none that this executor runs.
    """
    if not isinstance(form, Stages):
        _learner(form, roles, {})  # refuses what is not run here
        if steps is None:
            raise InputError("say how many updates to make: steps=100_000, or --steps 100000")
        stages: list[tuple[Stage, Mapping[str, Any]]] = [(Stage(form, steps or 0), {})]
        share = 1.0
    else:
        stages = list(_unrolled(form.stages, None if once else roles, {}))
        total = sum(s.steps for s, _ in stages)
        share = 1.0 if steps is None or not total else steps / total
    legs, known = [], {}
    for stage, own in stages:
        if isinstance(stage.do, Collect):
            if stage.do.policy not in known:
                raise InputError(
                    f"{stage.do.policy!r} is to collect episodes, and no stage before has that net"
                )
            legs.append(Leg(stage.do, roles=own))
            continue
        fit = stage.do.fit if isinstance(stage.do, Transform) else stage.do
        if fit is not None:
            learner = _learner(fit, roles, known)
            known = dict(learner.nets)
            updates = _updates(learner, round(stage.steps * share), form)
            legs.append(Leg(learner, updates, stage.until, own))
        if isinstance(stage.do, Transform):
            legs.append(Leg(stage.do, roles=own))
    return legs


def _updates(learner: Learner, steps: int, form: Any) -> int:
    acts = learner.source.kind == "rollouts" or not isinstance(form, Stages)
    return updates_for(learner, steps) if acts else steps


def _unrolled(
    stages: tuple[Any, ...], roles: Mapping[str, Any] | None, own: Mapping[str, Any]
) -> Iterator[tuple[Stage, Mapping[str, Any]]]:
    for stage in stages:
        if isinstance(stage, Repeat):
            for more in _times(stage, roles):
                yield from _unrolled(stage.stages, roles, {**own, **more})
        elif isinstance(stage, Collect):
            yield Stage(stage), own
        elif isinstance(stage, Stage) and isinstance(stage.do, Stages):
            yield from _unrolled(stage.do.stages, roles, own)
        elif isinstance(stage, Stage):
            yield stage, own
        else:
            raise InputError(f"{type(stage).__name__} is no stage; write Stage(form, steps)")


def _times(repeat: Repeat, roles: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """What each round is handed: nothing, or one of the logs of a role, as the log."""
    if isinstance(repeat.times, int):
        return [{}] * repeat.times
    if roles is None:
        return [{}]
    logs = roles.get(repeat.times)
    if not isinstance(logs, list | tuple) or not logs:
        raise InputError(
            f"this recipe runs once for each log of {repeat.times!r}; hand in a list of them: "
            f"{repeat.times}=[...]"
        )
    return [{"log": log} for log in logs]


def _learner(form: Any, roles: Mapping[str, Any], known: Mapping[str, Any]) -> Learner:
    """The learner of a stage, with the nets of those before, frozen where it does not name them."""
    learner = lowered(form, roles, known)
    if not isinstance(learner, Learner):
        kind = type(learner).__name__
        if isinstance(learner, Planner):
            raise InputError(f"a {kind} is called, not trained: solve(...) of what it plans in")
        raise InputError(f"a {kind} is not run by the compiled executor")
    frozen = {n: _frozen(n, known) for n in known if n not in learner.nets}
    return replace(learner, nets={**frozen, **learner.nets}) if frozen else learner


def _frozen(name: str, known: Mapping[str, Any]) -> Any:
    """A net of an earlier stage as a net that no step trains: what is carried over stays in it."""
    net = known[name]
    if isinstance(net, Pool):
        return Pool(net.of, net.size, 1 << 40)
    return _frozen(net.of, known) if isinstance(net, Ema | Copy | Best) else net


def last_learner(form: Any, roles: Mapping[str, Any]) -> Learner:
    """The learner whose nets a run hands over."""
    learners = [leg.do for leg in legs_of(form, 1, roles, once=True) if isinstance(leg.do, Learner)]
    if not learners:
        raise InputError("there is nothing to run: the form has no stages")
    return learners[-1]


# ----------------------------------------------------------------------------------------------
# until a monitor's alarm


class Watch:
    """A monitor at work on the numbers that a stage logs."""

    def __init__(self, monitor: Monitor, roles: Mapping[str, Any]) -> None:
        self.monitor = monitor
        self.state: dict[str, State] = initial_state(monitor.watch)
        if monitor.anchor is not None:
            if "log" not in roles:
                raise InputError("a monitor is anchored on the log, and none was handed in")
            self.state = {"": monitor.anchor(roles["log"])}

    def read(self, numbers: Mapping[str, float]) -> Reading:
        """What the monitor says at this mark."""
        reading, after = run(self.monitor.watch, (numbers,), state=self.state)
        self.state |= after
        return reading

    def tensors(self) -> dict[str, Tensor]:
        """Its state, by names for a checkpoint."""
        return {f"monitor.{p}:{k}": v for p, held in self.state.items() for k, v in held.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's."""
        for name, tensor in tensors.items():
            if name.startswith("monitor."):
                path, _, key = name.removeprefix("monitor.").rpartition(":")
                self.state.setdefault(path, {})[key] = tensor


# ----------------------------------------------------------------------------------------------
# collecting episodes


def collect(leg: Collect, nets: Any, spaces: Spaces, stream: Any, task: Any, seed: int) -> Any:
    """Episodes of one of the nets, acting as it explores, as `Transitions` in the task's units.

    Raises:
        InputError: when there is no task to act in.
    """
    if task is None:
        raise InputError(f"{leg.policy!r} is to collect episodes: give a task, task='Pendulum-v1'")
    act = sampled(leg.policy) if hasattr(nets[leg.policy], "sample") else mean(leg.policy)
    statistics = getattr(stream, "mean", None), getattr(stream, "std", None)
    policy = InEnvironment(act(nets, {}), spaces, *statistics)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return gather(policy, task, leg.episodes, seed)


def gather(policy: InEnvironment, task: Any, episodes: int, seed: int) -> Transitions:
    """So many whole episodes of a policy, each the first of its copy of the environment, so that
    short ones are not preferred. What the environment says of each step in `notes` is kept: `task`,
    and other columns as extras.

    Raises:
        InputError: when an episode does not end within 100,000 steps.
    """
    env = task if hasattr(task, "step") else task.make(min(episodes, 16), seed=seed)
    done: list[Transitions] = []
    left, rounds = episodes, 0
    while left > 0:
        found = _first_episodes(policy, env, env.reset(seed + 1000 * rounds), min(left, env.n))
        done.append(found)
        left, rounds = left - env.n, rounds + 1
    return joined(done).described(about_env(env))


def _first_episodes(policy: Any, env: Any, obs: Tensor, count: int) -> Transitions:
    device = obs.device
    alive = torch.arange(env.n, device=device) < count
    rows: list[dict[str, Tensor]] = []
    while alive.any():
        if len(rows) > 100_000:
            raise InputError("an episode did not end within 100,000 steps; set a time limit")
        acted = policy.act(obs.to(policy.low.device))
        after = env.step(acted.action.to(device))
        row = {
            "obs": obs, "action": acted.action.to(device), "reward": after.reward,
            "next_obs": after.final_obs, "terminated": after.terminated,
            "truncated": after.truncated & ~after.terminated, "alive": alive,
        }  # fmt: skip
        if acted.logp is not None:
            row["behavior_logp"] = acted.logp.to(device)
        row |= {f"note.{k}": v for k, v in getattr(env, "notes", {}).items()}
        rows.append(row)
        alive = alive & ~(after.terminated | after.truncated)
        obs = after.obs
    columns = {k: torch.stack([r[k] for r in rows], 1).flatten(0, 1) for k in rows[0]}
    episode = torch.arange(env.n, device=device).repeat_interleave(len(rows))
    kept = columns.pop("alive")
    flat = {k: v[kept] for k, v in columns.items()}
    notes = {k.removeprefix("note."): flat.pop(k) for k in list(flat) if k.startswith("note.")}
    size = [int(kept.sum())]
    task = notes.pop("task", None)
    extras = TensorDict(notes, batch_size=size) if notes else None  # type: ignore[arg-type]
    return Transitions(**flat, episode=episode[kept], task=task, extras=extras, batch_size=size)  # type: ignore[call-arg]
