"""A policy that climbs a critic and is held by the score of a diffusion model of the behavior.

The slope of the divergence KL(pi_t || mu_t) of what both become under noise needs the score of mu_t
alone, so that no diffusion chain is ever run. Score Regularized Policy Optimization through
Diffusion Behavior (2023).
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["score_regularized"]

_OMEGA: dict[str, Callable[[Tensor], Tensor]] = {
    "variance": lambda abar: 1.0 - abar,
    "one": lambda abar: abar.new_ones(abar.shape),
    "score": lambda abar: (abar / (1.0 - abar)).sqrt(),
}


@part
def score_regularized(
    nets: Nets, rows: Rows, /, beta: float = 0.1, omega: str = "variance", low: float = 0.02,
    high: float = 0.98, centered: bool = True, unit: bool = False, q: str = "q_target",
    mu: str = "mu", pi: str = "pi",
) -> Float[Tensor, "B"]:  # fmt: skip
    """<omega(t) (eps_mu(a_t|s, t) - eps) - beta grad_a Q(s, a), pi(s)> at a = pi(s), what stands
    left in the product without gradient; a_t = alpha_t a + sigma_t eps, t ~ U(low, high), Q the
    mean of the ensemble.

    Args:
        beta: the weight of the critic: the larger, the further from the behavior.
        omega: the weight over t, "variance" (sigma_t^2), "one", or "score" (alpha_t / sigma_t).
            Between narrow modes that are far apart, "variance" leaves most of the weight to noise
            that blurs them into one, and pulls to their middle.
        centered: subtract eps, whose mean is 0, so that the slope varies less.
        unit: divide the critic's slope by its root mean square over the action's dimensions.

    Raises:
        InputError: when there is no such omega.
    """
    if omega not in _OMEGA:
        raise InputError(f"no weight over noise {omega!r}; there are {', '.join(_OMEGA)}")
    action = nets[pi](rows.obs)
    held = action.detach()
    guess, noise, abar = nets[mu].noise_at(rows.obs, held, low, high)
    away = _OMEGA[omega](abar)[:, None] * (guess - noise if centered else guess)
    slope = nets[q].action_gradients(rows.obs, held).mean(0)
    if unit:
        slope = slope / slope.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-8)
    return ((away - beta * slope).detach() * action).sum(-1)
