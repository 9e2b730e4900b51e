"""What an instrument tells of a confounded log: chances of the action, values and state ratios of a
target policy that is played through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from surpass.critics.fitted_q import Fourier, PathPredictor, raw
from surpass.errors import InputError
from surpass.objectives.instruments import relevance, signed_policy
from surpass.objectives.views import TrajectoryQuery

__all__ = ["InstrumentModel", "moment_solve"]


def moment_solve(
    tests: Float[Tensor, "M k"], features: Float[Tensor, "M k"], right: Float[Tensor, "k"],
    ridge: float = 1e-6,
) -> Float[Tensor, "k"]:  # fmt: skip
    """b with (mean of tests features' + ridge) b = right: values and state ratios alike."""
    left = tests.T @ features / len(features)
    return torch.linalg.solve(left + ridge * torch.eye(len(right), dtype=left.dtype), right)


@dataclass(frozen=True)
class InstrumentModel:
    """The nuisance "iv" [N, T, 4] of episodes with a binary action and a binary instrument in
    `extras["instrument"]` [N, T].

    Fitted are P(Z=1|s), P(A=1|s,z), a linear Q(s,z,a) and a linear state ratio omega(s), each by
    its moment condition. `features` None takes the observation itself (one-hot states).

    Attributes:
        features: of the state. classifier: of the two chances.
        ridge: of both linear systems. ratios: the range of omega.
        confounded: False takes the action as randomized given the state: it is then its own
            instrument, and the estimates are the usual ones that unobserved causes mislead.
    """

    features: Fourier | None = None
    classifier: BaseEstimator | None = None
    ridge: float = 1e-6
    ratios: tuple[float, float] = (0.01, 100.0)
    confounded: bool = True
    per_target = True

    def learn(self, query: TrajectoryQuery) -> PathPredictor:
        """Fit to the episodes of a query.

        Raises:
            InputError: without an instrument, or with values other than 0 and 1.
        """
        seen = query.context[query.mask > 0].to(torch.float64)
        made = raw if self.features is None else self.features.of(seen)
        chances = self._chances(query, made)
        b_q, b_omega = self._solve(query, made, chances)

        def columns(other: TrajectoryQuery) -> Tensor:
            psi, z, a = made(other.context), _instrument(other, self.confounded), other.action
            p_z, taken = chances(psi)
            c = signed_policy(taken, other.target[..., 1])
            m = _of_instrument(psi, taken, b_q)
            v = (c * m).sum(-1)
            omega = (psi @ b_omega).clamp(*self.ratios)
            rho = _pick(c, z) / _pick(torch.stack((1 - p_z, p_z), -1), z)
            then = torch.zeros_like(v)
            then[:, :-1] = v[:, 1:]
            left = a - _pick(taken, z)
            bracket = other.reward + other.gamma * then - _pick(m, z)
            bracket = bracket + left * (m[..., 0] - m[..., 1]) / relevance(taken)
            steps = _followed(other)
            omega = omega * steps.sum() / (omega * steps).sum()
            return torch.stack((v, omega * rho, bracket, steps), -1)

        return columns

    def _chances(self, query: TrajectoryQuery, made: Callable[[Tensor], Tensor]) -> Callable:
        """P(Z=1|s) and P(A=1|s,z) for z = 0, 1, from features of the state."""
        inside = query.mask > 0
        psi = made(query.context)[inside]
        z, a = _instrument(query, self.confounded)[inside], query.action[inside]
        of_z = self._classified(psi, z)
        if not self.confounded:

            def own(x: Tensor) -> tuple[Tensor, Tensor]:
                p = of_z(x)
                return p, torch.tensor([0.0, 1.0], dtype=x.dtype).expand(*p.shape, 2)

            return own
        of_a = [self._classified(psi[z == k], a[z == k]) for k in (0, 1)]
        return lambda x: (of_z(x), torch.stack([f(x) for f in of_a], -1))

    def _classified(self, psi: Tensor, label: Tensor) -> Callable[[Tensor], Tensor]:
        if not bool((label == 0).any() and (label == 1).any()):
            raise InputError(
                "action and instrument must both take the values 0 and 1, the action at each value "
                "of the instrument; this log cannot identify the effect"
            )
        model: BaseEstimator = self.classifier or LogisticRegression(C=1e3, max_iter=1000)
        fitted = clone(model).fit(psi.numpy(), label.numpy())  # type: ignore[attr-defined]

        def chance(x: Tensor) -> Tensor:
            p = fitted.predict_proba(x.flatten(0, -2).numpy())[:, 1]
            return torch.from_numpy(p).view(x.shape[:-1]).clamp(1e-3, 1 - 1e-3)

        return chance

    def _solve(
        self, query: TrajectoryQuery, made: Callable[[Tensor], Tensor], chances: Callable
    ) -> tuple[Float[Tensor, "2 2 k"], Float[Tensor, "k"]]:
        psi, z, a = made(query.context), _instrument(query, self.confounded), query.action
        p_z, taken = chances(psi)
        c = signed_policy(taken, query.target[..., 1])
        rho = _pick(c, z) / _pick(torch.stack((1 - p_z, p_z), -1), z)
        keep = _followed(query) > 0
        here, then = psi[keep], query.later(psi)[keep]
        both = torch.stack((1 - taken, taken), -1)  # [N, T, z, a]
        logged = torch.nn.functional.one_hot(2 * z + a, 4).to(psi.dtype)
        phi = (logged[..., None] * psi[:, :, None, :]).flatten(2)[keep]
        mixed = (c[..., None] * both).flatten(2)
        after = query.later((mixed[..., None] * psi[:, :, None, :]).flatten(2))[keep]
        reward = query.reward[keep]
        right = phi.T @ reward / len(reward)
        # E[ phi (phi - gamma phibar(s'))' ] b = E[ phi r ]
        b_q = moment_solve(phi, phi - query.gamma * after, right, self.ridge)
        # E[ omega(s) ( f(s) - gamma rho f(s') ) ] = (1 - gamma) E[ f(s_0) ] for f = psi
        tests = here - query.gamma * rho[keep][:, None] * then
        begin = (1 - query.gamma) * psi[:, 0].mean(0)
        return b_q.view(2, 2, -1), moment_solve(tests, here, begin, self.ridge)


def _instrument(query: TrajectoryQuery, confounded: bool) -> Tensor:
    if not confounded:
        return query.action
    if "instrument" not in query.extras:
        raise InputError("the log has no column instrument; name it, or use an estimator without")
    return query.extras["instrument"].to(torch.int64)


def _followed(query: TrajectoryQuery) -> Float[Tensor, "N T"]:
    """1 where a step has a successor in the log; everywhere among single decisions, after which
    nothing counts."""
    if query.gamma == 0:
        return query.mask
    out = torch.zeros_like(query.mask)
    out[:, :-1] = query.mask[:, 1:]
    return out


def _pick(table: Float[Tensor, "N T 2"], which: Tensor) -> Float[Tensor, "N T"]:
    return table.gather(-1, which[..., None])[..., 0]


def _of_instrument(psi: Tensor, taken: Tensor, b: Float[Tensor, "2 2 k"]) -> Float[Tensor, "N T 2"]:
    """m_z(s) = sum_a P(a|s,z) Q(s,z,a)."""
    q = torch.einsum("ntk,zak->ntza", psi, b)
    return ((1 - taken) * q[..., 0]) + taken * q[..., 1]
