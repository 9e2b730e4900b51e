"""Rewards of answers that can be checked: equality, numbers, mathematics, patterns, any callable, a
reward model.

A reward sees texts, `Answered`, and gives one number each. What a callable cannot do in time, or
does by raising, costs that sample its reward and is counted; what it returns must be numbers.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from surpass.errors import InputError, extra, nearest

__all__ = ["Answered", "Called", "Reward", "exact", "math_equal", "numeric", "open_reward",
           "pattern"]  # fmt: skip


@dataclass(frozen=True)
class Answered:
    """A prompt, an answer to it, and what the row of the log says of the right one."""

    prompt: str
    completion: str
    truth: Any = None


class Reward(Protocol):
    """Numbers for answers; `failed` counts the samples that could not be judged so far."""

    failed: int

    def __call__(self, answers: Sequence[Answered]) -> Tensor: ...


Check = Callable[[Answered], float]


@dataclass
class Called:
    """A reward from a function of one `Answered`, or of lists `prompts, completions, answers`.

    Args:
        function: raises or hangs at the cost of the sample (of the batch, where it takes lists).
        seconds: how long it may take.
        name: what errors call it.
    """

    function: Callable[..., Any]
    seconds: float = 10.0
    name: str = "the reward"
    failed: int = field(default=0, init=False)

    def __call__(self, answers: Sequence[Answered]) -> Tensor:
        """One number per answer, 0 where it could not be judged.

        Raises:
            InputError: when it returns something that is not a number, or another number of them.
        """
        if self._takes_lists():
            return self._batch(answers)
        out = torch.zeros(len(answers))
        for i, answer in enumerate(answers):
            done, value = limited(partial(self._one, answer), self.seconds)
            if done:
                out[i] = self._number(value)
            else:
                self.failed += 1
        return out

    def _takes_lists(self) -> bool:
        try:
            return "completions" in inspect.signature(self.function).parameters
        except (TypeError, ValueError):
            return False

    def _one(self, answer: Answered) -> Any:
        count = _arity(self.function)
        if count == 1:
            return self.function(answer)
        return self.function(*(answer.prompt, answer.completion, answer.truth)[:count])

    def _batch(self, answers: Sequence[Answered]) -> Tensor:
        named = {
            "prompts": [a.prompt for a in answers],
            "completions": [a.completion for a in answers],
            "answers": [a.truth for a in answers],
        }
        wanted = inspect.signature(self.function).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in wanted.values()):
            named = {k: v for k, v in named.items() if k in wanted}
        done, values = limited(lambda: list(self.function(**named)), self.seconds * len(answers))
        if not done:
            self.failed += len(answers)
            return torch.zeros(len(answers))
        if len(values) != len(answers):
            raise InputError(
                f"{self.name} returned {len(values)} numbers for {len(answers)} answers; return "
                "one for each"
            )
        return torch.tensor([self._number(v) for v in values])

    def _number(self, value: Any) -> float:
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, bool | int | float) and math.isfinite(value):
            return float(value)
        raise InputError(f"{self.name} returned {value!r}; a finite number is expected")


def _arity(function: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 3
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 3
    return min(len(places), 3)


class _Late(BaseException):
    """Raised into a function that takes too long; not an Exception, so that it is not caught
    there."""


def limited(function: Callable[[], Any], seconds: float) -> tuple[bool, Any]:
    """(True, its value), or (False, None) when it raised or took too long."""
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        with _alarm(seconds):
            try:
                return True, function()
            except InputError:
                raise
            except (Exception, _Late):
                return False, None
    box: list[Any] = []

    def work() -> None:
        with contextlib.suppress(Exception):
            box.append(function())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return (True, box[0]) if box else (False, None)


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --------------------------------------------------------------------------------- built-in checks

# A sign behind a digit or a letter is a hyphen or a difference: "3-4" ends in 4.
_NUMBER = re.compile(r"(?:(?<![\w.])[-+])?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")


def _last_number(text: str) -> float | None:
    """The number after `####`, or in the last \\boxed{}, or the last one."""
    if "####" in text:
        text = text.rsplit("####", 1)[1]
    elif boxed := re.findall(r"\\boxed\{([^{}]*)\}", text):
        text = boxed[-1]
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def exact(answer: Answered) -> float:
    """1 where the answer is the expected text, blanks at its ends aside."""
    return float(answer.completion.strip() == str(answer.truth).strip())


def numeric(answer: Answered) -> float:
    """1 where the last number of the answer is that of the expected text (to 1e-6 of its size)."""
    given, wanted = _last_number(answer.completion), _last_number(str(answer.truth))
    if given is None or wanted is None:
        return 0.0
    return float(abs(given - wanted) <= 1e-6 * max(1.0, abs(wanted)))


def math_equal(answer: Answered) -> float:
    """1 where answer and expectation are the same mathematics, by math-verify."""
    verify = extra("math_verify")
    wanted = verify.parse(str(answer.truth), parsing_timeout=None)
    given = verify.parse(answer.completion, parsing_timeout=None)
    return float(bool(verify.verify(wanted, given, timeout_seconds=None)))


def pattern(expression: str) -> Check:
    """1 where the answer has a match of a regular expression.

    Raises:
        InputError: when the expression is not one.
    """
    try:
        compiled = re.compile(expression, re.DOTALL)
    except re.error as error:
        raise InputError(f"the reward 'regex:{expression}' is not a regular expression: "
                         f"{error}") from error  # fmt: skip

    def check(answer: Answered) -> float:
        return float(compiled.search(answer.completion) is not None)

    return check


CHECKS: dict[str, Check] = {"exact": exact, "numeric": numeric, "math": math_equal}


def open_reward(reward: Any, *, seconds: float = 10.0) -> Reward:
    """A reward by name ("exact", "numeric", "math", "regex:PATTERN", "module:function"), the folder
    of a trained reward model, a callable, or a `Reward`.

    Raises:
        InputError: when there is none, naming those there are.
    """
    if isinstance(reward, Path) or (isinstance(reward, str) and Path(reward).is_dir()):
        from surpass.critics.language_rewards import LearnedReward

        return LearnedReward.load(reward)
    if isinstance(reward, str):
        return _named(reward, seconds)
    if isinstance(reward, Called) or (hasattr(reward, "failed") and callable(reward)):
        return cast(Reward, reward)
    if callable(reward):
        return Called(reward, seconds, getattr(reward, "__name__", "the reward"))
    raise InputError(
        f"reward={reward!r}: give a name (exact, numeric, math, regex:PATTERN), the folder of a "
        "reward model, or a function of (prompt, completion, answer)"
    )


def _named(reward: str, seconds: float) -> Reward:
    head, _, rest = reward.partition(":")
    if head == "regex":
        return Called(pattern(rest), seconds, f"the reward {reward!r}")
    if reward in CHECKS:
        return Called(CHECKS[reward], seconds, f"the reward {reward!r}")
    if not rest:
        known = [*CHECKS, "regex:PATTERN", "module:function"]
        raise InputError(
            f"there is no reward {reward!r}{nearest(reward, known)}; there are {', '.join(known)}"
        )
    try:
        function = getattr(importlib.import_module(head), rest)
    except (ImportError, AttributeError) as error:
        raise InputError(f"the reward {reward!r} cannot be imported: {error}") from error
    return Called(function, seconds, f"the reward {reward!r}")
