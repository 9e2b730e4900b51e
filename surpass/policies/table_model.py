"""A table of logits as a causal language model: what is exact about a table task, trained by the
recipes of language models as they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from surpass.data.records import Sequences
from surpass.policies.language import LanguagePolicy

__all__ = ["TableModel", "table_policy"]


class TableModel(nn.Module):
    """Logits of the next token by prompt and prefix: a row of the table for each.

    Args:
        task: `prefixes`, `length`, `vocab`, `rows` and `row(prompt, response)`, as
            `surpass.tasks.tables.TableTask` has them; a prompt is one token, its number.
        logits: the table at the start, [R, V].
    """

    def __init__(self, task: Any, logits: Tensor) -> None:
        super().__init__()
        self.task = task
        self.table = nn.Embedding.from_pretrained(logits.float().clone(), freeze=False)
        size = max(task.vocab, task.n_prompts)
        self.config = SimpleNamespace(
            vocab_size=size, eos_token_id=None, max_position_embeddings=task.length + 1
        )

    def get_output_embeddings(self) -> None:
        """There is no head of its own."""

    def get_input_embeddings(self) -> nn.Module:
        """The table."""
        return self.table

    def forward(self, input_ids: Int[Tensor, "B L"], **_: Any) -> Any:
        """`.logits` [B, L, V]; those after the last token of a whole answer mean nothing."""
        prompt, answer = input_ids[:, 0], input_ids[:, 1:]
        gap = self.task.length - answer.shape[1]
        answer = nn.functional.pad(answer, (0, gap)) if gap > 0 else answer[:, : self.task.length]
        at = self.task.row(prompt, answer)
        at = torch.cat([at, at[:, -1:]], 1)[:, : input_ids.shape[1]]
        return SimpleNamespace(logits=self.table(at))


class _Sampler:
    """Answers of a table policy, all tokens exact."""

    def answers(
        self, policy: LanguagePolicy, prompt: Tensor, prompt_mask: Tensor, sampling: Any,
        group: int, generator: torch.Generator | None,
    ) -> Sequences:  # fmt: skip
        model: Any = policy.model
        n = len(prompt)
        asked = SimpleNamespace(
            tokens=prompt[:, -1:].repeat_interleave(group, 0), mask=torch.ones(n * group, 1)
        )
        seq = model.task.sample(model.table.weight, asked, generator)
        seq.group = torch.arange(n).repeat_interleave(group)
        return seq


def table_policy(task: Any, logits: Tensor) -> LanguagePolicy:
    """A language policy on a table task, from logits [R, V]."""
    policy = LanguagePolicy(TableModel(task, logits))
    policy.sampler = _Sampler()
    return policy
