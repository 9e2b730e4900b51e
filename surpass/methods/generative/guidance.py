"""CFGRL and QGF: policy improvement is a guidance weight, chosen when it acts."""

from __future__ import annotations

from surpass.errors import InputError
from surpass.forms import Learner, adam, log, train
from surpass.methods.implicit_critic import implicit_nets, implicit_steps
from surpass.objectives.guidance import labeled_clone
from surpass.objectives.value import clone
from surpass.objectives.weights import over_value, positive
from surpass.policies.acting import sampled
from surpass.policies.flow import flow, guided_by_label, guided_by_value
from surpass.registry import system

__all__ = ["cfgrl", "qgf"]


@system("cfgrl")
def cfgrl(
    weight: float = 3.0, tau: float = 0.9, null: float = 0.1, steps: int = 32, gamma: float = 0.99,
    lr: float = 3e-4, width: int = 512, hidden: tuple[int, ...] = (512, 512, 512),
    batch: int = 1024,
) -> Learner:  # fmt: skip
    """v(s) + weight (v(s | Q > V) - v(s)), v the velocity of one flow with and without the
    label."""
    good = positive(over_value("q_target"))
    return Learner(
        nets={**implicit_nets(hidden), "pi": flow(steps, width, labels=2)},
        update=(*implicit_steps(tau, gamma, lr), train("pi", labeled_clone(good, null), adam(lr))),
        act=guided_by_label(weight),
        source=log(batch, gamma=gamma),
        discrete=False,
    )


@system("qgf")
def qgf(
    weight: float = 1.0, tau: float = 0.9, steps: int = 10, gamma: float = 0.99, lr: float = 3e-4,
    width: int = 512, hidden: tuple[int, ...] = (512, 512, 512), batch: int = 256,
) -> Learner:  # fmt: skip
    """v(s, x) + weight grad Q(s, x + (1 - t) v(s, x)): a flow clones the log, a critic learns
    beside it, and neither sees the other before they act.

    `weight` counts in units of one over a value: raise it where rewards are small. What comes of it
    leans further than p(a|s) exp(weight Q(s, a)). The critic is IQL's; any that has a slope in the
    action will do.

    Raises:
        InputError: when the weight is below 0.
    """
    if not weight >= 0:
        raise InputError(
            f"the guidance weight is {weight}, which leads down the critic; take 0 (the behavior) "
            "or more"
        )
    return Learner(
        nets={**implicit_nets(hidden), "pi": flow(steps, width)},
        update=(*implicit_steps(tau, gamma, lr), train("pi", clone(), adam(lr))),
        act=guided_by_value(weight),
        explore=sampled(),
        source=log(batch, gamma=gamma),
        discrete=False,
    )
