"""What changed between two policies: where, by how much, and which actions gave way to which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError

__all__ = ["Changes", "changes"]


@dataclass(frozen=True)
class Changes:
    """A policy beside an earlier one on the same states.

    Attributes:
        divergence: KL(before || after) in every state [N], in nats.
        moved: mass [A, A] that went from an action (row) to another, the mean over states.
    """

    divergence: Float[Tensor, "N"]
    moved: Float[Tensor, "A A"]

    def share(self, top: float = 0.2) -> float:
        """How much of the divergence lies in the share `top` of the states that changed the
        most."""
        kl = self.divergence.sort(descending=True).values
        total = float(kl.sum())
        return float(kl[: max(round(top * len(kl)), 1)].sum()) / total if total > 0 else 0.0

    def __str__(self) -> str:
        lines = [f"divergence {float(self.divergence.mean()):.3g} nats a state; a fifth of the "
                 f"states holds {100 * self.share():.0f} percent of it"]  # fmt: skip
        for a, row in enumerate(self.moved):
            for b, mass in enumerate(row):
                if a != b and mass >= 0.005:
                    lines.append(f"action {a} gave way to {b} at {100 * float(mass):.1f} percent")
        return "\n".join(lines)


def changes(
    before: Float[Tensor, "N A"], after: Float[Tensor, "N A"], weight: Tensor | None = None
) -> Changes:
    """Compare log-probabilities of all actions on the same states, as seen by the earlier policy.

    What an action lost in a state is taken to go to those that gained, in proportion.

    Args:
        before, after: log-probabilities. weight: of states [N]; all alike by default.

    Raises:
        InputError: when they are not of the same states and actions.
    """
    if before.shape != after.shape:
        raise InputError(f"log-probabilities {tuple(before.shape)} and {tuple(after.shape)} are "
                         "not of the same states and actions")  # fmt: skip
    p, q = before.double().exp(), after.double().exp()
    w = torch.ones(len(p)).double() if weight is None else weight.double()
    kl = (torch.where(p > 0, p * (before - after), 0.0)).sum(-1)
    lost, gained = (p - q).clamp_min(0), (q - p).clamp_min(0)
    to = gained / gained.sum(-1, keepdim=True).clamp_min(1e-300)
    flow = lost[:, :, None] * to[:, None, :]
    return Changes(kl * w / w.mean(), torch.einsum("n,nab->ab", w / w.sum(), flow))
