"""Episodes of a policy over discrete actions in a batched simulator, with exact log-probs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from surpass.data.records import About, Sequences
from surpass.tasks.protocol import Simulator
from surpass.tasks.tabular import draw

__all__ = ["episodes"]


@torch.no_grad()
def episodes(
    simulator: Simulator,
    policy: Callable[[Tensor], Tensor],
    n: int,
    steps: int,
    generator: torch.Generator | None = None,
) -> Sequences:
    """n episodes of at most `steps` decisions, [n, T], padded behind their ends.

    Args:
        simulator: with discrete actions.
        policy: observations [n, d] to probabilities [n, A].
        n: episodes. steps: after which an episode is cut. generator: of all randomness.
    """
    state, obs = simulator.reset(n, generator)
    alive = torch.ones(n, dtype=torch.bool)
    columns: dict[str, list[Tensor]] = {}
    for _ in range(steps):
        probs = policy(obs)
        action = draw(probs, generator)
        noise = None
        if simulator.noise_dim:
            noise = torch.rand(n, simulator.noise_dim, generator=generator)
        after = simulator.step(state, action, noise)
        row = {
            "obs": obs,
            "action": action,
            "mask": alive.to(obs.dtype),
            "reward": after.reward * alive,
            "logp": probs.gather(-1, action[:, None])[:, 0].log(),
            "next_obs": after.obs,
            "terminated": after.terminated & alive,
            "truncated": after.truncated & alive,
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
        alive = alive & ~after.terminated & ~after.truncated
        state, obs = after.state, after.obs
        if not bool(alive.any()):
            break
    c = {name: torch.stack(values, 1) for name, values in columns.items()}
    return Sequences(
        action=c["action"], mask=c["mask"], reward=c["reward"], behavior_logp=c["logp"],
        obs=c["obs"], next_obs=c["next_obs"], terminated=c["terminated"],
        truncated=c["truncated"], batch_size=[n],  # type: ignore[call-arg]
    ).described(About(name=type(simulator).__name__))  # fmt: skip
