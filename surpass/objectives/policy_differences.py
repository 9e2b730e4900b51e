"""How policies differ from a reference: in value, along the states, and what has to be known for
it.

With state laws w_h of the reference and delta_h = w^pi_h - w_h,

    v_h = pi_h delta_h + (pi_h - ref_h) w_h,  delta_{h+1} = P_h v_h,
    V(pi) - V(ref) = sum_h <r_h, v_h>.

"Sample Complexity Reduction via Policy Difference Estimation in Tabular Reinforcement Learning"
(2024).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["designed", "differences", "state_laws", "unlikeness"]


def state_laws(
    P: Float[np.ndarray, "H S A S"], d0: Float[np.ndarray, "S"],
    pis: Float[np.ndarray, "n H S A"],
) -> Float[np.ndarray, "n H S"]:  # fmt: skip
    """Where each policy is at every step."""
    w = np.broadcast_to(d0, (len(pis), len(d0)))
    out = []
    for h in range(len(P)):
        out.append(w)
        w = np.einsum("ns,nsa,sat->nt", w, pis[:, h], P[h], optimize=True)
    return np.stack(out, 1)


def differences(
    P: Float[np.ndarray, "H S A S"], r: Float[np.ndarray, "H S A"],
    pis: Float[np.ndarray, "n H S A"], reference: Float[np.ndarray, "H S A"],
    law: Float[np.ndarray, "H S"],
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n H S A"]]:  # fmt: skip
    """V(pi) - V(ref) of every policy, and v [n, H, S, A]: P and r matter only where v is not 0."""
    delta = np.zeros((len(pis), P.shape[1]))
    gain, out = np.zeros(len(pis)), []
    for h in range(len(P)):
        v = pis[:, h] * delta[..., None] + (pis[:, h] - reference[h]) * law[h][:, None]
        out.append(v)
        gain = gain + np.einsum("nsa,sa->n", v, r[h])
        delta = np.einsum("nsa,sat->nt", v, P[h])
    return gain, np.stack(out, 1)


def unlikeness(
    P: Float[np.ndarray, "H S A S"], r: Float[np.ndarray, "H S A"], d0: Float[np.ndarray, "S"],
    pis: Float[np.ndarray, "n H S A"],
) -> Float[np.ndarray, "n n"]:  # fmt: skip
    """U[ref, pi] = sum_h E_{s ~ ref}[(Q^pi_h(s, pi) - Q^pi_h(s, ref))^2]: the variance that is left
    in a difference from what the law of the reference's states leaves open."""
    law = state_laws(P, d0, pis)
    v, total = np.zeros((len(pis), P.shape[1])), np.zeros((len(pis), len(pis)))
    for h in reversed(range(len(P))):
        q = r[h] + np.einsum("sat,nt->nsa", P[h], v)
        v = (pis[:, h] * q).sum(-1)
        other = np.einsum("msa,nsa->mns", pis[:, h], q)
        total += np.einsum("ms,mns->mn", law[:, h], (v[None] - other) ** 2)
    return total


def designed(
    v: Float[np.ndarray, "n H S A"], visits: Float[np.ndarray, "m H S A"], steps: int = 60
) -> tuple[Float[np.ndarray, "m"], float]:
    """How to deal episodes to m policies by their visits so that max_n sum v^2 / visits is small:
    shares, and that maximum for one episode. By Frank and Wolfe's method from even shares; pairs
    that nobody visits are left out."""
    share = np.full(len(visits), 1 / len(visits))
    flat, square = visits.reshape(len(visits), -1), (v**2).reshape(len(v), -1)
    on = flat.sum(0) > 1e-12
    flat, square = flat[:, on], square[:, on]
    best, found = np.inf, share
    for t in range(steps):
        mixed = share @ flat
        norms = square @ (1 / mixed)
        worst = int(norms.argmax())
        if norms[worst] < best:
            best, found = float(norms[worst]), share
        target = np.zeros(len(share))
        target[(flat @ (square[worst] / mixed**2)).argmax()] = 1
        share = share + 2 / (t + 3) * (target - share)
        share = 0.99 * share + 0.01 / len(share)
    return found / found.sum(), best
