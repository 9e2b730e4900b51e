"""Flow policies: actions by following a velocity from noise, F Euler steps.

The density of what a flow samples is known exactly (the steps are maps). Flows that are trained
through all their steps are in `recurrent_flow`.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Acted, Policy, Spaces
from surpass.objectives.denoising import (
    euler,
    euler_inverse,
    guided,
    value_guided,
    velocity_loss,
)
from surpass.parts import Nets, part
from surpass.policies.denoisers import Denoiser
from surpass.policies.diffusion import continuous_only

__all__ = ["ClimbingFlow", "Flow", "GuidedFlow", "flow", "guided_by_label", "guided_by_value"]


class Flow(nn.Module):
    """p(a|s) as the end of a flow from N(0, I); label 0 is the unconditional one."""

    def __init__(self, net: Denoiser, size: int, steps: int) -> None:
        super().__init__()
        self.net, self.size, self.steps = net, size, steps

    def imitation(
        self, obs: Float[Tensor, "B d"], action: Float[Tensor, "B k"],
        label: int | Int[Tensor, "B"] = 0,
    ) -> Float[Tensor, "B"]:  # fmt: skip
        """The velocity's error at one random time a row."""
        return velocity_loss(self.net.at(obs, label), action)

    def decode(
        self, obs: Float[Tensor, "B d"], noise: Float[Tensor, "... B k"], steps: int | None = None
    ) -> Float[Tensor, "... B k"]:
        """An action from noise, the same one each time."""
        return euler(self.net.at(obs), noise, steps or self.steps, clip=1.0)

    def noise(self, obs: Tensor, samples: int | None = None) -> Tensor:
        """N(0, I) of the shape of actions."""
        lead = () if samples is None else (samples,)
        return torch.randn(*lead, obs.shape[0], self.size, device=obs.device)

    def sample(self, obs: Float[Tensor, "B d"], samples: int | None = None) -> tuple[Tensor, None]:
        """Actions [B, k] or [m, B, k]; their density, where it is wanted, from `logp`."""
        return self.decode(obs, self.noise(obs, samples)), None

    def logp(self, obs: Float[Tensor, "B d"], action: Float[Tensor, "B k"]) -> Float[Tensor, "B"]:
        """The exact log-density of the unclipped action, in nats."""
        return euler_inverse(self.net.at(obs), action, self.steps)[1]

    def forward(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "B k"]:
        """The action that no noise decodes to."""
        return self.decode(obs, torch.zeros(obs.shape[0], self.size, device=obs.device))


@part
def flow(
    spaces: Spaces, /, steps: int = 16, hidden: int = 256, blocks: int = 3, labels: int = 0,
    expansion: int = 4, chunk: int = 1,
) -> nn.Module:  # fmt: skip
    """A flow-matching policy of `steps` Euler steps; with `labels`, one net for all conditions.

    Raises:
        InputError: when actions are discrete.
    """
    continuous_only(spaces, "a flow policy")
    size = spaces.action_dim * chunk
    return Flow(Denoiser(size, spaces.obs_dim, hidden, blocks, labels, expansion), size, steps)


# ----------------------------------------------------------------------------------------------
# guidance


class GuidedFlow:
    """A flow policy pushed from its unconditional law toward a label, as strongly as `weight`
    says when it acts: `policy.given(weight=5.0)`."""

    def __init__(self, pi: Flow, weight: float, label: int) -> None:
        self.pi, self.weight, self.label = pi, weight, label

    def act(self, obs: Tensor, memory: Any = None) -> Acted:
        """One action for each observation."""
        net = self.pi.net
        predict = guided(net.at(obs, 0), net.at(obs, self.label), self.weight)
        return Acted(euler(predict, self.pi.noise(obs), self.pi.steps, clip=1.0), None, memory)

    def given(self, **condition: Any) -> Policy:
        """The same flow under another `weight` or `label`."""
        return GuidedFlow(self.pi, **{"weight": self.weight, "label": self.label, **condition})


@part
def guided_by_label(
    nets: Nets, roles: Any, /, weight: float = 3.0, label: int = 1, pi: str = "pi"
) -> Policy:
    """Classifier-free guidance: weight 0 is the behavior, 1 the policy that was cloned under the
    label, and what lies beyond improves on it."""
    return GuidedFlow(nets[pi], weight, label)


_WHERE = ("clean", "noisy", "through")


class ClimbingFlow:
    """A flow policy that climbs a critic while it removes noise, as strongly as `weight` says when
    it acts: `policy.given(weight=2.0)`. `at` says where the critic is asked (`value_guided`)."""

    def __init__(
        self, pi: Flow, q: Any, weight: float, at: str = "clean", clip: float | None = 1.0
    ) -> None:
        if at not in _WHERE:
            raise InputError(
                f"a critic is asked at {at!r}, which is nowhere; take one of {', '.join(_WHERE)}"
            )
        self.pi, self.q, self.weight, self.at, self.clip = pi, q, weight, at, clip

    def act(self, obs: Tensor, memory: Any = None) -> Acted:
        """One action for each observation."""
        action = value_guided(
            self.pi.net.at(obs), lambda a: self.q.action_gradients(obs, a).mean(0),
            self.pi.noise(obs), self.pi.steps, self.weight, self.at, self.clip,
        )  # fmt: skip
        return Acted(action, None, memory)

    def given(self, **condition: Any) -> Policy:
        """The same flow and critic under another `weight`, or asked elsewhere."""
        known = {"weight": self.weight, "at": self.at, "clip": self.clip}
        return ClimbingFlow(self.pi, self.q, **{**known, **condition})


@part
def guided_by_value(
    nets: Nets, roles: Any, /, weight: float = 1.0, at: str = "clean", pi: str = "pi", q: str = "q"
) -> Policy:
    """x <- x + (v(s, x) + weight g) / F, g the critics' mean slope in the action at "clean", where
    one step from x would end; at "noisy", x itself; or "through" the velocity. Weight 0 is the
    behavior.

    Test-Time Gradient Guidance of Flow Policies in Reinforcement Learning (2026).

    Raises:
        InputError: when there is no such place.
    """
    return ClimbingFlow(nets[pi], nets[q], weight, at)
