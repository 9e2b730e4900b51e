"""OTR: supervised training on tokens that the policy draws itself."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, log
from surpass.objectives.advantage import ones
from surpass.objectives.reduce import token_mean
from surpass.objectives.token_rollouts import token_bandit
from surpass.parts import Number
from surpass.registry import system

__all__ = ["otr"]


@system("otr")
def otr(
    count: int = 256, temperature: float = 1.3, miss: float = -0.1, lr: Number = 1e-5,
    batch: int = 32,
) -> PolicyGradient:  # fmt: skip
    """At every token of a demonstration, `count` tokens drawn at `temperature`, reward 1 where they
    are the demonstrated one and `miss` elsewhere, and the policy gradient. `count=0` is the
    expectation: at temperature 1, supervised training weighed by the token's probability. The rate
    is ours."""
    return PolicyGradient(
        ones(), token_bandit(count, temperature, miss), reduce=token_mean(),
        source=log(batch, view="sequences"), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
