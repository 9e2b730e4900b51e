"""POINT: a double integrator on the plane, its controllers, and the logs that they make.

State (x, y, vx, vy), action a in [-1, 1]^2; v <- clip(0.95 v + 0.2 a, -1, 1), p <- p + 0.1 v;
reward -|p|; starts uniform in [-1, 1]^2 at rest; 60 steps. The expert is the clipped PD controller
a = clip(-(2 p + 1.5 v), -1, 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from surpass.data.records import About, Transitions
from surpass.errors import InputError
from surpass.tasks.protocol import Spaces, State, Step
from surpass.tasks.recording import joined

__all__ = ["CONTROLLERS", "Controller", "PointMass", "clipped_normal", "point_log"]


@dataclass(frozen=True)
class PointMass:
    """The POINT environment.

    Attributes:
        start: the box of starts (x low, y low, x high, y high).
        goal: where the reward is 0.
        kick: probability per step of a push N(0, kick_std^2) on every entry of the state.
        kick_std: its size.
        hazard: (x, y, radius, penalty) of a disc in which every step pays `penalty` more, or None.
        horizon: steps until truncation.
        dtype: of states and observations.
    """

    start: tuple[float, float, float, float] = (-1.0, -1.0, 1.0, 1.0)
    goal: tuple[float, float] = (0.0, 0.0)
    kick: float = 0.0
    kick_std: float = 0.3
    hazard: tuple[float, float, float, float] | None = None
    horizon: int = 60
    dtype: torch.dtype = torch.float32

    @property
    def spaces(self) -> Spaces:
        """Four numbers in, two out."""
        return Spaces(4, action_dim=2, low=(-1.0, -1.0), high=(1.0, 1.0), horizon=self.horizon)

    @property
    def noise_dim(self) -> int:
        """Five uniform numbers a step where there are kicks."""
        return 5 if self.kick else 0

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """Uniform starts, at rest."""
        device = generator.device if generator is not None else None
        low = torch.tensor(self.start[:2], dtype=self.dtype, device=device)
        high = torch.tensor(self.start[2:], dtype=self.dtype, device=device)
        u = torch.rand(n, 2, generator=generator, dtype=self.dtype, device=device)
        x = torch.cat([low + (high - low) * u, torch.zeros_like(u)], -1)
        return {"x": x, "t": torch.zeros(n, dtype=torch.long, device=device)}, x

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """One step; the reward is that of the place reached."""
        p, v = state["x"][..., :2], state["x"][..., 2:]
        v = (0.95 * v + 0.2 * action.clamp(-1.0, 1.0)).clamp(-1.0, 1.0)
        x = torch.cat([p + 0.1 * v, v], -1)
        if self.kick:
            assert noise is not None, "kicks need noise"
            u = noise[..., 1:].clamp(1e-6, 1 - 1e-6)
            push = self.kick_std * torch.special.ndtri(u).to(x.dtype)
            x = x + torch.where(noise[..., :1] < self.kick, push, 0.0)
        gx, gy = self.goal
        reward = -torch.hypot(x[..., 0] - gx, x[..., 1] - gy)
        if self.hazard is not None:
            hx, hy, radius, penalty = self.hazard
            inside = torch.hypot(x[..., 0] - hx, x[..., 1] - hy) < radius
            reward = reward + penalty * inside.to(reward.dtype)
        t = state["t"] + 1
        ended = torch.zeros_like(t, dtype=torch.bool)
        return Step({"x": x, "t": t}, x, reward, ended, t >= self.horizon)


@dataclass(frozen=True)
class Controller:
    """A logged policy of POINT: a = clip(u + N(0, noise^2)), u = clip(-gain (2 (p - aim) + 1.5 v)).

    Attributes:
        gain: 1 is the expert's.
        aim: where the controller goes.
        wander: radius of the disc from which a wrong aim is drawn for each episode (added to
            `aim`).
        noise: standard deviation of the action noise.
        flip: probability per step that the action is negated.
        uniform: probability per step of a uniform action instead.
    """

    gain: float = 1.0
    aim: tuple[float, float] = (0.0, 0.0)
    wander: float = 0.0
    noise: float = 0.0
    flip: float = 0.0
    uniform: float = 0.0

    def aims(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n 2"]:
        """The aim of each of n episodes."""
        u = torch.rand(n, 2, generator=generator)
        radius, angle = self.wander * u[:, 0].sqrt(), 2 * math.pi * u[:, 1]
        return torch.tensor(self.aim) + torch.stack([radius * angle.cos(), radius * angle.sin()], 1)

    def mean(self, obs: Float[Tensor, "n 4"], aim: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """The clipped PD action."""
        u = -self.gain * (2.0 * (obs[..., :2] - aim) + 1.5 * obs[..., 2:])
        return u.clamp(-1.0, 1.0)

    def act(
        self,
        obs: Float[Tensor, "n 4"],
        aim: Float[Tensor, "n 2"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n 2"]:
        """Actions in [-1, 1]^2."""
        n = len(obs)
        a = self.mean(obs, aim)
        if self.flip:
            a = torch.where(torch.rand(n, 1, generator=generator) < self.flip, -a, a)
        if self.noise:
            a = (a + self.noise * torch.randn(n, 2, generator=generator)).clamp(-1.0, 1.0)
        if self.uniform:
            other = 2 * torch.rand(n, 2, generator=generator) - 1
            a = torch.where(torch.rand(n, 1, generator=generator) < self.uniform, other, a)
        return a

    def logp(
        self, obs: Float[Tensor, "n 4"], action: Float[Tensor, "n 2"], aim: Float[Tensor, "n 2"]
    ) -> Float[Tensor, "n"] | None:
        """The exact log-probability of an action given the aim; None where there is no density.

        Inside the bounds a density, on a bound the log of the mass that clipping put there; ratios
        of two controllers are right in both cases. Without noise the action has no density, unless
        all actions are uniform.
        """
        if self.uniform == 1.0:
            return torch.full((len(obs),), -2 * math.log(2.0), dtype=obs.dtype)
        if not self.noise:
            return None
        mean = self.mean(obs, aim)
        both = [clipped_normal(action, m, self.noise).sum(-1) for m in (mean, -mean)]
        logp = both[0]
        if self.flip:
            logp = torch.logaddexp(math.log1p(-self.flip) + both[0], math.log(self.flip) + both[1])
        if self.uniform:
            # the uniform part has a density inside the bounds and no mass on them
            inside = (action.abs() < 1).all(-1)
            flat = torch.where(inside, math.log(self.uniform) - 2 * math.log(2.0), -math.inf)
            logp = torch.logaddexp(math.log1p(-self.uniform) + logp, flat)
        return logp


CONTROLLERS: dict[str, Controller] = {
    "expert": Controller(),
    "noisy-expert": Controller(noise=0.1),
    "medium": Controller(wander=0.8, noise=0.3),
    "bimodal": Controller(flip=0.5),
    "random": Controller(uniform=1.0),
    "zero": Controller(gain=0.0),
    "weak-reference": Controller(aim=(0.6, 0.0)),
    "good-reference": Controller(aim=(0.3, 0.0)),
}
"""The controllers of the POINT logs, by name."""


def point_log(
    mix: str | Controller | Mapping[str | Controller, float] = "medium",
    steps: int = 20_000,
    seed: int = 0,
    env: PointMass | None = None,
) -> Transitions:
    """A log of POINT: whole episodes, at least `steps` rows, shares counted in episodes.

    `source` is the place of the controller in the mixture; `extras["aim"]` [N, 2] the episode's
    aim. `behavior_logp` is the exact log-probability given that aim, there only when every
    controller of the mixture has one.

    Args:
        mix: a name in `CONTROLLERS`, a controller, or shares such as `{"random": 0.8, "expert":
            0.2}`.
        steps: number of rows, rounded up to whole episodes.
        seed: of everything.
        env: the environment; the standard one by default.

    Raises:
        InputError: for an unknown name or shares that do not sum to one.
    """
    env = env or PointMass()
    shares = dict(mix) if isinstance(mix, Mapping) else {mix: 1.0}
    if abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0:
        raise InputError(f"the shares of a mixture must sum to one, got {list(shares.values())}")
    generator = torch.Generator().manual_seed(seed)
    episodes = math.ceil(steps / env.horizon)
    edges = [round(episodes * c) for c in _running(list(shares.values()))]
    logs = []
    for i, (who, low, high) in enumerate(zip(shares, [0, *edges], edges, strict=False)):
        if high > low:
            logs.append(_episodes(env, _controller(who), high - low, generator, source=i))
    names = [w if isinstance(w, str) else repr(w) for w in shares]
    about = About(
        name="point",
        spaces={"obs": (4,), "action": (2,), "action_low": -1.0, "action_high": 1.0},
        provenance={"controllers": names, "shares": list(shares.values()), "seed": seed},
    )
    return joined(logs).described(about)


def _controller(who: str | Controller) -> Controller:
    if isinstance(who, Controller):
        return who
    if who not in CONTROLLERS:
        raise InputError(f"no controller named {who!r}; there are {', '.join(CONTROLLERS)}")
    return CONTROLLERS[who]


def _running(shares: list[float]) -> list[float]:
    total, out = 0.0, []
    for share in shares:
        total += share
        out.append(total)
    return out


def _episodes(
    env: PointMass, who: Controller, n: int, generator: torch.Generator, source: int
) -> Transitions:
    state, obs = env.reset(n, generator)
    aim = who.aims(n, generator).to(obs.dtype)
    columns: dict[str, list[Tensor]] = {}
    for _ in range(env.horizon):
        action = who.act(obs, aim, generator).to(obs.dtype)
        noise = torch.rand(n, env.noise_dim, generator=generator) if env.noise_dim else None
        after = env.step(state, action, noise)
        row = {
            "obs": obs,
            "action": action,
            "reward": after.reward,
            "next_obs": after.obs,
            "terminated": after.terminated,
            "truncated": after.truncated,
        }
        logp = who.logp(obs, action, aim)
        if logp is not None:
            row["behavior_logp"] = logp
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
        state, obs = after.state, after.obs
    flat = {name: torch.stack(values, 1).flatten(0, 1) for name, values in columns.items()}
    rows = n * env.horizon
    return Transitions(
        **flat,
        episode=torch.arange(n).repeat_interleave(env.horizon),
        source=torch.full((rows,), source),
        extras=TensorDict({"aim": aim.repeat_interleave(env.horizon, 0)}, batch_size=[rows]),
        batch_size=[rows],  # type: ignore[call-arg]
    )


def clipped_normal(x: Tensor, mean: Tensor, std: float) -> Tensor:
    """Log-density of clip(N(mean, std^2), -1, 1) per entry; on a bound the log of its mass."""
    z = (x - mean) / std
    inside = -0.5 * z.square() - math.log(std) - 0.5 * math.log(2 * math.pi)
    below = torch.special.log_ndtr((-1.0 - mean) / std)
    above = torch.special.log_ndtr((mean - 1.0) / std)
    return torch.where(x <= -1.0, below, torch.where(x >= 1.0, above, inside))
