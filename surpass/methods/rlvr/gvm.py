"""GVM-RAFT: trial answers say where further answers reduce the variance of the gradient the most;
the budget goes there, and what is right is imitated, every prompt alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.objectives.groups import accepted_mean
from surpass.objectives.reduce import sum_over
from surpass.objectives.sampling_budget import allocated, budget_weights
from surpass.objectives.trust import clip
from surpass.parts import Number, part
from surpass.registry import system
from surpass.training.language_rollouts import Fresh

__all__ = ["gvm", "gvm_budget"]


def gradient_norms(policy: Any, seq: Any, rows: list[int]) -> Tensor:
    """The norm of the gradient of -log pi(answer) of some rows with respect to the embeddings."""
    weight = policy.model.get_input_embeddings().weight
    trained, out = weight.requires_grad, []
    weight.requires_grad_()  # under adapters it is frozen
    for i in rows:
        logp = policy.score(seq[i : i + 1]).logp.sum()
        out.append(torch.autograd.grad(logp, weight)[0].norm())
    weight.requires_grad_(trained)
    return torch.stack(out) if out else torch.zeros(0)


@part
def gvm_budget(
    fresh: Fresh, /, total: int = 256, alpha: float = 1e-3, beta: float = 2.0,
    success: float = 0.5,
) -> Fresh:  # fmt: skip
    """The fresh groups are trial answers: their acceptance rates and gradients decide how `total`
    further answers are spread over the prompts. The trial is charged too, and not learned from."""
    seq = fresh.sequences
    assert seq.group is not None
    names, place = seq.group.unique(return_inverse=True)
    good = (seq.total > success).float()
    count = torch.bincount(place).float()
    accepted = torch.zeros_like(count).index_add_(0, place, good)
    rows = good.nonzero()[:, 0].tolist()
    norms = torch.zeros_like(good)
    norms[rows] = gradient_norms(fresh.policy, seq, rows).to(norms)
    size = torch.zeros_like(count).index_add_(0, place, norms) / accepted.clamp_min(1)
    spread = allocated(budget_weights(accepted / count, size, alpha, beta), total)
    if not bool(spread.any()):
        return fresh
    first = [int((place == i).nonzero()[0, 0]) for i in range(len(names))]
    more, rows = fresh.more(first, spread.tolist())
    return replace(fresh, sequences=more, rows=rows)


@system("gvm")
def gvm(
    total: int = 256, trial: int = 8, alpha: float = 1e-3, beta: float = 2.0, eps: float = 0.2,
    lr: Number = 1e-6, batch: int = 256, horizon: int = 256, minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """RAFT++ with a budget: `batch` trial answers in groups of `trial`, then `total` answers where
    they help; 1 - clipped ratios of what is right, prompts counted alike."""
    return PolicyGradient(
        accepted_mean(), clip(eps, eps), reduce=sum_over(float(horizon)), minibatches=minibatches,
        source=rollouts(batch, horizon, trial, then=(gvm_budget(total, alpha, beta),)),
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
