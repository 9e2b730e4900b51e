"""CoT2: a chain of thought in mixtures of tokens, which carries all partial solutions at once."""

from __future__ import annotations

from surpass.forms import Adam, Learner, log, train
from surpass.objectives.soft_tokens import soft_labels
from surpass.parts import Number
from surpass.policies.superposed import answers, superposed
from surpass.registry import system

__all__ = ["cot2"]


@system("cot2")
def cot2(
    budget: int = 0, width: int = 32, layers: int = 2, lr: Number = 1e-3, batch: int = 256
) -> Learner:
    """Continuous supervision by `budget` traces (0: all of them); 1 is the discrete chain of
    thought. Observations are the numbers, actions the answers as tokens."""
    return Learner(
        nets={"model": superposed(width, layers)},
        update=(train("model", soft_labels("model", budget), Adam(lr, max_norm=1.0)),),
        act=answers("model", hard=budget == 1), source=log(batch), discrete=True,
    )  # fmt: skip
