"""What learning from some answers does to others, and DPO that first imitates both answers."""

from __future__ import annotations

from surpass.errors import InputError
from surpass.forms import Adam, Pairwise, Stage, Stages, Study
from surpass.methods.preference.pairs import dpo, pairs
from surpass.objectives.learning_dynamics import step_effects
from surpass.objectives.preference import both_nll
from surpass.parts import Number
from surpass.registry import system

__all__ = ["extend", "llm_learning_dynamics"]


@system("llm-learning-dynamics")
def llm_learning_dynamics(lr: float = 1e-4) -> Study:
    """By how much a step of size lr moves the log-probabilities of other answers: -lr A K G, by one
    gradient and one derivative along it, beside what the step did.

    `measure` takes `surpass.objectives.learning_dynamics.Learning`;
    `surpass.evaluation.dynamics.learning_of` makes it of a language model, a recipe and a log.
    `Watched` there follows answers along a run.
    """
    return Study(step_effects(lr))


@system("llm-learning-dynamics:extend")
def extend(
    beta: float = 0.1, imitate: int = 500, updates: int = 500, lr: Number = 5e-7,
    sft_lr: Number = 5e-7, batch: int = 32,
) -> Stages:  # fmt: skip
    """Imitate the chosen and the rejected answers for `imitate` updates, then DPO for the rest: a
    rejected answer that is likely can be pushed down without squeezing all others.

    Args:
        updates: of DPO, whose reference is the policy after imitation. sft_lr: of imitation.
    """
    if imitate < 1 or updates < 1:
        raise InputError(f"imitate={imitate}, updates={updates}: both stages take one update or "
                         "more; without imitation it is dpo")  # fmt: skip
    both = Pairwise(both_nll(), nets={}, source=pairs(batch), optimizer=Adam(sft_lr, max_norm=1.0))
    return Stages((Stage(both, imitate), Stage(dpo(beta, lr, batch), updates)))
