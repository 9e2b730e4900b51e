"""One gradient from a batch in pieces: exactly that of the batch in one piece, for any loss.

In one piece, the loss is computed and differentiated. In several, the log-probs of all pieces are
computed first without a graph, the loss of the whole batch gives their gradients, and each piece is
computed again with a graph and handed its part. So batch statistics, clipping searches and
token-weighted means do not notice how the batch was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from surpass.data.records import Sequences
from surpass.policies.language import LanguagePolicy, attended
from surpass.policies.sharding import agreed, world
from surpass.policies.token_logps import TokenStats

__all__ = ["backward", "joined", "leaves_of", "pieces_of", "score_all", "slice_rows"]

Loss = Callable[[TokenStats], Tensor]


def slice_rows(seq: Sequences, start: int, end: int) -> Sequences:
    """Some rows in order; padding that no row of them needs is cut."""
    part = seq[start:end]
    if part.prompt is not None and part.prompt_mask is not None:
        used = int(part.prompt_mask.sum(-1).max())
        width = part.prompt.shape[1]
        part.prompt = part.prompt[:, width - used :]
        part.prompt_mask = part.prompt_mask[:, width - used :]
    return part


def pieces_of(seq: Sequences, size: int) -> Iterator[tuple[int, int]]:
    """The first and last row of each piece."""
    for start in range(0, len(seq), size):
        yield start, min(start + size, len(seq))


def in_step(seq: Sequences, size: int) -> list[tuple[int, int]]:
    """The same, in as many pieces on every process, since passes with gradients keep step; pieces
    that a process has no rows for are (0, 0)."""
    own = list(pieces_of(seq, size))
    return own + [(0, 0)] * (agreed(len(own)) - len(own))


def score_all(
    policy: LanguagePolicy, seq: Sequences, size: int, needs: tuple[Any, ...] = ()
) -> TokenStats:
    """Log-probs of all rows, piece by piece, without a graph."""
    with torch.no_grad(), policy.gathered():
        if size >= len(seq):
            return policy.score(seq, needs)
        parts = [policy.score(slice_rows(seq, a, b), needs) for a, b in pieces_of(seq, size)]
    return TokenStats(
        torch.cat([p.logp for p in parts]),
        {k: torch.cat([p.statistics[k] for p in parts]) for k in parts[0].statistics},
    )


def leaves_of(stats: TokenStats) -> TokenStats:
    """The same numbers, with respect to which a loss can be differentiated."""
    return TokenStats(
        stats.logp.detach().requires_grad_(),
        {k: v.detach().requires_grad_() for k, v in stats.statistics.items()},
    )


def backward(
    policy: LanguagePolicy, seq: Sequences, loss: Loss, size: int, needs: tuple[Any, ...] = (),
    known: TokenStats | None = None,
) -> Tensor:  # fmt: skip
    """Add the gradient of `loss` to the model's parameters; gives the loss.

    Args:
        loss: of the log-probs and statistics of all rows.
        size: rows per piece.
        known: the log-probs of all rows, where the policy has not moved since they were computed.
    """
    pieces = in_step(seq, size)
    if len(pieces) == 1:
        value = loss(policy.score(seq, needs))
        value.backward()
        return value.detach()
    leaves = leaves_of(known if known is not None else score_all(policy, seq, size, needs))
    value = loss(leaves)
    names = list(leaves.statistics)
    targets = [leaves.logp, *(leaves.statistics[n] for n in names)]
    grads = torch.autograd.grad(value, targets, allow_unused=True)
    moved = False
    for start, end in pieces:
        wanted = [None if g is None else g[start:end] for g in grads]
        idle = not any(g is not None and bool(g.any()) for g in wanted)
        if idle and world() == 1 and (moved or end < len(seq)):
            continue  # nothing in this piece moves the policy; but a gradient of zero is one
        moved = True
        if start == end:
            wanted = [None if g is None else torch.zeros_like(g[:1]) for g in grads]
        here = policy.score(slice_rows(seq, start, max(end, start + 1)), needs)
        outputs = [here.logp, *(here.statistics[n] for n in names)]
        used = [(o, g) for o, g in zip(outputs, wanted, strict=True) if g is not None]
        torch.autograd.backward([o for o, _ in used], [g for _, g in used])
    return value.detach()


def joined(a: Sequences, b: Sequences) -> Sequences:
    """The rows of both; prompts are padded on the left and answers on the right to one width. Of
    further columns those stay that both have and that hold a number a row."""
    width = max(x.prompt.shape[1] if x.prompt is not None else 0 for x in (a, b))
    length = max(a.action.shape[1], b.action.shape[1])

    def both(name: str, to: int, left: bool) -> Tensor | None:
        values = [getattr(x, name) for x in (a, b)]
        if any(v is None for v in values):
            return None
        return torch.cat([_padded(v, to, left) for v in values])

    rows = len(a) + len(b)
    named: dict[str, Any] = {
        n: both(n, length, False) for n in ("action", "mask", "reward", "behavior_logp", "turn")
    }
    named |= {n: both(n, width, True) for n in ("prompt", "prompt_mask")}
    for name in ("group", "source", "age"):
        values = [getattr(x, name) for x in (a, b)]
        named[name] = None if any(v is None for v in values) else torch.cat(values)
    named["extras"] = _joined_extras(a, b, rows)
    return Sequences(**named, batch_size=[rows])  # pyright: ignore[reportCallIssue]


def _joined_extras(a: Sequences, b: Sequences, rows: int) -> TensorDict | None:
    if a.extras is None or b.extras is None:
        return None
    other: dict[str, Any] = dict(b.extras.items())
    both = {k: torch.cat([v, other[k]]) for k, v in a.extras.items()
            if isinstance(v, Tensor) and v.dim() == 1 and k in other}  # fmt: skip
    return TensorDict(both, batch_size=[rows]) if both else None


def _padded(value: Tensor, to: int, left: bool) -> Tensor:
    gap = to - value.shape[1]
    return torch.nn.functional.pad(value, (gap, 0) if left else (0, gap)) if gap else value


def trimmed(seq: Sequences) -> Sequences:
    """The same rows without columns after the last decision of all of them."""
    last = int(attended(seq).sum(-1).max())
    if last == seq.action.shape[1]:
        return seq
    out = seq.clone(recurse=False)  # type: ignore[call-arg]
    for name in ("action", "mask", "reward", "behavior_logp", "turn"):
        value = getattr(seq, name)
        if value is not None:
            setattr(out, name, value[:, :last])
    return out
