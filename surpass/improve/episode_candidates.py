"""Candidates for episodes: gentle tilts of the policy that logged them, and what the recipes learn.

A tilt, pi proportional to mu exp(c A), moves toward what was better than expected by so little at
every step that importance ratios of whole episodes stay near 1: that is what a log can prove.
Recipes go further, and a log alone can seldom prove what they gain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.critics.fitted_q import Fourier
from surpass.critics.fitted_values import fit_values, linear, taken
from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.policies.tilted import Tilted, fit_multinomial

__all__ = [
    "STRENGTHS", "EpisodeCandidate", "learn", "n_actions_of", "recipes_for", "tilts",
    "updates_for",
]  # fmt: skip

STRENGTHS = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0)
_FEW, _MANY = 2_000, 10_000  # updates; many where there is enough to learn from
_CONTINUOUS, _DISCRETE = ("bc", "td3-bc", "iql"), ("bc", "iql")

Say = Callable[[str], None]


@dataclass(frozen=True)
class EpisodeCandidate:
    """A policy for control that can be weighed.

    Attributes:
        key, params: as the report names it.
        act: observations [N, d] to actions, drawn where the policy is stochastic.
        probabilities: observations to [N, A], for discrete actions; None where there are none.
        save: writes the policy into a folder.
    """

    key: str
    act: Callable[[Tensor], Tensor]
    save: Callable[[Path], Any]
    probabilities: Callable[[Tensor], Tensor] | None = None
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Key and settings."""
        inner = ", ".join(f"{k}={v:g}" for k, v in self.params.items())
        return f"{self.key} ({inner})" if inner else self.key

    def chosen(self, obs: Tensor) -> Tensor:
        """What fitted Q evaluation asks for: probabilities, or the action."""
        return self.act(obs) if self.probabilities is None else self.probabilities(obs)


def n_actions_of(log: Transitions) -> int:
    """How many discrete actions there are; 0 where actions are continuous."""
    if log.action.is_floating_point():
        return 0
    stated = int(log.about.spaces.get("n_actions", 0)) or len(log.about.actions)
    return max(stated, int(log.action.max()) + 1)


def flat(obs: Tensor) -> Float[Tensor, "N d"]:
    """Observations as vectors, in double precision."""
    return obs.reshape(len(obs), -1).double()


def tilts(log: Transitions, gamma: float = 0.99) -> list[EpisodeCandidate]:
    """Tilts of the fitted behavior policy, by two estimates of what is better than expected, each
    linear in the observation: from fitted Q evaluation (params `by=0`), and from what was earned
    after each action over what trees expected (`by=1`)."""
    actions = n_actions_of(log)
    obs = flat(log.obs)
    behavior = fit_multinomial(obs, log.action.long(), actions)
    made, mean, spread = linear(obs)
    phi = made(obs)
    with torch.no_grad():
        mu = behavior(obs)
    values = fit_values(
        log, lambda x: behavior(flat(x)), actions=actions, gamma=gamma, features=Fourier(80, 3.0)
    )
    q = values.q(obs)
    advantage = q - (mu * q).sum(-1, keepdim=True)
    by_model = torch.linalg.lstsq(phi, advantage).solution.T
    by_returns = _by_returns(log, phi, mu, gamma)
    out: list[EpisodeCandidate] = []
    for number, theta in enumerate((by_model, by_returns)):
        for c in STRENGTHS:
            policy = _tilt(behavior, theta, mean, spread, c, phi, mu)
            out.append(_as_candidate(policy, log, {"c": c, "by": number}))
    return out


def _by_returns(
    log: Transitions, phi: Float[Tensor, "N k"], mu: Float[Tensor, "N A"], gamma: float
) -> Float[Tensor, "A k"]:
    """Least squares of (return to go - v(s)) on (1{a} - mu(a|s)) phi(s): the advantage's linear
    part, whatever v is (Robinson, Root-N-consistent semiparametric regression, 1988)."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.model_selection import GroupKFold, cross_val_predict

    reward, last = log.reward.double().tolist(), (log.terminated | log.truncated).tolist()
    to_go, after = [0.0] * len(reward), 0.0
    for i in reversed(range(len(reward))):
        after = reward[i] + (0.0 if last[i] else gamma * after)
        to_go[i] = after
    earned, x = np.array(to_go), flat(log.obs).numpy()
    trees = HistGradientBoostingRegressor(max_iter=60, random_state=0)
    fold = GroupKFold(3)
    expected = cross_val_predict(trees, x, earned, groups=log.episode.numpy(), cv=fold)
    once = torch.nn.functional.one_hot(log.action.long(), mu.shape[1]).double()
    rows = taken(phi, once - mu)
    left = rows.T @ rows
    left += 1e-3 * float(left.diagonal().mean()) * torch.eye(len(left), dtype=left.dtype)
    theta = torch.linalg.solve(left, rows.T @ torch.from_numpy(earned - expected))
    return theta.view(mu.shape[1], -1)


@torch.no_grad()
def _tilt(
    behavior: nn.Module, theta: Float[Tensor, "A k"], mean: Tensor, spread: Tensor,
    strength: float, phi: Float[Tensor, "N k"], mu: Float[Tensor, "N A"],
) -> Tilted:  # fmt: skip
    policy = Tilted(len(mean), len(theta), strength, fitted=behavior)
    policy.mean.copy_(mean)
    policy.spread.copy_(spread)
    policy.theta.copy_(theta)
    d = phi @ theta.T
    advantage = d - (mu * d).sum(-1, keepdim=True)
    policy.scale.copy_((mu * advantage.square()).sum(-1).mean().sqrt().clamp_min(1e-12))
    return policy


def _as_candidate(policy: nn.Module, log: Transitions, params: dict[str, Any]) -> EpisodeCandidate:
    @torch.no_grad()
    def probabilities(obs: Tensor) -> Tensor:
        return policy(flat(obs))

    def act(obs: Tensor) -> Tensor:
        return torch.multinomial(probabilities(obs), 1)[:, 0]

    def save(folder: Path) -> None:
        from surpass.policies import handover

        names = tuple(f"obs{i}" for i in range(flat(log.obs[:1]).shape[1]))
        about = log.about
        known = about.actions or tuple(str(i) for i in range(n_actions_of(log)))
        from surpass.data.records import About

        handover.save(policy, folder, about=About(about.name, known, names={"context": names}))

    return EpisodeCandidate("tilt", act, save, probabilities, params)


def recipes_for(methods: str | Sequence[str], discrete: bool) -> tuple[str, ...]:
    """The keys to try: those given, or those that fit the actions.

    Raises:
        InputError: for a recipe that is not a learner on logs.
    """
    if methods == "auto":
        return _DISCRETE if discrete else _CONTINUOUS
    from surpass.forms import Learner, Stages
    from surpass.registry import build

    given = tuple(methods.split(",") if isinstance(methods, str) else methods)
    for key in given:
        if key != "tilt" and not isinstance(build(key), Learner | Stages):
            raise InputError(f"{key} does not learn from logs of episodes; try bc, td3-bc or iql")
    if not discrete and set(given) == {"tilt"}:
        raise InputError(
            "tilt is for discrete actions, and those of this log are continuous; try bc, td3-bc or "
            "iql"
        )
    return given


def updates_for(log: Transitions) -> int:
    """Updates of a recipe where none are asked for: 2,000 on logs of less than 100,000 steps, which
    take a few seconds each, else 10,000."""
    return _FEW if len(log.reward) < 100_000 else _MANY


def learn(
    key: str,
    log: Transitions,
    *,
    steps: int | None = None,
    seed: int = 0,
    say: Say = lambda _: None,
) -> EpisodeCandidate:
    """Train a recipe on a log; `steps` None takes `updates_for` it.

    Raises:
        InputError: when there is nothing to do, or the recipe does not fit.
    """
    from surpass.evaluation.trained import WORTH_COMPILING
    from surpass.training.engine import compiling_is_on
    from surpass.training.run import train

    if steps is not None and steps < 1:
        raise InputError(f"--steps is {steps}; give at least one update")

    say(f"learning {key} on {len(log.reward):,} steps")
    count = updates_for(log) if steps is None else steps
    trained = train(
        key, log, steps=count, seed=seed, compile=compiling_is_on() and count >= WORTH_COMPILING
    )
    policy = trained.policy
    probabilities: Callable[[Tensor], Tensor] | None = None
    net = trained.nets["pi"] if "pi" in getattr(trained.form, "nets", {}) else None
    if n_actions_of(log) and hasattr(net, "logits"):

        @torch.no_grad()
        def softmax(obs: Tensor) -> Tensor:
            x = obs.reshape(len(obs), -1).float()
            if policy.mean is not None and policy.std is not None:
                x = (x - policy.mean) / policy.std
            return net.logits(x).double().softmax(-1)  # type: ignore[union-attr]

        probabilities = softmax

    def act(obs: Tensor) -> Tensor:
        if probabilities is not None:
            return torch.multinomial(probabilities(obs), 1)[:, 0]
        return policy.act(obs.reshape(len(obs), -1).float()).action

    return EpisodeCandidate(key, act, trained.save, probabilities)
