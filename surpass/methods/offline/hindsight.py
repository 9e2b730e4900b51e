"""Offline preferences without a reward model: the best code of behavior in hindsight."""

from __future__ import annotations

from surpass.critics.segments import learned_code, segment_encoder
from surpass.forms import Learner, adam, beside, log, pairs, train
from surpass.objectives.hindsight import code_triplet, hindsight, unit_codes
from surpass.parts import Number, warmup
from surpass.policies.sequence import sequence_net, toward_code
from surpass.registry import system

__all__ = ["oppo"]


@system("oppo")
def oppo(
    code: int = 8, context: int = 20, preference: float = 0.1, norm: float = 0.1,
    margin: float = 1.0, scale: float = 2.0, width: int = 128, layers: int = 3, ages: int = 1000,
    lr: Number | None = None, code_lr: float = 1e-3, batch: int = 64,
) -> Learner:  # fmt: skip
    """|pi(s_<=t, a_<t, z) - a_t|^2 with z the segment's own code, codes drawn by "pairs" toward or
    away from the best one, which in turn moves toward what was preferred; it acts with the best."""
    rate = warmup(1e-4, steps=10_000) if lr is None else lr
    codes = hindsight() + preference * code_triplet(margin) + norm * unit_codes()
    return Learner(
        nets={
            "encoder": segment_encoder(code, width, layers, context),
            "pi": sequence_net(width, layers, "attention", context, ages, code=code),
            "best": learned_code(code, scale),
        },
        update=(
            train(("encoder", "pi"), codes, adam(rate, weight_decay=1e-4, max_norm=0.25)),
            train("best", code_triplet(margin), adam(code_lr)),
        ),
        act=toward_code(),
        source=beside(log(batch, "segments", n=context, whole=True), pairs=pairs(batch)),
        discrete=False,
    )
