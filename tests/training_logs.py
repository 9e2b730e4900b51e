"""Small logs with known answers, for the tests of training."""

import torch

from surpass.data.records import About, Transitions


def random_log(n=400, obs=3, act=2, seed=0, episode=20) -> Transitions:
    """Rows without structure: for comparisons of two ways to compute."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.arange(n)
    return Transitions(
        obs=torch.randn(n, obs, generator=g),
        action=torch.rand(n, act, generator=g) * 2 - 1,
        reward=torch.randn(n, generator=g),
        next_obs=torch.randn(n, obs, generator=g),
        terminated=torch.rand(n, generator=g) < 0.05,
        truncated=rows % episode == episode - 1,
        episode=rows // episode,
        batch_size=[n],
    ).described(About(spaces={"action_low": -1.0, "action_high": 1.0}))


def bandit(n=2000, best=0.4, seed=0) -> Transitions:
    """One decision an episode, uniform actions: the reward is -(a - best)^2."""
    g = torch.Generator().manual_seed(seed)
    action = torch.rand(n, 1, generator=g) * 2 - 1
    return Transitions(
        obs=torch.ones(n, 1),
        action=action,
        reward=-(action[:, 0] - best).square(),
        next_obs=torch.ones(n, 1),
        terminated=torch.ones(n, dtype=torch.bool),
        truncated=torch.zeros(n, dtype=torch.bool),
        episode=torch.arange(n),
        batch_size=[n],
    ).described(About(spaces={"action_low": -1.0, "action_high": 1.0}))


def one_reward_forever(n=512, terminated=False, truncated=False) -> Transitions:
    """A single state that pays 1 at each step; every row ends its episode in the way that is
    asked for."""
    return Transitions(
        obs=torch.ones(n, 1),
        action=torch.zeros(n, 1),
        reward=torch.ones(n),
        next_obs=torch.ones(n, 1),
        terminated=torch.full((n,), terminated),
        truncated=torch.full((n,), truncated),
        episode=torch.arange(n),
        batch_size=[n],
    ).described(About(spaces={"action_low": -1.0, "action_high": 1.0}))
