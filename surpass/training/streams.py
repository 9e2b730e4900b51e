"""Where batches come from, opened: tables that stay on the device, and a draw from them.

A stream has `tables` (tensors that the compiled update reads in place), `sample` (a pure function
of them, traced into the update, so that rows are gathered inside it) and a part that runs outside:
`before(updates)`, which may act in an environment, `learn`, `spent`, and its state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.forms import Source, Spaces
from surpass.objectives.rows import Rows
from surpass.objectives.trajectory_weights import episode_returns

__all__ = [
    "COLUMNS", "BoxStream", "LogStream", "MixedStream", "Stream", "check_transitions",
    "episode_ends", "next_action", "next_available", "open_stream",
    "opens", "return_to_go", "spaces_of", "unit_actions",
]  # fmt: skip

Tables = dict[str, Tensor]
_BESIDE_NEXT = ("next_action", "next_available")  # what belongs to the next observation


class Stream(Protocol):
    """A source that is open."""

    names: tuple[str, ...]

    @property
    def tables(self) -> Tables: ...

    @property
    def spent(self) -> int: ...

    def sample(self, tables: Tables, size: int | None = None) -> Rows:
        """A batch; pure, with randomness from torch's default generator."""
        ...

    def before(self, updates: int) -> None:
        """What happens outside the graph before the next so many updates."""
        ...

    def learn(self, metrics: Mapping[str, float]) -> None:
        """What the updates found."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


# ----------------------------------------------------------------------------------------------
# spaces and checks


def spaces_of(log: Transitions) -> Spaces:
    """Sizes and bounds as the log states them in `about.spaces`, or as its rows show them.

    Bounds that are not stated are [-1, 1] where all actions lie within, else the smallest and the
    largest logged action of each dimension.

    Raises:
        InputError: when actions lie outside the stated bounds.
    """
    stated = log.about.spaces
    obs_dim = int(log.obs.reshape(log.obs.shape[0], -1).shape[-1])
    if not log.action.is_floating_point():
        known = int(stated.get("n_actions", 0)) or len(log.about.actions)
        seen = int(log.action.max()) + 1
        if known and seen > known:
            raise InputError(
                f"action {seen - 1} in row {int(log.action.argmax())} is none of the "
                f"{known} actions (0 .. {known - 1})"
            )
        many = {"agents": log.action.shape[1]} if log.action.dim() == 2 else {}
        return Spaces(obs_dim, n_actions=known or seen, extras=many)
    if log.action.dim() != 2:
        raise InputError(
            f"continuous actions have shape [rows, dimensions], not {list(log.action.shape)}; "
            "discrete actions are whole numbers [rows]"
        )
    k = log.action.shape[1]
    lowest, highest = log.action.amin(0), log.action.amax(0)
    narrow = 1e-6 * lowest.abs().clamp(min=1.0)  # the range of an action that never changes
    if "action_low" in stated:
        low = torch.as_tensor(stated["action_low"], dtype=torch.float32).expand(k)
        high = torch.as_tensor(stated["action_high"], dtype=torch.float32).expand(k)
        outside = (log.action < low - 1e-4) | (log.action > high + 1e-4)
        if outside.any():
            row, dimension = (int(i) for i in outside.nonzero()[0])
            raise InputError(
                f"action {float(log.action[row, dimension]):g} in row {row}, dimension {dimension} "
                f"lies outside its bounds [{float(low[dimension]):g}, {float(high[dimension]):g}]"
            )
    elif lowest.min() >= -1.0 and highest.max() <= 1.0:
        low, high = -torch.ones(k), torch.ones(k)
    else:
        low, high = lowest, torch.maximum(highest, lowest + narrow)
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        low, high = lowest, torch.maximum(highest, lowest + narrow)
    return Spaces(obs_dim, k, 0, tuple(low.tolist()), tuple(high.tolist()))


def check_transitions(log: Transitions) -> None:
    """Refuse what cannot be learned from.

    Raises:
        InputError: when the log is empty, shapes do not match, or a field is NaN or infinite
            (naming field and row).
    """
    if len(log) == 0:
        raise InputError("the log has no rows")
    if log.obs.shape != log.next_obs.shape:
        raise InputError(
            f"obs is {list(log.obs.shape)}, but next_obs is {list(log.next_obs.shape)}; "
            "they must be alike"
        )
    for name in ("obs", "action", "reward", "next_obs", "weight"):
        column = getattr(log, name)
        if column is None or not column.is_floating_point():
            continue
        finite = torch.isfinite(column.reshape(column.shape[0], -1)).all(-1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            raise InputError(
                f"{name} is NaN or infinite in row {row} (and in "
                f"{int((~finite).sum()) - 1} more); remove or mend those rows"
            )


def unit_actions(action: Tensor, spaces: Spaces) -> Tensor:
    """Continuous actions, mapped from their bounds to [-1, 1]; discrete ones as they are."""
    if spaces.discrete:
        return action.long()
    low = torch.tensor(spaces.low, device=action.device)
    high = torch.tensor(spaces.high, device=action.device)
    return (2.0 * (action - low) / (high - low) - 1.0).clamp(-1.0, 1.0)


# ----------------------------------------------------------------------------------------------
# derived columns


def episode_ends(log: Transitions) -> Tensor:
    """True at the last row of every episode, [N]."""
    last = torch.ones(len(log), dtype=torch.bool, device=log.reward.device)
    last[:-1] = log.episode[1:] != log.episode[:-1]
    return last | log.terminated | log.truncated


def return_to_go(log: Transitions, reward: Tensor, gamma: float) -> Tensor:
    """The discounted return that was logged from each row on, [N]; an episode that was cut off
    counts what it had."""
    ends = episode_ends(log).tolist()
    values = reward.double().tolist()
    total = 0.0
    for i in range(len(values) - 1, -1, -1):
        total = values[i] if ends[i] else values[i] + gamma * total
        values[i] = total
    return torch.tensor(values, dtype=torch.float32, device=reward.device)


def next_action(log: Transitions, action: Tensor) -> Tensor:
    """The action logged next, [N, ...]; in the last row of an episode its own again (after a
    termination it does not count, after a truncation it is the nearest that is known)."""
    following = action.clone()
    following[:-1] = action[1:]
    ends = episode_ends(log)
    following[ends] = action[ends]
    return following


def next_available(log: Transitions) -> Tensor:
    """What was available in the next row, [N, A]; in the last row of an episode its own again."""
    if log.available is None:
        raise InputError("a part of this recipe needs the column 'available' [rows, actions]")
    return next_action(log, log.available)


def span(log: Transitions, n: int) -> Tensor:
    """How many rows of its episode an n-step window of each row covers, [N]."""
    position = torch.arange(len(log), device=log.reward.device)
    ends = torch.where(episode_ends(log), position, len(log))
    last = torch.flip(torch.cummin(torch.flip(ends, [0]), 0).values, [0])
    return (last - position + 1).clamp(max=n)


def labeled(log: Transitions) -> Tensor:
    """1.0 where the reward was observed, [N]: `extras["labeled"]`, or everywhere."""
    if log.extras is not None and "labeled" in log.extras.keys():  # noqa: SIM118
        return log.extras["labeled"].float()
    return torch.ones(len(log), device=log.reward.device)


def age(log: Transitions) -> Tensor:
    """How many rows of its episode stand before each row, [N]."""
    position = torch.arange(len(log), device=log.reward.device)
    first = torch.ones(len(log), dtype=torch.bool, device=log.reward.device)
    first[1:] = episode_ends(log)[:-1]
    return position - torch.cummax(torch.where(first, position, 0), 0).values


def progress(log: Transitions) -> Tensor:
    """t / T of each row, the steps of an episode counted t = 1 .. T, [N]."""
    _, place = torch.unique_consecutive(log.episode, return_inverse=True)
    length = torch.bincount(place)[place]
    return (age(log) + 1).float() / length


def earned(log: Transitions) -> Tensor:
    """What the episode of each row earned in all, [N]."""
    returns, place = episode_returns(log)
    return returns[place].float()


COLUMNS: dict[str, Callable[[Transitions, Tables, Source], Tensor]] = {
    "age": lambda log, t, s: age(log),
    "progress": lambda log, t, s: progress(log),
    "earned": lambda log, t, s: earned(log),
    "return_to_go": lambda log, t, s: return_to_go(log, t["reward"], s.options.get("gamma", 0.99)),
    "next_action": lambda log, t, s: next_action(log, t["action"]),
    "next_available": lambda log, t, s: next_available(log),
    "labeled": lambda log, t, s: labeled(log),
    "row": lambda log, t, s: torch.arange(len(log), device=t["reward"].device),
}


# ----------------------------------------------------------------------------------------------
# a fixed log


class LogStream:
    """Batches from a fixed log that lies on the device.

    Options of the source: `normalize` (standardize observations by the mean and spread of the log;
    with `listed` they describe one candidate per action, and mean and spread are those of all
    candidates that were available), `prioritize` (`Prioritized`),
    `reward_scale, reward_shift` (r <- scale r + shift; the scale "range" takes the returns of the
    log's episodes to a range of the longest one's length: about 1 a step), `gamma` (of derived
    columns), `n` (of the views "n_step" and "segments"). In the view "segments" all columns are
    [B, n, ...], consecutive rows of an episode from a random one on, with `mask` [B, n] 0 behind
    its end; `whole` draws only those that fit. Rows are drawn uniformly, with probability
    proportional to what a part `weigh` says of the log, or to `weight` where the option `by_weight`
    is set; without it `weight` multiplies each row's loss.
    """

    names: tuple[str, ...] = ("log",)

    def __init__(
        self,
        log: Transitions,
        source: Source,
        spaces: Spaces,
        needs: tuple[str, ...] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        check_transitions(log)
        if log.action.is_floating_point() == spaces.discrete:
            raise InputError("the log's actions and the recipe's are not of one kind")
        self.source, self.spent, self.rows = source, 0, len(log)
        options = source.options
        log = log.to(device)
        self.mean, self.std = self._statistics(log) if options.get("normalize") else (None, None)
        reward = log.reward.float() * _scale(log, options.get("reward_scale", 1.0))
        tables: Tables = {
            "obs": self._standard(log.obs.reshape(len(log), -1).float()),
            "action": unit_actions(log.action, spaces),
            "reward": reward + options.get("reward_shift", 0.0),
            "next_obs": self._standard(log.next_obs.reshape(len(log), -1).float()),
            "terminated": log.terminated.float(),
        }
        self._weights(log, tables, options)
        for name in needs:
            if name in COLUMNS:
                tables[name] = COLUMNS[name](log, tables, source)
            else:
                tables[name] = _recorded(log, name)
        self.n_step = int(options.get("n", 3)) if source.view != "rows" else 1
        if source.view not in ("rows", "n_step", "segments"):
            raise InputError(
                f"the view {source.view!r} is not one of a log of steps: rows, n_step, segments"
            )
        if source.view != "rows":
            tables["span"] = span(log, self.n_step)
        if source.view == "segments" and options.get("whole"):
            fits = tables["span"] == self.n_step
            tables["starts"] = fits.nonzero()[:, 0]
            if len(tables["starts"]) == 0:
                raise InputError(f"no episode of the log has {self.n_step} rows")
            if "cumulative" in tables:
                first = tables["cumulative"].new_zeros(1)
                chance = tables["cumulative"].diff(prepend=first) * fits
                if float(chance.sum()) == 0.0:
                    raise InputError(f"no episode that is drawn at all has {self.n_step} rows")
                tables["cumulative"] = chance.cumsum(0) / chance.sum()
        self.tables = {name: column.contiguous() for name, column in tables.items()}

    def _statistics(self, log: Transitions) -> tuple[Tensor, Tensor]:
        both = torch.cat([log.obs.reshape(len(log), -1), log.next_obs.reshape(len(log), -1)])
        if self.source.options.get("listed"):
            return _of_candidates(log)
        return both.mean(0).float(), both.std(0).float() + 1e-3

    def _standard(self, obs: Tensor) -> Tensor:
        return obs if self.mean is None else (obs - self.mean) / cast(Tensor, self.std)

    def _weights(self, log: Transitions, tables: Tables, options: Mapping[str, Any]) -> None:
        drawn = log.weight if options.get("by_weight") else None
        if "weigh" in options:
            drawn = options["weigh"](log)
        if drawn is not None:
            weight = drawn.double()
            tables["cumulative"] = (weight.cumsum(0) / weight.sum()).contiguous()
        if log.weight is not None and not options.get("by_weight"):
            weight = log.weight.float()
            tables["weight"] = weight / weight.mean()

    def sample(self, tables: Tables, size: int | None = None) -> Rows:
        """Rows drawn with replacement, gathered from the tables."""
        size = self.source.size if size is None else size
        device = tables["reward"].device
        if "cumulative" in tables:
            draws = torch.rand(size, device=device, dtype=torch.float64)
            index = torch.searchsorted(tables["cumulative"], draws).clamp(max=self.rows - 1)
        elif "starts" in tables:
            starts = tables["starts"]
            index = starts[torch.randint(len(starts), (size,), device=device)]
        else:
            index = torch.randint(self.rows, (size,), device=device)
        known = {k: v for k, v in tables.items() if k not in ("span", "cumulative", "starts")}
        if self.source.view == "segments":
            return Rows(self._segments(tables, known, index), self.names, tables)
        columns = {k: v[index] for k, v in known.items()}
        if "span" in tables:
            columns |= self._windows(tables, index)
        return Rows({**columns, "index": index}, self.names, tables)

    def _segments(self, tables: Tables, known: Tables, index: Tensor) -> Tables:
        steps = torch.arange(self.n_step, device=index.device)
        rows = (index[:, None] + steps).clamp(max=self.rows - 1)
        columns = {k: v[rows] for k, v in known.items() if k != "weight"}
        columns["mask"] = (steps < tables["span"][index][:, None]).float()
        if "weight" in known:
            columns["weight"] = known["weight"][index]
        return {**columns, "index": index}

    def _windows(self, tables: Tables, index: Tensor) -> Tables:
        length = tables["span"][index]
        steps = torch.arange(self.n_step, device=index.device)
        within = steps < length[:, None]
        rows = (index[:, None] + steps).clamp(max=self.rows - 1)
        last = index + length - 1
        return {
            "reward": tables["reward"][rows] * within,
            "span": length.float(),
            "next_obs": tables["next_obs"][last],
            "terminated": tables["terminated"][last],
            **{name: tables[name][last] for name in _BESIDE_NEXT if name in tables},
        }

    def before(self, updates: int) -> None:
        """Nothing: a log does not change."""

    def learn(self, metrics: Mapping[str, float]) -> None:
        """Nothing: rows are drawn at random whatever they teach."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def _scale(log: Transitions, scale: float | str) -> float:
    """The factor of rewards, or the longest episode's length over the range of the returns."""
    if scale != "range":
        try:
            return float(scale)
        except ValueError as error:
            raise InputError(
                f"rewards are scaled by a number or by 'range', not {scale!r}"
            ) from error
    returns, place = episode_returns(log)
    spread = float(returns.max() - returns.min())
    return int(place.bincount().max()) / spread if spread > 0 else 1.0


def _of_candidates(log: Transitions) -> tuple[Tensor, Tensor]:
    """Mean and spread of each feature over all available candidates, repeated for every place."""
    available = log.available
    if available is None or log.obs.reshape(len(log), -1).shape[1] % available.shape[1]:
        raise InputError(
            "observations of listed candidates need the column 'available' [rows, candidates], and "
            "as many numbers for each candidate"
        )
    places = available.shape[1]
    seen = log.obs.reshape(len(log), places, -1)[available].float()
    return seen.mean(0).repeat(places), (seen.std(0) + 1e-3).repeat(places)


def _recorded(log: Transitions, name: str) -> Tensor:
    column = getattr(log, name, None)
    if column is None and log.extras is not None and name in log.extras.keys():  # noqa: SIM118
        column = log.extras.get(name)
    if not isinstance(column, Tensor):
        raise InputError(
            f"a part of this recipe needs the column {name!r}, and the log has none; "
            "add it to extras"
        )
    return column.float() if column.is_floating_point() else column


class _Several:
    """Several streams as one.

    Raises:
        InputError: when one of them standardizes observations.
    """

    def __init__(self, source: Source, streams: Mapping[str, Stream]) -> None:
        own = [name for name, s in streams.items() if getattr(s, "mean", None) is not None]
        if own:
            raise InputError(
                f"{own[0]!r} would standardize observations by itself, and neither what stands "
                "beside it nor the policy would; leave normalize out"
            )
        self.source, self.streams = source, dict(streams)
        self.names = tuple(streams)

    @property
    def tables(self) -> Tables:
        return {f"{n}.{k}": v for n, s in self.streams.items() for k, v in s.tables.items()}

    @property
    def spent(self) -> int:
        return sum(s.spent for s in self.streams.values())

    def _own(self, tables: Tables, name: str) -> Tables:
        start = f"{name}."
        return {k.removeprefix(start): v for k, v in tables.items() if k.startswith(start)}

    def before(self, updates: int) -> None:
        for stream in self.streams.values():
            stream.before(updates)

    def learn(self, metrics: Mapping[str, float]) -> None:
        for stream in self.streams.values():
            stream.learn(metrics)

    def state_dict(self) -> dict[str, Any]:
        return {name: stream.state_dict() for name, stream in self.streams.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, stream in self.streams.items():
            stream.load_state_dict(state[name])

    def bind(self, engine: Any, roles: Mapping[str, Any]) -> None:
        """Let the streams that act meet the nets that act."""
        for stream in self.streams.values():
            meet = getattr(stream, "bind", None)
            if meet is not None:
                meet(engine, roles)

    def report(self) -> dict[str, float]:
        """What the streams have to say since they were last asked."""
        found: dict[str, float] = {}
        for stream in self.streams.values():
            found |= getattr(stream, "report", dict)()
        return found


class MixedStream(_Several):
    """Each batch from several streams, in fixed shares; rows are marked by `source`."""

    def __init__(self, source: Source, streams: Mapping[str, Stream]) -> None:
        super().__init__(source, streams)
        sizes = [round(source.size * share) for share, _ in source.parts.values()]
        sizes[-1] += source.size - sum(sizes)
        self.shares = [s / source.size for s in sizes]

    def sample(self, tables: Tables, size: int | None = None) -> Rows:
        """Rows of every stream, one after the other."""
        size = self.source.size if size is None else size
        drawn, left = [], size
        for i, (name, stream) in enumerate(self.streams.items()):
            count = left if i == len(self.shares) - 1 else round(size * self.shares[i])
            left -= count
            rows = stream.sample(self._own(tables, name), count)
            mark = torch.full_like(rows.index, i)
            drawn.append(rows.filled(source=mark))
        if any("weight" in rows for rows in drawn):  # what has no weight counts once
            drawn = [
                r if "weight" in r else r.filled(weight=torch.ones(len(r), device=r.index.device))
                for r in drawn
            ]
        common = [k for k in drawn[0] if all(k in rows for rows in drawn)]
        joined = {k: torch.cat([rows.columns[k] for rows in drawn]) for k in common}
        return Rows(joined, self.names)


class BesideStream(_Several):
    """A batch of every stream, side by side: the columns of the first by their names, those of the
    others behind theirs."""

    def __init__(self, source: Source, streams: Mapping[str, Stream]) -> None:
        super().__init__(source, streams)
        self.first = self.names[0]

    def sample(self, tables: Tables, size: int | None = None) -> Rows:
        """As many rows of each as its source says; `size` is of the first."""
        rows = self.streams[self.first].sample(self._own(tables, self.first), size)
        more = {}
        for name in self.names[1:]:
            drawn = self.streams[name].sample(self._own(tables, name))
            more |= {f"{name}.{column}": drawn.columns[column] for column in drawn}
        return rows.filled(**more)


class BoxStream:
    """States drawn evenly from a box and even actions: no log, no environment.

    Raises:
        InputError: when the box does not fit the observations, or is empty.
    """

    names: tuple[str, ...] = ("box",)

    def __init__(self, source: Source, spaces: Spaces, device: torch.device | str) -> None:
        self.source, self.spaces, self.spent = source, spaces, 0
        low, high = (torch.tensor(source.options[k], device=device) for k in ("low", "high"))
        if (
            low.shape != high.shape
            or low.shape != (spaces.obs_dim,)
            or not bool((low < high).all())
        ):
            raise InputError(
                f"a box of {spaces.obs_dim} numbers, low below high, expected; got "
                f"{source.options['low']} to {source.options['high']}"
            )
        self.tables: Tables = {"low": low, "high": high}

    def sample(self, tables: Tables, size: int | None = None) -> Rows:
        """Fresh states and actions."""
        size = self.source.size if size is None else size
        low, high = tables["low"], tables["high"]
        obs = low + (high - low) * torch.rand(size, low.shape[0], device=low.device)
        if self.spaces.discrete:
            action = torch.randint(self.spaces.n_actions, (size,), device=low.device)
        else:
            action = torch.rand(size, self.spaces.action_dim, device=low.device) * 2.0 - 1.0
        return Rows({"obs": obs, "action": action}, self.names)

    def before(self, updates: int) -> None:
        """Nothing: there is always more."""

    def learn(self, metrics: Mapping[str, float]) -> None:
        """Nothing: draws are even whatever they teach."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


# ----------------------------------------------------------------------------------------------
# opening

Opener = Callable[..., Stream]
_OPENERS: dict[str, Opener] = {}


def opens(kind: str) -> Callable[[Opener], Opener]:
    """Register how a kind of source is opened: `f(source, roles, spaces, needs, device)`."""

    def register(opener: Opener) -> Opener:
        _OPENERS[kind] = opener
        return opener

    return register


@opens("log")
def _open_log(
    source: Source, roles: Mapping[str, Any], spaces: Spaces, needs: tuple[str, ...], device: Any
) -> Stream:
    role = source.options.get("role", "log")
    if role not in roles:
        raise InputError(f"this recipe learns from a log that is handed in as {role!r}")
    if "prioritize" in source.options:
        from surpass.training.prioritized import PrioritizedLog

        return PrioritizedLog(roles[role], source, spaces, needs, device)
    return LogStream(roles[role], source, spaces, needs, device)


@opens("box")
def _open_box(
    source: Source, roles: Mapping[str, Any], spaces: Spaces, needs: tuple[str, ...], device: Any
) -> Stream:
    return BoxStream(source, spaces, device)


@opens("mix")
@opens("beside")
def _open_mix(
    source: Source, roles: Mapping[str, Any], spaces: Spaces, needs: tuple[str, ...], device: Any
) -> Stream:
    parts = {
        name: open_stream(inner, roles, spaces, needs, device)
        for name, (_, inner) in source.parts.items()
    }
    return MixedStream(source, parts) if source.kind == "mix" else BesideStream(source, parts)


def open_stream(
    source: Source,
    roles: Mapping[str, Any],
    spaces: Spaces,
    needs: tuple[str, ...] = (),
    device: torch.device | str = "cpu",
) -> Stream:
    """Open a source over what the caller handed in by role.

    Raises:
        InputError: when the kind of source has no opener here, or its role is missing.
    """
    if source.kind not in _OPENERS:
        raise InputError(
            f"a source of kind {source.kind!r} cannot feed this form; "
            f"these can: {', '.join(_OPENERS)}"
        )
    return _OPENERS[source.kind](source, roles, spaces, needs, device)
