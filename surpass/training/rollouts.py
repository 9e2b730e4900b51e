"""Fresh sequences of the policy on control, as batches of the compiled executor.

Each batch is collected with the nets as they are, columns are derived once (`then`), and it is gone
through `epochs` times in `minibatches` pieces, drawn without replacement.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from surpass.data.records import Sequences
from surpass.errors import InputError
from surpass.forms import Source, Spaces
from surpass.objectives.rows import Rows
from surpass.training.collecting import Collector
from surpass.training.streams import Tables, opens

__all__ = ["RolloutStream", "SequenceRows"]


class SequenceRows(Rows):
    """A minibatch of sequences [M, L] that reads like `Sequences`: columns by name, None where a
    field is not there, and `extras` for what was derived."""

    __slots__ = ()

    @property
    def extras(self) -> dict[str, Tensor]:
        """All columns."""
        return self.columns

    @property
    def total(self) -> Tensor:
        """The sum of rewards of each sequence, [M]."""
        return self.reward.sum(-1)

    @property
    def length(self) -> Tensor:
        """How many decisions each sequence has, [M]."""
        return self.mask.sum(-1)

    def __getattr__(self, name: str) -> Any:
        columns = object.__getattribute__(self, "columns")
        if name not in columns and name in Sequences.__dataclass_fields__:  # type: ignore[attr-defined]
            return None
        return super().__getattr__(name)


class RolloutStream:
    """Sequences [B, T] of the policy, collected when the batch before is used up.

    Options of the source: `horizon` (decisions per sequence), `group` (sequences that share their
    start), `epochs`, `minibatches`, `then` (parts that derive columns, `Part[[Nets, Sequences],
    Sequences]`), `continuing` (sequences go on where the last batch ended, across episodes; else
    each sequence is one episode from its start, masked after its end), `pieces` ("sequences",
    "decisions": sequences of length one, or "rows": steps without a time axis), `normalize`
    (standardize observations by running statistics), `scale_reward` (divide rewards by the running
    deviation of their discounted sum, with `gamma`), `paths` (the policy decides on each action of
    the environment in several steps of its own, a denoising path, and those are the decisions).
    """

    names: tuple[str, ...] = ("own",)
    apart = True  # it says itself when a batch begins

    def __init__(
        self, source: Source, roles: Mapping[str, Any], spaces: Spaces, device: torch.device | str
    ) -> None:
        options = source.options
        self.source, self.spaces = source, spaces
        self.device = torch.device(device)
        self.size, self.horizon = source.size, int(options.get("horizon", 128))
        self.group = int(options.get("group", 1))
        self.epochs = int(options.get("epochs", 1))
        self.minibatches = int(options.get("minibatches", 1))
        self.continuing = bool(options.get("continuing", False))
        self.pieces = str(options.get("pieces", "sequences"))
        self.gamma = float(options.get("gamma", 0.99))
        self.then: tuple[Any, ...] = tuple(options.get("then", ()))
        self.walk = 1  # decisions for one action of the environment
        self.tables: Tables = {}
        self.spent, self.left, self.batches = 0, 0, 0
        self.collector: Collector | None = None
        self._calls = 0
        self._check()
        self.mean: Tensor | None = None
        self.std: Tensor | None = None
        if options.get("normalize"):
            self.mean = torch.zeros(spaces.obs_dim, device=self.device)
            self.std = torch.ones(spaces.obs_dim, device=self.device)
        self._moments = _Moments(spaces.obs_dim, self.device)
        self._scale = _Moments(1, self.device) if options.get("scale_reward") else None
        self._discounted = torch.zeros(self.size, device=self.device)

    def _check(self) -> None:
        if self.pieces not in ("sequences", "decisions", "rows"):
            raise InputError(f"pieces={self.pieces!r}: sequences, decisions or rows")
        if self.size % self.group:
            raise InputError(f"{self.size} sequences do not divide into groups of {self.group}")
        units = self.size * (1 if self.pieces == "sequences" else self.horizon)
        self.piece = units // self.minibatches
        self.units = units
        if self.piece == 0:
            raise InputError(f"{units} {self.pieces} do not make {self.minibatches} minibatches")
        if self.source.options.get("paths") and (self.continuing or self.pieces != "sequences"):
            raise InputError("paths are whole: pieces='sequences', and none that continue")
        if self.continuing and self.group > 1:
            raise InputError("sequences that continue do not share a start: group=1, or fresh ones")

    def bind(self, engine: Any, roles: Mapping[str, Any]) -> None:
        """Meet the nets that act."""
        if engine.seeds is not None:
            raise InputError("what learns by acting trains one seed at a time")
        self.engine = engine
        self.collector = Collector(roles, self.size, engine)
        if self.collector.n != self.size:
            raise InputError(
                f"the recipe wants {self.size} copies of the environment, and {self.collector.n} "
                "are open"
            )
        shape = (engine.unroll, self.piece)
        self.tables["index"] = torch.zeros(shape, dtype=torch.long, device=self.device)

    # ------------------------------------------------------------------------------------------
    # collecting

    def before(self, updates: int) -> None:
        """Lay out the pieces of the next updates; collect when the batch is used up."""
        self._calls = 0
        for k in range(updates):
            if self.left == 0:
                if k:
                    raise InputError("updates per call must divide the updates of a batch")
                self._collect()
                self.left = self.epochs * self.minibatches
            done = (self.epochs * self.minibatches - self.left) % self.minibatches
            if done == 0:
                self._order = torch.randperm(self.units, device=self.device)
            part = self._order[done * self.piece : (done + 1) * self.piece]
            self.tables["index"][k].copy_(part)
            self.left -= 1

    def _collect(self) -> None:
        self.engine.batch_begins()
        seq = self._rollout()
        for i, derive in enumerate(self.then):
            seq = self.engine.derived(derive, seq, ("source", "options", "then", str(i)))
        self._fill(seq)
        self.batches += 1

    def _rollout(self) -> Sequences:
        actor = self.collector
        assert actor is not None, "the stream was not bound to an engine"
        if not self.continuing:
            self._start_anew(actor)
        kept: dict[str, list[Tensor]] = {}
        alive = torch.ones(self.size, device=self.device)
        obs = self._seen(actor.obs)
        policy = actor.policy()
        for t in range(self.horizon):
            acted = policy.act(obs)
            after = actor.step(acted.action)
            ended = after.terminated | after.truncated
            row = {
                "obs": obs, "action": acted.action, "reward": self._paid(after.reward, ended),
                "mask": alive, "terminated": after.terminated, "truncated": after.truncated,
                "next_obs": self._standard(after.final_obs),
            }  # fmt: skip
            if acted.logp is not None:
                row["behavior_logp"] = acted.logp
            for decision in self._decisions(row, acted.extras):
                for name, value in decision.items():
                    kept.setdefault(name, []).append(value)
            obs = self._seen(after.obs)
            self.spent += int(alive.sum()) if not self.continuing else self.size
            if not self.continuing:
                alive = alive * (~ended).float()
                if t < self.horizon - 1 and not alive.any():
                    break
        return self._record({name: torch.stack(rows, 1) for name, rows in kept.items()})

    def _decisions(
        self, row: dict[str, Tensor], path: dict[str, Tensor]
    ) -> list[dict[str, Tensor]]:
        """The decisions behind one action of the environment: itself, or the steps of its path,
        the last of which is paid."""
        if not self.source.options.get("paths"):
            return [row]
        self.walk = path["mask"].shape[1]
        nothing = {k: torch.zeros_like(row[k]) for k in ("reward", "terminated", "truncated")}
        steps = []
        for f in range(self.walk):
            own = {k: v[:, f] for k, v in path.items()}
            paid = {k: row[k] for k in nothing} if f == self.walk - 1 else nothing
            steps.append({**own, **paid, "mask": own["mask"] * row["mask"]})
        return steps

    def _start_anew(self, actor: Collector) -> None:
        actor.restart()
        if self.group == 1:
            return
        state = actor.env.state_dict()
        first = torch.arange(self.size) // self.group * self.group

        def shared(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {k: shared(v) for k, v in value.items()}
            rows = isinstance(value, Tensor) and value.dim() and value.shape[0] == self.size
            return value[first.to(value.device)] if rows else value

        if isinstance(state, Mapping) and "state" in state:  # a batched simulator
            state = {**state, "state": shared(state["state"])}
        else:
            state = {k: v if k == "random" else shared(v) for k, v in state.items()}
        actor.env.load_state_dict(state)
        actor.obs = actor.obs[first.to(actor.obs.device)]

    def _record(self, columns: dict[str, Tensor]) -> Sequences:
        lived = columns["mask"].shape[1]
        if lived < self.horizon * self.walk:
            pad = self.horizon * self.walk - lived
            columns = {k: _padded(v, pad) for k, v in columns.items()}
        columns["reward"] = columns["reward"] * columns["mask"]
        group = torch.arange(self.size, device=self.device) // self.group
        return Sequences(**columns, group=group, batch_size=[self.size])  # type: ignore[call-arg]

    def _fill(self, seq: Sequences) -> None:
        """The batch, in tables of fixed place."""
        columns = {k: getattr(seq, k) for k in ("obs", "action", "mask", "behavior_logp", "group")}
        if self.pieces == "rows":
            columns |= {k: getattr(seq, k) for k in ("reward", "next_obs", "terminated")}
            columns["terminated"] = columns["terminated"].float()
        if isinstance(seq.extras, TensorDict):
            columns |= dict(seq.extras.items())
        for name, column in columns.items():
            if column is None:
                continue
            if self.pieces != "sequences":
                if column.dim() == 1:
                    column = column[:, None].expand(-1, self.horizon)
                column = column.flatten(0, 1)
                column = column if self.pieces == "rows" else column[:, None]
                if name == "group" and self.pieces == "decisions":
                    column = column[:, 0]
            if name in self.tables:
                self.tables[name].copy_(column)
            else:
                self.tables[name] = column.detach().clone().contiguous()

    # ------------------------------------------------------------------------------------------
    # running statistics

    def _seen(self, obs: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            return obs
        self._moments.add(obs)
        self.mean.copy_(self._moments.mean)
        self.std.copy_(self._moments.deviation())
        return self._standard(obs)

    def _standard(self, obs: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            return obs
        return ((obs - self.mean) / self.std).clamp(-10.0, 10.0)

    def _paid(self, reward: Tensor, ended: Tensor) -> Tensor:
        if self._scale is None:
            return reward
        self._discounted = self.gamma * self._discounted + reward
        self._scale.add(self._discounted[:, None])
        self._discounted = self._discounted * (~ended).float()
        return (reward / self._scale.deviation()[0]).clamp(-10.0, 10.0)

    # ------------------------------------------------------------------------------------------
    # drawing, looking in, storing

    def sample(self, tables: Tables, size: int | None = None) -> Rows:
        """The piece that `before` laid out for this call."""
        index = tables["index"][self._calls]
        self._calls += 1
        columns = {k: v[index] for k, v in tables.items() if k != "index"}
        kind = Rows if self.pieces == "rows" else SequenceRows
        return kind(columns, self.names, tables)

    def rewind(self) -> None:
        """Let the next draw give the first piece that was laid out again."""
        self._calls = 0

    def learn(self, metrics: Mapping[str, float]) -> None:
        """Nothing: the next batch is what the policy does next."""

    def report(self) -> dict[str, float]:
        """Returns of the episodes that ended since the last report, and decisions made."""
        found = self.collector.report() if self.collector else {}
        return {**found, "env.steps": float(self.spent)}

    def state_dict(self) -> dict[str, Any]:
        """The batch, the place in it, the environment, and the statistics."""
        assert self.collector is not None
        held = {
            "tables": {k: v for k, v in self.tables.items() if k != "index"},
            "spent": self.spent, "left": self.left, "batches": self.batches,
            "collector": self.collector.state(), "moments": self._moments.state(),
            "discounted": self._discounted,
        }  # fmt: skip
        if self.left:
            held["order"] = self._order
        if self._scale is not None:
            held["scale"] = self._scale.state()
        return held

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        assert self.collector is not None
        for name, column in state["tables"].items():
            self.tables[name] = column.to(self.device).clone()
        self.spent, self.left, self.batches = state["spent"], state["left"], state["batches"]
        if self.left:
            self._order = state["order"].to(self.device)
        self.collector.restore(state["collector"])
        self._moments.load(state["moments"])
        self._discounted = state["discounted"].to(self.device).clone()
        if self.mean is not None and self.std is not None:
            self.mean.copy_(self._moments.mean)
            self.std.copy_(self._moments.deviation())
        if self._scale is not None:
            self._scale.load(state["scale"])


def _padded(column: Tensor, pad: int) -> Tensor:
    """Zeros behind the end of every sequence."""
    return torch.cat([column, column.new_zeros(column.shape[0], pad, *column.shape[2:])], 1)


class _Moments:
    """Running mean and variance, by the parallel formula of Chan, Golub and LeVeque (1983)."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.mean = torch.zeros(size, device=device)
        self.var = torch.ones(size, device=device)
        self.count = 1e-4

    def add(self, rows: Tensor) -> None:
        """Take rows [n, size] in."""
        n = rows.shape[0]
        var, mean = torch.var_mean(rows, 0, correction=0)
        apart, total = mean - self.mean, self.count + n
        within = self.var * self.count + var * n
        self.var = (within + apart.square() * (self.count * n / total)) / total
        self.mean = self.mean + apart * (n / total)
        self.count = total

    def deviation(self) -> Tensor:
        """The standard deviation, [size]."""
        return (self.var + 1e-8).sqrt()

    def state(self) -> dict[str, Any]:
        """As plain values and tensors."""
        return {"mean": self.mean, "var": self.var, "count": self.count}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.mean, self.var = state["mean"].clone(), state["var"].clone()
        self.count = state["count"]


@opens("rollouts")
def _open_rollouts(
    source: Source, roles: Mapping[str, Any], spaces: Spaces, needs: tuple[str, ...], device: Any
) -> RolloutStream:
    if "task" not in roles:
        raise InputError("this recipe learns by acting: give it a task, such as task='CartPole-v1'")
    return RolloutStream(source, roles, spaces, device)
