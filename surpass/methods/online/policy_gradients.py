"""PPO on control. REINFORCE, RLOO and GRPO on control are the recipes of the same names that run on
tokens, with other sizes: `grpo(beta=0, batch=64, group=8, horizon=200, lr=3e-3)`."""

from __future__ import annotations

from dataclasses import replace

from surpass.critics.state_values import bootstrapped, state_values
from surpass.forms import PolicyGradient, adam, rollouts, train
from surpass.objectives.advantage import gae, value_loss, whitened
from surpass.objectives.divergence import entropy_bonus
from surpass.objectives.ratio_penalties import quadratic
from surpass.objectives.trust import clip
from surpass.parts import Number
from surpass.policies.stochastic import stochastic
from surpass.registry import system

__all__ = ["ppo", "spo"]


@system("ppo")
def ppo(
    eps: float = 0.2, lam: float = 0.95, gamma: float = 0.99, entropy: float = 0.0,
    lr: Number = 3e-4, envs: int = 8, horizon: int = 256, epochs: int = 10, minibatches: int = 32,
    max_norm: float = 0.5, normalize: bool = False, hidden: tuple[int, ...] = (64, 64),
) -> PolicyGradient:  # fmt: skip
    """min(r A, clip(r, 1 - eps, 1 + eps) A) with generalized advantages, several epochs a batch."""
    trust = clip(eps, eps) + entropy * entropy_bonus() if entropy else clip(eps, eps)
    return PolicyGradient(
        whitened(gae(gamma, lam)), trust,
        signals=(bootstrapped(),),
        nets={"policy": stochastic(hidden), "value": state_values(hidden)},
        also=(train("value", value_loss(), adam(lr, eps=1e-5, max_norm=max_norm)),),
        source=rollouts(
            envs, horizon, continuing=True, pieces="decisions", gamma=gamma, normalize=normalize,
            scale_reward=normalize,
        ),
        optimizer=adam(lr, eps=1e-5, max_norm=max_norm), epochs=epochs, minibatches=minibatches,
    )  # fmt: skip


@system("spo")
def spo(
    eps: float = 0.2, lam: float = 0.95, gamma: float = 0.99, entropy: float = 0.0,
    lr: Number = 3e-4, envs: int = 8, horizon: int = 256, epochs: int = 10, minibatches: int = 4,
    normalize: bool = False, hidden: tuple[int, ...] = (64, 64),
) -> PolicyGradient:  # fmt: skip
    """PPO whose clip is a quadratic pull of the ratio toward 1 + sign(A) eps, for deep policies."""
    form = ppo(eps, lam, gamma, entropy, lr, envs, horizon, epochs, minibatches,
               normalize=normalize, hidden=hidden)  # fmt: skip
    trust = quadratic(eps) + entropy * entropy_bonus() if entropy else quadratic(eps)
    return replace(form, trust=trust)
