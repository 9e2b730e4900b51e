"""Evidence that a quadratic pull holds ratios where a clip lets them go."""

from __future__ import annotations

from typing import Any

import torch

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.online.policy_gradients import ppo, spo
from surpass.tasks.catalog import task
from surpass.training.run import train

DEEP = (256, 256, 128, 128, 64, 64)
ENVS, HORIZON = 8, 128


def moved(make: Any, seed: int, epochs: int, world: str, hidden: tuple[int, ...]) -> list[float]:
    """Mean and largest |r - 1| between the policy before and after one update of a batch, on what
    the policy before does in 1,024 steps."""
    sizes: dict[str, Any] = {"envs": ENVS, "horizon": HORIZON, "epochs": epochs,
                             "minibatches": 4, "hidden": hidden}  # fmt: skip

    def policy(lr: float) -> Any:
        made = train(make(lr=lr, **sizes), task=task(world), steps=ENVS * HORIZON, seed=seed,
                     compile=False)  # fmt: skip
        return made.nets["policy"]

    before, after = policy(0.0), policy(3e-4)
    env = task(world).make(ENVS, seed=10_000 + seed)
    torch.manual_seed(seed)
    obs, apart = env.reset(), []
    for _ in range(HORIZON):
        with torch.no_grad():
            action, _ = before.sample(obs)
            old, new = (net.drawn(obs, action).logp for net in (before, after))
        apart.append((new - old).exp() - 1)
        obs = env.step(action.clamp(-1.0, 1.0)).obs
    found = torch.cat(apart).abs()
    return [float(found.mean()), float(found.max())]


@evidence(
    "spo",
    claim="one update of a deep policy on a batch moves the mean ratio at most half as far from 1 "
    "as PPO's clip does, and no decision by more than 0.35",
    baseline="ppo with the same batch, epochs, minibatches, rate and net",
    metric="mean of |r - 1| after one update",
    bar=at_most(0.5, times=True), seeds=8, minutes=3.0,
    setting="pendulum, 1,024 steps, 10 epochs of 4 minibatches, six hidden layers, rate 3e-4.",
    note="What is asked of SPO holds (0.21 times PPO's mean, no decision beyond 0.18); what fails "
    "is that PPO's own largest ratio should pass 0.5: here it is 0.41 on average.",
)  # fmt: skip
def spo_evidence(seed: int, zoo: Any) -> Result:
    """Also: the largest ratio; and after twenty epochs, where PPO's grows."""
    ours, theirs = (moved(f, seed, 10, "pendulum", DEEP) for f in (spo, ppo))
    longer = [moved(f, seed, 20, "pendulum", DEEP) for f in (spo, ppo)]
    return Result(
        ours[0], theirs[0],
        also={"largest |r - 1|": (ours[1], theirs[1], at_most(0.35, alone=True)),
              "largest |r - 1| of PPO": (theirs[1], ours[1], at_least(0.5, alone=True)),
              "mean |r - 1| after twenty epochs": (
                  longer[0][0], longer[1][0], at_most(0.5, times=True))},
    )  # fmt: skip
