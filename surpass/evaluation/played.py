"""What policies are worth in an environment, side by side: episodes of each, from the same starts.

    print(play({"mine": surpass.load("runs/sac"), "random": "random"}, "Hopper-v5", episodes=100))

The mean and the interquartile mean of the returns come with intervals of the stratified bootstrap
over training seeds and episodes ("Deep Reinforcement Learning at the Edge of the Statistical
Precipice", 2021). Policies play from the same starts, so differences to the first are paired.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from surpass.errors import InputError, atomic
from surpass.evaluation.rollouts import Interval, interquartile_mean, roll_out, stratified
from surpass.policies.categorical import n_inputs_of
from surpass.policies.handover import HandedPolicy

__all__ = ["Played", "acting", "draw", "play"]


@dataclass(frozen=True)
class Played:
    """Returns of several policies in one environment.

    Attributes:
        env: its id. level: what the intervals cover, such as 0.95.
        returns: by policy, undiscounted, one row per training seed [S, E].
        lengths: steps of the same episodes, [S, E].
    """

    env: str
    level: float
    returns: Mapping[str, Float[Tensor, "S E"]]
    lengths: Mapping[str, Tensor]

    def mean(self, name: str) -> Interval:
        """The mean return."""
        return stratified(self.returns[name], lambda x: x.mean(-1), level=self.level)

    def middle(self, name: str) -> Interval:
        """The interquartile mean of the returns."""
        return stratified(self.returns[name], interquartile_mean, level=self.level)

    def gain(self, name: str) -> Interval | None:
        """The mean difference to the first policy, episode by episode; None for the first, and
        where one of both has more training seeds."""
        first = next(iter(self.returns))
        ours, theirs = self.returns[name], self.returns[first]
        if name == first or ours.shape != theirs.shape:
            return None
        return stratified(ours - theirs, lambda x: x.mean(-1), level=self.level)

    def score(self, name: str) -> float | None:
        """The mean return where 0 is random and 100 the expert; None where the task has no such
        references."""
        from surpass.tasks.catalog import normalized

        try:
            return float(normalized(self.env, self.returns[name].mean()))
        except InputError:
            return None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""

        def plain(found: Interval | None) -> Any:
            return None if found is None else [found.value, found.low, found.high]

        rows = [
            {
                "policy": name, "seeds": r.shape[0], "episodes": r.shape[1],
                "mean": plain(self.mean(name)), "interquartile_mean": plain(self.middle(name)),
                "gain": plain(self.gain(name)), "score": self.score(name),
                "length": float(self.lengths[name].double().mean()), "returns": r.tolist(),
            }
            for name, r in self.returns.items()
        ]  # fmt: skip
        return {"env": self.env, "level": self.level, "results": rows}

    def table(self) -> Table:
        """For the terminal."""
        some = next(iter(self.returns.values()))
        title = f"{self.env}: {some.shape[1]} episodes of each training seed"
        out = Table(box=None, pad_edge=False, header_style="bold", title=title, title_style="bold")
        scored = self.score(next(iter(self.returns))) is not None
        share = f"{100 * self.level:g} %"
        out.add_column("policy", no_wrap=True)
        for name in ("seeds", "mean", share, "IQM", share, *["score"] * scored):
            out.add_column(name, justify="right", no_wrap=True)
        for name, r in self.returns.items():
            cells = [str(len(r))]
            for found in (self.mean(name), self.middle(name)):
                cells += [f"{found.value:.4g}", _span(found)]
            cells += [f"{self.score(name):.1f}"] if scored else []
            out.add_row(name, *cells)
        gains = {name: self.gain(name) for name in self.returns}
        told = [f"{name}: {g.value:+.4g} ({_span(g)})" for name, g in gains.items() if g]
        if told:
            out.caption = "mean over the first, same starts: " + "; ".join(told)
            out.caption_justify = "left"
        return out

    def __str__(self) -> str:
        text = io.StringIO()
        Console(file=text, width=120, color_system=None).print(self.table())
        return text.getvalue().rstrip()


def _span(found: Interval) -> str:
    return f"{found.low:.4g} .. {found.high:.4g}"


def play(
    policies: Mapping[str, Any],
    env: Any,
    episodes: int = 100,
    *,
    seeds: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Played:
    """Let policies act in an environment.

    Args:
        policies: by name; a `Trained` (all its training seeds play), a policy, a function from
            observations [n, d] to actions, or "random" for uniform actions.
        env: an id, or a task with `make`.
        episodes: of each training seed, rounded up to a multiple of the copies.
        seeds: play so many of the training seeds; None plays all.
        seed: of the starts, and of everything random in the policies.

    Raises:
        InputError: when a policy does not fit the environment, or there are too few seeds.
    """
    if not 0 < level < 1:
        raise InputError(f"--level lies between 0 and 1, not {level}; 0.95 is a 95 % interval")
    from surpass.tasks.catalog import opened

    task = opened(env)
    if not hasattr(task, "make"):
        raise InputError(f"{env} is no environment; give a control task or a Gymnasium id")
    spaces = task.spaces
    players = {name: _members(name, p, seeds) for name, p in policies.items()}
    acts = {name: [acting(m, spaces, name, task.name) for m in ms] for name, ms in players.items()}
    returns, lengths = {}, {}
    for name, each in acts.items():
        found = []
        for act in each:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                found.append(roll_out(act, task, episodes, seed=seed))
        returns[name] = torch.stack([f.returns for f in found])
        lengths[name] = torch.stack([f.lengths for f in found])
    return Played(task.name, level, returns, lengths)


def _members(name: str, policy: Any, seeds: int | None) -> Sequence[Any]:
    """The policies of a run's training seeds."""
    members = list(getattr(policy, "seeds", None) or [policy])
    if seeds is None:
        return members
    if not 1 <= seeds <= len(members):
        raise InputError(f"{name} has {len(members)} training seeds, not {seeds}")
    return members[:seeds]


def acting(policy: Any, spaces: Any, name: str = "the policy", env: str = "the environment") -> Any:
    """What `roll_out` takes, checked to fit the spaces of an environment.

    Raises:
        InputError: when sizes differ, or one is discrete and the other continuous.
    """
    if policy == "random":
        return lambda obs: spaces.sample(len(obs))
    if isinstance(policy, HandedPolicy):
        _fits((n_inputs_of(policy.policy), 0, policy.n_actions), spaces, name, env)
        if policy.encoder is not None:
            raise InputError(f"{name} reads columns of a table, not the numbers of {env}")
        return lambda obs: policy.sample(obs)[0]
    own = getattr(policy, "spaces", None)
    if own is not None:
        _fits((own.obs_dim, own.action_dim, own.n_actions), spaces, name, env)
    if hasattr(policy, "act") or hasattr(policy, "policy"):
        return policy
    if not callable(policy) or hasattr(policy, "tokenizer"):  # a language model is callable too
        raise InputError(f"{name} cannot act in {env}: it is a {type(policy).__name__}")
    return policy


def _fits(ours: tuple[int, int, int], spaces: Any, name: str, env: str) -> None:
    obs, size, count = ours
    if bool(count) != spaces.discrete:
        theirs = (f"one of {spaces.n_actions} discrete actions" if spaces.discrete
                  else f"continuous actions of {spaces.action_dim} numbers")  # fmt: skip
        mine = f"one of {count} discrete actions" if count else f"{size} continuous numbers"
        raise InputError(f"{name} chooses {mine}, and {env} takes {theirs}; choose another --env")
    reads = (obs or spaces.obs_dim, spaces.obs_dim, "observation numbers")
    takes = (size or count, spaces.action_dim or spaces.n_actions, "action numbers")
    for a, b, word in (reads, takes):
        if a != b:
            raise InputError(f"{name} was made for {a} {word}, and {env} has {b}; give its own env")


def draw(found: Played, path: Path) -> None:
    """Every return as a dot, the interquartile mean with its interval, a row per policy.

    Raises:
        InputError: when the file's ending names no picture format.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(found.returns)
    figure, axes = pyplot.subplots(figsize=(7, 1.2 + 0.6 * len(names)), layout="constrained")
    generator = torch.Generator().manual_seed(0)
    for place, name in enumerate(reversed(names)):
        color = f"C{names.index(name) % 10}"
        x = found.returns[name].flatten()
        jitter = 0.5 * (torch.rand(len(x), generator=generator) - 0.5)
        axes.plot(x, place + jitter, ".", color=color, alpha=0.3, markersize=4, zorder=1)
        middle = found.middle(name)
        axes.plot([middle.low, middle.high], [place, place], color="black", linewidth=3, zorder=2)
        axes.plot(middle.value, place, "D", color=color, markeredgecolor="black", zorder=3)
    axes.set_yticks(range(len(names)), names[::-1])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_title(found.env, fontsize=10)
    share = f"{100 * found.level:g} %"
    axes.set_xlabel(f"return of an episode (diamond: interquartile mean with {share} interval)")
    try:
        with atomic(path) as temporary:
            figure.savefig(temporary, format=path.suffix.lstrip(".") or "png", dpi=150)
    except ValueError as error:
        raise InputError(f"{path}: {error}; end the name in .png, .svg or .pdf") from error
    finally:
        pyplot.close(figure)
