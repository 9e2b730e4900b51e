"""LINE-SPREAD: agents on a line, paid together for keeping the smallest gap large.

n agents start in [0, 2] on a line of length L = max(10, 2 n); each moves by one of 11 steps (0,
+-0.01, +-0.05, +-0.1, +-0.5, +-1) at a time, 10 times; the reward is 10 (change of the smallest
gap) / (L / (n - 1)), so that a return of 10 is the equal spacing. Each agent sees where it is and
how far away its neighbors are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.data.records import About, Transitions
from surpass.tasks.protocol import Spaces, State, Step

__all__ = ["MOVES", "LineSpread", "spread_log"]

MOVES = torch.tensor([0.0, 0.01, -0.01, 0.05, -0.05, 0.1, -0.1, 0.5, -0.5, 1.0, -1.0])


@dataclass(frozen=True)
class LineSpread:
    """The environment; agents are numbered by their order on the line at the start.

    Attributes:
        agents: how many. horizon: moves.
    """

    agents: int = 3
    horizon: int = 10

    @property
    def length(self) -> float:
        """L."""
        return float(max(10, 2 * self.agents))

    @property
    def spaces(self) -> Spaces:
        """Four numbers in and one of eleven moves out, per agent."""
        return Spaces(4 * self.agents, n_actions=len(MOVES), horizon=self.horizon,
                      extras={"agents": self.agents})  # fmt: skip

    @property
    def noise_dim(self) -> int:
        """Only the starts are random."""
        return 0

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """Uniform starts in [0, 2], in order."""
        x = (2 * torch.rand(n, self.agents, generator=generator)).sort(-1).values
        state = {"x": x, "t": torch.zeros(n, dtype=torch.long)}
        return state, self.seen(state)

    def seen(self, state: State) -> Float[Tensor, "n ad"]:
        """Place over L, the gaps to both neighbors (the walls at the ends), and the time left."""
        x = state["x"] / self.length
        ends = torch.cat([torch.zeros_like(x[:, :1]), x, torch.ones_like(x[:, :1])], -1)
        gaps = ends.diff(dim=-1)
        left = (1 - state["t"] / self.horizon)[:, None].expand_as(x)
        return torch.stack([x, gaps[:, :-1], gaps[:, 1:], left], -1).flatten(1)

    def smallest(self, x: Float[Tensor, "n a"]) -> Float[Tensor, "n"]:
        """The smallest gap between two agents."""
        return x.sort(-1).values.diff(dim=-1).amin(-1)

    def step(self, state: State, action: Int[Tensor, "n a"], noise: Tensor | None = None) -> Step:
        """Everybody moves; the last move ends the episode, as the time left that is seen says."""
        x = (state["x"] + MOVES[action]).clamp(0.0, self.length)
        unit = self.length / (self.agents - 1)
        reward = 10.0 * (self.smallest(x) - self.smallest(state["x"])) / unit
        after = {"x": x, "t": state["t"] + 1}
        ended = after["t"] >= self.horizon
        return Step(after, self.seen(after), reward, ended, torch.zeros_like(ended))

    def expert(self, state: State) -> Int[Tensor, "n a"]:
        """The move that brings each agent nearest to its place of the equal spacing."""
        goal = torch.linspace(0.0, self.length, self.agents)
        reached = (state["x"][..., None] + MOVES).clamp(0.0, self.length)
        return (reached - goal[:, None]).abs().argmin(-1)


def spread_log(
    agents: int = 3, episodes: int = 500, epsilon: float = 0.3, seed: int = 0
) -> Transitions:
    """Episodes of the expert, each agent moving at random with probability `epsilon` at a time:
    obs [N, agents, 4], action [N, agents]."""
    env, g = LineSpread(agents), torch.Generator().manual_seed(seed)
    state, obs = env.reset(episodes, g)
    columns: dict[str, list[Tensor]] = {}
    for _ in range(env.horizon):
        random = torch.randint(len(MOVES), (episodes, agents), generator=g)
        loose = torch.rand(episodes, agents, generator=g) < epsilon
        action = torch.where(loose, random, env.expert(state))
        after = env.step(state, action)
        shape = (episodes, agents, -1)
        row = {"obs": obs.reshape(shape), "action": action, "reward": after.reward,
               "next_obs": after.obs.reshape(shape), "terminated": after.terminated,
               "truncated": after.truncated}  # fmt: skip
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
        state, obs = after.state, after.obs
    flat = {name: torch.stack(values, 1).flatten(0, 1) for name, values in columns.items()}
    rows = episodes * env.horizon
    episode = torch.arange(episodes).repeat_interleave(env.horizon)
    return Transitions(
        **flat,
        episode=episode,
        batch_size=[rows],  # type: ignore[call-arg]
    ).described(About(name="line-spread", spaces={"n_actions": len(MOVES)}))
