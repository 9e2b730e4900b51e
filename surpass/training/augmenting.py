"""Logs made by generative models: of trajectories, as the policy of the moment would act; of
candidates for every state."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.objectives.trajectory_model import Layout, guided_segments
from surpass.parts import Nets, part
from surpass.training.streams import spaces_of, unit_actions

__all__ = ["policy_guided", "supported"]


def _logp(policy: Any) -> Any:
    """log pi(a | s), of a deterministic policy that of N(pi(s), I) up to a constant."""
    if hasattr(policy, "logp"):
        return policy.logp
    return lambda obs, action: -0.5 * (action - policy(obs).detach()).square().sum(-1)


@part
def policy_guided(
    nets: Nets, log: Transitions, /, count: int = 8192, weight: float = 1.0, steps: int = 64,
    churn: float = 80.0, pi: str = "pi", denoiser: str = "denoiser",
) -> Transitions:  # fmt: skip
    """`count` segments from the model of the log, actions pushed toward the policy `pi` (not at all
    while there is none), as a log of episodes; the last step of a segment only ends the one before.

    Policy-Guided Diffusion (2024).

    The policy sees observations in the log's units: its learner must not standardize them.

    Raises:
        InputError: when the model gives values that are no numbers.
    """
    spaces = spaces_of(log)
    net = nets[denoiser]
    known = {
        "obs": log.obs.reshape(len(log), -1).float(),
        "action": unit_actions(log.action, spaces),
        "reward": log.reward.float(),
        "terminated": log.terminated.float(),
    }
    place = next((p.device for p in net.parameters()), log.reward.device)
    layout = Layout.of({name: column.to(place) for name, column in known.items()})
    policy = _logp(nets[pi]) if pi in nets else None  # type: ignore[operator]
    with torch.no_grad():
        x = guided_segments(net, layout, count, net.length, policy, weight, steps, churn)
    if not bool(torch.isfinite(x).all()):
        raise InputError(
            "the model of trajectories gave values that are no numbers; train it longer"
        )
    made = {name: column.to(log.reward.device) for name, column in layout.columns(x).items()}
    return _as_log(made, spaces).described(log.about)


def _as_log(columns: dict[str, Tensor], spaces: Any) -> Transitions:
    """Segments [B, L] as transitions: L - 1 rows each, none after a termination."""
    obs, count, length = columns["obs"], *columns["obs"].shape[:2]
    ended = columns["terminated"][:, : length - 1]
    alive = ended.long().cumsum(1) - ended.long() == 0
    low, high = (torch.tensor(v, device=obs.device) for v in (spaces.low, spaces.high))
    action = low + 0.5 * (high - low) * (columns["action"] + 1.0)
    last = torch.zeros(count, length - 1, dtype=torch.bool, device=obs.device)
    last[:, -1] = True
    rows = {
        "obs": obs[:, :-1], "action": action[:, :-1], "reward": columns["reward"][:, :-1],
        "next_obs": obs[:, 1:], "terminated": ended, "truncated": last & ~ended,
        "episode": torch.arange(count, device=obs.device)[:, None].expand(-1, length - 1),
    }  # fmt: skip
    kept = {name: value[alive] for name, value in rows.items()}
    return Transitions(**kept, batch_size=[int(alive.sum())])  # type: ignore[call-arg]


@part
def supported(
    nets: Nets, log: Transitions, /, count: int = 16, pi: str = "pi", size: int = 1024
) -> Transitions:
    """The log with `count` actions of the policy for each row's state, in [-1, 1], side by side as
    `extras["support"]` [N, count k]; drawn `size` rows at a time.

    The policy sees observations in the log's units: its learner must not standardize them.
    """
    net = nets[pi]
    place = next((p.device for p in net.parameters()), log.reward.device)
    obs = log.obs.reshape(len(log), -1).float().to(place)
    with torch.no_grad():
        drawn = [net.sample(some, count)[0].movedim(0, 1).flatten(1) for some in obs.split(size)]
    column = {"support": torch.cat(drawn).to(log.reward.device)}
    known = dict(log.extras.items()) if log.extras is not None else {}
    out = log.clone(recurse=False)  # type: ignore[call-arg]
    out.extras = TensorDict({**known, **column}, batch_size=[len(log)])
    return out.described(log.about)
