"""State values that are pessimistic where a model says that the policy leads, per row [B]."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["conservative_value", "reached", "value_gap"]


def imagined(
    model: Any, obs: Float[Tensor, "B d"], action: Float[Tensor, "B k"]
) -> Float[Tensor, "B d"]:
    """A next state drawn from one member of an ensemble, another for each row; differentiable in
    the action."""
    mean, log_var, _ = model(obs, action)
    drawn = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
    chosen = torch.randint(drawn.shape[0], obs.shape[:1], device=obs.device)
    one = drawn.gather(0, chosen[None, :, None].expand(1, -1, drawn.shape[-1]))[0]
    return obs + one[:, :-1]


def gap_of(nets: Nets, rows: Rows, clip: float, v: str, pi: str, model: str) -> Tensor:
    """V(s~) - V(s'), s~ reached by the policy's central action inside the model, [B]."""
    after = imagined(nets[model], rows.obs, nets[pi](rows.obs)).detach().clamp(-clip, clip)
    judge = nets[v]
    return (judge(after) - judge(rows.next_obs)).mean(0)


@part
def conservative_value(
    nets: Nets, rows: Rows, /, weight: float = 5.0, threshold: float = 10.0, clip: float = 10.0,
    cap: float = 1e6, q: str = "q_target", v: str = "v", pi: str = "pi", model: str = "model",
    alpha: str = "alpha",
) -> dict[str, Float[Tensor, "B"]]:  # fmt: skip
    """Two terms, for the net V:

        value   (V(s) - min_i Q_i(s, a))^2,  a ~ pi
        gap     alpha (weight (V(s~) - V(s')) - threshold),  s~ ~ model(s, pi(s)), s' logged

    States are in standard units, in which s~ is kept within +-clip; alpha counts up to `cap`.

    Conservative State Value Estimation for Offline Reinforcement Learning (CSVE, 2023).
    """
    action, _ = nets[pi].sample(rows.obs)
    worth = nets[q](rows.obs, action).amin(0).detach()
    gap = gap_of(nets, rows, clip, v, pi, model)
    price = nets[alpha]().detach().clamp(max=cap)
    return {
        "value": (nets[v](rows.obs) - worth).square().sum(0),
        "gap": price * (weight * gap - threshold),
    }


@part
def value_gap(
    nets: Nets, rows: Rows, /, weight: float = 5.0, threshold: float = 10.0, clip: float = 10.0,
    cap: float = 1e6, v: str = "v", pi: str = "pi", model: str = "model", alpha: str = "alpha",
) -> Float[Tensor, "B"]:  # fmt: skip
    """-alpha (weight (V(s~) - V(s')) - threshold): alpha, which this trains, grows while values
    where the policy leads stand more than threshold / weight above those of the log."""
    gap = gap_of(nets, rows, clip, v, pi, model).detach()
    return -nets[alpha]().clamp(max=cap) * (weight * gap - threshold)


@part
def reached(
    nets: Nets, rows: Rows, /, bound: float = 1500.0, v: str = "v", pi: str = "pi",
    model: str = "model",
) -> Float[Tensor, "B"]:  # fmt: skip
    """-V(s~), s~ ~ model(s, a), a ~ pi, V kept within +-bound: the gradient passes through the
    model into the action, which the log need not have."""
    action, _ = nets[pi].sample(rows.obs)
    after = imagined(nets[model], rows.obs, action)
    return -nets[v](after).mean(0).clamp(-bound, bound)
