"""Decision Mamba: return-conditioned sequences at two grains, whose labels are refined as it
learns."""

from __future__ import annotations

from surpass.forms import Learner, adam, copy, log, train
from surpass.objectives.sequence import self_evolved
from surpass.parts import Number, linear, warmup
from surpass.policies.sequence import sequence_net, toward_return
from surpass.registry import system

__all__ = ["decision_mamba"]


@system("decision-mamba")
def decision_mamba(
    target: float = 0.0, scale: float = 1.0, evolve: float = 0.5, steps: int = 10_000,
    epoch: int = 1_000, context: int = 20, width: int = 128, layers: int = 3,
    backbone: str = "mamba", ages: int = 1000, states: int = 16, lr: Number | None = None,
    batch: int = 64,
) -> Learner:  # fmt: skip
    """|a^ - (1 - beta) a - beta a^_epoch|^2, beta rising to `evolve` at half of `steps`; `target`
    is
    the return to reach, in rewards."""
    rate = warmup(1e-4, steps=10_000) if lr is None else lr
    beta = linear(0.0, evolve, steps=max(steps // 2, 1))
    return Learner(
        nets={
            "pi": sequence_net(width, layers, backbone, context, ages, states),
            "teacher": copy("pi", every=epoch),
        },
        update=(
            train("pi", self_evolved(beta, scale), adam(rate, weight_decay=1e-4, max_norm=0.25)),
        ),
        act=toward_return(target, scale),
        source=log(batch, "segments", n=context, gamma=1.0),
        discrete=False,
    )
