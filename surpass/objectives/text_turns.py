"""Turns of episodes in words: how much each counts when a critic is fitted, and what the text that
followed it says of it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from surpass.objectives.advantage import Sequences
from surpass.objectives.reduce import decided
from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["q_minus_v", "step_outcome", "text_feedback"]


@part(needs=("progress", "earned"))
def step_outcome(nets: Nets, rows: Rows, /) -> Float[Tensor, "B"]:
    """w_t = 0.5 + 0.5 (t/T + d), turns t = 1 .. T, d = 1 where the episode earned something: late
    turns and successes weigh up to 1.5, early turns of failures near 0.5.

    Self-evolving LLM agents with in-distribution Optimization (Q-Evolve, 2026).
    """
    return 0.5 + 0.5 * (rows.progress + (rows.earned > 0).to(rows.progress.dtype))


@part(needs=("feedback",))
def text_feedback(
    nets: Nets, rows: Rows, /, malformed: float = -0.1, invalid: float = -0.1,
    repeated: float = -0.1,
) -> dict[str, Float[Tensor, "B"]]:  # fmt: skip
    """The column `reward` with a penalty for a turn whose response could not be parsed (`feedback`
    1), was refused (2), or changed nothing (3)."""
    penalty = sum(
        (price * (rows.feedback == code).to(rows.reward.dtype)
         for code, price in enumerate((malformed, invalid, repeated), start=1)),
        start=0.0 * rows.reward,
    )  # fmt: skip
    return {"reward": rows.reward + penalty}


@part(needs=("q", "value"))
def q_minus_v(seq: Sequences, /) -> Float[Tensor, "B T"]:
    """Q(s, a) - V(s) of the columns `q` and `value`: one step's worth, by the critic alone."""
    return (seq.extras["q"] - seq.extras["value"]) * decided(seq.mask)
