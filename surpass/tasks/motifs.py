"""MOTIFS: sequences of a Markov chain, paid for how often a pair of letters stands in them.

Natural sequences of L letters out of V are those of the chain; the reward counts the places where
`pair` begins, which no gradient can follow. `surprise` says how unnatural a sequence is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.data.records import About, Transitions
from surpass.tasks.protocol import Spaces, State, Step

__all__ = ["Motifs"]


@dataclass(frozen=True)
class Motifs:
    """The task, one sequence an episode; what is seen is a constant.

    Attributes:
        length, letters: L and V. pair: what is counted. sharp: the larger, the less random the
            chain. chain: which one.
    """

    length: int = 8
    letters: int = 4
    pair: tuple[int, int] = (2, 0)
    sharp: float = 1.5
    chain: int = 0
    noise_dim: int = 0

    def transitions(self) -> Float[Tensor, "V V"]:
        """log P(next | letter); the first letter is drawn evenly."""
        g = torch.Generator().manual_seed(self.chain)
        logits = self.sharp * torch.randn(self.letters, self.letters, generator=g)
        logits[self.pair[0], self.pair[1]] = logits[self.pair[0]].min() - 0.5  # rare by nature
        return logits.log_softmax(-1)

    def reward(self, x: Int[Tensor, "N L"]) -> Float[Tensor, "N"]:
        """How often the pair stands in each sequence."""
        first, second = self.pair
        return ((x[:, :-1] == first) & (x[:, 1:] == second)).sum(-1).float()

    def surprise(self, x: Int[Tensor, "N L"]) -> Float[Tensor, "N"]:
        """-log P(x) under the chain, in nats."""
        start = torch.log(torch.tensor(float(self.letters)))
        return start - self.transitions()[x[:, :-1], x[:, 1:]].sum(-1)

    def natural(self, n: int, seed: int = 0) -> Int[Tensor, "n L"]:
        """Sequences of the chain."""
        g = torch.Generator().manual_seed(seed)
        chances = self.transitions().exp()
        rows = [torch.randint(self.letters, (n,), generator=g)]
        for _ in range(self.length - 1):
            rows.append(torch.multinomial(chances[rows[-1]], 1, generator=g)[:, 0])
        return torch.stack(rows, 1)

    def log(self, rows: int = 10_000, seed: int = 0) -> Transitions:
        """Natural sequences, each an episode of one step, with their reward."""
        x, obs = self.natural(rows, seed), torch.ones(rows, 1)
        ended = torch.ones(rows, dtype=torch.bool)
        about = About(name="motifs", spaces={"n_actions": self.letters, "agents": self.length})
        return Transitions(
            obs=obs, action=x, reward=self.reward(x), next_obs=obs, terminated=ended,
            truncated=~ended, episode=torch.arange(rows), batch_size=[rows],  # type: ignore[call-arg]
        ).described(about)  # fmt: skip

    # ------------------------------------------------------------------------------------------
    # to act in (as the simulator of a `ControlTask`)

    @property
    def spaces(self) -> Spaces:
        """Nothing in, L letters out."""
        return Spaces(1, n_actions=self.letters, horizon=1, extras={"agents": self.length})

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """Nothing to see."""
        obs = torch.ones(n, 1)
        return {"obs": obs}, obs

    def step(self, state: State, action: Int[Tensor, "n L"], noise: Tensor | None = None) -> Step:
        """Count; the episode terminates."""
        ended = torch.ones(len(action), dtype=torch.bool)
        return Step(state, state["obs"], self.reward(action), ended, ~ended)
