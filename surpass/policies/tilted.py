"""Policies over discrete actions that stay near a reference: tilts of it, caps, fitted references
and mixtures.

Every policy here is a `torch.nn.Module` with `forward(context [N, d], reference [N, A]) ->
probabilities [N, A]`; its
buffers hold what was fitted, and `config`, a dict of plain JSON values, rebuilds it: class name +
    config + state dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surpass.errors import InputError, nearest

__all__ = [
    "CAP",
    "POLICIES",
    "Capped",
    "Constant",
    "Mixture",
    "Multinomial",
    "Tilted",
    "capped",
    "fit_multinomial",
    "policy_class",
    "rebuild",
    "specification",
    "tilted",
]

CAP = 20.0
P = TypeVar("P", bound=type[nn.Module])
POLICIES: dict[str, type[nn.Module]] = {}


def policy_class(cls: P) -> P:
    """Register a policy class, so that a file may name it."""
    POLICIES[cls.__name__] = cls
    return cls


def specification(policy: nn.Module) -> dict[str, Any]:
    """`{"class", "config"}` of a policy, plain JSON values; with the state dict it is the whole
    policy.

    Raises:
        InputError: when the class is not registered.
    """
    name = type(policy).__name__
    if POLICIES.get(name) is not type(policy):
        raise InputError(f"{name} is not a registered policy class; decorate it with @policy_class")
    return {"class": name, "config": policy.config}


def rebuild(spec: dict[str, Any]) -> nn.Module:
    """An empty policy of a specification; `load_state_dict` fills it.

    Raises:
        InputError: when the class is not registered.
    """
    name = str(spec.get("class"))
    if name not in POLICIES:
        raise InputError(f"unknown policy class {name!r}{nearest(name, list(POLICIES))}")
    return POLICIES[name](**spec["config"])


# ------------------------------------------------------------------------------------- the formulas


def capped(
    probabilities: Float[Tensor, "... N A"], reference: Float[Tensor, "N A"], cap: float = CAP
) -> Float[Tensor, "... N A"]:
    """pi <- min(pi, cap rho), the mass removed going to rho in proportion: so pi <= (cap + 1) rho,
    and 0 where rho is 0."""
    kept = torch.minimum(probabilities, cap * reference)
    return kept + (1.0 - kept.sum(-1, keepdim=True)).clamp_min(0.0) * reference


def tilted(
    reference: Float[Tensor, "N A"],
    advantage: Float[Tensor, "... N A"],
    strength: float | Tensor,
    cap: float = CAP,
) -> Float[Tensor, "... N A"]:
    """pi ∝ rho exp(strength advantage), capped; a large strength gives the greedy policy on the
    support of rho.

    Args:
        reference: rho.
        advantage: over the reference's mean, in units of its spread; may carry leading candidate
            dimensions.
        strength: a number, or a tensor that broadcasts against `advantage`.
        cap: no action gets more than cap + 1 times its reference probability.
    """
    logits = advantage * strength
    if torch.compiler.is_exporting() or bool((reference <= 0).any()):
        logits = logits.masked_fill(reference <= 0, -torch.inf)
    logits = logits - logits.amax(-1, keepdim=True)
    weight = reference * logits.exp_()
    return capped(weight / weight.sum(-1, keepdim=True), reference, cap)


# ------------------------------------------------------------------------------------------ modules


def _masked(
    own: Float[Tensor, "N A"], reference: Float[Tensor, "N A"] | None
) -> Float[Tensor, "N A"]:
    """A fitted reference where the caller's (if any) has support."""
    if reference is None:
        return own
    own = own * (reference > 0)
    return own / own.sum(-1, keepdim=True)


@policy_class
class Constant(nn.Module):
    """The same probabilities [A] in every context."""

    probabilities: Tensor

    def __init__(
        self, n_actions: int, probabilities: Sequence[float] | Tensor | None = None
    ) -> None:
        super().__init__()
        self.config = {"n_actions": n_actions}
        given = (
            torch.full((n_actions,), 1.0 / n_actions) if probabilities is None else probabilities
        )
        self.register_buffer("probabilities", torch.as_tensor(given, dtype=torch.float64))

    def forward(self, context: Tensor, reference: Tensor | None = None) -> Tensor:
        """[N, A]; zero where a given reference is zero."""
        return _masked(self.probabilities.expand(context.shape[0], -1), reference)


@policy_class
class Multinomial(nn.Module):
    """softmax(W z + b) of the standardized context z: a fitted model of which action a policy
    takes."""

    mean: Tensor
    spread: Tensor
    weight: Tensor

    def __init__(self, n_features: int, n_actions: int) -> None:
        super().__init__()
        self.config = {"n_features": n_features, "n_actions": n_actions}
        self.register_buffer("mean", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(n_features, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(n_actions, n_features + 1, dtype=torch.float64))

    def forward(self, context: Tensor, reference: Tensor | None = None) -> Tensor:
        """[N, A]; zero where a given reference is zero."""
        z = (context.to(self.weight.dtype) - self.mean) / self.spread
        logits = self.weight[:, 0] + z @ self.weight[:, 1:].T
        return _masked(logits.softmax(-1), reference)


def fit_multinomial(
    context: Float[Tensor, "N d"],
    action: Int[Tensor, "N"],
    n_actions: int,
    penalty: float = 1.0,
    most: int = 200_000,
) -> Multinomial:
    """The maximum-likelihood multinomial model of the action, with a ridge penalty on standardized
    slopes.

    Args:
        context, action: the rows; at most `most` of them, evenly spaced, are used.
        n_actions: how many actions there are; one that was never taken keeps a probability near 0.5
            / N.
        penalty: on the squared slopes (the intercepts carry 1 % of it, which keeps unseen actions
            finite).
        most: rows used at most.

    Newton's method is not needed: L-BFGS on a convex loss, in double precision.
    """
    if context.shape[0] > most:
        step = torch.linspace(0, context.shape[0] - 1, most).long()
        context, action = context[step], action[step]
    model = Multinomial(context.shape[1], n_actions)
    x = context.to(torch.float64)
    model.mean.copy_(x.mean(0))
    spread = x.std(0, unbiased=False)
    model.spread.copy_(torch.where(spread > 1e-12, spread, torch.ones_like(spread)))
    z = torch.cat([torch.ones(x.shape[0], 1, dtype=x.dtype), (x - model.mean) / model.spread], 1)
    counts = torch.bincount(action, minlength=n_actions).to(x.dtype)
    start = torch.zeros_like(model.weight)
    start[:, 0] = ((counts + 0.5) / (counts.sum() + 0.5 * n_actions)).log()
    shrink = torch.full_like(start, penalty)
    shrink[:, 0] = 0.01 * penalty
    with torch.enable_grad():
        weight = start.clone().requires_grad_()
        solver = torch.optim.LBFGS(
            [weight], max_iter=100, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            solver.zero_grad()
            loss = nn.functional.cross_entropy(z @ weight.T, action)
            loss = loss + 0.5 * (shrink * (weight - start) ** 2).sum() / len(z)
            loss.backward()
            return loss

        solver.step(closure)  # pyright: ignore[reportArgumentType]
    model.weight.copy_(weight.detach())
    return model


class _Near(nn.Module):
    """A policy that is defined relative to a reference: the caller's, or a fitted one that it
    carries."""

    def __init__(self, fitted: nn.Module | dict[str, Any] | None) -> None:
        super().__init__()
        self.fitted = rebuild(fitted) if isinstance(fitted, dict) else fitted

    def reference_of(self, context: Tensor, reference: Tensor | None) -> Tensor:
        """The reference probabilities [N, A] that the policy stays near.

        Raises:
            InputError: when it carries no fitted reference and none is given.
        """
        if self.fitted is not None:
            return self.fitted(context, reference)
        if reference is None:
            raise InputError("this policy tilts a reference policy: give its probabilities [N, A]")
        return reference.to(torch.float64)

    def _fitted_config(self) -> dict[str, Any] | None:
        return None if self.fitted is None else specification(self.fitted)


@policy_class
class Tilted(_Near):
    """pi ∝ rho exp(c (d_a(x) - sum_a rho d) / scale), capped at 20 rho: more of what is better than
    expected.

    d_a(x) = theta_a' [1, z], z the standardized context. A small c maximizes gain over standard
    error; c = 1000 is greedy.
    """

    mean: Tensor
    spread: Tensor
    theta: Tensor
    scale: Tensor

    def __init__(
        self,
        n_features: int,
        n_actions: int,
        strength: float,
        cap: float = CAP,
        fitted: nn.Module | dict[str, Any] | None = None,
    ) -> None:
        """An empty tilt; the buffers `mean`, `spread` [d], `theta` [A, d + 1] and `scale` [] hold
        the fit.

        Args:
            n_features: d.
            n_actions: A.
            strength: c.
            cap: pi <= (cap + 1) rho.
            fitted: a model of the reference, where only the propensity of the logged action is
                known.
        """
        super().__init__(fitted)
        self.n_features, self.n_actions, self.strength, self.cap = (
            n_features,
            n_actions,
            strength,
            cap,
        )
        self.register_buffer("mean", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(n_features, dtype=torch.float64))
        self.register_buffer("theta", torch.zeros(n_actions, n_features + 1, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    @property
    def config(self) -> dict[str, Any]:
        return {
            "n_features": self.n_features,
            "n_actions": self.n_actions,
            "strength": self.strength,
            "cap": self.cap,
            "fitted": self._fitted_config(),
        }

    def forward(self, context: Tensor, reference: Tensor | None = None) -> Tensor:
        """Probabilities [N, A]; with a fitted reference inside, a given one only says which actions
        are on offer."""
        rho = self.reference_of(context, reference)
        z = (context.to(self.theta.dtype) - self.mean) / self.spread
        deviation = self.theta[:, 0] + z @ self.theta[:, 1:].T
        advantage = (deviation - (rho * deviation).sum(-1, keepdim=True)) / self.scale
        return tilted(rho, advantage, self.strength, self.cap)


@policy_class
class Capped(_Near):
    """Any policy, kept within cap + 1 times the reference and off the actions that the reference
    never takes."""

    def __init__(
        self,
        policy: nn.Module | dict[str, Any],
        cap: float = CAP,
        fitted: nn.Module | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(fitted)
        self.policy = rebuild(policy) if isinstance(policy, dict) else policy
        self.cap = cap

    @property
    def config(self) -> dict[str, Any]:
        inner = specification(self.policy)
        return {"policy": inner, "cap": self.cap, "fitted": self._fitted_config()}

    def forward(self, context: Tensor, reference: Tensor | None = None) -> Tensor:
        """Probabilities [N, A]."""
        rho = self.reference_of(context, reference)
        return capped(self.policy(context, rho).to(rho.dtype), rho, self.cap)


@policy_class
class Mixture(nn.Module):
    """Probabilities averaged with fixed weights [K]; in gain this is drawing one of the policies at
    every decision."""

    weights: Tensor

    def __init__(
        self,
        policies: Sequence[nn.Module | dict[str, Any]],
        weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        """Args:
            policies: K policies, or their specifications.
            weights: non-negative, summing to 1; equal when not given.

        Raises:
            InputError: when the weights are not a distribution over the policies.
        """
        super().__init__()
        self.policies = nn.ModuleList(rebuild(p) if isinstance(p, dict) else p for p in policies)
        given = [1.0 / len(policies)] * len(policies) if weights is None else weights
        share = torch.as_tensor(given, dtype=torch.float64)
        if (
            share.shape != (len(policies),)
            or bool((share < 0).any())
            or abs(float(share.sum()) - 1) > 1e-9
        ):
            raise InputError(
                f"mixture weights {given} are not a distribution over {len(policies)} policies"
            )
        self.register_buffer("weights", share)

    @property
    def config(self) -> dict[str, Any]:
        return {"policies": [specification(p) for p in self.policies]}

    def forward(self, context: Tensor, reference: Tensor | None = None) -> Tensor:
        """Probabilities [N, A]."""
        parts = [
            w * p(context, reference) for w, p in zip(self.weights, self.policies, strict=True)
        ]
        return torch.stack(parts).sum(0)
