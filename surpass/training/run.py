"""From a recipe and data to a trained policy: the whole run.

    trained = surpass.train(surpass.iql(temperature=3.0), log, steps=100_000)
    trained.predict(obs)

It opens the source, makes the updates, logs, checkpoints, and hands the policy over. A run with
`out` can be killed at any moment and carried on, bit by bit the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from surpass.data.records import Decisions, Transitions
from surpass.data.trajectories import open_trajectories, write_trajectories
from surpass.errors import InputError
from surpass.forms import Collect, Learner, Spaces, Stages, Transform
from surpass.parts import needs_of
from surpass.policies.acting import InEnvironment, none
from surpass.tasks.recording import joined
from surpass.tasks.transformed import outward
from surpass.training.checkpoint import (
    describe_form,
    form_from,
    read_tensors,
    spaces_from,
    write_tensors,
)
from surpass.training.engine import Engine
from surpass.training.journal import Journal
from surpass.training.snapshots import Bank, build_bank
from surpass.training.stages import Leg, Watch, collect, last_learner, legs_of
from surpass.training.streams import open_stream, spaces_of
from surpass.training.transforms import transformed, transformed_task

__all__ = ["Trained", "load_trained", "train"]

CHECKPOINT, POLICY = "checkpoint.safetensors", "policy.safetensors"
Callback = Callable[[int, dict[str, float], "Trained"], Any]


@dataclass
class Trained:
    """What a run gives.

    Attributes:
        policy: acts in the environment's units. nets: by name. form, spaces: what was trained.
        history: what was logged, a dict per entry. seeds: the same for each seed, where several
            were trained.
    """

    form: Any
    spaces: Spaces
    nets: Bank
    policy: InEnvironment
    history: list[dict[str, float]] = field(default_factory=list)
    seeds: list[Trained] = field(default_factory=list)

    def predict(self, obs: Any) -> Any:
        """The policy's action for observations [B, d] or [d], as a numpy array."""
        return self.policy.predict(obs)

    def save(self, folder: str | Path) -> Path:
        """Write the nets and what they need to act into `folder`; gives the file.

        Raises:
            InputError: when it cannot be written.
        """
        path = Path(folder) / POLICY
        named = [*self.nets.named_parameters(), *self.nets.named_buffers()]
        tensors = {f"net.{k}": v for k, v in named}
        if self.policy.mean is not None and self.policy.std is not None:
            tensors |= {"obs.mean": self.policy.mean, "obs.std": self.policy.std}
        write_tensors(path, tensors, describe_form(self.form, self.spaces))
        return path


def load_trained(folder: str | Path, recipe: Any = None, **roles: Any) -> Trained:
    """Read what `Trained.save` wrote.

    Args:
        recipe: the form, where it holds functions that a file cannot name.

    Raises:
        InputError: when the file is missing, damaged, or of another version.
    """
    place = Path(folder)
    tensors, info = read_tensors(place / POLICY if place.is_dir() else place)
    form, spaces = form_from(info, recipe), spaces_from(info)
    learner = last_learner(form, roles)
    bank = build_bank(learner, spaces, roles, 0)
    wanted = {f"net.{k}" for k, _ in [*bank.named_parameters(), *bank.named_buffers()]}
    if not wanted <= set(tensors):
        raise InputError(
            f"{place} does not fit its recipe: {min(wanted - set(tensors))} is missing"
        )
    bank.load_state_dict({k[4:]: v for k, v in tensors.items() if k in wanted})
    statistics = tensors.get("obs.mean"), tensors.get("obs.std")
    policy = InEnvironment(learner.act(bank, roles), spaces, *statistics)
    return Trained(form, spaces, bank, outward(transformed_task(form, roles), policy))


# ----------------------------------------------------------------------------------------------
# the run


def train(
    recipe: Any,
    data: Any = None,
    task: Any = None,
    *,
    steps: int | None = None,
    seed: int = 0,
    seeds: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    callback: Callback | None = None,
    evaluate: Callable[[InEnvironment], dict[str, float]] | None = None,
    evaluate_every: int = 10_000,
    log_every: int = 1_000,
    save_every: int = 10_000,
    device: str | torch.device | None = None,
    compile: bool | None = None,
    wandb: bool = False,
    say: Callable[[str], None] | None = None,
    **roles: Any,
) -> Any:
    """Train a recipe.

    Args:
        recipe: a form, such as `surpass.iql()`, or a key, such as "iql"; then hyperparameters may
            stand among the roles, as in `train("iql", log, temperature=3.0)`.
        data: the log to learn from: `Transitions` for control.
        task: an environment id, task, pure simulator, Gymnasium environment, or function that makes
            one, for what learns by acting.
        steps: updates; environment steps where a recipe learns by acting only; for a form in
            stages, their sum (their own lengths where not given).
        seed: reproduces the run on one machine.
        seeds: train so many seeds, `seed, seed + 1, ...`; gives the first, with all in `.seeds`.
            At once by vmap on a GPU, one after the other on a CPU.
        out: a folder for log, checkpoints and policy; `resume` carries on from its checkpoint.
        callback: called with the updates made, their mean losses and the policy so far, every
            `log_every` updates; may return True to stop.
        evaluate: measures the policy every `evaluate_every` updates; its numbers are logged.
        roles: whatever else the recipe asks for by name.

    Returns:
        A `Trained` (for language models: the trained policy).

    Raises:
        InputError: when the data cannot be used, the recipe does not fit them, a role is missing
            or a bare number, or a loss became NaN (naming the update).
    """
    form, roles = _form_of(recipe, roles)
    given = {**roles, "log": data, "task": task}
    given = {name: value for name, value in given.items() if value is not None}
    if _on_modules(form, given):
        from surpass.training.module_run import train_language

        refused = {"--seeds": seeds not in (None, 1), "--wandb": wandb, "evaluate": bool(evaluate)}
        if (odd := next((k for k, v in refused.items() if v), None)) is not None:
            raise InputError(f"{odd} is not for language models; leave it out")
        rest = {"out": out, "seed": seed, "resume": resume, "say": say, "callback": callback,
                "device": None if device is None else str(device), **roles}  # fmt: skip
        return train_language(form, data, task=task, steps=steps or 100, **rest)
    _check_roles(given)
    if given.get("task") is not None:
        from surpass.tasks.catalog import opened

        given["task"] = opened(given["task"])
    if hasattr(given.get("task"), "vocabulary"):
        raise InputError(
            f"{given['task'].name} is a task for language models; give one: model=..., or --model "
            "PATH"
        )
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    spaces = _spaces(form, given)
    settings = {
        "out": None if out is None else Path(out), "resume": resume, "callback": callback,
        "evaluate": evaluate, "evaluate_every": evaluate_every, "log_every": log_every,
        "save_every": save_every, "device": where, "compile": compile, "wandb": wandb, "say": say,
    }  # fmt: skip
    if seeds is None or seeds == 1:
        return _Run(form, spaces, given, steps, seed, None, **settings).go()
    if where.type == "cuda":
        return _Run(form, spaces, given, steps, seed, seeds, **settings).go()
    runs = []
    for s in range(seed, seed + seeds):
        place = None if out is None else Path(out) / f"seed{s}"
        runs.append(_Run(form, spaces, given, steps, s, None, **{**settings, "out": place}).go())
    return replace(runs[0], seeds=runs)


_ROLES = ("expert", "log", "model", "pairs", "reference", "reward", "simulator", "task")


def _form_of(recipe: Any, roles: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The form, and the roles without what a recipe named by its key takes as hyperparameters."""
    if isinstance(recipe, str):
        from surpass.registry import recipe as find

        recipe = find(recipe)
    if not (callable(recipe) and hasattr(recipe, "key")):
        return recipe, roles
    known = inspect.signature(recipe).parameters
    own = {k: v for k, v in roles.items() if k in known and k not in _ROLES}
    return recipe(**own), {k: v for k, v in roles.items() if k not in own}


def _check_roles(roles: Mapping[str, Any]) -> None:
    """A bare number is no role: it is a hyperparameter that went astray."""
    for name, value in roles.items():
        if isinstance(value, int | float):
            raise InputError(
                f"{name}={value!r} is neither an argument of train nor a role; hyperparameters "
                f"belong to the recipe, as in surpass.ppo(lr=1e-3)"
            )


def _on_modules(form: Any, roles: Mapping[str, Any]) -> bool:
    if roles.get("model") is None:
        return False
    from surpass.training.module_run import runs_on_modules

    return runs_on_modules(form, roles)


def _spaces(form: Any, roles: Mapping[str, Any]) -> Spaces:
    """What the nets must fit, from the log or the task.

    Raises:
        InputError: when there is neither, both differ, or the recipe is for the other kind of
            actions.
    """
    found: Spaces | None = None
    logs = [roles.get("log"), *(v[0] for v in roles.values() if isinstance(v, list | tuple) and v)]
    logs = [log for log in logs if isinstance(log, Transitions)]
    if logs:
        found = spaces_of(logs[0])
    if "task" in roles and hasattr(roles["task"], "spaces"):
        theirs: Spaces = roles["task"].spaces
        if found and (found.obs_dim, found.action_dim) != (theirs.obs_dim, theirs.action_dim):
            raise InputError(
                f"the log has observations of {found.obs_dim} and actions of {found.action_dim} "
                f"numbers, the task {theirs.obs_dim} and {theirs.action_dim}"
            )
        found = theirs
    if found is None:
        raise InputError(_nothing_to_fit(form, roles))
    learner = last_learner(form, roles)
    if learner.discrete is not None and learner.discrete != found.discrete:
        kind, fit = ("discrete", "bc, iql, dqn") if found.discrete else (
            "continuous", "bc, td3-bc, iql, cql, sac")  # fmt: skip
        raise InputError(f"this recipe does not fit {kind} actions; these do: {fit}")
    return found


def _nothing_to_fit(form: Any, roles: Mapping[str, Any]) -> str:
    """What to give where the nets have nothing to fit."""
    from surpass.training.module_run import runs_on_modules

    data = roles.get("log")
    if isinstance(data, str | Path):
        if not isinstance(form, Stages) and runs_on_modules(form, {"model": data}):
            return f"to train a language model on {data} give it: model=..., or --model PATH"
        return f"{data} is a name; open it first: surpass.open_log({str(data)!r}).read()"
    if isinstance(data, Decisions):
        return (
            "the log holds single decisions, and this learns from episodes; from decisions learns "
            "surpass improve"
        )
    return "train needs data (Transitions) or a task (an id, or a task with spaces)"


@dataclass
class _Run:
    form: Any
    spaces: Spaces
    roles: dict[str, Any]
    steps: int | None
    seed: int
    seeds: int | None
    out: Path | None
    resume: bool
    callback: Callback | None
    evaluate: Any
    evaluate_every: int
    log_every: int
    save_every: int
    device: torch.device
    compile: bool | None
    wandb: bool
    say: Any

    def go(self) -> Trained:
        """All legs, one after the other, until the callback has `stopped` the run; `inside` are the
        spaces of the task as it was made anew."""
        self.inside, self.stopped = self.spaces, False
        legs = legs_of(self.form, self.steps, self.roles)
        total = sum(leg.steps for leg in legs)
        started, saved = self._stored()
        engine, trained = None, None
        done = saved[1].get("before", 0) if saved else 0
        after = None if saved is None else done + int(saved[1]["step"])
        with Journal(self.out, total, self.say, self.wandb, after) as self.journal:
            for number, leg in enumerate(legs):
                if isinstance(leg.do, Collect):
                    self._collect(leg.do, engine, number, number < started)
                    continue
                if isinstance(leg.do, Transform):
                    self._transform(leg.do, engine, number, number < started)
                    continue
                if number < started:
                    continue
                before, engine = engine, self._engine(leg)
                if saved is not None and number == started:
                    engine.load_state_dict(*saved)
                elif before is not None:
                    engine.carry_over(before)
                stored = saved if number == started else None
                trained = self._stage(leg, engine, number, done, stored)
                done += engine.step
                if self.stopped:
                    break
        if trained is None:
            raise InputError("there is nothing to run: the form has no stages")
        if self.out is not None:
            for t in trained.seeds or [trained]:
                t.save(
                    self.out if not trained.seeds else self.out / f"seed{trained.seeds.index(t)}"
                )
        return trained

    def _collect(self, leg: Collect, engine: Engine | None, number: int, known: bool) -> None:
        """Add what a net did to a role; a run that goes on reads what it did before."""
        place = None if self.out is None else self.out / f"collected{number}.parquet"
        if known and place is not None:
            found = open_trajectories(place).read()
        elif engine is None:
            raise InputError(f"no stage before trained {leg.policy!r}, which is to collect")
        else:
            found = collect(leg, engine.nets(), self.inside, engine.stream, self.roles.get("task"),
                            self.seed + number)  # fmt: skip
            if place is not None:
                write_trajectories(found, place)
        before = self.roles.get(leg.into)
        if isinstance(before, Transitions):
            if before.source is not None and found.source is None:
                found.source = torch.zeros_like(found.episode)  # the policy's own
            found = joined([before, found.to(before.reward.device)])
        self.roles[leg.into] = found

    def _transform(self, form: Transform, engine: Engine | None, number: int, known: bool) -> None:
        """Make a role anew from what it was; a run that goes on reads a log that it made before."""
        place = None if self.out is None else self.out / f"transformed{number}.parquet"
        if form.into != "task" and known and place is not None:
            self.roles[form.into] = open_trajectories(place).read()
            return
        nets = None if engine is None else engine.nets()
        self.roles[form.into] = transformed(form, nets, self.roles, self.seed + number)
        if form.into == "task":
            self.inside = self.roles["task"].spaces
        elif place is not None:
            write_trajectories(self.roles[form.into], place)

    def _engine(self, leg: Leg) -> Engine:
        learner = leg.do
        assert isinstance(learner, Learner)
        needs = tuple(n for n in needs_of(learner) if isinstance(n, str))
        roles = {**self.roles, **leg.roles}
        stream = open_stream(learner.source, roles, self.inside, needs, self.device)
        engine = Engine(
            learner, stream, self.inside, roles=roles, seed=self.seed, seeds=self.seeds,
            device=self.device, compile=self.compile,
        )  # fmt: skip
        bind = getattr(stream, "bind", None)
        if bind is not None:  # streams that act need the nets and the recipe's way to explore
            bind(engine, roles)
        return engine

    def _stage(self, leg: Leg, engine: Engine, number: int, done: int, saved: Any) -> Trained:
        history: list[dict[str, float]] = []
        learner, steps = leg.do, leg.steps
        assert isinstance(learner, Learner)
        watch = None if leg.until is None else Watch(leg.until, {**self.roles, **leg.roles})
        if watch is not None and saved is not None:
            watch.load(saved[0])
        ended = bool(saved and saved[1].get("ended"))
        try:
            while engine.step < steps and not ended:
                engine.advance(self._until_next(engine.step, steps))
                now = done + engine.step
                if engine.step % self.log_every == 0 or engine.step == steps:
                    numbers = self._mark(learner, engine, steps, now)
                    history.append(numbers)
                    ended = watch is not None and watch.read(numbers).alarm
                    seen = {k: v for k, v in numbers.items() if k != "step"}
                    if self.callback is not None and self.callback(
                        now, seen, self._handed(learner, engine, history)
                    ):
                        self.stopped = True
                        break
                if self.out is not None and (ended or engine.step % self.save_every == 0):
                    self._save(engine, number, done, watch, ended)
        except KeyboardInterrupt as stopped:
            if self.out is None:
                raise
            self._save(engine, number, done, watch, ended)
            raise KeyboardInterrupt(
                f"update {done + engine.step} is kept in {self.out}; the same command, or "
                "resume=True, goes on from there"
            ) from stopped
        if self.out is not None:
            self._save(engine, number, done, watch, ended)
        return self._handed(learner, engine, history)

    def _mark(self, learner: Learner, engine: Engine, steps: int, now: int) -> dict[str, float]:
        """What is logged now, with the step."""
        metrics = engine.metrics()
        engine.stream.learn(metrics)
        metrics |= getattr(engine.stream, "report", dict)()
        metrics |= self._measure(learner, engine, steps)
        self.journal.note(now, metrics)
        return {"step": float(now), **metrics}

    def _until_next(self, now: int, steps: int) -> int:
        """Updates until something outside the engine has to happen."""
        marks = [steps, (now // self.log_every + 1) * self.log_every]
        if self.out is not None:
            marks.append((now // self.save_every + 1) * self.save_every)
        return min(marks) - now

    def _measure(self, learner: Learner, engine: Engine, steps: int) -> dict[str, float]:
        due = engine.step % self.evaluate_every == 0 or engine.step == steps
        if self.evaluate is None or not due or learner.act == none():
            return {}
        found = self.evaluate(self._handed(learner, engine, []).policy)
        return {f"evaluation.{k}": float(v) for k, v in found.items()}

    def _handed(self, learner: Learner, engine: Engine, history: list[dict[str, float]]) -> Trained:
        def one(seed: int) -> Trained:
            nets = engine.nets(seed)
            mean = getattr(engine.stream, "mean", None)
            std = getattr(engine.stream, "std", None)
            policy = InEnvironment(learner.act(nets, self.roles), self.inside, mean, std)
            policy = outward(self.roles.get("task"), policy).to(self.device)
            return Trained(self.form, self.inside, nets, policy, history)

        first = one(0)
        if self.seeds is not None:
            first.seeds = [one(s) for s in range(self.seeds)]
        return first

    # ------------------------------------------------------------------------------------------
    # checkpoints

    def _save(
        self, engine: Engine, number: int, done: int, watch: Watch | None, ended: bool
    ) -> None:
        assert self.out is not None
        tensors, rest = engine.state_dict()
        tensors |= watch.tensors() if watch is not None else {}
        rest |= {"before": done, "ended": ended}
        info = describe_form(self.form, self.spaces)
        info |= {"stage": number, "seed": self.seed, "seeds": self.seeds, "engine": rest}
        write_tensors(self.out / CHECKPOINT, tensors, info)

    def _stored(self) -> tuple[int, Any]:
        """The stage to begin with, and the state to begin from (None: anew).

        Raises:
            InputError: when there is a checkpoint of another recipe, task or seed.
        """
        if self.out is None:
            if self.resume:
                raise InputError("resume needs the out=... of the run that is to go on")
            return 0, None
        path = self.out / CHECKPOINT
        if not self.resume or not path.exists():
            return 0, None
        tensors, info = read_tensors(path)
        now = describe_form(self.form, self.spaces)
        for what in ("form", "spaces"):
            if _plain(info[what]) != _plain(now[what]):
                name = "recipe or other hyperparameters" if what == "form" else "spaces"
                raise InputError(
                    f"{path} is of another {name}; give another out=..., or the recipe it is of"
                )
        if (info["seed"], info["seeds"]) != (self.seed, self.seeds):
            raise InputError(
                f"{path} is of seed {info['seed']}, not {self.seed}; give another out=..."
            )
        return int(info["stage"]), (tensors, info["engine"])


def _plain(value: Any) -> Any:
    """As it reads back from JSON: tuples are lists."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
