"""A value model for any policy: from a few hundred of a policy's past results it predicts how
likely
the policy is to solve a prompt, with no training for that policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from surpass.critics.rewards import FittedRewards, RewardModel
from surpass.errors import InputError

__all__ = ["InContext", "SetValue", "Snapshots", "pairwise_and_soft", "train_set_value"]


@dataclass(frozen=True)
class Snapshots:
    """What several policies did on the same prompts: `features` [M, d] of the prompts, `success`
    [S, M] of each policy snapshot, and the training `run` each snapshot came from [S]."""

    features: Float[Tensor, "M d"]
    success: Float[Tensor, "S M"]
    run: Float[Tensor, "S"]


class SetValue(nn.Module):
    """Attention over a support set of (prompt, result) rows: two layers in which the query reads
    the
    support, keys from prompts, values from prompts and results; and a kernel reading of the results
    beside it. `forward` gives logits [B, q]."""

    def __init__(self, features: int, width: int = 48, heads: int = 4) -> None:
        super().__init__()
        self.prompt = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))
        self.row = nn.Linear(width + 1, width)
        self.first = nn.MultiheadAttention(width, heads, batch_first=True)
        self.second = nn.MultiheadAttention(width, heads, batch_first=True)
        self.head = nn.Sequential(nn.Linear(3 * width + 2, width), nn.GELU(), nn.Linear(width, 1))
        self.sharp = nn.Parameter(torch.zeros(()))

    def forward(
        self, support: Float[Tensor, "B n d"], result: Float[Tensor, "B n"],
        query: Float[Tensor, "B q d"],
    ) -> Float[Tensor, "B q"]:  # fmt: skip
        s, q = self.prompt(support), self.prompt(query)
        sign = 2 * result[..., None] - 1
        rows = self.row(torch.cat((s, sign), -1))
        a = self.first(q, s, rows, need_weights=False)[0]
        b = self.second(q + a, rows, rows, need_weights=False)[0]
        near = (q @ s.transpose(1, 2) * self.sharp.exp() / s.shape[-1] ** 0.5).softmax(-1)
        mean = sign.mean(1, keepdim=True).expand(-1, q.shape[1], -1)
        return self.head(torch.cat((q, a, b, near @ sign, mean), -1))[..., 0]


def pairwise_and_soft(
    logit: Float[Tensor, "B q"], target: Float[Tensor, "B q"], alpha: float = 0.25
) -> Tensor:
    """alpha times the mean of -log sigma(s_i - s_j) over pairs of one snapshot whose targets lie on
    different sides of 1/2, plus (1 - alpha) times the soft cross-entropy."""
    soft = F.binary_cross_entropy_with_logits(logit, target)
    good, bad = (target > 0.5).float(), (target <= 0.5).float()
    pair = good[:, :, None] * bad[:, None, :]
    order = -F.logsigmoid(logit[:, :, None] - logit[:, None, :])
    return alpha * (order * pair).sum() / pair.sum().clamp_min(1) + (1 - alpha) * soft


def train_set_value(
    tasks: Snapshots, *, support: int = 96, queries: int = 24, steps: int = 500, batch: int = 16,
    rate: float = 3e-3, alpha: float = 0.25, seed: int = 0,
) -> SetValue:  # fmt: skip
    """Each step draws snapshots, a support set of prompts with one sampled result each, and other
    prompts as queries, whose target is the success rate. AdamW, cosine schedule.

    V_0: A Generalist Value Model for Any Policy at State Zero (2026).

    Raises:
        InputError: when there are fewer prompts than support and queries take.
    """
    S, M = tasks.success.shape
    if support + queries > M:
        raise InputError(f"{support} support and {queries} query prompts do not fit into {M}")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SetValue(tasks.features.shape[1])
    descent = torch.optim.AdamW(net.parameters(), rate, weight_decay=0.01)
    plan = torch.optim.lr_scheduler.OneCycleLR(descent, rate, steps, pct_start=0.05)
    for _ in range(steps):
        which = torch.randint(S, (batch,), generator=generator)
        order = torch.rand(batch, M, generator=generator).argsort(1)[:, : support + queries]
        p, x = tasks.success[which[:, None], order], tasks.features[order]
        result = (torch.rand(batch, support, generator=generator) < p[:, :support]).float()
        logit = net(x[:, :support], result, x[:, support:])
        loss = pairwise_and_soft(logit, p[:, support:], alpha)
        descent.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        descent.step()
        plan.step()
    return net.eval()


@dataclass(frozen=True, eq=False)
class InContext(RewardModel):
    """A reward model without fitting: the value of action a (a model, a policy) in a context is
    read
    by `net` from the last `support` rows in which a was taken; rewards are clipped to [0, 1].

    Actions never taken have the value 1/2 with an empty record: one row that says neither.
    """

    net: SetValue
    support: int = 96

    def fit(self, context: Tensor, action: Tensor, reward: Tensor, weight: Tensor | None = None,
            *, n_actions: int | None = None) -> FittedRewards:  # fmt: skip
        actions = n_actions or int(action.max()) + 1
        records = []
        for a in range(actions):
            at = (action == a).nonzero()[:, 0][-self.support :]
            records.append((context[at].float(), reward[at].clamp(0, 1).float()))
        return _Read(self.net, records)


@dataclass(frozen=True, eq=False)
class _Read:
    net: SetValue
    records: list[Any]

    @torch.no_grad()
    def predict(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N A"]:
        out = []
        for x, y in self.records:
            if len(x) == 0:
                out.append(torch.full((len(context),), 0.5))
                continue
            logits = [
                self.net(x[None], y[None], piece[None])[0] for piece in context.float().split(512)
            ]
            out.append(torch.cat(logits).sigmoid())
        return torch.stack(out, 1).double()
