"""Classic control as pure batched torch: pendulum, cart-pole, mountain car, acrobot.

The equations, limits and rewards are those of the Gymnasium environments of the same names
("Gymnasium: A Standard Interface for Reinforcement Learning Environments", 2024), which the tests
hold them against step by step; masses, lengths and gravity are arguments, so that a simulator may
be wrong on purpose. State: `x` [n, k] and the step `t` [n].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from surpass.tasks.protocol import Spaces, State, Step

__all__ = ["Acrobot", "CartPole", "DiscreteMountainCar", "MountainCar", "Pendulum"]


def _begin(
    n: int,
    low: tuple[float, ...],
    high: tuple[float, ...],
    generator: torch.Generator | None,
    dtype: torch.dtype,
) -> State:
    device = generator.device if generator is not None else None
    lo = torch.tensor(low, dtype=dtype, device=device)
    span = torch.tensor(high, dtype=dtype, device=device) - lo
    x = lo + span * torch.rand(n, len(low), generator=generator, dtype=dtype, device=device)
    return {"x": x, "t": torch.zeros(n, dtype=torch.long, device=device)}


def _no_end(t: Tensor) -> Tensor:
    return torch.zeros_like(t, dtype=torch.bool)


@dataclass(frozen=True)
class Pendulum:
    """Pendulum-v1: swing up and hold. Observation (cos, sin, speed); torque in [-2, 2]; 200 steps.

    Reward: -(angle^2 + 0.1 speed^2 + 0.001 torque^2), angle in [-pi, pi], 0 upright.
    """

    gravity: float = 10.0
    mass: float = 1.0
    length: float = 1.0
    friction: float = 0.0
    dt: float = 0.05
    horizon: int = 200
    dtype: torch.dtype = torch.float32
    noise_dim: int = field(default=0, init=False)

    @property
    def spaces(self) -> Spaces:
        """Three numbers in, one torque out."""
        return Spaces(3, action_dim=1, low=(-2.0,), high=(2.0,), horizon=self.horizon)

    def observe(self, x: Tensor) -> Tensor:
        """[..., 2] angle and speed to [..., 3] cosine, sine and speed."""
        angle, speed = x.unbind(-1)
        return torch.stack([angle.cos(), angle.sin(), speed], -1)

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """Angles uniform on the circle, speeds on [-1, 1]."""
        state = _begin(n, (-math.pi, -1.0), (math.pi, 1.0), generator, self.dtype)
        return state, self.observe(state["x"])

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """One step of semi-implicit Euler."""
        angle, speed = state["x"].unbind(-1)
        torque = action[..., 0].clamp(-2.0, 2.0)
        wrapped = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        reward = -(wrapped.square() + 0.1 * speed.square() + 0.001 * torque.square())
        pull = 3 * self.gravity / (2 * self.length) * angle.sin()
        push = 3.0 / (self.mass * self.length**2) * (torque - self.friction * speed)
        speed = (speed + (pull + push) * self.dt).clamp(-8.0, 8.0)
        x = torch.stack([angle + speed * self.dt, speed], -1)
        t = state["t"] + 1
        return Step({"x": x, "t": t}, self.observe(x), reward, _no_end(t), t >= self.horizon)


@dataclass(frozen=True)
class CartPole:
    """CartPole-v1: push left (0) or right (1) to keep the pole up.

    Observation (x, speed, angle, turn). Reward 1 per step; terminated when |x| > 2.4 or |angle| >
    12 degrees, truncated after 500 steps. `wind` is a force that always pushes, 0 in CartPole-v1.
    """

    gravity: float = 9.8
    cart_mass: float = 1.0
    pole_mass: float = 0.1
    half_length: float = 0.5
    force: float = 10.0
    wind: float = 0.0
    dt: float = 0.02
    horizon: int = 500
    dtype: torch.dtype = torch.float32
    noise_dim: int = field(default=0, init=False)

    @property
    def spaces(self) -> Spaces:
        """Four numbers in, one of two pushes out."""
        return Spaces(4, n_actions=2, horizon=self.horizon)

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """All four numbers uniform on [-0.05, 0.05]."""
        state = _begin(n, (-0.05,) * 4, (0.05,) * 4, generator, self.dtype)
        return state, state["x"]

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """One step of explicit Euler (Barto, Sutton and Anderson, 1983; Florian, 2005)."""
        x, speed, angle, turn = state["x"].unbind(-1)
        total = self.cart_mass + self.pole_mass
        moment = self.pole_mass * self.half_length
        force = (2.0 * action.to(x.dtype) - 1.0) * self.force + self.wind
        cos, sin = angle.cos(), angle.sin()
        temp = (force + moment * turn.square() * sin) / total
        twist = (self.gravity * sin - cos * temp) / (
            self.half_length * (4.0 / 3.0 - self.pole_mass * cos.square() / total)
        )
        push = temp - moment * twist * cos / total
        new = torch.stack(
            [
                x + self.dt * speed,
                speed + self.dt * push,
                angle + self.dt * turn,
                turn + self.dt * twist,
            ],
            -1,
        )
        t = state["t"] + 1
        fallen = (new[..., 0].abs() > 2.4) | (new[..., 2].abs() > 12 * 2 * math.pi / 360)
        return Step(
            {"x": new, "t": t}, new, torch.ones_like(x), fallen, (t >= self.horizon) & ~fallen
        )


@dataclass(frozen=True)
class MountainCar:
    """MountainCarContinuous-v0: a weak engine, force in [-1, 1]. Observation (position, speed).

    Reward 100 at the top (position 0.45, terminated), less 0.1 force^2; truncated after 999 steps.
    """

    power: float = 0.0015
    gravity: float = 0.0025
    horizon: int = 999
    dtype: torch.dtype = torch.float32
    noise_dim: int = field(default=0, init=False)

    @property
    def spaces(self) -> Spaces:
        """Two numbers in, one force out."""
        return Spaces(2, action_dim=1, low=(-1.0,), high=(1.0,), horizon=self.horizon)

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """Positions uniform on [-0.6, -0.4], at rest."""
        state = _begin(n, (-0.6, 0.0), (-0.4, 0.0), generator, self.dtype)
        return state, state["x"]

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """One step."""
        position, speed = state["x"].unbind(-1)
        force = action[..., 0].clamp(-1.0, 1.0)
        speed = speed + force * self.power - self.gravity * (3 * position).cos()
        speed = speed.clamp(-0.07, 0.07)
        position = (position + speed).clamp(-1.2, 0.6)
        speed = torch.where((position <= -1.2) & (speed < 0), 0.0, speed)
        top = (position >= 0.45) & (speed >= 0)
        reward = 100.0 * top.to(position.dtype) - 0.1 * action[..., 0].square()
        x, t = torch.stack([position, speed], -1), state["t"] + 1
        return Step({"x": x, "t": t}, x, reward, top, (t >= self.horizon) & ~top)


@dataclass(frozen=True)
class DiscreteMountainCar:
    """MountainCar-v0: the same hill with force -1, 0 or 1 (actions 0, 1, 2) and a weaker engine.

    Reward -1 per step; terminated at position 0.5 with a speed that is not negative, truncated
    after 200 steps (Moore, "Efficient Memory-Based Learning for Robot Control", 1990).
    """

    power: float = 0.001
    gravity: float = 0.0025
    horizon: int = 200
    dtype: torch.dtype = torch.float32
    noise_dim: int = field(default=0, init=False)

    @property
    def spaces(self) -> Spaces:
        """Two numbers in, one of three forces out."""
        return Spaces(2, n_actions=3, horizon=self.horizon)

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """Positions uniform on [-0.6, -0.4], at rest."""
        state = _begin(n, (-0.6, 0.0), (-0.4, 0.0), generator, self.dtype)
        return state, state["x"]

    def moves(self, x: Tensor, action: Tensor) -> Tensor:
        """Where states [n, 2] get by actions [n]."""
        position, speed = x.unbind(-1)
        force = action.to(x.dtype) - 1.0
        speed = speed + force * self.power - self.gravity * (3 * position).cos()
        speed = speed.clamp(-0.07, 0.07)
        position = (position + speed).clamp(-1.2, 0.6)
        speed = torch.where((position <= -1.2) & (speed < 0), 0.0, speed)
        return torch.stack([position, speed], -1)

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """One step."""
        x, t = self.moves(state["x"], action), state["t"] + 1
        top = (x[..., 0] >= 0.5) & (x[..., 1] >= 0)
        reward = -torch.ones_like(x[..., 0])
        return Step({"x": x, "t": t}, x, reward, top, (t >= self.horizon) & ~top)


@dataclass(frozen=True)
class Acrobot:
    """Acrobot-v1: two links, torque -1, 0 or 1 at the middle joint (actions 0, 1, 2), lift the tip.

    Observation (cos, sin of both angles, both speeds). Reward -1 per step, 0 at the end; terminated
    when the tip is one link above the base, truncated after 500 steps (Sutton, "Generalization in
    Reinforcement Learning", 1996).
    """

    gravity: float = 9.8
    dt: float = 0.2
    horizon: int = 500
    dtype: torch.dtype = torch.float32
    noise_dim: int = field(default=0, init=False)

    @property
    def spaces(self) -> Spaces:
        """Six numbers in, one of three torques out."""
        return Spaces(6, n_actions=3, horizon=self.horizon)

    def observe(self, x: Tensor) -> Tensor:
        """[..., 4] angles and speeds to [..., 6]."""
        a, b, da, db = x.unbind(-1)
        return torch.stack([a.cos(), a.sin(), b.cos(), b.sin(), da, db], -1)

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """All four numbers uniform on [-0.1, 0.1]."""
        state = _begin(n, (-0.1,) * 4, (0.1,) * 4, generator, self.dtype)
        return state, self.observe(state["x"])

    def _rates(self, x: Tensor, torque: Tensor) -> Tensor:
        # unit masses, lengths and moments; centers of mass in the middle of the links
        a, b, da, db = x.unbind(-1)
        d1 = 0.25 + (1.25 + b.cos()) + 2.0
        d2 = 0.25 + 0.5 * b.cos() + 1.0
        fall2 = 0.5 * self.gravity * (a + b - math.pi / 2).cos()
        fall1 = (
            -0.5 * db.square() * b.sin()
            - db * da * b.sin()
            + 1.5 * self.gravity * (a - math.pi / 2).cos()
            + fall2
        )
        ddb = torque + d2 / d1 * fall1 - 0.5 * da.square() * b.sin() - fall2
        ddb = ddb / (1.25 - d2.square() / d1)
        dda = -(d2 * ddb + fall1) / d1
        return torch.stack([da, db, dda, ddb], -1)

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """One step of the classical Runge-Kutta method."""
        x, h = state["x"], self.dt
        torque = action.to(x.dtype) - 1.0
        k1 = self._rates(x, torque)
        k2 = self._rates(x + h / 2 * k1, torque)
        k3 = self._rates(x + h / 2 * k2, torque)
        k4 = self._rates(x + h * k3, torque)
        a, b, da, db = (x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)).unbind(-1)
        a, b = (torch.remainder(y + math.pi, 2 * math.pi) - math.pi for y in (a, b))
        da, db = da.clamp(-4 * math.pi, 4 * math.pi), db.clamp(-9 * math.pi, 9 * math.pi)
        new, t = torch.stack([a, b, da, db], -1), state["t"] + 1
        up = -a.cos() - (a + b).cos() > 1.0
        reward = up.to(x.dtype) - 1.0
        return Step({"x": new, "t": t}, self.observe(new), reward, up, (t >= self.horizon) & ~up)
