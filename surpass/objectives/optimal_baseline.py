"""The baseline of the least variance, and the step size that the noise of a gradient allows.

From "OBLR-PO: A Theoretical Framework for Stable Reinforcement Learning" (2025), of which only the
abstract was at hand: baseline and rate are derived here from what it states, and the constants
(shares, memory, floor) are ours.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.advantage import Sequences, over_decisions, same_group
from surpass.objectives.descent import Descent, dot
from surpass.objectives.trust import clip
from surpass.objectives.views import Steps
from surpass.parts import Part, State, part

__all__ = ["by_signal", "in_parts", "optimal_baseline"]


@part(needs=("group", "score_square"))
def optimal_baseline(seq: Sequences, /, leave_out: bool = True) -> Float[Tensor, "B T"]:
    """R_i - b_i with b = sum_j w_j R_j / sum_j w_j over a group, w_j = |grad log pi(y_j | x)|^2
    (`extras["score_square"]`, [B]); the sums leave i out, so that no bias arises.

    Of all baselines E[w R] / E[w] minimizes the total variance of (R - b) grad log pi: rare
    answers, whose gradients are large, count for more than in the mean.
    """
    same = same_group(seq)
    if leave_out:
        same = same - torch.eye(len(same), device=same.device, dtype=same.dtype)
    weight = seq.extras["score_square"]
    whole = same @ weight
    baseline = torch.where(whole > 0, same @ (weight * seq.total) / whole.clamp_min(1e-30), 0.0)
    return over_decisions(seq.total - baseline, seq)


@part
def in_parts(
    s: Steps, /, inner: Part[[Steps], Tensor] = clip(), parts: int = 4
) -> dict[str, Float[Tensor, "B T"]]:
    """A loss as terms `part0`, `part1`, ..., one for each share of the batch: group g is in share
    g mod `parts` (rows, where there are no groups). They add up to the loss; a gradient rule such
    as `by_signal` compares them."""
    loss = inner(s)
    number = s.group if s.group is not None else torch.arange(len(loss), device=loss.device)
    zero = torch.zeros_like(loss)
    return {
        f"part{m}": torch.where((number % parts == m)[:, None], loss, zero) for m in range(parts)
    }


@part(state=lambda: {"signal": torch.zeros(()), "noise": torch.zeros(()), "rate": torch.ones(())})
def by_signal(
    state: State, d: Descent, /, keep: float = 0.9, floor: float = 0.1
) -> tuple[dict[str, Tensor], State]:
    """The gradient of the sum of all terms, and the `rate` by which executors multiply the
    optimizer's step: max(floor, S / (S + N)).

    With M shares of the batch, g_m = M times the gradient of share m and g their mean:
    N = sum |g_m - g|^2 / (M (M - 1)), the variance of the mean; S = |g|^2 - N, unbiased for the
    square of the true gradient; both averaged over updates with memory `keep`, then S held above 0.
    For a smooth objective S / (S + N) / L is the step of the largest guaranteed gain.
    """
    names = list(d.terms)
    count = len(names)
    shares = [d.grad(name) for name in names]
    whole = {k: torch.stack([g[k] for g in shares]).sum(0) for k in shares[0]}
    spread = torch.stack([
        dot(apart, apart)
        for g in shares
        for apart in [{k: count * g[k] - whole[k] for k in whole}]
    ]).sum() / max(count * (count - 1), 1)  # fmt: skip
    signal = keep * state["signal"] + (1 - keep) * (dot(whole, whole) - spread)
    noise = keep * state["noise"] + (1 - keep) * spread
    seen = signal.clamp_min(0.0)
    rate = (seen / (seen + noise).clamp_min(1e-30)).clamp_min(floor)
    return whole, {"signal": signal, "noise": noise, "rate": rate}
