"""Judging content by precedents: stored cases with their label and the attributes that decided
them,
so that a new policy is a few examples, and no training.

Customize Multi-modal RAI Guardrails with Precedent-based Predictions (2025); how a judge reads
attributes, and how a rationale is revised, are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from surpass.errors import InputError

__all__ = ["Judge", "Precedents", "detector", "revised", "train_judge"]


@dataclass(frozen=True)
class Precedents:
    """The cases of one policy: `shown` [m, d] probabilities of attributes, `label` [m], and
    `reason` [m, d], 1 for the attributes that the label rests on."""

    shown: Float[Tensor, "m d"]
    label: Float[Tensor, "m"]
    reason: Float[Tensor, "m d"]

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, at: Tensor) -> Precedents:
        """Some of them."""
        return Precedents(self.shown[at], self.label[at], self.reason[at])

    def nearest(self, query: Float[Tensor, "n d"], k: int) -> Tensor:
        """The k cases nearest to each query by cosine, half of each label where there are enough,
        [n, k]; where there are fewer than k, they are repeated."""
        close = F.cosine_similarity(query[:, None] - 0.5, self.shown[None] - 0.5, dim=-1)
        picks = []
        for value in (0.0, 1.0):
            at = (self.label == value).nonzero()[:, 0]
            order = close[:, at].argsort(1, descending=True)[:, : -(-k // 2)]
            picks.append(at[order])
        both = torch.cat(picks, 1)
        return both[:, torch.arange(k) % both.shape[1]]


def detector(
    pictures: Float[Tensor, "n p"], shown: Float[Tensor, "n d"], epochs: int = 12, seed: int = 0
) -> nn.Module:
    """A small net from pictures to attribute logits, Adam on cross-entropy."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = (pictures.shape[1], 128, shown.shape[1])
        net = nn.Sequential(nn.Linear(*sizes[:2]), nn.ReLU(), nn.Linear(*sizes[1:]))
    descent = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(epochs):
        for at in torch.randperm(len(pictures), generator=generator).split(64):
            loss = F.binary_cross_entropy_with_logits(net(pictures[at]), shown[at])
            descent.zero_grad()
            loss.backward()
            descent.step()
    return net.eval()


class Judge(nn.Module):
    """P(violation) from a query's attributes and k precedents.

    The same small net reads each attribute (what the query shows, what violations and what harmless
    precedents show, and how often each rests on it); their sum is read to the logit. No attribute
    has weights of its own, so a policy over attributes that no training policy used is judged
    alike.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.each = nn.Sequential(
            nn.Linear(9, width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )
        self.all = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(
        self, query: Float[Tensor, "n d"], shown: Float[Tensor, "n k d"],
        label: Float[Tensor, "n k"], reason: Float[Tensor, "n k d"],
        visible: Float[Tensor, "n d"] | None = None,
    ) -> Float[Tensor, "n"]:  # fmt: skip
        see = torch.ones_like(query) if visible is None else visible
        out = [(query - 0.5) * see, see]
        for side in (label, 1 - label):
            n = side.sum(1).clamp_min(1)[:, None]
            out += [
                ((shown - 0.5) * side[..., None]).sum(1) / n,
                (reason * side[..., None]).sum(1) / n,
                (reason * shown * side[..., None]).sum(1) / n,
            ]
        count = label.sum(1, keepdim=True).expand_as(query) / label.shape[1]
        each = self.each(torch.stack((*out, count), -1))
        return self.all(each.sum(1) / each.shape[1] ** 0.5)[:, 0]

    def judged(self, query: Tensor, cases: Precedents, k: int = 16) -> Float[Tensor, "n"]:
        """P(violation) of queries from their nearest precedents."""
        at = cases.nearest(query, k)
        return self(query, cases.shown[at], cases.label[at], cases.reason[at]).sigmoid()


def train_judge(
    policies: list[Precedents], *, k: int = 16, steps: int = 800, seed: int = 0,
    judge: Judge | None = None,
) -> Judge:  # fmt: skip
    """Each step draws queries of one policy each, their label, and k other cases of the policy as
    precedents, balanced where it can be, with some attributes turned into their absence; a query
    shows all attributes or a random half, so that
    rationales can be judged alone. `judge`: to train on.

    Raises:
        InputError: when a policy has fewer than 2 k cases.
    """
    small = [len(p) for p in policies if len(p) < 2 * k]
    if small:
        raise InputError(f"a policy to learn from has {small[0]} cases; {2 * k} are needed")
    generator = torch.Generator().manual_seed(seed)
    if judge is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            judge = Judge()
    descent = torch.optim.Adam(judge.parameters(), 3e-3)
    for _ in range(steps):
        q, y, shown, label, reason = [], [], [], [], []
        for p in policies:
            size = 2 * int(torch.randint(1, k // 2 + 1, (), generator=generator))
            at = _balanced(p.label, 12, size + 1, generator)
            q.append(p.shown[at[:, 0]])
            y.append(p.label[at[:, 0]])
            rest = at[:, 1:]
            pad = torch.randint(0, size, (12, k), generator=generator)
            pad[:, :size] = torch.arange(size)
            rest = rest.gather(1, pad)  # few precedents are repeated up to k
            for out, column in ((shown, p.shown), (label, p.label), (reason, p.reason)):
                out.append(column[rest])
        query = torch.cat(q)
        turn = torch.rand(len(policies), query.shape[1], generator=generator) < 0.3
        turn = turn.float().repeat_interleave(12, 0)  # an attribute may as well be its absence
        query = query + turn * (1 - 2 * query)
        cases = torch.cat(shown)
        cases = cases + turn[:, None] * (1 - 2 * cases)
        half = (torch.rand(query.shape, generator=generator) < 0.5).float()
        half = torch.where(torch.rand(len(query), 1, generator=generator) < 0.7, 1.0, half)
        logit = judge(query, cases, torch.cat(label), torch.cat(reason), half)
        loss = F.binary_cross_entropy_with_logits(logit, torch.cat(y))
        descent.zero_grad()
        loss.backward()
        descent.step()
    return judge


def _balanced(label: Tensor, n: int, size: int, generator: torch.Generator) -> Tensor:
    """n draws of `size` different cases, about half of each label, in random order."""
    more = int(torch.rand((), generator=generator) < 0.5)  # the label that an odd case goes to
    picks = []
    for value in (0, 1):
        at = (label == value).nonzero()[:, 0]
        want = size // 2 + (size % 2 if value == more else 0)
        order = torch.rand(n, len(at), generator=generator).argsort(1)
        picks.append(at[order[:, :want]])
    both = torch.cat(picks, 1)
    return both.gather(1, torch.rand(both.shape, generator=generator).argsort(1))


def revised(judge: Judge, cases: Precedents, *, k: int = 16, rounds: int = 3) -> Precedents:
    """Rationales that lead to the label on their own, by criticism and revision.

    A case is judged from its rationale alone (what is not in it is hidden), by the other cases of
    its policy. Where that gives the wrong label, the attribute with the largest gradient toward the
    right one is added or removed, up to `rounds` times. Cases that still fail are dropped, unless
    no
    case of a label would be left.
    """
    m = len(cases)
    if m < 3:
        return cases
    others = torch.stack([torch.cat((torch.arange(i), torch.arange(i + 1, m))) for i in range(m)])
    at = torch.stack([
        others[i][cases.rows(others[i]).nearest(cases.shown[i : i + 1], k)[0]] for i in range(m)
    ])  # fmt: skip
    reason = cases.reason.clone()
    for r in range(rounds + 1):
        seen = reason.clone().requires_grad_()
        logit = judge(cases.shown, cases.shown[at], cases.label[at], cases.reason[at], seen)
        right = (logit > 0).float() == cases.label
        if bool(right.all()) or r == rounds:
            break
        (slope,) = torch.autograd.grad((logit * (2 * cases.label - 1)).sum(), seen)
        gain = torch.where(reason > 0.5, -slope, slope)
        best = gain.argmax(1, keepdim=True)
        flipped = reason.scatter(1, best, 1 - reason.gather(1, best))
        reason = torch.where(right[:, None], reason, flipped)
    keep = right.clone()
    for value in (0.0, 1.0):
        side = cases.label == value
        if not bool((keep & side).any()):
            keep |= side
    return replace(cases, reason=reason).rows(keep.nonzero()[:, 0])
