"""Values whose Bellman residual weighs the log: distribution correction by a dual problem.

The value minimizes (1 - lam) E[V(s)] + lam E[f*(r + gamma (1 - done) V(s') - V(s))], f* the convex
conjugate of a divergence between the learned and the logged visitation. Both ends of the residual
move with V; which of the two gradients is followed is what the methods differ in. `e` is the
residual, clipped at zero it weighs the cloning of actions.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows, discounted, span_of
from surpass.parts import Nets, part

__all__ = ["chi2_conjugate", "chi2_dice", "forward_residual"]


def chi2_conjugate(y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """f*(y) = y w - (w - 1)^2, w = max(y / 2 + 1, 0): of the Pearson chi-square divergence over
    weights that are not negative. Its derivative is w."""
    w = (0.5 * y + 1.0).clamp(min=0.0)
    return y * w - (w - 1.0).square()


@part
def chi2_dice(
    nets: Nets, rows: Rows, /, lam: float = 0.6, gamma: float = 0.99, v: str = "v",
    target: str = "v_target",
) -> dict[str, Float[Tensor, "B"]]:  # fmt: skip
    """Three terms, summed over the members of V:

        value     (1 - lam) V(s)
        forward   lam f*(r + gamma (1 - done) V'(s') - V(s))        its gradient is that of V(s)
        backward  lam f*(r + gamma (1 - done) V(s') - V'(s))        its gradient is that of V(s')

    V' is the lowest of a slow copy. "ODICE: Revealing the Mystery of Distribution Correction
    Estimation via Orthogonal-gradient Update" (2024).
    """
    keep = span_of(rows, gamma) * (1.0 - rows.terminated)
    reward = discounted(rows, gamma)
    here, after = nets[v](rows.obs), nets[v](rows.next_obs)
    slow_here = nets[target](rows.obs).amin(0).detach()
    slow_after = nets[target](rows.next_obs).amin(0).detach()
    forward = chi2_conjugate(reward + keep * slow_after - here)
    backward = chi2_conjugate(reward + keep * after - slow_here)
    return {
        "value": (1.0 - lam) * here.sum(0),
        "forward": lam * forward.sum(0),
        "backward": lam * backward.sum(0),
    }


@part
def forward_residual(
    nets: Nets, rows: Rows, /, cap: float = 100.0, gamma: float = 0.99, sharp: bool = True,
    v: str = "v", target: str = "v_target",
) -> Float[Tensor, "B"]:  # fmt: skip
    """max(e, 0), e = r + gamma (1 - done) V'(s') - V(s), at most `cap`: a logged action counts for
    what it was better than expected. Without `sharp` it is the visitation's own weight,
    max(e / 2 + 1, 0)."""
    keep = span_of(rows, gamma) * (1.0 - rows.terminated)
    after = nets[target](rows.next_obs).amin(0)
    e = discounted(rows, gamma) + keep * after - nets[v](rows.obs).amin(0)
    weight = e if sharp else 0.5 * e + 1.0
    return weight.clamp(min=0.0, max=cap)
