"""Nuisances that are nets: trained on the compiled engine for one target policy, and asked what the
starts of the log are worth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from surpass.critics.dynamics import counted_values
from surpass.critics.policy_values import Asked
from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.evaluation.acting import Target
from surpass.forms import Learner, Spaces
from surpass.training.engine import compiling_is_on
from surpass.training.run import train
from surpass.training.streams import return_to_go, spaces_of, unit_actions

__all__ = ["Trainable", "start_values"]

WORTH_COMPILING = 3_000  # updates from which on compiling pays for itself


@runtime_checkable
class Trainable(Protocol):
    """A nuisance that is a learner: what to train, with so many members, for so many updates."""

    @property
    def updates(self) -> int: ...
    @property
    def members(self) -> int: ...
    def learner(self, gamma: float, scale: float, limits: tuple[float, float]) -> Learner:
        """The form, once discount and scale of values are known."""
        ...


@dataclass(frozen=True)
class StartValues:
    """What every member thinks of every start, [N, n] (nan where it was not asked), and the weights
    [N, n] that its episodes had."""

    values: Float[Tensor, "N n"]
    multiplier: Float[Tensor, "N n"]


def start_values(
    nuisance: Any, log: Transitions, target: Target, gamma: float, seed: int = 0
) -> StartValues:
    """Train a nuisance on a log, for a target policy.

    Raises:
        InputError: when the discount is 1 and episodes were cut: their value has no end.
    """
    cut = bool(log.truncated.any())
    if gamma == 1 and cut and not hasattr(nuisance, "starts"):
        raise InputError(
            "episodes were cut and the discount is 1: what follows a cut has no finite value; give "
            "a discount below 1"
        )
    number, length = torch.unique_consecutive(log.episode, return_inverse=True, return_counts=True)[
        1:
    ]
    generator = torch.Generator().manual_seed(seed)
    weight = torch.empty(len(length), nuisance.members).exponential_(generator=generator)
    weight = weight / weight.mean(0)
    spaces = spaces_of(log)
    scale, limits = _scale(log, gamma, int(length.max()))
    asked = _asked(log, target, spaces, gamma, scale, int(length.max()), cut)
    first = torch.cumsum(length, 0) - length
    most = getattr(nuisance, "countable", 0)
    counted = counted_values(log, asked, weight[number], most) if most and asked.actions else None
    if counted is not None:
        return StartValues(counted[first], weight.double())
    trained = train(
        nuisance.learner(gamma, scale, limits),
        _with_columns(log, asked, weight[number]),
        steps=nuisance.updates, seed=seed, device="cpu",
        compile=compiling_is_on() and nuisance.updates >= WORTH_COMPILING,
    )  # fmt: skip
    if trained.policy.mean is not None:
        asked = _in_units_of(asked, trained.policy)
    obs = log.obs.reshape(len(log.obs), -1).float()[first]
    chosen = torch.randperm(len(first), generator=generator)
    chosen = chosen[: getattr(nuisance, "starts", len(first))]
    values = torch.full((len(first), nuisance.members), math.nan, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found: Any = trained.policy.policy
        values[chosen] = found.values(obs[chosen], asked).T.double()
    return StartValues(values, weight.double())


def _scale(log: Transitions, gamma: float, longest: int) -> tuple[float, tuple[float, float]]:
    """The size of values in the log, and the range that they cannot leave."""
    to_go = return_to_go(log, log.reward, gamma)
    scale = max(float(to_go.std()), 0.3 * float(to_go.abs().mean()), 1e-6)
    if gamma < 1 and bool(log.truncated.any()):
        scale = max(scale, 0.3 * abs(float(log.reward.mean())) / (1.0 - gamma))
    steps = 1.0 / (1.0 - gamma) if gamma < 1 else float(longest)
    low, high = (float(x) * steps for x in (log.reward.min(), log.reward.max()))
    return scale, (min(low, 0.0), max(high, 0.0))


def _asked(
    log: Transitions, target: Target, spaces: Spaces, gamma: float, scale: float, longest: int,
    cut: bool,
) -> Asked:  # fmt: skip
    obs, then = (x.reshape(len(x), -1).float() for x in (log.obs, log.next_obs))
    low, high = torch.minimum(obs.amin(0), then.amin(0)), torch.maximum(obs.amax(0), then.amax(0))
    room = 0.1 * (high - low)
    outcome = torch.cat([then - obs, log.reward.float()[:, None]], 1)
    spread = outcome.std(0)
    horizon = longest if cut else 10 * longest  # without cuts the model ends episodes itself
    if 0 < gamma < 1:
        horizon = math.ceil(math.log(1e-3) / math.log(gamma))

    def choose(x: Tensor) -> Tensor:
        found = torch.as_tensor(target.choose(x.to(log.obs.dtype)))
        return found.float() if target.actions else unit_actions(found.float(), spaces)

    return Asked(
        choose, gamma, horizon, scale, torch.zeros_like(low), torch.ones_like(low), low - room,
        high + room, outcome.mean(0), torch.where(spread > 1e-8, spread, torch.ones_like(spread)),
        (float(log.reward.min()), float(log.reward.max())), target.actions,
    )  # fmt: skip


def _in_units_of(asked: Asked, policy: Any) -> Asked:
    return replace(asked, mean=policy.mean, std=policy.std)


@torch.no_grad()
def _with_columns(log: Transitions, asked: Asked, multiplier: Float[Tensor, "N n"]) -> Transitions:
    """The log with what the losses ask for: what the target does next, outcomes, and weights."""
    obs, then = (x.reshape(len(x), -1).float() for x in (log.obs, log.next_obs))
    outcome = torch.cat([then - obs, log.reward.float()[:, None]], 1)
    pieces = [asked.choose(part) for part in then.split(65_536)]
    columns = {
        "target_action": torch.cat(pieces),
        "outcome": (outcome - asked.outcome_mean) / asked.outcome_std,
        "multiplier": multiplier.float(),
    }
    rows = len(log.reward)
    return Transitions(
        obs=obs, action=log.action, reward=log.reward.float(), next_obs=then,
        terminated=log.terminated, truncated=log.truncated, episode=log.episode,
        extras=TensorDict(columns, batch_size=[rows]),
        batch_size=[rows],  # type: ignore[call-arg]
    ).described(log.about)  # fmt: skip
