"""Text environments: words in, words out, and the batch of them that recipes act in.

A `TextEnv` is deterministic: a task number and the commands so far decide what it says. So a
`TransitionTree` around it remembers every prefix that was played, and asks the environment only for
what is new. `TextBatch` is n walks through one tree as a `VectorEnv`: an observation carries the
goal, the last turns and the commands on offer (`surpass.policies.commands`), an action is the
number of one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from surpass.data.records import Transitions
from surpass.data.words import hashed_words
from surpass.errors import InputError
from surpass.policies.commands import TextLayout
from surpass.tasks.protocol import Spaces, Stepped
from surpass.tasks.recording import about_env

__all__ = [
    "FEEDBACK", "Game", "TextBatch", "TextEnv", "TextStep", "TextTask", "TransitionTree",
    "demonstrations", "feedback",
]  # fmt: skip


class TextStep(NamedTuple):
    """What a command led to; `done` where the episode is over."""

    observation: str
    reward: float
    done: bool


@runtime_checkable
class TextEnv(Protocol):
    """A deterministic environment in words; `goal` says what is wanted, from `reset` on."""

    goal: str

    def reset(self, task: int) -> str:
        """Begin a task anew; the first observation."""
        ...

    def step(self, text: str) -> TextStep:
        """Say something."""
        ...

    def admissible(self) -> Sequence[str]:
        """The commands on offer now."""
        ...


# ----------------------------------------------------------------------------------------------
# feedback from the text alone

FEEDBACK = ("fine", "malformed", "invalid", "repeated")
REFUSALS = ("can't", "cannot", "no known action", "not a verb i recogni", "don't understand")


def feedback(
    before: str, after: str, *, parsed: bool = True, refusals: Sequence[str] = REFUSALS
) -> int:
    """What the text that followed a response says of it, as a number of `FEEDBACK`: it could not be
    parsed, the environment refused it, or nothing changed.

    Args:
        before, after: the observations around the response. parsed: whether a command was found in
            it. refusals: what an environment says when it refuses, in lower case.
    """
    if not parsed:
        return 1
    if any(phrase in after.lower() for phrase in refusals):
        return 2
    return 3 if after.strip() == before.strip() else 0


# ----------------------------------------------------------------------------------------------
# the tree


@dataclass
class _Node:
    observation: str
    reward: float
    done: bool
    goal: str
    admissible: tuple[str, ...]
    children: dict[str, _Node] = field(default_factory=dict)


class TransitionTree:
    """What a deterministic text environment said after every prefix of commands that was played.

    Attributes:
        asked: how often the environment itself was stepped. walked: how often a walk moved.
    """

    def __init__(self, env: TextEnv) -> None:
        self.env = env
        self.roots: dict[int, _Node] = {}
        self.asked = self.walked = 0
        self._at: tuple[Any, ...] | None = None  # where the environment itself stands

    def root(self, task: int) -> _Node:
        """The start of a task."""
        if task not in self.roots:
            observation = self.env.reset(task)
            self._at = (task,)
            self.roots[task] = self._node(TextStep(observation, 0.0, False))
        return self.roots[task]

    def child(self, node: _Node, task: int, path: tuple[str, ...], text: str) -> _Node:
        """What follows a node, which `path` led to, after `text`."""
        self.walked += 1
        if text not in node.children:
            if self._at != (task, *path):
                self.env.reset(task)
                for said in path:
                    self.env.step(said)
                self.asked += len(path)
            self.asked += 1
            self._at = (task, *path, text)
            node.children[text] = self._node(self.env.step(text))
        return node.children[text]

    def _node(self, step: TextStep) -> _Node:
        offered = () if step.done else tuple(self.env.admissible())
        return _Node(*step, self.env.goal, offered)

    def gold(self, task: int) -> list[str]:
        """An expert's commands in a task, as the environment knows them.

        Raises:
            InputError: when it knows none.
        """
        known = getattr(self.env, "gold", None)
        if known is None:
            raise InputError(f"{type(self.env).__name__} has no expert; it needs gold(task)")
        self._at = None  # the environment may have played to find them
        return list(known(task))

    def walk(self) -> Walk:
        """A way through the tree, itself a `TextEnv`; walks do not disturb each other."""
        return Walk(self)


class Walk:
    """A way through a `TransitionTree`."""

    def __init__(self, tree: TransitionTree) -> None:
        self.tree, self.task = tree, 0
        self.path: tuple[str, ...] = ()
        self._node: _Node | None = None

    @property
    def node(self) -> _Node:
        """Where it stands."""
        if self._node is None:
            raise InputError("reset a text environment before you step it")
        return self._node

    @property
    def goal(self) -> str:
        """What is wanted."""
        return self.node.goal

    def reset(self, task: int) -> str:
        """Begin a task anew."""
        self.task, self.path, self._node = task, (), self.tree.root(task)
        return self._node.observation

    def step(self, text: str) -> TextStep:
        """Say something.

        Raises:
            InputError: when the episode is over.
        """
        if self.node.done:
            raise InputError(f"task {self.task} ended after {len(self.path)} turns; reset first")
        self._node = self.tree.child(self.node, self.task, self.path, text)
        self.path += (text,)
        return TextStep(self._node.observation, self._node.reward, self._node.done)

    def admissible(self) -> tuple[str, ...]:
        """The commands on offer now."""
        return self.node.admissible


# ----------------------------------------------------------------------------------------------
# the batch


class Game:
    """One copy in a batch: a walk, and what of it an observation shows."""

    def __init__(self, tree: TransitionTree, layout: TextLayout) -> None:
        self.walk, self.layout = tree.walk(), layout
        self.memory = (layout.bags - 1) // 2
        self.refusals = tuple(getattr(tree.env, "refusals", REFUSALS))
        self.said: list[str] = []

    def begin(self, task: int) -> np.ndarray:
        """The first observation of a task."""
        self.said = [self.walk.reset(task)]
        return self.seen()

    def act(self, number: int) -> tuple[TextStep, int]:
        """Give the command of a number; what followed, and the feedback that its text is.

        Raises:
            InputError: when no command has that number now.
        """
        offered = self.walk.admissible()
        if not 0 <= number < len(offered):
            raise InputError(
                f"command {number} is not on offer, {len(offered)} are: {', '.join(offered[:6])}"
            )
        before = self.said[-1]
        step = self.walk.step(offered[number])
        self.said += [offered[number], step.observation]
        return step, feedback(before, step.observation, refusals=self.refusals)

    def seen(self) -> np.ndarray:
        """The goal, what was seen and said last, and the commands on offer, as numbers [d].

        Raises:
            InputError: when more commands are on offer than the layout has room for.
        """
        layout, offered = self.layout, self.walk.admissible()
        if len(offered) > layout.commands:
            raise InputError(
                f"{len(offered)} commands are on offer in task {self.walk.task}, and there is room "
                f"for {layout.commands}; set commands={len(offered)} or more, or offer fewer"
            )
        out = np.zeros(layout.obs_dim, dtype=np.float32)
        bags = out[: layout.bags * layout.buckets].reshape(layout.bags, layout.buckets)
        for bag, text in zip(bags, [self.walk.goal, *self.said[::-1]], strict=False):
            np.add.at(bag, list(hashed_words(text, layout.buckets)), 1.0)
        words = out[layout.bags * layout.buckets :].reshape(layout.commands, layout.length)
        for row, text in zip(words, offered, strict=False):
            found = hashed_words(text, layout.buckets)[: layout.length]
            row[: len(found)] = found
        return out


class TextBatch:
    """n copies of a text environment as a `VectorEnv`, through one transition tree.

    `reset` deals the games out in rounds: a shuffled round of all games, then another. A copy that
    ended goes on with a game drawn at random. `notes` says of the step just made which `task` each
    copy played and what `feedback` the text gave.

    Args:
        env: the environment, or a tree around one, which batches may share.
        games: the numbers of the tasks that are played.
        n: copies. layout: how texts become numbers.
        limit: turns after which an episode is truncated; None where the environment ends it.
        shuffle: whether a round is shuffled; else the games come in their order.
    """

    def __init__(
        self,
        env: TextEnv | TransitionTree,
        games: Sequence[int],
        n: int,
        layout: TextLayout | None = None,
        limit: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        name: str = "text",
    ) -> None:
        if n < 1 or not games:
            raise InputError(f"a batch needs copies and games, got n={n} and {len(games)} games")
        self.tree = env if isinstance(env, TransitionTree) else TransitionTree(env)
        self.games, self.n, self.limit, self.name = tuple(games), n, limit, name
        self.layout = TextLayout() if layout is None else layout
        self.spaces: Spaces = self.layout.spaces(limit)
        self.shuffle = shuffle
        self.copies = [Game(self.tree, self.layout) for _ in range(n)]
        self.notes: dict[str, Tensor] = {}
        self.reset(seed)

    def reset(self, seed: int | None = None) -> Tensor:
        """Start all copies anew, [n, d]."""
        if seed is not None:
            self.random = np.random.default_rng(seed)
        dealt: list[int] = []
        while len(dealt) < self.n:
            order = self.random.permutation(len(self.games)) if self.shuffle else None
            dealt += [self.games[i] for i in (range(len(self.games)) if order is None else order)]
        return self._stacked([c.begin(g) for c, g in zip(self.copies, dealt, strict=False)])

    def _stacked(self, rows: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(rows))

    def step(self, action: Tensor) -> Stepped:
        """One turn of every copy.

        Raises:
            InputError: when the actions have the wrong shape, or one is not on offer.
        """
        if tuple(action.shape) != (self.n,):
            raise InputError(f"actions of shape {(self.n,)} expected, got {tuple(action.shape)}")
        final, fresh, reward, ends, cuts, said = [], [], [], [], [], []
        tasks = [copy.walk.task for copy in self.copies]
        for copy, number in zip(self.copies, action.tolist(), strict=True):
            step, heard = copy.act(int(number))
            cut = not step.done and self.limit is not None and len(copy.walk.path) >= self.limit
            final.append(copy.seen())
            over = step.done or cut
            fresh.append(copy.begin(int(self.random.choice(self.games))) if over else final[-1])
            for column, value in ((reward, step.reward), (ends, step.done), (cuts, cut),
                                  (said, heard)):  # fmt: skip
                column.append(value)
        self.notes = {"task": torch.tensor(tasks), "feedback": torch.tensor(said)}
        return Stepped(
            self._stacked(fresh), torch.tensor(reward, dtype=torch.float32), torch.tensor(ends),
            torch.tensor(cuts), self._stacked(final),
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """The game and the commands of every copy, and the generator."""
        told = [[c.walk.task, *c.walk.path] for c in self.copies]
        return {"told": told, "random": self.random.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`: the commands are given again."""
        self.random.bit_generator.state = state["random"]
        for copy, (task, *path) in zip(self.copies, state["told"], strict=True):
            copy.begin(int(task))
            for text in path:
                copy.act(copy.walk.admissible().index(text))

    def close(self) -> None:
        """Nothing of its own is held open."""


@dataclass(frozen=True, eq=False)
class TextTask:
    """A text environment as a task: some of its games, and how they are shown.

    Attributes:
        open: makes the environment, which all copies share.
        games: those that are played.
    """

    name: str
    summary: str
    open: Callable[[], TextEnv]
    games: tuple[int, ...]
    layout: TextLayout = field(default_factory=TextLayout)
    limit: int | None = None
    _trees: list[TransitionTree] = field(default_factory=list, repr=False)

    @property
    def spaces(self) -> Spaces:
        """What goes in and out."""
        return self.layout.spaces(self.limit)

    @property
    def tree(self) -> TransitionTree:
        """The transition tree of the environment, opened when it is first asked for."""
        if not self._trees:
            self._trees.append(TransitionTree(self.open()))
        return self._trees[0]

    def make(
        self, n: int, seed: int = 0, device: str | torch.device = "cpu", compile: bool = False
    ) -> TextBatch:
        """n copies that reset themselves; always in this process and on the CPU."""
        return TextBatch(self.tree, self.games, n, self.layout, self.limit, seed, name=self.name)


# ----------------------------------------------------------------------------------------------
# demonstrations


def demonstrations(
    task: TextTask, games: Sequence[int] | None = None, limit: int | None = None
) -> Transitions:
    """The expert's episode of every game: `source` 1, `behavior_logp` 0, and `task` and
    `extras["feedback"]` as `TextBatch.notes`.

    An expert may say things in other words: of the commands on offer that begin alike, the one that
    leads to the same observation is logged.

    Args:
        games: those shown, all of the task's when not given. limit: turns that are shown of each.

    Raises:
        InputError: when the environment knows no expert, or no command on offer does what the
            expert's does.
    """
    rows: dict[str, list[Any]] = {k: [] for k in _COLUMNS}
    game = Game(task.tree, task.layout)
    for number, played in enumerate(task.games if games is None else games):
        obs, commands = game.begin(played), task.tree.gold(played)[:limit]
        for turn, text in enumerate(commands):
            chosen = _on_offer(game, text)
            if chosen is None:
                raise InputError(
                    f"game {played}, turn {turn + 1}: the expert says {text!r}, and nothing on "
                    "offer does the same"
                )
            step, heard = game.act(chosen)
            after = game.seen()
            last = step.done or turn == len(commands) - 1
            row = (obs, chosen, step.reward, after, step.done, last and not step.done,
                   number, played, heard)  # fmt: skip
            for column, value in zip(rows.values(), row, strict=True):
                column.append(value)
            obs = after
            if step.done:
                break
    return _log(rows).described(about_env(task.make(1)))


def _on_offer(game: Game, text: str) -> int | None:
    """The number of the command, or of one that begins alike and leads to the same."""
    walk, offered = game.walk, game.walk.admissible()
    if text in offered:
        return offered.index(text)
    words = text.split()
    alike = [c for c in offered if c.split()[0] == words[0]]
    alike.sort(key=lambda c: -len(set(c.split()) & set(words)))

    def after(said: str) -> str:
        return walk.tree.child(walk.node, walk.task, walk.path, said).observation

    wanted = after(text)
    if feedback("", wanted, refusals=game.refusals) == 2:
        return None
    same = (c for c in alike[:8] if after(c) == wanted)
    found = next(same, None)
    return None if found is None else offered.index(found)


_COLUMNS = ("obs", "action", "reward", "next_obs", "terminated", "truncated", "episode", "task",
            "feedback")  # fmt: skip


def _log(rows: Mapping[str, list[Any]]) -> Transitions:
    columns = {k: torch.from_numpy(np.stack(v)) for k, v in rows.items()}
    n = len(columns["action"])
    heard = columns.pop("feedback")
    columns["reward"] = columns["reward"].float()
    return Transitions(
        **columns, source=torch.ones(n, dtype=torch.long), behavior_logp=torch.zeros(n),
        extras=TensorDict({"feedback": heard}, batch_size=[n]), batch_size=[n],  # type: ignore[call-arg]
    )  # fmt: skip
