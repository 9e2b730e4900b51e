"""Utilities from choices and the time they took."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.forms import Study
from surpass.objectives.response_times import Timed, drift_likelihood, solve_drift
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.drift_diffusion import Comparisons

__all__ = ["Utilities", "response_time_pref", "timed_utilities"]


@dataclass(frozen=True)
class Utilities:
    """A linear utility: `theta` [d], the seconds that are no decision, and per comparison the
    z-score of x - T v / b, which is large where the model does not fit."""

    theta: Float[Tensor, "d"]
    delay: float
    z: Float[Tensor, "n"]

    def margin(self, features: Float[Tensor, "m d"]) -> Float[Tensor, "m"]:
        """How much the first option is preferred."""
        return features @ self.theta


@part
def timed_utilities(
    log: Comparisons, /, boundary: float = 1.0, ridge: float = 1e-3,
    delay: float | None = 0.0, grid: int = 60,
) -> Utilities:  # fmt: skip
    """theta in closed form; `delay` None takes the most likely one of a grid below the shortest
    time.

    Raises:
        InputError: when a time is not longer than the delay.
    """
    shortest = float(log.seconds.min())
    if not shortest > (delay or 0.0):
        raise InputError(
            f"the shortest decision took {shortest:g} s, no longer than the {delay or 0:g} s that "
            "are no decision; lower delay, or give None to fit it"
        )
    tried = [delay] if delay is not None else [shortest * k / grid for k in range(grid)]
    found = []
    for lost in tried:
        theta = solve_drift(log.features, log.choice, log.seconds - lost, boundary, ridge)
        seen = Timed(log.features @ theta, log.choice, log.seconds - lost)
        found.append((float(drift_likelihood(boundary)(seen).mean()), lost, theta, seen))
    _, lost, theta, seen = max(found, key=lambda f: f[0])
    off = seen.choice - seen.seconds * seen.margin / boundary
    return Utilities(theta, lost, off / off.square().mean().sqrt().clamp_min(1e-12))


@system("response-time-pref")
def response_time_pref(
    boundary: float = 1.0, ridge: float = 1e-3, delay: float | None = 0.0
) -> Study:
    """Utilities from `Comparisons`, whose fast decisions mean strong preferences.

    Args:
        boundary: b; a scale of the utilities, where nothing else fixes it.
        ridge: added to sum T phi phi'. delay: seconds of each time that are no decision; None fits
            them by profile likelihood (then b counts).
    """
    return Study(timed_utilities(boundary, ridge, delay))
