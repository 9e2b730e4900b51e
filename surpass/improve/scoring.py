"""The paired score: what a candidate would have earned over the reference on one logged row, doubly
robust.

phi is unbiased for the candidate's gain whatever the reward model says, and its smallest possible
value is computed, not estimated: the control variate is bounded so that no single row can be
disastrous. Doubly robust policy evaluation: Dudík, Langford and Li, Doubly robust policy evaluation
and learning (2011).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surpass.data.records import Decisions
from surpass.errors import InputError

__all__ = [
    "RewardRange", "Rows", "Scores", "control_variate", "joined", "reward_range", "score",
    "with_an_end",
]  # fmt: skip


@dataclass(frozen=True)
class RewardRange:
    """The smallest and largest reward that may occur, and how that is known.

    `source` is "stated" by the user; "two-valued": the log holds exactly two values, and
    `assumption` says that the reward takes no other; or "observed": neither, so that no claim at a
    level can rest on it unless the user accepts it.
    """

    lo: float
    hi: float
    source: Literal["stated", "two-valued", "observed"]
    assumption: str = ""


def reward_range(
    reward: Float[Tensor, "N"], stated: tuple[float, float] | None = None
) -> RewardRange:
    """The range that the verdict rests on.

    Raises:
        InputError: when a reward lies outside the stated range, the range is empty or infinite, or
            the reward is constant.
    """
    low, high = float(reward.min()), float(reward.max())
    if stated is not None:
        lo, hi = float(stated[0]), float(stated[1])
        if not lo < hi:
            raise InputError(
                f"reward range [{lo:g}, {hi:g}] is empty; give --reward-range LO HI, LO < HI"
            )
        with_an_end(lo, hi)
        if low < lo or high > hi:
            worst = int((reward < lo).nonzero()[0] if low < lo else (reward > hi).nonzero()[0])
            raise InputError(
                f"reward {float(reward[worst]):g} in row {worst + 1} lies outside the stated range "
                f"[{lo:g}, {hi:g}]; "
                "state the range of every reward that may occur"
            )
        return RewardRange(lo, hi, "stated")
    if low == high:
        raise InputError(f"the reward is {low:g} in every row: nothing can be learned from it")
    if bool(((reward == low) | (reward == high)).all()):
        text = f"the reward takes no value other than {low:g} and {high:g}"
        return RewardRange(low, high, "two-valued", text)
    text = f"no reward lies outside the observed range [{low:g}, {high:g}]"
    return RewardRange(low, high, "observed", text)


def with_an_end(lo: float, hi: float) -> None:
    """Refuse a stated range that is infinite: the worst that may happen has to be a number.

    Raises:
        InputError: when it is.
    """
    if not (math.isfinite(lo) and math.isfinite(hi)):
        raise InputError(
            f"reward range [{lo:g}, {hi:g}] has no end, so nothing can be proven by it; give two "
            "numbers, or cap the reward"
        )


@dataclass(frozen=True)
class Rows:
    """A decision log as the verdict sees it, in double precision.

    `reference` [N, A] is rho, or None where the reference is the logging policy and only the
    propensity of the logged action is known; `behavior` [N, A] is mu, or None where only that is
    known; `available` [N, A] masks the actions on offer; every reward lies in [lo, hi]. `cost` [N]
    is a second outcome, for learners with a budget.
    """

    context: Float[Tensor, "N d"]
    action: Int[Tensor, "N"]
    reward: Float[Tensor, "N"]
    propensity: Float[Tensor, "N"]
    n_actions: int
    lo: float
    hi: float
    reference: Float[Tensor, "N A"] | None = None
    behavior: Float[Tensor, "N A"] | None = None
    available: Bool[Tensor, "N A"] | None = None
    cost: Float[Tensor, "N"] | None = None

    @classmethod
    def of(
        cls,
        log: Decisions,
        lo: float,
        hi: float,
        reference: Float[Tensor, "N A"] | None = None,
    ) -> Rows:
        """From a log, with the reward's range and, where it is not the logging policy, the
        reference's probabilities."""
        action, propensity = log.action.long(), log.propensity.to(torch.float64)
        behavior = None if log.propensities is None else log.propensities.to(torch.float64)
        if behavior is not None:  # other digits of the same number would pass the limits of a score
            own = behavior.gather(1, action[:, None])[:, 0]
            propensity = torch.where(own > 0, own, propensity)
        return cls(
            context=log.context.to(torch.float64),
            action=action,
            reward=log.reward.to(torch.float64),
            propensity=propensity,
            n_actions=log.n_actions,
            lo=float(lo),
            hi=float(hi),
            reference=behavior if reference is None else reference.to(torch.float64),
            behavior=behavior,
            available=log.available,
            cost=None if log.cost is None else log.cost.to(torch.float64),
        )

    def __len__(self) -> int:
        return self.action.shape[0]

    def take(self, rows: Int[Tensor, "n"] | slice) -> Rows:
        """Some of the rows."""
        same = self.reference is self.behavior
        picked = {
            name: None if (column := getattr(self, name)) is None else column[rows]
            for name in ("context", "action", "reward", "propensity", "behavior", "available",
                         "cost")
        }  # fmt: skip
        reference = None if self.reference is None else self.reference[rows] if not same else None
        return replace(self, **picked, reference=picked["behavior"] if same else reference)

    @property
    def offered(self) -> Float[Tensor, "N A"] | None:
        """What a policy is given as its reference: rho; where rho is unknown, the mask of available
        actions."""
        if self.reference is not None:
            return self.reference
        return None if self.available is None else self.available.to(torch.float64)


@dataclass(frozen=True)
class Scores:
    """Paired scores of one or more candidates.

    Attributes:
        phi: [..., N], a lower-safe score: its mean is the gain (at most the gain where mass has no
            support).
        phi_high: [..., N], the same for an upper bound of the gain; the same tensor where all mass
            has support.
        lower: [...], the smallest value that phi could take on these contexts.
        upper: [...], the largest that phi_high could take.
        weight: [..., N], pi / p of the logged action.
        unsupported: [..., N], candidate mass on actions that the log cannot show.
    """

    phi: Float[Tensor, "... N"]
    phi_high: Float[Tensor, "... N"]
    lower: Float[Tensor, "..."]
    upper: Float[Tensor, "..."]
    weight: Float[Tensor, "... N"]
    unsupported: Float[Tensor, "... N"] | None = None


def joined(parts: Sequence[Scores]) -> Scores:
    """The scores of consecutive rows as those of all of them."""
    if len(parts) == 1:
        return parts[0]
    phi = torch.cat([p.phi for p in parts], -1)
    split = any(p.phi_high is not p.phi for p in parts)
    blind = None
    if any(p.unsupported is not None for p in parts):
        found = [torch.zeros_like(p.phi) if p.unsupported is None else p.unsupported for p in parts]
        blind = torch.cat(found, -1)
    return Scores(
        phi,
        torch.cat([p.phi_high for p in parts], -1) if split else phi,
        torch.stack([p.lower for p in parts]).amin(0),
        torch.stack([p.upper for p in parts]).amax(0),
        torch.cat([p.weight for p in parts], -1),
        blind,
    )


def control_variate(
    excess: Float[Tensor, "... N A"], q: Float[Tensor, "... N A"], lo: float, hi: float
) -> Float[Tensor, "... N A"]:
    """f = lo + min(q - lo, 2 (hi - lo) / max(excess, 1e-9)), with excess = pi / rho - 1 and q held
    within [lo, hi].

    Where the candidate multiplies an action's probability, a bad outcome costs at most about twice
    the range.
    """
    most = (2.0 * (hi - lo)) / excess.clamp_min(1e-9)
    return torch.minimum(q.clamp(lo, hi) - lo, most).add_(lo)


def score(
    rows: Rows,
    pi: Float[Tensor, "... N A"],
    q: Float[Tensor, "... N A"],
    surrogate: Float[Tensor, "N A"] | None = None,
    lower_only: bool = False,
) -> Scores:
    """The paired scores of candidates on rows that neither they nor q were learned from.

    Args:
        rows: the log.
        pi: the candidates' probabilities.
        q: predicted rewards, broadcast against pi.
        surrogate: a model of rho, needed where rho is unknown; it bounds the control variate and
            biases nothing.
        lower_only: for nomination, of candidates that stay within the support of rho = mu: support
            is not looked at, and the upper limit is NaN.

    Formula, rho known: phi = sum_a (pi - rho) f + (w - w_rho)(r - f(x, a)), w = pi / p, w_rho = rho
        / p.
    Rho unknown but equal to mu: phi = sum_a pi f + w (r - f(x, a)) - r.

    Raises:
        InputError: when rho is unknown and no surrogate is given.
    """
    logged = rows.action.expand(*pi.shape[:-2], -1)[..., None]
    weight = pi.gather(-1, logged)[..., 0] / rows.propensity
    if rows.reference is None:
        if surrogate is None:
            raise InputError("without the reference's probabilities a model of them must be given")
        return _score_logged_only(rows, pi, q, surrogate, logged, weight)
    return _score_known(rows, rows.reference, pi, q, logged, weight, lower_only)


def _score_known(
    rows: Rows,
    rho: Tensor,
    pi: Tensor,
    q: Tensor,
    logged: Tensor,
    weight: Tensor,
    lower_only: bool,
) -> Scores:
    lo, hi = rows.lo, rows.hi
    mu = rows.behavior
    difference = pi - rho
    excess = difference / rho.clamp_min(1e-300)
    f = control_variate(excess, q, lo, hi)
    unsupported = None
    f_high = f
    if not lower_only and mu is not None and bool(((mu <= 0) & (difference != 0)).any()):
        unseen = mu <= 0
        unsupported = (pi * unseen).sum(-1)
        worst = torch.where(difference > 0, lo, hi)
        f_high = torch.where(unseen, lo + hi - worst, f)
        f = torch.where(unseen, worst, f)
    delta = difference.gather(-1, logged)[..., 0] / rows.propensity
    base = (difference * f).sum(-1)
    phi = base + delta * (rows.reward - f.gather(-1, logged)[..., 0])
    if f_high is f:
        base_high, phi_high = base, phi
    else:
        base_high = (difference * f_high).sum(-1)
        phi_high = base_high + delta * (rows.reward - f_high.gather(-1, logged)[..., 0])
    if mu is None:  # only logged actions can be looked at
        f, f_high = f.gather(-1, logged), f_high.gather(-1, logged)
        change = delta[..., None]
    else:
        change = excess if mu is rho else difference / mu.clamp_min(1e-300)
    # over r in [lo, hi]: change (r - f) is least at lo where change > 0, at hi where it is negative
    fall = change * (lo - f) + (hi - lo) * change.clamp_max(0.0)
    blind = None if mu is None or not bool((mu <= 0).any()) else mu <= 0
    if blind is not None:
        fall = fall.masked_fill(blind, torch.inf)
    lower = (base + fall.amin(-1)).amin(-1)
    if lower_only:
        return Scores(phi, phi, lower, torch.full_like(lower, torch.nan), weight)
    rise = change * (lo - f_high) + (hi - lo) * change.clamp_min(0.0)
    if blind is not None:
        rise = rise.masked_fill(blind, -torch.inf)
    upper = (base_high + rise.amax(-1)).amax(-1)
    return Scores(phi, phi_high, lower, upper, weight, unsupported)


def _score_logged_only(
    rows: Rows, pi: Tensor, q: Tensor, surrogate: Tensor, logged: Tensor, weight: Tensor
) -> Scores:
    lo, hi = rows.lo, rows.hi
    f = control_variate(pi / surrogate.clamp_min(1e-300) - 1.0, q, lo, hi)
    known = (pi * f).sum(-1) - weight * f.gather(-1, logged)[..., 0]
    phi = known + (weight - 1.0) * rows.reward
    low, high = known + (weight - 1.0) * lo, known + (weight - 1.0) * hi
    lower, upper = torch.minimum(low, high).amin(-1), torch.maximum(low, high).amax(-1)
    return Scores(phi, phi, lower, upper, weight)
