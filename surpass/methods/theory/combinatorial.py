"""Q-learning over combinatorial actions: the maximum inside the target and the greedy action are
exact, by a program that holds the net."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surpass.critics.milp_argmax import Maximizer
from surpass.forms import Planner
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.restless import LEVELS, Restless

__all__ = ["Chooser", "combinatorial_q", "myopic", "one_by_one", "sequoia", "worth"]

Chooser = Callable[[np.ndarray], np.ndarray]


def _state(levels: np.ndarray, t: int, horizon: int) -> np.ndarray:
    return np.append(levels / (LEVELS - 1), t / horizon)


def worth(world: Restless, choose: Chooser, episodes: int, seed: int = 0) -> float:
    """The mean return of a policy: expected rewards on sampled paths from random levels. `choose`
    sees the levels over 3, and the share of the horizon that has passed."""
    rng, total = np.random.default_rng(seed), 0.0
    for _ in range(episodes):
        levels = rng.integers(LEVELS, size=world.arms)
        for t in range(world.horizon):
            pulls = choose(_state(levels, t, world.horizon))
            total += world.expected(levels, pulls)
            levels = world.step(levels, pulls, rng)
    return total / episodes


def myopic(world: Restless) -> Chooser:
    """The feasible pulls with the largest next mean reward, exactly."""
    every = world.feasible()

    def choose(state: np.ndarray) -> np.ndarray:
        levels = np.round(state[:-1] * (LEVELS - 1)).astype(int)
        return every[(every @ world.gains(levels)).argmax()]

    return choose


def one_by_one(net: nn.Sequential, world: Restless) -> Chooser:
    """Greedy in the net's value: the arm that adds most is added while it is feasible and adds."""

    def choose(state: np.ndarray) -> np.ndarray:
        pulls = np.zeros(world.arms)
        while True:
            tries = [pulls]
            for j in np.flatnonzero(pulls == 0):
                more = pulls.copy()
                more[j] = 1
                if (world.A @ more <= world.b + 1e-9).all():
                    tries.append(more)
            q = _values(net, np.stack(tries), np.repeat(state[None], len(tries), 0))
            best = int(q.argmax())
            if best == 0:
                return pulls
            pulls = tries[best]

    return choose


def _values(net: nn.Sequential, pulls: np.ndarray, states: np.ndarray) -> Tensor:
    with torch.no_grad():
        return net(torch.from_numpy(np.concatenate((pulls, states), 1)).float())[:, 0]


@part
def combinatorial_q(
    world: Restless, /, hidden: tuple[int, ...] = (16, 16), episodes: int = 40, gamma: float = 0.99,
    warm: int = 400, updates: int = 1, batch: int = 16, refresh: int = 10, rate: float = 1e-3,
    seed: int = 0,
) -> nn.Sequential:  # fmt: skip
    """The net Q([a, s]).

    First it regresses on the expected next reward of random feasible pulls in random states; then
    Q-learning with epsilon-greedy episodes (0.9 to 0.05), expected rewards, Huber loss, and targets
    r + gamma max_a' Q_target(a', s') by the program, solved once a state and target; the target net
    is refreshed every `refresh` episodes.
    """
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = (2 * world.arms + 1, *hidden, 1)
        layers: list[nn.Module] = []
        for i in range(len(sizes) - 1):
            layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()]
        net = nn.Sequential(*layers[:-1])
    descent = torch.optim.AdamW(net.parameters(), rate)
    every = world.feasible()
    rows = _prefilled(world, every, 50 * world.horizon, rng)
    for _ in range(warm):
        at = rng.integers(len(rows), size=64)
        _fit(net, descent, [rows[i][0] for i in at], [rows[i][1] for i in at])
    target = copy.deepcopy(net)
    ahead, greedy = Maximizer(target, world.A, world.b), Maximizer(net, world.A, world.b)
    replay: list[tuple[np.ndarray, float, np.ndarray | None]] = []
    for episode in range(episodes):
        if episode % refresh == 0:
            target.load_state_dict(net.state_dict())
            ahead.forget()
        levels = rng.integers(LEVELS, size=world.arms)
        epsilon = max(0.05, 0.9 * (1 - episode / (0.6 * episodes)))
        for t in range(world.horizon):
            state = _state(levels, t, world.horizon)
            if rng.random() < epsilon:
                pulls = every[rng.integers(len(every))]
            else:
                greedy.forget()
                pulls = greedy(state)[0]
            reward = world.expected(levels, pulls)
            levels = world.step(levels, pulls, rng)
            last = t == world.horizon - 1
            then = None if last else _state(levels, t + 1, world.horizon)
            replay.append((np.concatenate((pulls, state)), reward, then))
            for _ in range(updates if len(replay) >= batch else 0):
                drawn = [replay[i] for i in rng.integers(len(replay), size=batch)]
                goals = [r + (gamma * ahead(s)[1] if s is not None else 0.0) for _, r, s in drawn]
                _fit(net, descent, [x for x, _, _ in drawn], goals)
    return net.eval()


def _prefilled(
    world: Restless, every: np.ndarray, states: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, float]]:
    """Random feasible pulls in random states (and in the lowest and highest), expected rewards."""
    rows = []
    for k in range(states):
        levels = rng.integers(LEVELS, size=world.arms)
        levels = np.zeros_like(levels) if k == 0 else levels + 3 - levels if k == 1 else levels
        state = _state(levels, int(rng.integers(world.horizon)), world.horizon)
        pulls = every[rng.integers(len(every))]
        rows.append((np.concatenate((pulls, state)), world.expected(levels, pulls)))
    return rows


def _fit(
    net: nn.Sequential, descent: torch.optim.Optimizer, inputs: list[np.ndarray], goals: list[float]
) -> None:
    x = torch.from_numpy(np.stack(inputs)).float()
    loss = F.huber_loss(net(x)[:, 0], torch.tensor(goals))
    descent.zero_grad()
    loss.backward()
    nn.utils.clip_grad_value_(net.parameters(), 5.0)
    descent.step()


@system("sequoia")
def sequoia(
    hidden: tuple[int, ...] = (16, 16), episodes: int = 40, gamma: float = 0.99, seed: int = 0
) -> Planner:
    """Deep Q-learning whose maximum over feasible pulls is a mixed-integer program: `solve` takes
    a `Restless` problem and gives the net; `surpass.critics.milp_argmax.Maximizer` acts with it.

    Args:
        hidden: widths of the net's layers. episodes: of Q-learning. gamma: discount. seed: of all.
    """
    return Planner(combinatorial_q(hidden, episodes, gamma, seed=seed))
