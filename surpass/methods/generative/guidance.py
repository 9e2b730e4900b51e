"""CFGRL: the strength of policy improvement is a guidance weight, chosen when it acts."""

from __future__ import annotations

from surpass.forms import Learner, adam, log, train
from surpass.methods.implicit_critic import implicit_nets, implicit_steps
from surpass.objectives.guidance import labeled_clone
from surpass.objectives.weights import over_value, positive
from surpass.policies.flow import flow, guided_by_label
from surpass.registry import system

__all__ = ["cfgrl"]


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
