"""ScienceWorld, elementary science in words, as a `TextEnv`; it comes with the extra `agents` and
needs Java.

"ScienceWorld: Is your Agent Smarter than a 5th Grader?" (2022). The simulator is the authors' own,
from the package `scienceworld`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from surpass.errors import InputError, MissingExtra, extra, nearest
from surpass.policies.commands import TextLayout
from surpass.tasks.text import TextStep, TextTask

__all__ = ["ScienceWorld", "science_world"]

OFFERED = ("go to .*", "focus on .*", "pick up .*", "move .* to .* box")
_EACH = 10_000


class ScienceWorld:
    """One or more of its 30 tasks, in the simplification "easy" where not said otherwise.

    A task's number is 10,000 k + v: variation v of the k-th name. An observation is what the
    simulator answered, the room, and the inventory. The reward is the gain in score over 100, a
    score below 0 (a wrong choice that ends the episode) counting as 0; so rewards add up to the
    final score over 100.

    Args:
        names: tasks, such as "find-animal".
        offered: patterns of the valid commands that are on offer; the simulator's own list has up
            to 1,600.
        limit: turns after which the simulator ends an episode.

    Raises:
        MissingExtra: when the package or Java is not there.
        InputError: when there is no such task.
    """

    refusals = ("no known action matches",)

    def __init__(
        self, names: Sequence[str] = ("find-animal",), offered: Sequence[str] = OFFERED,
        limit: int = 15, simplification: str = "easy",
    ) -> None:  # fmt: skip
        package = extra("scienceworld")
        if shutil.which("java") is None:
            raise MissingExtra(
                "ScienceWorld runs on Java, and there is no java on the path; install a runtime "
                "of version 8 or later, such as openjdk-17-jre-headless"
            )
        self.names, self.simplification, self.limit = tuple(names), simplification, limit
        self._wanted = re.compile("|".join(f"(?:{p})" for p in offered))
        self.goal, self._score = "", 0.0
        self._env: Any = package.ScienceWorldEnv("", None, envStepLimit=limit)
        known = list(self._env.get_task_names())
        for name in self.names:
            if name not in known:
                raise InputError(f"ScienceWorld has no task {name!r}{nearest(name, known)}")

    @cached_property
    def variations(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """The numbers of the variations that the authors set apart, by task name and "train", "dev"
        and "test", as task numbers."""
        found: dict[str, dict[str, tuple[int, ...]]] = {}
        for k, name in enumerate(self.names):
            self._env.load(name, 0, self.simplification)
            splits = {"train": self._env.get_variations_train, "dev": self._env.get_variations_dev,
                      "test": self._env.get_variations_test}  # fmt: skip
            found[name] = {s: tuple(_EACH * k + v for v in of()) for s, of in splits.items()}
        return found

    def _load(self, task: int, gold: bool = False) -> Any:
        kind, variation = divmod(task, _EACH)
        if not 0 <= kind < len(self.names):
            raise InputError(f"task {task} is of none of {', '.join(self.names)}")
        name = self.names[kind]
        most = self._env.get_max_variations(name)
        if variation >= most:
            raise InputError(f"{name} has variations 0 .. {most - 1}, not {variation}")
        self._env.load(name, variation, self.simplification, generateGoldPath=gold)
        return self._env.reset()

    def reset(self, task: int) -> str:
        """Begin a variation anew."""
        said, info = self._load(task)
        self.goal = str(info["taskDesc"]).removeprefix("Task Description:\n")
        self._score = 0.0  # what some tasks begin with is paid in the first turn
        return self._told("", info)

    def step(self, text: str) -> TextStep:
        """One turn."""
        said, _, done, info = self._env.step(text)
        score = max(0.0, float(info["score"]))
        reward, self._score = (score - self._score) / 100.0, score
        return TextStep(self._told(said, info), reward, bool(done))

    def _told(self, said: str, info: Any) -> str:
        known = said.strip() == str(info["look"]).strip()
        parts = ("" if known else said.strip(), str(info["look"]).strip(), str(info["inv"]).strip())
        return "\n".join(part for part in parts if part)

    def admissible(self) -> tuple[str, ...]:
        """The valid commands that match a pattern of `offered`."""
        valid = self._env.get_valid_action_object_combinations()
        return tuple(sorted({text for text in valid if self._wanted.fullmatch(text)}))

    def gold(self, task: int) -> list[str]:
        """The authors' own way to the full score, those of its commands that are of a kind on
        offer: doors are open in "easy", and every observation shows the room."""
        self._load(task, gold=True)
        path = [str(text) for text in self._env.get_gold_action_sequence()]
        return [text for text in path if self._wanted.fullmatch(text)]

    def close(self) -> None:
        """End the simulator."""
        self._env.close()


def science_world(
    names: Sequence[str] = ("find-animal",), games: Sequence[int] = (0, 1, 2), limit: int = 15,
    commands: int = 160, buckets: int = 512,
) -> TextTask:  # fmt: skip
    """Some variations of ScienceWorld's tasks, numbered as `ScienceWorld` numbers them."""
    return TextTask(
        "science-world", f"ScienceWorld: {', '.join(names)}",
        lambda: ScienceWorld(names, limit=limit), tuple(games),
        TextLayout(buckets=buckets, commands=commands, length=11),
    )  # fmt: skip
