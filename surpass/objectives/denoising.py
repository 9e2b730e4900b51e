"""Generative models as pure functions: how data are noised, what a net is asked, how it samples.

    diffusion      x_k = sqrt(abar_k) x + sqrt(1 - abar_k) eps, the net gives eps
    flow matching  x_t = (1 - t) x_0 + t x_1, x_0 ~ N(0, I), the net gives x_1 - x_0
    EDM            x + sigma eps, the preconditioned net gives x

A model is `predict(x, time)`, x [..., d] and time [...] (a number in [0, 1]; of EDM the noise
level), with whatever it is conditioned on closed over. Losses are per row, summed over dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = [
    "ancestral", "cosine_noise", "diffused", "edm_denoiser", "edm_levels", "edm_loss", "edm_sample",
    "euler", "euler_inverse", "euler_logp", "even_levels", "flow_levels", "flow_noise",
    "flow_step", "guided", "implicit", "karras_level", "linear_noise", "noise_guess",
    "noise_loss", "noisy_euler", "normal_logp", "one_pass", "value_guided",
    "variance_preserving", "velocity_loss",
]  # fmt: skip

Predict = Callable[[Tensor, Tensor], Tensor]
Guide = Callable[[Tensor, int], Tensor]
_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def normal_logp(x: Float[Tensor, "... d"], mean: Tensor, std: Tensor | float) -> Tensor:
    """log N(x; mean, std^2 I), summed over the last dimension, in nats."""
    std = torch.as_tensor(std, dtype=x.dtype, device=x.device)
    standard = (x - mean) / std
    return (-0.5 * standard.square() - std.log() - _HALF_LOG_TWO_PI).sum(-1)


# ----------------------------------------------------------------------------------------------
# diffusion


def variance_preserving(steps: int, low: float = 0.1, high: float = 10.0) -> Float[Tensor, "K"]:
    """abar_k, k = 1..K, of the VP schedule: beta_k = 1 - exp(-low/K - (high - low)(2k-1)/(2K^2)).

    Score-Based Generative Modeling through Stochastic Differential Equations (2020), in K steps.
    """
    k = torch.arange(1, steps + 1, dtype=torch.float64)
    exponent = low / steps + 0.5 * (high - low) * (2 * k - 1) / steps**2
    return torch.exp(-exponent.cumsum(0)).float()


def cosine_noise(steps: int, offset: float = 0.008) -> Float[Tensor, "K"]:
    """abar_k, k = 1..K, of the cosine schedule, with beta_k at most 0.999.

    Improved Denoising Diffusion Probabilistic Models (2021).
    """
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    curve = torch.cos((t + offset) / (1 + offset) * math.pi / 2).square()
    return (curve[1:] / curve[:-1]).clamp(min=0.001).cumprod(0).float()


def linear_noise(steps: int) -> Float[Tensor, "K"]:
    """abar_k, k = 1..K, where beta_k rises evenly from 0.1 / K to 20 / K (at most 0.999).

    Denoising Diffusion Probabilistic Models (2020), whose 1000 betas run from 1e-4 to 0.02.
    """
    beta = torch.linspace(0.1 / steps, 20.0 / steps, steps, dtype=torch.float64)
    return (1.0 - beta.clamp(max=0.999)).cumprod(0).float()


def diffused(x: Float[Tensor, "... d"], abar: Tensor, noise: Tensor) -> Float[Tensor, "... d"]:
    """sqrt(abar) x + sqrt(1 - abar) noise, `abar` [...] or a number."""
    abar = abar[..., None]
    return abar.sqrt() * x + (1.0 - abar).sqrt() * noise


def noise_guess(
    predict: Predict, x: Float[Tensor, "B d"], abar: Float[Tensor, "K"], level: Int[Tensor, "B"],
    noise: Float[Tensor, "B d"],
) -> Float[Tensor, "B d"]:  # fmt: skip
    """predict(x_k, k / K) at x_k = sqrt(abar_k) x + sqrt(1 - abar_k) noise; `level` is k - 1."""
    return predict(diffused(x, abar[level], noise), (level + 1) / abar.shape[0])


def one_pass(
    predict: Predict, x: Float[Tensor, "B d"], abar: Float[Tensor, "K"], level: Int[Tensor, "B"],
    noise: Float[Tensor, "B d"], clip: float | None = None,
) -> tuple[Float[Tensor, "B d"], Float[Tensor, "B d"]]:  # fmt: skip
    """The guess of `noise`, and the data that it makes of x_k at once, without the chain:

        x_0 = (x_k - sqrt(1 - abar_k) guess) / sqrt(abar_k),   cut at +-clip

    Efficient Diffusion Policies for Offline Reinforcement Learning (2023).
    """
    guess, a = noise_guess(predict, x, abar, level, noise), abar[level][..., None]
    clean = x + ((1.0 - a) / a).sqrt() * (noise - guess)
    return guess, clean if clip is None else clean.clamp(-clip, clip)


def noise_loss(
    predict: Predict, x: Float[Tensor, "B d"], abar: Float[Tensor, "K"],
    level: Int[Tensor, "B"] | None = None, noise: Tensor | None = None,
) -> Float[Tensor, "B"]:  # fmt: skip
    """||eps - predict(x_k, k / K)||^2, k uniform on 1..K where `level` (k - 1) is not given.

    Denoising Diffusion Probabilistic Models (2020).
    """
    if level is None:
        level = torch.randint(abar.shape[0], x.shape[:-1], device=x.device)
    noise = torch.randn_like(x) if noise is None else noise
    return (noise_guess(predict, x, abar, level, noise) - noise).square().sum(-1)


def ancestral(
    predict: Predict, x: Float[Tensor, "... d"], abar: Float[Tensor, "K"],
    temperature: float = 1.0, clip: float | None = None,
) -> Float[Tensor, "... d"]:  # fmt: skip
    """From x_K ~ N(0, I) to a sample, K steps: x <- (x - beta_k / sqrt(1 - abar_k) eps) /
    sqrt(1 - beta_k) + temperature sqrt(beta_k) z, without z in the last; `clip` bounds every x.

    Denoising Diffusion Probabilistic Models (2020).
    """
    steps = abar.shape[0]
    for k in range(steps - 1, -1, -1):
        ratio = abar[k] / abar[k - 1] if k else abar[k]
        guess = predict(x, _time(x, (k + 1) / steps))
        x = (x - (1.0 - ratio) / (1.0 - abar[k]).sqrt() * guess) / ratio.sqrt()
        if k:
            x = x + temperature * (1.0 - ratio).sqrt() * torch.randn_like(x)
        x = x if clip is None else x.clamp(-clip, clip)
    return x


def even_levels(abar: Float[Tensor, "K"], steps: int) -> tuple[int, ...]:
    """At most `steps` of the levels 0..K-1 (k - 1), from the last to the first, as even in
    log sqrt(abar / (1 - abar)) as the K levels allow."""
    ahead = 0.5 * (abar.double().log() - (1.0 - abar.double()).log())
    wanted = torch.linspace(float(ahead[-1]), float(ahead[0]), steps, dtype=torch.float64)
    nearest = (ahead[None] - wanted[:, None]).abs().argmin(-1).tolist()
    return tuple(sorted(set(nearest), reverse=True))


def implicit(
    predict: Predict, x: Float[Tensor, "... d"], abar: Float[Tensor, "K"],
    steps: int | tuple[int, ...] | None = None, clip: float | None = None, order: int = 1,
) -> Float[Tensor, "... d"]:  # fmt: skip
    """The deterministic sampler on `steps` of the K levels (or the levels k - 1 themselves,
    descending): a function of the first noise `x`.

    x_0 = (x - sqrt(1 - abar_k) eps) / sqrt(abar_k), then x = sqrt(abar_j) x_0 + sqrt(1 - abar_j)
    eps; `clip` bounds x_0, and eps follows it. Denoising Diffusion Implicit Models (2020), eta 0.

    With `order` 2, x_0 + h / (2 h') (x_0 - x_0') stands for x_0 in the step, x_0' that of the step
    before, h and h' the steps of log sqrt(abar / (1 - abar)), which had better be even
    (`even_levels`): DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models
    (2022), the multistep form.
    """
    total = abar.shape[0]
    if isinstance(steps, tuple):
        levels = list(steps)
    else:
        count = steps or total
        levels = [round((total - 1) * (1 - i / max(count - 1, 1))) for i in range(count)]
    ahead = 0.5 * (abar.log() - (1.0 - abar).log())
    last = x
    for place, k in enumerate(levels):
        guess = predict(x, _time(x, (k + 1) / total))
        clean = (x - (1.0 - abar[k]).sqrt() * guess) / abar[k].sqrt()
        if clip is not None:
            clean = clean.clamp(-clip, clip)
            guess = (x - abar[k].sqrt() * clean) / (1.0 - abar[k]).sqrt()
        if place == len(levels) - 1:
            return clean
        follows = levels[place + 1]
        after, found = abar[follows], clean
        if order == 2 and place:
            step = (ahead[follows] - ahead[k]) / (ahead[k] - ahead[levels[place - 1]])
            clean = clean + 0.5 * step * (clean - last)
            guess = (x - abar[k].sqrt() * clean) / (1.0 - abar[k]).sqrt()
        x, last = after.sqrt() * clean + (1.0 - after).sqrt() * guess, found
    return x


def _time(x: Tensor, value: float) -> Tensor:
    return torch.full(x.shape[:-1], value, dtype=x.dtype, device=x.device)


# ----------------------------------------------------------------------------------------------
# flow matching


def velocity_loss(
    predict: Predict, x: Float[Tensor, "B d"], time: Float[Tensor, "B"] | None = None,
    noise: Tensor | None = None,
) -> Float[Tensor, "B"]:  # fmt: skip
    """||predict(x_t, t) - (x - x_0)||^2 at x_t = (1 - t) x_0 + t x, t uniform on [0, 1].

    Flow Matching for Generative Modeling (2022).
    """
    time = torch.rand(x.shape[:-1], device=x.device) if time is None else time
    noise = torch.randn_like(x) if noise is None else noise
    t = time[..., None]
    return (predict((1.0 - t) * noise + t * x, time) - (x - noise)).square().sum(-1)


def euler(
    predict: Predict, x: Float[Tensor, "... d"], steps: int, clip: float | None = None
) -> Float[Tensor, "... d"]:
    """x <- x + v(x, i / F) / F, i = 0..F-1: a function of the first noise `x`; `clip` bounds the
    result only."""
    for i in range(steps):
        x = x + predict(x, _time(x, i / steps)) / steps
    return x if clip is None else x.clamp(-clip, clip)


def guided(null: Predict, conditional: Predict, weight: float | Tensor) -> Predict:
    """Classifier-free guidance: null + weight (conditional - null); weight 0 is unconditional, 1
    conditional.

    Classifier-Free Diffusion Guidance (2022).
    """

    def predict(x: Tensor, time: Tensor) -> Tensor:
        base = null(x, time)
        return base + weight * (conditional(x, time) - base)

    return predict


def value_guided(
    predict: Predict, slope: Callable[[Tensor], Tensor], x: Float[Tensor, "... d"], steps: int,
    weight: float | Tensor, at: str = "clean", clip: float | None = None,
) -> Float[Tensor, "... d"]:  # fmt: skip
    """x <- x + (v + weight g) / F from noise `x`, g = slope(x + (1 - t) v): the gradient of a value
    at where one step from here would end, taken as if that moved with x one to one.

    `at` "noisy" takes g = slope(x) instead; "through" the exact gradient with respect to x, through
    the velocity. Test-Time Gradient Guidance of Flow Policies in Reinforcement
    Learning (2026).
    """
    for i in range(steps):
        left, time = 1.0 - i / steps, _time(x, i / steps)
        if at == "through":
            moved: Any = torch.func.vjp(lambda y, h=left, t=time: y + h * predict(y, t), x)
            clean, pull = moved
            velocity, g = (clean - x) / left, pull(slope(clean))[0]
        else:
            velocity = predict(x, time)
            g = slope(x + left * velocity if at == "clean" else x)
        x = x + (velocity + weight * g) / steps
    return x if clip is None else x.clamp(-clip, clip)


def _log_stretch(predict: Predict, x: Float[Tensor, "N d"], time: float, steps: int) -> Tensor:
    """log |det(I + J / F)| of one Euler step at x, [N]."""

    moved: Any = torch.func.vjp(lambda y: y + predict(y, _time(y, time)) / steps, x)
    out, pull = moved
    unit = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    jacobian = torch.stack([pull(row.expand_as(out))[0] for row in unit], -2)
    return torch.linalg.slogdet(jacobian)[1]


def euler_logp(
    predict: Predict, x: Float[Tensor, "N d"], steps: int
) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N"]]:
    """What `euler` gives from noise x ~ N(0, I), and its exact log-density, in nats.

    The steps are maps with log-densities log p - log |det(I + J / F)|, so nothing is approximated;
    d gradients of the net a step. `predict` must not mix rows.
    """
    logp = normal_logp(x, torch.zeros_like(x), 1.0)
    for i in range(steps):
        logp = logp - _log_stretch(predict, x, i / steps, steps)
        x = x + predict(x, _time(x, i / steps)) / steps
    return x, logp


def euler_inverse(
    predict: Predict, x: Float[Tensor, "N d"], steps: int, iterations: int = 50
) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N"]]:
    """The noise that `euler` turns into `x`, by fixed-point iteration, and the exact log-density of
    `x` (where the velocity's Lipschitz constant is below F, so that the iteration converges)."""
    stretch = torch.zeros(x.shape[:-1], dtype=x.dtype, device=x.device)
    for i in range(steps - 1, -1, -1):
        after = x
        for _ in range(iterations):
            x = after - predict(x, _time(x, i / steps)) / steps
        stretch = stretch + _log_stretch(predict, x, i / steps, steps)
    return x, normal_logp(x, torch.zeros_like(x), 1.0) - stretch


def noisy_euler(
    predict: Predict, x: Float[Tensor, "... d"], steps: int, spread: Tensor | float
) -> tuple[Float[Tensor, "... d"], Float[Tensor, "..."]]:
    """An Euler rollout with noise N(0, spread^2) added at each step, and the log-density of its
    whole path: log N(x_0; 0, I) + sum_k log N(x_{k+1}; x_k + v / F, spread^2).

    SAC Flow: Sample-Efficient Reinforcement Learning of Flow-Based Policies via
    Velocity-Reparameterized Sequential Modeling (2025). The density is of the path, not of its end.
    """
    logp = normal_logp(x, torch.zeros_like(x), 1.0)
    std = torch.as_tensor(spread, dtype=x.dtype, device=x.device)
    for i in range(steps):
        mean = x + predict(x, _time(x, i / steps)) / steps
        x = mean + std * torch.randn_like(mean)
        logp = logp + normal_logp(x, mean, std)
    return x, logp


def flow_levels(steps: int, shift: float = 1.0) -> Float[Tensor, "F+1"]:
    """Shares of noise s = 1 - t from 1 down to 0: s = shift u / (1 + (shift - 1) u), u = 1 - i / F;
    a shift above 1 spends more steps on high noise.

    Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (2024).
    """
    u = 1.0 - torch.arange(steps + 1, dtype=torch.float64) / steps
    return (shift * u / (1.0 + (shift - 1.0) * u)).float()


def flow_noise(
    levels: Float[Tensor, "F+1"], scale: float = 0.7, constant: bool = False
) -> Float[Tensor, "F"]:
    """sigma of each step of `flow_step`: scale sqrt(s / (1 - s)), at s = 1 with the next level in
    1 - s (Flow-GRPO: Training Flow Matching Models via Online RL, 2025); or `scale` everywhere
    (DanceGRPO: Unleashing GRPO on Visual Generation, 2025)."""
    before = levels[:-1]
    if constant:
        return torch.full_like(before, scale)
    left = torch.where(before < 1.0, 1.0 - before, 1.0 - levels[1])
    return scale * (before / left).sqrt()


def flow_step(
    velocity: Float[Tensor, "... d"], x: Float[Tensor, "... d"], level: Float[Tensor, "..."],
    step: Float[Tensor, "..."], sigma: Float[Tensor, "..."],
) -> tuple[Float[Tensor, "... d"], Float[Tensor, "... 1"]]:  # fmt: skip
    """Mean and deviation of a noisy Euler step from noise level s to s - h, whose marginals are the
    flow's own whatever sigma is (as h goes to 0):

        mu = x (1 - sigma^2 h / 2s) + v h (1 + sigma^2 (1 - s) / 2s),  deviation sigma sqrt(h)

    Flow-GRPO: Training Flow Matching Models via Online RL (2025).
    """
    s, h, sigma = level[..., None], step[..., None], sigma[..., None]
    pull = sigma.square() / (2.0 * s)
    return x * (1.0 - pull * h) + velocity * h * (1.0 + pull * (1.0 - s)), sigma * h.sqrt()


# ----------------------------------------------------------------------------------------------
# EDM: Elucidating the Design Space of Diffusion-Based Generative Models (2022)


def edm_denoiser(net: Predict, sd: float = 1.0) -> Predict:
    """D(x, sigma) = c_skip x + c_out net(c_in x, ln(sigma) / 4), for data of deviation `sd`."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma[..., None]
        total = s.square() + sd**2
        guess = net(x / total.sqrt(), sigma.log() / 4.0)
        return sd**2 / total * x + s * sd / total.sqrt() * guess

    return denoise


def edm_loss(
    denoise: Predict, x: Float[Tensor, "B d"], sd: float = 1.0, mean: float = -1.2,
    spread: float = 1.2,
) -> Float[Tensor, "B"]:  # fmt: skip
    """(sigma^2 + sd^2) / (sigma sd)^2 ||D(x + sigma eps, sigma) - x||^2, ln sigma ~ N(mean,
    spread^2)."""
    sigma = (mean + spread * torch.randn(x.shape[:-1], device=x.device)).exp()
    noisy = x + sigma[..., None] * torch.randn_like(x)
    weight = (sigma.square() + sd**2) / (sigma * sd).square()
    return weight * (denoise(noisy, sigma) - x).square().sum(-1)


def karras_level(
    share: Float[Tensor, "..."], low: float = 0.002, high: float = 80.0, rho: float = 7.0
) -> Float[Tensor, "..."]:
    """(low^(1/rho) + share (high^(1/rho) - low^(1/rho)))^rho: noise from `low` at 0 to `high` at
    1."""
    first, last = low ** (1 / rho), high ** (1 / rho)
    return (first + share * (last - first)) ** rho


def edm_levels(
    steps: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0
) -> Float[Tensor, "N+1"]:
    """The noise levels of the sampler, from `high` to `low`, and 0."""
    i = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    levels = karras_level(1.0 - i, low, high, rho)
    return torch.cat([levels, levels.new_zeros(1)]).float()


def edm_sample(
    denoise: Predict, x: Float[Tensor, "... d"], levels: Float[Tensor, "N+1"], churn: float = 0.0,
    noise: float = 1.003, guide: Guide | None = None,
) -> Float[Tensor, "... d"]:  # fmt: skip
    """Heun's sampler from noise x ~ N(0, I) (scaled by the first level) along the levels.

    Args:
        churn: fresh noise a step, in total over the N steps, for levels in [0.05, 50].
        noise: the factor of fresh noise.
        guide: `guide(x, i)` moves x before step i; it is not asked before the last.
    """
    steps, levels = levels.shape[0] - 1, levels.to(x.device)
    x = x * levels[0]
    for i in range(steps):
        if guide is not None and i < steps - 1:
            x = guide(x, i)
        sigma, after = levels[i], levels[i + 1]
        if churn and 0.05 <= float(sigma) <= 50.0:
            raised = sigma * (1.0 + min(churn / steps, math.sqrt(2.0) - 1.0))
            x = x + (raised.square() - sigma.square()).sqrt() * noise * torch.randn_like(x)
            sigma = raised
        slope = (x - denoise(x, sigma.expand(x.shape[:-1]))) / sigma
        moved = x + (after - sigma) * slope
        if i < steps - 1:
            there = (moved - denoise(moved, after.expand(x.shape[:-1]))) / after
            moved = x + (after - sigma) * 0.5 * (slope + there)
        x = moved
    return x
