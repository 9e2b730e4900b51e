"""Logs of control, made by our own policies with exact propensities, and what made them.

    Zoo()("pendulum-medium")                 # Transitions
    Zoo()("pendulum-policies")["expert"]     # a trained policy

The policies of a task are snapshots of one training run: `medium` the first whose return lies a
third of the way from random to the best, `expert` the best, and those before `medium` make the
medium-replay log. Policies act as they explored, so that every action has a propensity.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surpass.data.logs import open_log
from surpass.data.records import Transitions
from surpass.data.sources import is_source
from surpass.data.trajectories import open_trajectories, write_trajectories
from surpass.errors import InputError, nearest
from surpass.evaluation.rollouts import roll_out
from surpass.methods.online.actor_critic import sac
from surpass.methods.online.policy_gradients import ppo
from surpass.policies.acting import InEnvironment
from surpass.tasks.catalog import task as open_task
from surpass.tasks.point import CONTROLLERS, Controller, point_log
from surpass.tasks.recording import joined, record
from surpass.training.checkpoint import describe_form
from surpass.training.on_policy import lowered
from surpass.training.run import Trained, load_trained, train
from surpass.zoo.shelf import Zoo, item, items

__all__ = ["SCHOOLS", "School", "behavior", "named_policy", "open_data", "references"]

LOG, NOTE, SNAPSHOT = "log.parquet", "policies.json", "snapshot.json"


@dataclass(frozen=True)
class School:
    """How the policies of a task are made.

    Attributes:
        task: its name. recipe: what trains. steps: environment steps. every: updates between
            snapshots. rows: of each log. minutes: about how long training takes. episodes: of the
            returns that stand for 0 and 100. small: part of the set that tests use.
    """

    task: str
    recipe: Callable[[], Any]
    steps: int
    every: int
    rows: int
    minutes: float
    episodes: int = 512
    small: bool = False


SCHOOLS: dict[str, School] = {
    "pendulum": School(
        "pendulum", lambda: sac(lr=1e-3, hidden=(64, 64), warm=500), 6_000, 250, 20_000, 0.4,
        small=True,
    ),
    "cart-pole": School(
        "cart-pole", lambda: ppo(envs=16, horizon=64, epochs=4, minibatches=4, lr=2e-3),
        100_000, 32, 20_000, 0.5,
    ),
    "hopper": School(
        "Hopper-v5", lambda: sac(hidden=(128, 128)), 120_000, 5_000, 100_000, 8.0, 128
    ),
    "half-cheetah": School(
        "HalfCheetah-v5", lambda: sac(hidden=(128, 128)), 50_000, 5_000, 100_000, 4.0, 64
    ),
}  # fmt: skip


def behavior(trained: Trained) -> InEnvironment:
    """The policy as it explored: stochastic, with log-probabilities."""
    learner = lowered(trained.form)
    explore = learner.explore or learner.act
    return InEnvironment(
        explore(trained.nets, {}), trained.spaces, trained.policy.mean, trained.policy.std
    )


def open_data(name: str) -> Any:
    """What a name stands for: a data set of the zoo (built when it is not there), or a file of
    decisions or episodes.

    Raises:
        InputError: when it is neither.
    """
    if not Path(name).exists():
        if name in items():
            return Zoo()(name)
        other = Path(name).suffix or ":" in name or is_source(name)
        hint = "" if other else nearest(name, list(items()))
        if hint:
            raise InputError(
                f"there is no file {name}, nor such a data set{hint}; see: surpass zoo list"
            )
    return open_log(name).read()


def named_policy(name: str, zoo: Zoo | None = None) -> Any:
    """A policy by the name of its log, such as `hopper-expert` (the policy at its best, without the
    noise it explored with), or `hopper-policies/step5000`; None where the zoo has no such policy.

    POINT's is the expert, `point-expert`, a controller.
    """
    if name == "point-expert":
        expert = CONTROLLERS["expert"]
        return lambda obs: expert.mean(obs, torch.zeros(len(obs), 2))
    school, _, which = name.rpartition("-")
    if "-policies/" in name:
        school, _, which = name.partition("-policies/")
    if school not in SCHOOLS or (which not in ("medium", "expert") and "/" not in name):
        return None
    held = (zoo or Zoo())(f"{school}-policies")
    if which not in held:
        raise InputError(f"{school}-policies has no {which!r}; it has {', '.join(sorted(held))}")
    return held[which]


# ----------------------------------------------------------------------------------------------
# policies


def _school(name: str, folder: Path, work: Path) -> dict[str, Any]:
    """Train, keep snapshots, and name the medium one and the expert; what was stopped goes on from
    its checkpoint in `work`."""
    school = SCHOOLS[name]
    task = open_task(school.task)

    def judged(place: Path, policy: Any) -> dict[str, Any]:
        note = {"folder": place.name, "step": int(place.name.removeprefix("step")),
                "return": roll_out(policy, task, 32).mean}  # fmt: skip
        (place / SNAPSHOT).write_text(json.dumps(note), encoding="utf-8")
        return note

    def keep(step: int, metrics: dict[str, float], trained: Trained) -> None:
        place = work / f"step{step}"
        trained.save(place)
        judged(place, trained)

    trained = train(
        school.recipe(), task=task, steps=school.steps, callback=keep, log_every=school.every,
        out=work, resume=True, save_every=school.every,
    )  # fmt: skip
    found = []
    for place in sorted(work.glob("step*"), key=lambda p: int(p.name.removeprefix("step"))):
        known = (place / SNAPSHOT).exists()  # a stop between the two leaves a policy unjudged
        found.append(json.loads((place / SNAPSHOT).read_text(encoding="utf-8")) if known
                     else judged(place, load_trained(place)))  # fmt: skip
    random = roll_out(_uniform(trained.spaces), task, school.episodes).mean
    best = max(found, key=lambda f: f["return"])
    if best["return"] <= random:
        raise InputError(f"{name}: training did not get beyond random ({random:.4g})")
    third = random + (best["return"] - random) / 3.0
    first = next(i for i, f in enumerate(found) if f["return"] >= third)
    for snapshot in found:
        shutil.copytree(work / snapshot["folder"], folder / snapshot["folder"])
    medium, expert = found[first]["folder"], best["folder"]
    worth = {k: roll_out(load_trained(folder / v), task, school.episodes).mean
             for k, v in (("medium", medium), ("expert", expert))}  # fmt: skip
    note = {
        "task": school.task, "recipe": describe_form(trained.form, trained.spaces)["form"],
        "seed": 0, "steps": school.steps, "snapshots": found, "medium": medium,
        "replay": [f["folder"] for f in found[: first + 1]], "expert": expert,
        "episodes": school.episodes, "random_return": random, "medium_return": worth["medium"],
        "expert_return": worth["expert"],
    }  # fmt: skip
    (folder / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    return note


def _uniform(spaces: Any) -> Callable[[Tensor], Tensor]:
    low, high = torch.tensor(spaces.low), torch.tensor(spaces.high)

    def act(obs: Tensor) -> Tensor:
        if spaces.discrete:
            return torch.randint(spaces.n_actions, (len(obs),))
        return low + (high - low) * torch.rand(len(obs), spaces.action_dim)

    return act


def _note(folder: Path) -> dict[str, Any]:
    return json.loads((folder / NOTE).read_text(encoding="utf-8"))


def _policies(folder: Path) -> dict[str, Trained]:
    """`medium` and `expert`, and every snapshot by its folder."""
    note = _note(folder)
    held = {f["folder"]: load_trained(folder / f["folder"]) for f in note["snapshots"]}
    return {**held, "medium": held[note["medium"]], "expert": held[note["expert"]]}


def references(zoo: Zoo, name: str, path: Path | None = None) -> None:
    """Store the returns that stand for 0 and 100 of a task, as the zoo measured them."""
    from surpass.tasks.catalog import write_reference

    note = _note(zoo.build(f"{name}-policies"))
    write_reference(
        note["task"], note["random_return"], note["expert_return"], path,
        episodes=note["episodes"], seed=0,
        expert_policy=f"{name}-policies/expert of the zoo, {note['steps']} steps",
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------
# logs


def _recorded(name: str, kind: str, policies: dict[str, Trained], note: dict[str, Any],
              rows: int) -> Transitions:  # fmt: skip
    """A log of whole episodes with exact propensities."""
    task = open_task(SCHOOLS[name].task)
    if kind == "mixed":
        third = [_recorded(name, k, policies, note, rows // 3)
                 for k in ("random", "medium", "expert")]  # fmt: skip
        return joined(third)
    if kind == "medium-replay":
        shares = note["replay"]
        return joined([_episodes(task, behavior(policies[f]), rows // len(shares), i)
                       for i, f in enumerate(shares)])  # fmt: skip
    if kind == "random":
        spaces = policies["expert"].spaces
        draw, logp = _uniform(spaces), task.spaces.uniform_logp()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return record(
                task.make(8, seed=0),
                lambda obs: (draw(obs), torch.full((len(obs),), logp)), rows, seed=0,
            )  # fmt: skip
    return _episodes(task, behavior(policies[kind]), rows, 0)


def _episodes(task: Any, policy: InEnvironment, rows: int, seed: int) -> Transitions:
    def act(obs: Tensor) -> tuple[Tensor, Tensor]:
        acted = policy.act(obs)
        assert acted.logp is not None
        return acted.action, acted.logp

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return record(task.make(8, seed=seed), act, rows, seed=seed)


def _read(folder: Path) -> Transitions:
    return open_trajectories(folder / LOG).read()


def _worth(log: Transitions) -> dict[str, float]:
    episodes = int(log.episode.max()) + 1
    returns = torch.zeros(episodes).index_add(0, log.episode, log.reward)
    return {"rows": len(log), "episodes": episodes, "mean_return": float(returns.mean())}


def _register(name: str, school: School) -> None:
    def build_policies(folder: Path, zoo: Zoo) -> dict[str, Any]:
        return _school(name, folder, zoo.workshop(f"{name}-policies"))

    item(
        f"{name}-policies", line=f"snapshots of a training run on {school.task}", load=_policies,
        minutes=school.minutes, version=2, small=school.small,
    )(build_policies)  # fmt: skip
    lines = {
        "random": "uniform actions",
        "medium": "a snapshot a third of the way",
        "medium-replay": "the snapshots on the way to medium",
        "expert": "the best snapshot, as it explored",
        "mixed": "random, medium and expert in equal parts",
    }
    for kind, line in lines.items():

        def build(folder: Path, zoo: Zoo, kind: str = kind) -> dict[str, Any]:
            policies, note = zoo(f"{name}-policies"), _note(zoo.place(f"{name}-policies"))
            log = _recorded(name, kind, policies, note, school.rows)
            write_trajectories(log, folder / LOG)
            told = _worth(log)
            low, high = note["random_return"], note["expert_return"]
            score = 100.0 * (told["mean_return"] - low) / (high - low)
            return {"task": school.task, "policies": f"{name}-policies", "seed": 0, **told,
                    "score": score}  # fmt: skip

        item(
            f"{name}-{kind}", line=f"{school.task}: {line}", load=_read, version=2,
            minutes=school.rows / 500_000, small=school.small,
        )(build)  # fmt: skip


_LEARNING: tuple[Controller, ...] = tuple(
    Controller(wander=w, noise=n) for w, n in ((1.4, 0.9), (1.2, 0.7), (1.0, 0.5))
)
_POINT: dict[str, tuple[Any, str]] = {
    "random": ("random", "uniform actions"),
    "medium": ("medium", "a wrong goal per episode, noise 0.3"),
    "medium-replay": (
        {"random": 0.2, **dict.fromkeys((*_LEARNING, "medium"), 0.2)},
        "from uniform actions to medium in five steps, wrong goals ever nearer",
    ),
    "expert": ("noisy-expert", "the expert with noise 0.1"),
    "bimodal": ("bimodal", "the expert's action or its opposite"),
    "mixed": ({"random": 0.5, "medium": 0.3, "noisy-expert": 0.2}, "random, medium and expert"),
}


def _register_point(kind: str, mix: Any, line: str) -> None:
    def build(folder: Path, zoo: Zoo) -> dict[str, Any]:
        log = point_log(mix, steps=20_000, seed=0)
        write_trajectories(log, folder / LOG)
        return {"task": "point", "seed": 0, **_worth(log)}

    item(f"point-{kind}", line=f"POINT: {line}", load=_read, minutes=0.02, small=True)(build)


for _kind, (_mix, _line) in _POINT.items():
    _register_point(_kind, _mix, _line)
for _name, _each in SCHOOLS.items():
    _register(_name, _each)
