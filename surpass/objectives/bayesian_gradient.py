"""The policy gradient as an integral whose integrand is a Gaussian process: its mean, which is a
weighted sum of the scores that were seen, and how sure that is.

A trajectory's score is u = sum_t grad log pi(a_t|s_t), n numbers; U [n, M] has those of M
trajectories (or, for a critic, of M decisions), and G = E[u u'] is Fisher's matrix. Kernels are
chosen such that the integrals have closed forms. All functions take further axes in front.

Bayesian Policy Gradient and Actor-Critic Algorithms (2016). Its dictionary of kept trajectories is
not here: all count. The natural gradient is G^-1 times the mean.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "Gradient", "action_values", "differences", "fisher", "fisher_kernel", "integrand_model",
    "regular", "return_model",
]  # fmt: skip


class Gradient(NamedTuple):
    """The posterior mean [n] of the gradient, its covariance [n, n] in units of the prior, and
    `weight` [M]: the mean is U weight."""

    mean: Tensor
    covariance: Tensor
    weight: Tensor


def _eye(n: int, like: Tensor) -> Tensor:
    return torch.eye(n, dtype=like.dtype, device=like.device)


def fisher(U: Float[Tensor, "... n M"], tiny: float = 1e-3) -> Float[Tensor, "... n n"]:
    """The mean of u u', and `tiny` of the mean diagonal on top, so that it has an inverse.

    Not of the trajectories whose gradient is wanted: then Model 2 with little noise is Monte Carlo
    again. The policy is known, so scores of actions drawn anew in the states visited will do.
    """
    n, M = U.shape[-2:]
    return regular(U @ U.mT / M, tiny)


def regular(G: Float[Tensor, "... n n"], tiny: float = 1e-3) -> Float[Tensor, "... n n"]:
    """G and `tiny` of its mean diagonal."""
    scale = G.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return G + (tiny * scale + 1e-12) * _eye(G.shape[-1], G)


def fisher_kernel(
    U: Float[Tensor, "... n M"], G: Float[Tensor, "... n n"]
) -> Float[Tensor, "... M M"]:
    """u_i' G^-1 u_j."""
    return U.mT @ torch.linalg.solve(G, U)


def _applied(U: Tensor, weight: Tensor) -> Tensor:
    return (U @ weight[..., None])[..., 0]


def _inverse(K: Tensor, sigma: float) -> Tensor:
    return torch.linalg.inv(K + sigma**2 * _eye(K.shape[-1], K))


def integrand_model(
    U: Float[Tensor, "... n M"], y: Float[Tensor, "... M"], G: Float[Tensor, "... n n"],
    sigma: float = 0.3,
) -> Gradient:  # fmt: skip
    """Model 1: each entry of R(xi) u(xi) is a Gaussian process of kernel (1 + u_i'G^-1 u_j)^2 = K.

    mean = U diag(y) C b,  covariance = (1 + n - b'C b) I,
    C = (K + sigma^2 I)^-1,  b_i = E[k(xi, xi_i)] = 1 + u_i'G^-1 u_i.
    """
    inner = fisher_kernel(U, G)
    C = _inverse((1 + inner).square(), sigma)
    b = 1 + inner.diagonal(dim1=-2, dim2=-1)
    held = (C @ b[..., None])[..., 0]
    weight, n = y * held, U.shape[-2]
    left = 1 + n - (b * held).sum(-1)
    return Gradient(_applied(U, weight), left[..., None, None] * _eye(n, U), weight)


def return_model(
    U: Float[Tensor, "... n M"], y: Float[Tensor, "... M"], G: Float[Tensor, "... n n"],
    sigma: float = 0.3,
) -> Gradient:  # fmt: skip
    """Model 2: the return R(xi) is a Gaussian process of mean 0 (so center y) and kernel
    u_i'G^-1 u_j = K; the scores are known.

        mean = U C y,  covariance = G - U C U',  C = (K + sigma^2 I)^-1.

    With a large sigma the mean points where the plain sum U y does.
    """
    C = _inverse(fisher_kernel(U, G), sigma)
    weight = (C @ y[..., None])[..., 0]
    return Gradient(_applied(U, weight), G - U @ C @ U.mT, weight)


def differences(goes_on: Float[Tensor, "... M"], gamma: float) -> Float[Tensor, "... M M"]:
    """H of the rewards of decisions in order, r = H Q + noise: 1 on the diagonal, -gamma beside it
    where the next decision is of the same episode (`goes_on`, 1 or 0)."""
    M = goes_on.shape[-1]
    return _eye(M, goes_on) - gamma * torch.diag_embed(goes_on[..., :-1], offset=1)


def action_values(
    U: Float[Tensor, "... n M"], reward: Float[Tensor, "... M"], G: Float[Tensor, "... n n"],
    H: Float[Tensor, "... M M"], states: Float[Tensor, "... M M"] | float = 0.0,
    sigma: float = 0.3, noise: str = "returns",
) -> Gradient:  # fmt: skip
    """Bayesian actor-critic: Q is a Gaussian process of kernel k_x(x, x') + u(z)'G^-1 u(z') = K,
    z = (x, a), seen through r = H Q + noise of covariance Sigma. What the state kernel adds has no
    part in the gradient, for E_a[u] = 0 in each state.

        mean = U alpha,             alpha = H'(H K H' + Sigma)^-1 r,
        covariance = G - U C U',    C = H'(H K H' + Sigma)^-1 H.

    The mean is that of one decision: times the number of decisions it is an episode's gradient.
    `noise`: of the returns, Sigma = sigma^2 H H', or of each reward, Sigma = sigma^2 I.
    """
    K = fisher_kernel(U, G) + states
    spread = H @ H.mT if noise == "returns" else _eye(K.shape[-1], K)
    inside = H @ K @ H.mT + sigma**2 * spread
    alpha = (H.mT @ torch.linalg.solve(inside, reward[..., None]))[..., 0]
    C = H.mT @ torch.linalg.solve(inside, H)
    return Gradient(_applied(U, alpha), G - U @ C @ U.mT, alpha)
