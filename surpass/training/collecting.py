"""What collects while it learns: acting in a vector environment, and the replay stream.

Actions live in [-1, 1] here, as everywhere in training; the collector maps them to the
environment's bounds. A copy that ended goes on with a fresh start, and the row keeps the true next
observation, so that truncation is bootstrapped from and termination is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from surpass.errors import InputError
from surpass.forms import Source, Spaces
from surpass.objectives.rows import Rows
from surpass.parts import run, schedules
from surpass.tasks.protocol import Stepped
from surpass.training.streams import (
    Tables,
    check_transitions,
    episode_ends,
    opens,
    return_to_go,
    unit_actions,
)

__all__ = ["Collector", "ReplayStream", "pack", "unpack"]

UNKNOWN = float("-inf")


class Collector:
    """Copies of an environment, and the policy that acts in them.

    Args:
        roles: `task` is a task (with `make`) or an open vector environment.
        n: copies.
        engine: whose nets act, by its form's `explore` (or `act`).
    """

    def __init__(self, roles: Mapping[str, Any], n: int, engine: Any) -> None:
        self.engine, self.roles, self.spaces = engine, roles, engine.spaces
        self.device = engine.device
        task = roles["task"]
        self.env = task if hasattr(task, "step") else task.make(n, seed=engine.seed)
        self.n = self.env.n
        self.obs = self.env.reset(engine.seed)
        self.env_device = self.obs.device
        self.obs = self.obs.to(self.device)
        self.part = engine.form.explore or engine.form.act
        self._scheduled = schedules(self.part)
        self._policy: Any = None
        low = torch.tensor(self.spaces.low, device=self.device)
        high = torch.tensor(self.spaces.high, device=self.device)
        bounded = torch.isfinite(low) & torch.isfinite(high)
        self._half = torch.where(bounded, 0.5 * (high - low), 1.0)
        self._middle = torch.where(bounded, 0.5 * (high + low), 0.0)
        self._limit = torch.where(bounded, 1.0, torch.inf)
        self.running = torch.zeros(self.n)
        self.ages = torch.zeros(self.n)
        self.finished: list[float] = []
        self.lengths: list[float] = []

    def policy(self) -> Any:
        """The policy that explores, with its schedules where they are now."""
        if self._policy is None or self._scheduled:
            now = {path: s.at(self.engine.step) for path, s in self._scheduled.items()}
            self._policy, _ = run(self.part, (self.engine.bank, self.roles), numbers=now)
        return self._policy

    def uniform(self) -> Tensor:
        """Actions drawn evenly from all there are."""
        if self.spaces.discrete:
            return torch.randint(self.spaces.n_actions, (self.n,), device=self.device)
        return torch.rand(self.n, self.spaces.action_dim, device=self.device) * 2.0 - 1.0

    def step(self, action: Tensor) -> Stepped:
        """Move all copies by an action in the nets' units, and count."""
        given = action
        if not self.spaces.discrete:
            inside = torch.minimum(torch.maximum(action, -self._limit), self._limit)
            given = self._middle + self._half * inside
        after = self.env.step(given.to(self.env_device))
        if self.env_device != self.device:
            after = Stepped(*(t.to(self.device) for t in after))
        self.running += after.reward.cpu()
        self.ages += 1
        done = (after.terminated | after.truncated).cpu()
        if done.any():
            self.finished += self.running[done].tolist()
            self.lengths += self.ages[done].tolist()
            self.running[done] = 0.0
            self.ages[done] = 0.0
        self.obs = after.obs
        return after

    def restart(self, seed: int | None = None) -> Tensor:
        """Fresh starts for all copies."""
        self.running.zero_()
        self.ages.zero_()
        self.obs = self.env.reset(seed).to(self.device)
        return self.obs

    def report(self) -> dict[str, float]:
        """Mean return and length of the episodes that ended since the last report."""
        if not self.finished:
            return {}
        count = len(self.finished)
        found = {
            "episode.return": sum(self.finished) / count,
            "episode.length": sum(self.lengths) / count,
        }
        self.finished, self.lengths = [], []
        return found

    def state(self) -> dict[str, Any]:
        """Everything that decides what happens next (a fresh start where the environment cannot be
        saved)."""
        try:
            env: Any = self.env.state_dict()
        except InputError:
            env = None
        told = {"finished": list(self.finished), "lengths": list(self.lengths)}
        return {"env": env, "obs": self.obs, "running": self.running, "ages": self.ages, **told}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.finished, self.lengths = (list(state.get(k, ())) for k in ("finished", "lengths"))
        if state["env"] is None:
            self.restart()
            return
        self.env.load_state_dict(state["env"])
        self.obs = state["obs"].to(self.device).clone()
        self.running, self.ages = state["running"].clone(), state["ages"].clone()


def pack(nested: Any, at: str = "") -> tuple[dict[str, Tensor], Any]:
    """Nested dicts and lists as tensors by path, and plain values with the paths in their place."""
    if isinstance(nested, Tensor):
        return {at: nested}, {"tensor": at}
    tensors: dict[str, Tensor] = {}
    if isinstance(nested, Mapping):
        plain: dict[str, Any] = {}
        for key, value in nested.items():
            found, plain[str(key)] = pack(value, f"{at}.{key}" if at else str(key))
            tensors |= found
        return tensors, {"map": plain}
    return {}, nested


def unpack(tensors: Mapping[str, Tensor], plain: Any) -> Any:
    """What `pack` took apart."""
    if isinstance(plain, Mapping) and "tensor" in plain:
        return tensors[plain["tensor"]]
    if isinstance(plain, Mapping) and "map" in plain:
        return {k: unpack(tensors, v) for k, v in plain["map"].items()}
    return plain


# ----------------------------------------------------------------------------------------------
# replay


class ReplayStream:
    """What the policy did so far, in a ring that lies on the device; the oldest rows go first.

    Row t n + i is step t of copy i. Options of the source: `capacity` (rows), `warm` (rows before
    the first update), `warm_with` ("random" actions, or the "policy"), `per_step` (updates per
    environment step), `envs` (copies), `n` (of the view "n_step"), `reward_scale, reward_shift`,
    `gamma` (of `return_to_go`, which is -inf, no bound, until the episode has ended),
    `begin_with` (the role of a log whose rows lie in the ring from the start, as if the policy had
    done them; they count as `warm`).
    """

    names: tuple[str, ...] = ("replay",)

    def __init__(
        self, source: Source, roles: Mapping[str, Any], spaces: Spaces, needs: tuple[str, ...],
        device: torch.device | str,
    ) -> None:  # fmt: skip
        if float(source.options.get("per_step", 1.0)) <= 0:
            raise InputError("per_step is above 0: steps that pay for no update are never enough")
        unknown = [n for n in needs if n not in ("return_to_go", "next_action")]
        if unknown:
            raise InputError(f"replay has no column {unknown[0]!r}, which a part asks for")
        if source.view not in ("rows", "n_step"):
            raise InputError(f"the view {source.view!r} is not one of replay: rows, n_step")
        options = source.options
        self.source, self.spaces, self.needs = source, spaces, needs
        self.copies = int(options.get("envs", 1))
        self.warm = int(options.get("warm", 5_000))
        self.per_step = float(options.get("per_step", 1.0))
        self.scale = float(options.get("reward_scale", 1.0))
        self.shift = float(options.get("reward_shift", 0.0))
        self.gamma = float(options.get("gamma", 0.99))
        self.n_step = int(options.get("n", 3)) if source.view == "n_step" else 1
        self.random = options.get("warm_with", "random") == "random"
        self.spent, self.credit, self.rows = 0, 0.0, 0
        self.device = torch.device(device)
        self.collector: Collector | None = None
        self.tables: Tables = {}
        self._roles = roles

    def bind(self, engine: Any, roles: Mapping[str, Any]) -> None:
        """Meet the nets that act."""
        if engine.seeds is not None:
            raise InputError("what learns by acting trains one seed at a time")
        self.collector = Collector(roles, self.copies, engine)
        n = self.copies = self.collector.n
        capacity = max(int(self.source.options.get("capacity", 1_000_000)) // n, 1) * n
        if self.warm > capacity:
            raise InputError(
                f"replay waits for {self.warm} rows (warm) and has room for {capacity} (capacity); "
                "let it wait for fewer"
            )
        d, k = self.spaces.obs_dim, self.spaces.action_dim
        where: dict[str, Any] = {"device": self.device}
        empty = torch.empty
        self.tables = {
            "obs": empty(capacity, d, **where),
            "action": empty(capacity, dtype=torch.long, **where)
            if self.spaces.discrete else empty(capacity, k, **where),
            "reward": empty(capacity, **where),
            "next_obs": empty(capacity, d, **where),
            "terminated": empty(capacity, **where),
            "ended": empty(capacity, dtype=torch.bool, **where),
            "filled": torch.zeros((), dtype=torch.float64, **where),
            "head": torch.zeros((), dtype=torch.long, **where),
        }  # fmt: skip
        if "return_to_go" in self.needs:
            self.tables["return_to_go"] = empty(capacity, **where)
        self.capacity, self.steps = capacity, 0
        if "begin_with" in self.source.options:
            self._begin_with(str(self.source.options["begin_with"]))
        self.begun = [self.steps] * n

    def _begin_with(self, role: str) -> None:
        """Lay the rows of a log into the ring, the last ones where it cannot hold all."""
        if role not in self._roles:
            raise InputError(f"replay begins with a log that is handed in as {role!r}")
        if self.copies > 1 and (self.needs or self.n_step > 1):
            raise InputError(
                "replay that begins with a log keeps what follows a row for one environment only; "
                f"this recipe asks for it with {self.copies}"
            )
        log = self._roles[role].to(self.device)
        check_transitions(log)
        reward = log.reward.float() * self.scale + self.shift
        columns: Tables = {
            "obs": log.obs.reshape(len(log), -1).float(),
            "action": unit_actions(log.action, self.spaces),
            "reward": reward,
            "next_obs": log.next_obs.reshape(len(log), -1).float(),
            "terminated": log.terminated.float(),
            "ended": episode_ends(log),
        }
        if "return_to_go" in self.needs:
            columns["return_to_go"] = return_to_go(log, reward, self.gamma)
        self.rows = min(len(log) // self.copies * self.copies, self.capacity)
        self.steps = self.rows // self.copies
        for name, column in columns.items():
            self.tables[name][: self.rows] = column[len(log) - self.rows :]
        self.tables["filled"].fill_(self.rows)
        self.tables["head"].fill_(self.rows % self.capacity)

    # ------------------------------------------------------------------------------------------
    # acting

    def before(self, updates: int) -> None:
        """Act until so many updates are paid for."""
        while self.rows < self.warm:
            self._act(random=self.random)
        while self.credit < updates:
            self._act()
            self.credit += self.copies * self.per_step
        self.credit -= updates

    def _act(self, random: bool = False) -> None:
        actor = self.collector
        assert actor is not None, "the stream was not bound to an engine"
        obs = actor.obs
        action = actor.uniform() if random else actor.policy().act(obs).action
        if not self.spaces.discrete:
            action = action.clamp(-1.0, 1.0)
        after = actor.step(action)
        head = (self.steps * self.copies) % self.capacity
        here = slice(head, head + self.copies)
        tables = self.tables
        tables["obs"][here] = obs
        tables["action"][here] = action
        tables["reward"][here] = after.reward * self.scale + self.shift
        tables["next_obs"][here] = after.final_obs
        tables["terminated"][here] = after.terminated.float()
        ended = after.terminated | after.truncated
        tables["ended"][here] = ended
        self.steps += 1
        self.rows = min(self.rows + self.copies, self.capacity)
        self.spent += self.copies
        tables["filled"].fill_(self.rows)
        tables["head"].fill_((head + self.copies) % self.capacity)
        if "return_to_go" in tables:
            tables["return_to_go"][here] = UNKNOWN
            for i in ended.nonzero()[:, 0].tolist():
                self._close(i)

    def _close(self, i: int) -> None:
        """Fill the returns of copy i's episode, which just ended."""
        first = max(self.begun[i], self.steps - self.capacity // self.copies)
        at = [(t * self.copies + i) % self.capacity for t in range(first, self.steps)]
        total, values = 0.0, []
        for reward in reversed(self.tables["reward"][at].tolist()):
            total = reward + self.gamma * total
            values.append(total)
        found = torch.tensor(values[::-1], device=self.device)
        self.tables["return_to_go"][torch.tensor(at, device=self.device)] = found
        self.begun[i] = self.steps

    # ------------------------------------------------------------------------------------------
    # drawing

    def sample(self, tables: Tables, size: int | None = None) -> Rows:
        """Rows drawn evenly with replacement."""
        size = self.source.size if size is None else size
        draws = torch.rand(size, device=tables["reward"].device, dtype=torch.float64)
        index = (draws * tables["filled"]).long()
        columns = {k: v[index] for k, v in tables.items() if k not in ("filled", "head", "ended")}
        last = index
        if self.n_step > 1:
            windows, last = self._windows(tables, index)
            columns |= windows
        if "next_action" in self.needs:
            follows = ~tables["ended"][last] & (self._newer(tables, last) >= self.copies)
            other = tables["action"][(last + self.copies) % self.capacity]
            keep = follows.reshape(-1, *(1,) * (other.dim() - 1))
            columns["next_action"] = torch.where(keep, other, tables["action"][last])
        return Rows({**columns, "index": index}, self.names, tables)

    def _newer(self, tables: Tables, index: Tensor) -> Tensor:
        """How many rows were written after each."""
        return torch.remainder(tables["head"] - 1 - index, self.capacity)

    def _windows(self, tables: Tables, index: Tensor) -> tuple[Tables, Tensor]:
        """What n-step rows are made of, and the last row of each."""
        room = self._newer(tables, index)
        alive = torch.ones_like(index, dtype=torch.bool)
        last, at, rewards, length = index, index, [], torch.zeros_like(index)
        for k in range(self.n_step):
            rewards.append(tables["reward"][at] * alive)
            last = torch.where(alive, at, last)
            length = length + alive
            alive = alive & ~tables["ended"][at] & (room >= (k + 1) * self.copies)
            at = (at + self.copies) % self.capacity
        found = {
            "reward": torch.stack(rewards, -1),
            "span": length.float(),
            "next_obs": tables["next_obs"][last],
            "terminated": tables["terminated"][last],
        }
        return found, last

    # ------------------------------------------------------------------------------------------
    # looking in and storing

    def learn(self, metrics: Mapping[str, float]) -> None:
        """Nothing: rows are drawn evenly whatever they teach."""

    def report(self) -> dict[str, float]:
        """Returns of the episodes that ended since the last report, and steps taken."""
        found = self.collector.report() if self.collector else {}
        return {**found, "env.steps": float(self.spent)}

    def state_dict(self) -> dict[str, Any]:
        """The rows that are filled, the environment, and the counts."""
        assert self.collector is not None
        held = {k: v[: self.rows] if v.dim() else v for k, v in self.tables.items()}
        counts = {k: getattr(self, k) for k in ("spent", "credit", "rows", "steps")}
        begun = torch.tensor(self.begun)
        return {"tables": held, **counts, "begun": begun, "collector": self.collector.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        assert self.collector is not None
        for name, rows in state["tables"].items():
            table = self.tables[name]
            (table[: len(rows)] if table.dim() else table).copy_(rows)
        for name in ("spent", "credit", "rows", "steps"):
            setattr(self, name, state[name])
        self.begun = state["begun"].tolist()
        self.collector.restore(state["collector"])
        if state["collector"]["env"] is None and self.steps:  # all copies start afresh
            at = (self.steps - 1) * self.copies % self.capacity
            self.tables["ended"][at : at + self.copies] = True
            self.begun = [self.steps] * self.copies


@opens("replay")
def _open_replay(
    source: Source, roles: Mapping[str, Any], spaces: Spaces, needs: tuple[str, ...], device: Any
) -> ReplayStream:
    if "task" not in roles:
        raise InputError("this recipe learns by acting: give it a task, such as task='Pendulum-v1'")
    return ReplayStream(source, roles, spaces, needs, device)
