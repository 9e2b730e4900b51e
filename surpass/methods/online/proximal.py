"""Policy gradients whose trust is centered elsewhere than at the policy that collected, or whose
ratio is led to a target instead of clipped."""

from __future__ import annotations

from surpass.critics.state_values import bootstrapped, state_values
from surpass.forms import PolicyGradient, adam, copy, ema, rollouts, train
from surpass.objectives.advantage import ewma_standardized, gae, value_loss
from surpass.objectives.bounded import (
    above_group_median,
    above_median,
    median,
    median_loss,
    to_band,
)
from surpass.objectives.divergence import entropy_bonus
from surpass.objectives.trust import decoupled_clip
from surpass.policies.stochastic import stochastic
from surpass.registry import system

__all__ = ["bpo", "gbpo", "ppo_ewma"]

Hidden = tuple[int, ...]


@system("ppo-ewma")
def ppo_ewma(
    eps: float = 0.2, com: float = 8.0, advantage_com: float = 2.0, lam: float = 0.95,
    gamma: float = 0.99, entropy: float = 0.01, lr: float = 5e-4, envs: int = 64,
    horizon: int = 256, minibatches: int = 8, stale: int = 0, hidden: Hidden = (64, 64),
) -> PolicyGradient:  # fmt: skip
    """(pi_anchor / mu) min(r A, clip(r) A), r = pi / pi_anchor, the anchor an average of the last
    `com` policies; for batches c times smaller take lr / sqrt(c), com c and advantage_com c."""
    behavior = {"behavior": copy("policy", "batch", lag=stale)} if stale else {}
    return PolicyGradient(
        ewma_standardized(gae(gamma, lam), advantage_com),
        decoupled_clip(eps) + entropy * entropy_bonus(),
        signals=(bootstrapped(),),
        anchor=ema("policy", 1.0 / (1.0 + com), corrected=True),
        nets={"policy": stochastic(hidden), "value": state_values(hidden), **behavior},
        also=(train("value", value_loss(), adam(lr, eps=1e-5, max_norm=0.5)),),
        source=rollouts(envs, horizon, continuing=True, pieces="decisions", gamma=gamma,
                        scale_reward=True),
        optimizer=adam(lr, eps=1e-5, max_norm=0.5), minibatches=minibatches,
    )  # fmt: skip


@system("brrl-bpo")
def bpo(
    eps: float = 0.3, temperature: float = 1e-3, lam: float = 0.95, gamma: float = 0.99,
    lr: float = 3e-4, envs: int = 8, horizon: int = 256, epochs: int = 10, minibatches: int = 32,
    normalize: bool = False, hidden: Hidden = (256, 256),
) -> PolicyGradient:  # fmt: skip
    """|r - r*| |A|, r* = 1 + eps where Q lies above its median over the old policy's actions, else
    1 - eps; a third net learns the median."""
    return PolicyGradient(
        above_median(gae(gamma, lam), temperature), to_band(eps, eps),
        signals=(bootstrapped(), median()),
        nets={"policy": stochastic(hidden), "value": state_values(hidden),
              "median": state_values(hidden)},
        also=(train("value", value_loss(), adam(lr, eps=1e-5, max_norm=1.0)),
              train("median", median_loss(), adam(lr, eps=1e-5, max_norm=1.0))),
        source=rollouts(envs, horizon, continuing=True, pieces="decisions", gamma=gamma,
                        normalize=normalize, scale_reward=normalize),
        optimizer=adam(lr, eps=1e-5, max_norm=1.0), epochs=epochs, minibatches=minibatches,
    )  # fmt: skip


@system("brrl-bpo:group")
def gbpo(
    band: float = 0.3, temperature: float = 1e-4, lr: float = 1e-6, batch: int = 64,
    group: int = 8, epochs: int = 1, minibatches: int = 4, horizon: int = 128,
) -> PolicyGradient:  # fmt: skip
    """GBPO: the same target for whole answers, above or below the median score of their prompt."""
    return PolicyGradient(
        above_group_median(temperature), to_band(band, band),
        source=rollouts(batch, horizon, group=group),
        optimizer=adam(lr, max_norm=1.0), epochs=epochs, minibatches=minibatches,
    )  # fmt: skip
