"""A critic of the best values from counts, by least squares on features, raised where little was
seen; and how much was learned since it was fitted.

Features phi(s, a) are [S, A, d]; None stands for one of each pair, a table, where everything below
is a division. Rewards lie in [0, 1].
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from surpass.objectives.confidence import Seen

__all__ = ["best_values", "log_volume"]

Features = Float[np.ndarray, "S A d"] | None


def _gram(n: Float[np.ndarray, "H S A"], phi: np.ndarray, lam: float) -> np.ndarray:
    return np.einsum("hsa,sai,saj->hij", n, phi, phi) + lam * np.eye(phi.shape[-1])


def log_volume(
    n: Float[np.ndarray, "H S A"], phi: Features = None, lam: float = 1.0
) -> Float[np.ndarray, "H"]:
    """log det Lambda_h, Lambda_h = lam I + sum phi phi' over what was seen at step h."""
    if phi is None:
        return np.log(lam + n).sum((1, 2))
    return np.linalg.slogdet(_gram(n, phi, lam))[1]


def best_values(
    seen: Seen, b: float, phi: Features = None, lam: float = 1.0
) -> Float[np.ndarray, "H S A"]:
    """Backward from the last step, all that was seen in one regression whoever acted, for the
    target is the best action's:

        w_h = Lambda_h^-1 sum phi (r + max_a Q_{h+1}(s', a)),
        Q_h = min(phi'w_h + b |phi| in the inverse of Lambda_h, H - h), not below 0.

    Provably Efficient Reinforcement Learning with Linear Function Approximation (LSVI-UCB, 2019).
    """
    n = seen.n.sum(-1)
    H, S, A = n.shape
    q, v = np.zeros((H, S, A)), np.zeros(S)
    inverse = None if phi is None else np.linalg.inv(_gram(n, phi, lam))
    for h in reversed(range(H)):
        target = seen.paid[h] + seen.n[h] @ v
        if phi is None or inverse is None:
            fit, doubt = target / (lam + n[h]), 1 / (lam + n[h])
        else:
            fit = phi @ (inverse[h] @ np.einsum("sa,sai->i", target, phi))
            doubt = np.einsum("sai,ij,saj->sa", phi, inverse[h], phi)
        q[h] = np.clip(fit + b * np.sqrt(doubt), 0.0, H - h)
        v = q[h].max(1)
    return q
