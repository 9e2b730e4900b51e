"""Values of a policy from what it earned itself and from a log of others, in one regression.

Offline Data Enhanced On-Policy Policy Gradient with Provable Guarantees (2023).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from surpass.objectives.confidence import Seen

__all__ = ["Both", "hybrid_values"]


class Both(NamedTuple):
    """The last batch of the policy's own episodes: how often each pair was met at each step, `n`
    [H, S, A], and the returns-to-go in all, `togo` [H, S, A]; the `log` of others; and the last
    plan (None at first)."""

    n: Float[np.ndarray, "H S A"]
    togo: Float[np.ndarray, "H S A"]
    log: Seen
    last: Any = None


def _shares(n: Float[np.ndarray, "S A"], weight: float) -> Float[np.ndarray, "S A"]:
    return weight * n / max(n.sum(), 1.0)


def hybrid_values(
    both: Both, pi: Float[np.ndarray, "H S A"], lam: float = 1.0, own: float = 1.0,
    phi: Float[np.ndarray, "S A d"] | None = None, ridge: float = 1e-6,
) -> Float[np.ndarray, "H S A"]:  # fmt: skip
    """Backward from the last step, f_h = phi'w_h with the least

        own mean_on (f_h(s, a) - G_h)^2
        + lam mean_off (f_h(s, a) - r - E_{a' ~ pi_{h+1}} f_{h+1}(s', a'))^2 + ridge |w|^2.

    Own targets are returns, never bootstrapped, so that they hold where the class is not closed
    under the Bellman operator. No phi is one feature for each pair: then a pair that neither saw
    is worth 0.
    """
    H, S, A = both.n.shape
    seen = both.log.n.sum(-1)
    flat = np.zeros((S * A, 0)) if phi is None else phi.reshape(S * A, -1)
    f, v = np.zeros((H, S, A)), np.zeros(S)
    for h in reversed(range(H)):
        mine, theirs = _shares(both.n[h], own), _shares(seen[h], lam)
        weight = (mine + theirs).ravel()
        paid = both.togo[h] * own / max(both.n[h].sum(), 1.0)
        paid = paid + lam * (both.log.paid[h] + both.log.n[h] @ v) / max(seen[h].sum(), 1.0)
        if phi is None:
            f[h] = paid / (weight.reshape(S, A) + ridge)
        else:
            gram = flat.T @ (weight[:, None] * flat) + ridge * np.eye(flat.shape[1])
            f[h] = (flat @ np.linalg.solve(gram, flat.T @ paid.ravel())).reshape(S, A)
        v = (pi[h] * f[h]).sum(1)
    return f
