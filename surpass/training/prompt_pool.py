"""A fixed pool of prompts: a chooser picks what to ask next from what came of the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from surpass.data.language import collate
from surpass.data.records import Sequences
from surpass.errors import InputError
from surpass.objectives.prompt_choice import Outcomes
from surpass.objectives.reduce import total
from surpass.parts import Part, State, run

__all__ = ["PromptPool"]


class PromptPool:
    """Prompts of a log, or `size` of a task, asked as `choose` says.

    Args:
        inner: prompts that can be drawn and judged (`TaskPrompts`, `LogPrompts`).
        choose: a part with state, from `Outcomes` to a score for each prompt of the pool; the
            highest are asked.
        seed: of the chooser's draws, which are the same on every process.

    Raises:
        InputError: when the pool is smaller than what is to be drawn.
    """

    def __init__(self, inner: Any, choose: Part[..., Any], size: int, seed: int) -> None:
        self.inner, self.choose, self.seed = inner, choose, seed
        self.fixed: tuple[Tensor, Tensor] | None = None
        if hasattr(inner, "log"):
            self.size = len(inner.log)
        else:
            asked = inner.draw(size)
            self.size, self.fixed = size, (asked.prompt, asked.mask)
        self.device = inner.device
        self.asked = torch.zeros(self.size, device=self.device)
        self.good = torch.zeros_like(self.asked)
        self.state: State = {}
        self.times = 0

    def draw(self, n: int) -> Any:
        """The n prompts of the highest scores."""
        from surpass.training.language_rollouts import Asked

        if n > self.size:
            raise InputError(f"{n} prompts a batch do not come from a pool of {self.size}; give "
                             f"pool={n} or more, more rows, or a smaller batch")  # fmt: skip
        seen = Outcomes(total(self.asked), total(self.good), n)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 1_000_003 + self.times)
            score, after = run(self.choose, (seen,), state={"": self.state})
        self.state = {k: v.detach() for k, v in after.get("", self.state).items()}
        self.times += 1
        self.asked.zero_()
        self.good.zero_()
        rows = score.topk(n).indices
        if self.fixed is None:
            seq = collate([self.inner.log.prompts[i] for i in rows.tolist()], [[0]] * n)
            prompt, mask = seq.prompt.to(self.device), seq.prompt_mask.to(self.device)  # type: ignore[union-attr]
        else:
            prompt, mask = (x[rows] for x in self.fixed)
        return Asked(prompt, mask, rows.tolist())

    def judge(self, seq: Sequences, rows: list[int]) -> tuple[Tensor, int]:
        """The reward of each sequence, which the chooser will hear of, and how many failed."""
        score, failed = self.inner.judge(seq, rows)
        at = torch.tensor(rows, device=self.device)
        self.asked.index_add_(0, at, torch.ones_like(score))
        self.good.index_add_(0, at, score)
        return score, failed

    def answers(self, seq: Sequences, rows: list[int], wrap: tuple[str, str]) -> Any:
        """The right answer to each prompt as the policy would write it."""
        return self.inner.answers(seq, rows, wrap)

    @property
    def reply(self) -> Any:
        """What answers the model between its turns, where the task takes turns; else None."""
        return getattr(self.inner, "reply", None)

    def text(self, ids: list[int], row: int | None = None) -> str:
        """Tokens as a person reads them."""
        return self.inner.text(ids, row)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; the pool of a task comes again from its seed."""
        held = {
            "asked": self.asked,
            "good": self.good,
            **{f"of {k}": v for k, v in self.state.items()},
        }
        return {"inner": self.inner.state_dict(), "times": self.times,
                "held": {k: v.tolist() for k, v in held.items()}}  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Carry on from there."""
        self.inner.load_state_dict(state["inner"])
        self.times = int(state["times"])
        held = {k: torch.tensor(v, device=self.device) for k, v in state["held"].items()}
        self.asked, self.good = held.pop("asked"), held.pop("good")
        self.state = {k.removeprefix("of "): v for k, v in held.items()}
