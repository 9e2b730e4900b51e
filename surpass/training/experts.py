"""What an expert hands in for language models: traces of the prompts at hand, and solved examples
of others."""

from __future__ import annotations

from typing import Any

import torch

from surpass.data.language import LanguageLog
from surpass.data.records import Sequences
from surpass.errors import InputError

__all__ = ["LoggedTraces", "TaskTraces"]


class _Drawing:
    """An expert that draws at random, and can be stopped and carried on."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {"generator": self.generator.get_state().tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Carry on from there."""
        self.generator.set_state(torch.tensor(state["generator"], dtype=torch.uint8))


class TaskTraces(_Drawing):
    """The right answers that a task writes itself."""

    def __init__(self, task: Any, seed: int, device: Any = "cpu") -> None:
        super().__init__(seed)
        self.task, self.device = task, device

    def __call__(self, seq: Sequences, rows: list[int]) -> Sequences:
        """A trace for the prompt of each sequence."""
        assert seq.prompt is not None and seq.prompt_mask is not None
        prompts = self.task.prompts(1)._replace(
            tokens=seq.prompt.cpu(), mask=seq.prompt_mask.cpu(),
            kind=(seq.prompt.cpu() < 10).sum(-1),
        )  # fmt: skip
        return self.task.traces(prompts, self.generator).to(self.device)

    def examples(self, n: int) -> Sequences:
        """n traces of prompts drawn anew."""
        asked = self.task.prompts(n, self.generator)
        return self.task.traces(asked, self.generator).to(self.device)


class LoggedTraces(_Drawing):
    """Demonstrations of a log."""

    def __init__(self, log: LanguageLog, seed: int, device: Any = "cpu") -> None:
        super().__init__(seed)
        self.log, self.device = log, device
        self.known = {p: i for i, p in enumerate(log.prompts)}

    def __call__(self, seq: Sequences, rows: list[int]) -> Sequences:
        """The demonstration of the prompt of each sequence.

        Raises:
            InputError: when a prompt has none.
        """
        found = []
        for ids, mask in zip(seq.prompt, seq.prompt_mask, strict=True):  # type: ignore[arg-type]
            key = tuple(ids[mask > 0].tolist())
            if key not in self.known:
                raise InputError("expert has no trace for one of the prompts; give one for each")
            found.append(self.known[key])
        return self.log.sequences(found).to(self.device)

    def examples(self, n: int) -> Sequences:
        """n demonstrations drawn at random."""
        rows = torch.randint(len(self.log), (n,), generator=self.generator)
        return self.log.sequences(rows.tolist()).to(self.device)
