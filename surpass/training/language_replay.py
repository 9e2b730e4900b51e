"""Answers of past batches, kept with their age and with the log-probs of the policy that wrote
them.

`rollouts(batch, horizon, group, replay=0.5, oldest=4)` fills half of each batch with groups of the
last four: `Sequences.age` counts batches, `behavior_logp` stays that of the sampler, and the anchor
is the policy at the beginning of the update.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from surpass.data.records import Sequences
from surpass.errors import InputError

__all__ = ["Replay"]

_COLUMNS = ("action", "mask", "reward", "behavior_logp", "prompt", "prompt_mask", "turn")
_WHOLE = ("action", "prompt", "turn")


class Replay:
    """Groups of the last batches.

    Args:
        share: of a batch that is replayed, in [0, 1).
        oldest: batches after which a group is forgotten.
        size, group: sequences of a batch, and of each group.
    """

    def __init__(self, share: float, oldest: int, size: int, group: int, seed: int) -> None:
        if not 0 <= share < 1 or oldest < 1:
            raise InputError(f"replay={share} must lie in [0, 1) and oldest={oldest} above 0")
        self.count = round(share * size / group)  # groups of each batch
        self.group = group
        self.generator = torch.Generator().manual_seed(seed)
        self.batches: deque[tuple[Sequences, list[int]]] = deque(maxlen=oldest)

    def keep(self, seq: Sequences, rows: list[int]) -> None:
        """Remember a fresh batch, whole groups in a row."""
        self.batches.appendleft((seq.to("cpu"), list(rows)))

    def draw(self) -> list[tuple[Sequences, list[int], int]]:
        """Some groups, without replacement: their answers, rows of the log, and age in batches."""
        known = [
            (age, start)
            for age, (seq, _) in enumerate(self.batches, 1)
            for start in range(0, len(seq), self.group)
        ]
        order = torch.randperm(len(known), generator=self.generator)[: self.count].tolist()
        out = []
        for age, start in (known[i] for i in order):
            seq, rows = self.batches[age - 1]
            end = start + self.group
            out.append((seq[start:end], rows[start:end], age))
        return out

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""

        def columns(seq: Sequences) -> dict[str, Any]:
            found = {name: getattr(seq, name) for name in _COLUMNS}
            return {name: value.tolist() for name, value in found.items() if value is not None}

        return {
            "generator": self.generator.get_state().tolist(),
            "batches": [{"rows": rows, **columns(seq)} for seq, rows in self.batches],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.generator.set_state(torch.tensor(state["generator"], dtype=torch.uint8))
        self.batches.clear()
        for note in state["batches"]:
            columns = {name: _tensor(name, v) for name, v in note.items() if name in _COLUMNS}
            seq = Sequences(**columns, batch_size=[len(note["mask"])])  # pyright: ignore[reportCallIssue]
            self.batches.append((seq, list(note["rows"])))


def _tensor(name: str, value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.long if name in _WHOLE else torch.float32)
