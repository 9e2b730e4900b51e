"""Advantages: how much better than expected each decision was, [B, T], once per batch.

They see `Sequences`: `reward` [B, T] where it was paid, `mask`, and `group` [B], which numbers the
prompt or start. A group stays on one worker. `Sequences.extras` has the columns that `signals`
computed, such as `value`.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from jaxtyping import Bool, Float, Int
from tensordict import TensorDict
from torch import Tensor

from surpass.objectives.reduce import decided, masked_mean, share, total
from surpass.parts import Nets, Part, State, part

__all__ = [
    "above", "batch_centered", "best_of_group", "capped", "everything", "ewma_standardized", "gae",
    "group_centered", "group_mean", "group_size", "group_standardized", "imitating",
    "kl_in_reward", "leave_one_out", "ones", "overlong", "recorded", "returns", "share_kept",
    "success_gate",
    "value_loss", "values", "whitened", "with_columns", "with_reward", "with_signal",
]  # fmt: skip


class Sequences(Protocol):
    """What advantages read of a record of sequences (`surpass.data.Sequences`)."""

    mask: Float[Tensor, "B T"]
    reward: Float[Tensor, "B T"] | None
    behavior_logp: Float[Tensor, "B T"] | None
    terminated: Bool[Tensor, "B T"] | None
    truncated: Bool[Tensor, "B T"] | None
    group: Int[Tensor, "B"] | None
    source: Int[Tensor, "B"] | None
    extras: Any

    @property
    def total(self) -> Float[Tensor, "B"]: ...
    @property
    def length(self) -> Float[Tensor, "B"]: ...


def same_group(seq: Sequences) -> Float[Tensor, "B B"]:
    """1 where two sequences answer the same prompt."""
    assert seq.group is not None
    return (seq.group[:, None] == seq.group[None, :]).to(seq.mask.dtype)


def group_size(seq: Sequences) -> Float[Tensor, "B"]:
    """How many sequences share each one's prompt, itself included."""
    return same_group(seq).sum(-1)


def group_mean(seq: Sequences, value: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """The mean of a number per sequence over each one's group."""
    same = same_group(seq)
    return same @ value / same.sum(-1)


def spread(seq: Sequences, value: Float[Tensor, "B"], unbiased: bool = True) -> Float[Tensor, "B"]:
    """The standard deviation over each one's group; 0 in a group of one."""
    same = same_group(seq)
    count = same.sum(-1)
    apart = (value - group_mean(seq, value)).square()
    return (same @ apart / (count - float(unbiased)).clamp_min(1)).sqrt()


def over_decisions(value: Float[Tensor, "B"], seq: Sequences) -> Float[Tensor, "B T"]:
    """The same number at each decision of a sequence."""
    return value[:, None] * decided(seq.mask)


@part
def ones(seq: Sequences, /) -> Float[Tensor, "B T"]:
    """1 at every decision: imitation."""
    return decided(seq.mask)


@part(needs=("advantage",))
def recorded(seq: Sequences, /) -> Float[Tensor, "B T"]:
    """The column `advantage` that the log has: each step was judged before."""
    return seq.extras["advantage"] * decided(seq.mask)


@part
def returns(seq: Sequences, /, gamma: float = 1.0) -> Float[Tensor, "B T"]:
    """G_t = r_t + gamma G_{t+1}, the reward to go: REINFORCE without a baseline.

    Where one reward is paid at the end and gamma is 1, it is that reward at every decision.
    """
    assert seq.reward is not None
    own, out = decided(seq.mask), []
    ahead = torch.zeros_like(seq.reward[:, 0])
    for t in reversed(range(seq.reward.shape[1])):
        keep = ahead if (over := _over(seq, t)) is None else ahead * (1 - over)
        # Time passes at decisions only: what a tool writes is not discounted.
        ahead = seq.reward[:, t] + (1 - own[:, t] + own[:, t] * gamma) * keep
        out.append(ahead)
    return torch.stack(out[::-1], -1) * own


def _over(seq: Sequences, t: int) -> Tensor | None:
    if seq.terminated is None and seq.truncated is None:
        return None
    ended = [e[:, t] for e in (seq.terminated, seq.truncated) if e is not None]
    return torch.stack(ended).any(0).to(seq.mask.dtype)


@part
def batch_centered(seq: Sequences, /, gamma: float = 1.0) -> Float[Tensor, "B T"]:
    """The reward to go minus the mean return of the batch: REINFORCE with a constant baseline.

    "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning"
    (1992).
    """
    gain = returns(gamma=gamma)(seq)
    score = seq.total
    baseline = total(score.sum()) / total(torch.ones_like(score).sum())
    return (gain - baseline) * decided(seq.mask)


@part(needs=("group",))
def leave_one_out(seq: Sequences, /) -> Float[Tensor, "B T"]:
    """R_i minus the mean of the others of its group, (K / (K - 1)) (R_i - mean R).

    "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in
    LLMs" (2024).
    """
    count = group_size(seq)
    centered = seq.total - group_mean(seq, seq.total)
    return over_decisions(centered * count / (count - 1).clamp_min(1), seq)


@part(needs=("group",))
def group_standardized(
    seq: Sequences, /, eps: float = 1e-6, unbiased: bool = True
) -> Float[Tensor, "B T"]:
    """(R_i - mean R) / (std R + eps) over the group; a group of equal rewards gives 0.

    "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models" (2024).
    """
    centered = seq.total - group_mean(seq, seq.total)
    return over_decisions(centered / (spread(seq, seq.total, unbiased) + eps), seq)


@part
def capped(
    seq: Sequences, /, inner: Part[[Sequences], Any], limit: float = 5.0
) -> dict[str, Tensor]:
    """Another advantage, held within +-limit."""
    columns = inner(seq)
    columns = columns if isinstance(columns, dict) else {"advantage": columns}
    return {**columns, "advantage": columns["advantage"].clamp(-limit, limit)}


@part(needs=("group",))
def group_centered(seq: Sequences, /) -> Float[Tensor, "B T"]:
    """R_i - mean R over the group: no bias toward prompts with little spread.

    "Understanding R1-Zero-Like Training: A Critical Perspective" (2025), Dr. GRPO.
    """
    return over_decisions(seq.total - group_mean(seq, seq.total), seq)


@part(needs=("value",))
def gae(seq: Sequences, /, gamma: float = 0.99, lam: float = 0.95) -> dict[str, Tensor]:
    """A_t = delta_t + gamma lam A_{t+1}, delta_t = r_t + gamma V_{t+1} - V_t.

    Bootstrapping stops at `terminated`, the sum stops at `truncated` too. `extras["value"]` [B, T]
    is V_t; `extras["next_value"]` [B, T] is V_{t+1} where sequences hold several episodes, else it
    is the next decision's value and 0 after the last. Entries that the policy did not decide are
    passed over. Gives `advantage` and `value_target` = A + V.

    "High-Dimensional Continuous Control Using Generalized Advantage Estimation" (2015).
    """
    assert seq.reward is not None and seq.extras is not None
    value, given = seq.extras["value"], seq.extras.get("next_value", None)
    own, out = decided(seq.mask), []
    ahead = torch.zeros_like(value[:, 0])
    following, owed = torch.zeros_like(ahead), torch.zeros_like(ahead)
    for t in reversed(range(value.shape[1])):
        m = own[:, t]
        ended = seq.terminated[:, t].to(m.dtype) if seq.terminated is not None else 0.0
        over = _over(seq, t)
        carried = ahead if over is None else ahead * (1 - over)
        after = following if given is None else given[:, t]
        # A reward paid outside decisions (after a tool's turn) belongs to the decision before it.
        owed = owed + seq.reward[:, t]
        here = owed + gamma * after * (1 - ended) - value[:, t] + gamma * lam * carried
        out.append(here * m)
        ahead, owed = m * here + (1 - m) * carried, (1 - m) * owed
        following = m * value[:, t] + (1 - m) * following
    advantage = torch.stack(out[::-1], -1)
    return {"advantage": advantage, "value_target": (advantage + value) * own}


@part(needs=("value",))
def whitened(
    seq: Sequences, /, inner: Part[[Sequences], Any] = gae(), eps: float = 1e-8
) -> dict[str, Tensor]:
    """Another advantage, shifted to mean 0 and scaled to deviation 1 over the batch's decisions."""
    columns = inner(seq)
    columns = columns if isinstance(columns, dict) else {"advantage": columns}
    a, own = columns["advantage"], decided(seq.mask)
    count = total(own.sum())
    mean = total((a * own).sum()) / count
    var = total(((a - mean).square() * own).sum()) / (count - 1).clamp_min(1)
    return {**columns, "advantage": (a - mean) / (var.sqrt() + eps) * own}


@part(state=lambda: {"weight": torch.zeros(()), "mean": torch.zeros(()), "square": torch.zeros(())})
def ewma_standardized(
    state: State, seq: Sequences, /, inner: Part[[Sequences], Any] = gae(), com: float = 2.0,
    eps: float = 1e-8,
) -> tuple[dict[str, Tensor], State]:  # fmt: skip
    """Another advantage, shifted and scaled by moments that are averaged over batches with weights
    b^age times the decisions of a batch, b = com / (1 + com): what a batch lacks in size its
    predecessors make up for.

    "Batch size-invariance for policy optimization" (2021).
    """
    columns = inner(seq)
    columns = columns if isinstance(columns, dict) else {"advantage": columns}
    a, own = columns["advantage"], decided(seq.mask)
    before = state["weight"] * (com / (1.0 + com))
    weight = before + total(own.sum())
    mean = (before * state["mean"] + total((a * own).sum())) / weight.clamp_min(1e-8)
    square = (before * state["square"] + total((a.square() * own).sum())) / weight.clamp_min(1e-8)
    spread = (square - mean.square()).clamp_min(0.0).sqrt()
    out = {**columns, "advantage": (a - mean) / (spread + eps) * own}
    return out, {"weight": weight, "mean": mean, "square": square}


@part
def values(nets: Nets, seq: Sequences, /, net: str = "value") -> Any:
    """A column `value` [B, T]: what a net expects before each decision."""
    return with_columns(seq, value=nets[net](seq).detach())


@part
def value_loss(
    nets: Nets, seq: Sequences, /, clip: float = 0.0, net: str = "value"
) -> Float[Tensor, ""]:
    """(V - V_target)^2 / 2, the mean over decisions; with `clip`, the larger of it and that of V
    held within `clip` of the value before the update, as PPO's first release did."""
    new, target, old = nets[net](seq), seq.extras["value_target"], seq.extras["value"]
    loss = (new - target).square()
    if clip > 0:
        held = old + (new - old).clamp(-clip, clip)
        loss = torch.maximum(loss, (held - target).square())
    return 0.5 * masked_mean(loss, seq.mask)


def with_columns(seq: Sequences, **columns: Tensor) -> Any:
    """The same record with further columns in `extras`."""
    if hasattr(seq, "filled"):  # rows of the compiled executor keep all columns in one place
        return cast(Any, seq).filled(**columns)
    out = cast(Any, seq).clone(recurse=False)
    before = {} if seq.extras is None else dict(seq.extras.items())
    out.extras = TensorDict({**before, **columns}, batch_size=seq.mask.shape[:1])
    return out


# ------------------------------------------------------------------------ shaping of the reward


def at_last(seq: Sequences, value: Float[Tensor, "B"]) -> Float[Tensor, "B T"]:
    """A number per sequence, paid at its last decision."""
    own = decided(seq.mask)
    last = (own.cumsum(-1) == own.sum(-1, keepdim=True)) & (own > 0)
    return value[:, None] * last.to(own.dtype)


@part
def overlong(nets: Nets, seq: Sequences, /, longest: int = 16384, cache: int = 4096) -> Sequences:
    """Soft punishment of length: 0 up to longest - cache decisions, then linear down to -1.

    "DAPO: An Open-Source LLM Reinforcement Learning System at Scale" (2025).
    """
    assert seq.reward is not None
    excess = (seq.length - (longest - cache)) / max(cache, 1)
    penalty = -excess.clamp(0.0, 1.0)
    return with_reward(seq, seq.reward + at_last(seq, penalty))


@part(needs=("ref_logp",))
def kl_in_reward(nets: Nets, seq: Sequences, /, beta: float = 0.05) -> Sequences:
    """r_t - beta (log pi_behavior - log pi_ref) at every decision, as in RLHF with PPO.

    "Fine-Tuning Language Models from Human Preferences" (2019).
    """
    assert seq.reward is not None and seq.behavior_logp is not None and seq.extras is not None
    apart = torch.where(
        seq.mask > 0, seq.behavior_logp - seq.extras["ref_logp"], torch.zeros_like(seq.reward)
    )
    return with_reward(seq, seq.reward - beta * apart)


def _regrouped(seq: Sequences, group: Tensor) -> Sequences:
    if hasattr(seq, "filled"):
        return cast(Any, seq).filled(group=group)
    other = cast(Any, seq).clone(recurse=False)
    other.group = group
    return other


def with_reward(seq: Sequences, reward: Float[Tensor, "B T"]) -> Sequences:
    """The same sequences, paid otherwise."""
    if hasattr(seq, "filled"):
        return cast(Any, seq).filled(reward=reward)
    shaped = cast(Any, seq).clone(recurse=False)
    shaped.reward = reward
    return shaped


# -------------------------------------------------------------------------- own answers and traces


def own_of(seq: Sequences) -> Bool[Tensor, "B"]:
    """Which sequences are the policy's own: source 0, or all where there are no others."""
    whole = torch.ones_like(seq.mask[:, 0], dtype=torch.bool)
    return whole if seq.source is None else seq.source == 0


@part(needs=("group",))
def imitating(
    seq: Sequences, /, inner: Part[[Sequences], Any] = group_centered(), weight: float = 1.0
) -> Float[Tensor, "B T"]:  # fmt: skip
    """`inner`, which compares within groups, over the policy's own answers alone, and the constant
    `weight` for expert traces."""
    assert seq.group is not None
    own = own_of(seq)
    alone = -1 - torch.arange(len(own), device=own.device)  # each trace a group of its own
    mine = _regrouped(seq, torch.where(own, seq.group, alone))
    return torch.where(own[:, None], inner(mine), weight * decided(seq.mask))


@part(needs=("group",))
def success_gate(seq: Sequences, /, gate: float = 0.0, success: float = 0.5) -> Float[Tensor, "B"]:
    """Per prompt: its own answers where more than a share `gate` of them earned `success` or more,
    else its expert trace.

    "Towards a Unified View of Large Language Model Post-Training" (2025), HPT.
    """
    own = own_of(seq).to(seq.mask.dtype)
    same = same_group(seq)
    rate = same @ (own * (seq.total >= success)) / (same @ own).clamp_min(1)
    able = (rate > gate).to(own.dtype)
    return able * own + (1 - able) * (1 - own)


# ------------------------------------------------------------------------------------ selection


@part
def everything(seq: Sequences, /) -> Float[Tensor, "B"]:
    """Every sequence with weight 1."""
    return torch.ones_like(seq.mask[:, 0])


@part(needs=("group",))
def with_signal(seq: Sequences, /, least: float = 1e-6) -> Float[Tensor, "B"]:
    """Groups whose rewards differ: DAPO's dynamic sampling drops the others (2025)."""
    return (spread(seq, seq.total) > least).to(seq.mask.dtype)


@part(needs=("group",))
def best_of_group(seq: Sequences, /) -> Float[Tensor, "B"]:
    """The first of the highest reward in each group: best-of-n distillation."""
    same, score = same_group(seq), seq.total
    order = torch.arange(score.shape[0], device=score.device, dtype=score.dtype)
    better = (score[None, :] > score[:, None]) | (
        (score[None, :] == score[:, None]) & (order[None, :] < order[:, None])
    )
    return ((same * better).sum(-1) == 0).to(score.dtype)


@part
def above(seq: Sequences, /, score: float = 0.0) -> Float[Tensor, "B"]:
    """Sequences whose reward is above a score: rejection sampling."""
    return (seq.total > score).to(seq.mask.dtype)


def share_kept(weight: Float[Tensor, "B"]) -> Tensor:
    """The share of sequences that a selection keeps."""
    return share((weight > 0).to(weight.dtype).sum(), torch.ones_like(weight).sum())
