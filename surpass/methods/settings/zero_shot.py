"""Conservative forward-backward representations: a policy for every reward, told afterwards."""

from __future__ import annotations

from surpass.critics.successor import backward_map, coded_actor, forward_map, zero_shot
from surpass.errors import InputError
from surpass.forms import Learner, adam, ema, log, train
from surpass.objectives.successor import (
    follow_code,
    forward_backward,
    measure_penalty,
    orthonormal,
    task_codes,
    value_penalty,
)
from surpass.registry import system

__all__ = ["conservative_fb"]


@system("conservative-fb")
def conservative_fb(
    penalty: str = "value", alpha: float = 0.01, d: int = 50, mix: float = 0.5,
    gamma: float = 0.98, tau: float = 0.01, lr: float = 1e-4, actor_lr: float = 3e-5,
    batch: int = 512, hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """FB + orthonormality + alpha (logsumexp_a - log's action), of values ("value"), of visits
    ("measure") or of nothing ("none"); the policy's `given(...)` says the task."""
    penalties = {"value": value_penalty(), "measure": measure_penalty(), "none": None}
    if penalty not in penalties:
        raise InputError(f"no penalty {penalty!r}; there are {', '.join(penalties)}")
    loss = forward_backward(gamma) + orthonormal()
    chosen = penalties[penalty]
    return Learner(
        nets={
            "f": forward_map(d, 2, hidden),
            "b": backward_map(d, hidden),
            "pi": coded_actor(d, hidden),
            "f_target": ema("f", tau),
            "b_target": ema("b", tau),
        },
        update=(
            train(("f", "b"), loss if chosen is None else loss + alpha * chosen, adam(lr)),
            train("pi", follow_code(), adam(actor_lr)),
        ),
        act=zero_shot(),
        source=log(batch),
        prepare=(task_codes(mix, d),),
        discrete=False,
    )
