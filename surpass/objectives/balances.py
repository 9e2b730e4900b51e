"""Losses of a family of policies, and of the net that chooses among them, per row [B]."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["chosen", "family_clone"]


@part
def chosen(
    nets: Nets, rows: Rows, /, target: float = -0.5, q: str = "q_target", pi: str = "pi",
    balance: str = "balance", eta: str = "eta",
) -> dict[str, Float[Tensor, "B"]]:  # fmt: skip
    """The balance model and the weight of its entropy in one pass: terms "balance" and
    "temperature".

        balance      eta log p(z|s) - min_i Q_i(s, a),  z ~ p, a ~ pi(.|s, b(z)), reparameterized
        temperature  -eta (log p(z|s) + target)

    The step trains both nets; neither term's gradient reaches the other's, nor the family.

    Train Once, Get a Family: State-Adaptive Balances for Offline-to-Online Reinforcement Learning
    (FamO2O, 2023).
    """
    b, logp = nets[balance].sample(rows.obs)
    action, _ = nets[pi].sample(rows.obs, b)
    worth = nets[q](rows.obs, action).amin(0)
    price = nets[eta]()
    return {
        "balance": price.detach() * logp - worth,
        "temperature": -price * (logp.detach() + target),
    }


@part
def family_clone(
    nets: Nets, rows: Rows, /, low: float | None = 1.0, high: float = 5.0, cap: float = 100.0,
    q: str = "q_target", v: str = "v", pi: str = "pi", balance: str = "balance",
) -> Float[Tensor, "B"]:  # fmt: skip
    """-min(exp(b (min_i Q_i(s, a) - V(s))), cap) log pi(a|s, b): b is even between `low` and
    `high`, or, where `low` is None, drawn from the balance model.

    Train Once, Get a Family: State-Adaptive Balances for Offline-to-Online Reinforcement Learning
    (FamO2O, 2023).
    """
    if low is None:
        b = nets[balance].sample(rows.obs)[0].detach()
    else:
        b = low + (high - low) * torch.rand_like(rows.reward)
    gain = nets[q](rows.obs, rows.action).amin(0) - nets[v](rows.obs).amin(0)
    weight = (b * gain).exp().clamp(max=cap).detach()
    return -weight * nets[pi].logp(rows.obs, rows.action, b)
