"""Tiny policies at many moments of their training: what a generalist value model learns from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surpass.critics.in_context import Snapshots

__all__ = ["arithmetic_snapshots", "prompts"]

OPERATIONS, BASE = 3, 10


def prompts() -> tuple[Tensor, Tensor]:
    """300 prompts (operation, a, b) as features [300, 26], and the right answers, one digit:
    (a + b), (a - b) and max(a, b), modulo 10."""
    op, a, b = torch.meshgrid(*(torch.arange(n) for n in (3, BASE, BASE)), indexing="ij")
    op, a, b = (t.reshape(-1) for t in (op, a, b))
    answer = torch.stack(((a + b) % 10, (a - b) % 10, torch.maximum(a, b)), 1)
    hot = torch.nn.functional.one_hot
    numbers = torch.stack((a, b, a + b), 1) / 9.0
    x = torch.cat((hot(op, 3), hot(a, BASE), hot(b, BASE), numbers), 1).float()
    return x, answer.gather(1, op[:, None])[:, 0]


def arithmetic_snapshots(
    runs: int = 8, moments: int = 12, steps: int = 240, seed: int = 0, width: int | None = None
) -> Snapshots:
    """Policies of one hidden layer, trained by GRPO (groups of 16 answers, exact advantages within
    the group), each run on its own mixture of operations and digits; success rates are exact.

    Args:
        runs, moments: how many runs, and snapshots of each. steps: of training.
        seed: of all. width: hidden units; drawn from 16 to 128 when None.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = prompts()
    found, names = [], []
    for run in range(runs):
        taste = torch.rand(3, generator=generator) ** 6
        digit = torch.rand(BASE, generator=generator) ** 2
        likes = taste.repeat_interleave(100) * digit.repeat_interleave(BASE).repeat(3)
        hidden = width or int(2 ** (4 + 3 * float(torch.rand((), generator=generator))))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1000 + run)
            net = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.Tanh(), nn.Linear(hidden, BASE))
        descent = torch.optim.Adam(net.parameters(), 0.004)
        for t in range(steps):
            at = torch.multinomial(likes, 64, replacement=True, generator=generator)
            logp = net(x[at]).log_softmax(1)
            said = torch.multinomial(logp.detach().exp(), 16, True, generator=generator)
            reward = (said == y[at][:, None]).float()
            gap = reward - reward.mean(1, keepdim=True)
            loss = -(gap / (reward.std(1, keepdim=True) + 1e-2) * logp.gather(1, said)).mean()
            descent.zero_grad()
            loss.backward()
            descent.step()
            if (t + 1) % (steps // moments) == 0:
                with torch.no_grad():
                    found.append(net(x).softmax(1).gather(1, y[:, None])[:, 0])
                names.append(run)
    return Snapshots(x, torch.stack(found), torch.tensor(names))
