"""A recommender of users and items that is never trained from scratch: it keeps its weights and its
optimizer's state, learns from what is new, and is served only after its gate let it through.

A context is [user, item of action 0, .., item of action A-1], whole numbers; an action whose item
was replaced has a new number there.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surpass.forms import Outlook
from surpass.objectives.scores import paired, self_normalized
from surpass.objectives.views import Query

__all__ = ["Factors", "GateReading", "Recommender"]


class Factors(nn.Module):
    """P(click) = sigmoid(b + b_u + b_i + u'v), with rows for ids that nobody has seen yet."""

    def __init__(self, users: int, items: int, size: int) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, size + 1), nn.Embedding(items, size + 1)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.1)
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, user: Int[Tensor, "B"], item: Int[Tensor, "B k"]) -> Float[Tensor, "B k"]:
        u, v = self.user(user), self.item(item)
        dot = (u[:, None, 1:] * v[..., 1:]).sum(-1)
        return self.level + u[:, :1] + v[..., 0] + dot

    @torch.no_grad()
    def start_items(self, fresh: Int[Tensor, "n"], known: Int[Tensor, "m"]) -> None:
        """Rows of new items start at the mean of the known ones."""
        if len(fresh) and len(known):
            self.item.weight[fresh] = self.item.weight[known].mean(0)


@dataclass(frozen=True)
class GateReading:
    """What held-out rows of the newest window say of a candidate: its value, its gain over what is
    served, the gain's lower limit, and whether it was promoted. `candidate` has its probabilities
    there, [m, A], and `rows` which rows of the window those are."""

    value: float
    error: float
    gain: float
    low: float
    promoted: bool
    candidate: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Recommender:
    """How a recommender learns from windows of its own log.

    Attributes:
        users, items: how many numbers there may be. size: of the embeddings.
        lr, batch, passes: of Adam, over a window (or the remembered ones).
        memory: None learns from the newest window and keeps all state; a number of windows trains
            anew on that many, every window; 0 never learns again.
        keep_moments: keep Adam's state between windows. start_at_mean: of new items.
        temperature: of the softmax that is served. margin: what a candidate may lose at most.
        held: share of a window on which the gate reads, before it is learned from.
        past: an earlier log to begin with: contexts, actions and rewards.
    """

    users: int
    items: int
    size: int = 8
    lr: float = 0.02
    batch: int = 100
    passes: int = 1
    memory: int | None = None
    keep_moments: bool = True
    start_at_mean: bool = True
    temperature: float = 0.5
    margin: float = 0.02
    held: float = 0.25
    past: tuple[Tensor, Tensor, Tensor] | None = None
    past_passes: int = 3

    def begin(self, rows: int, features: int, actions: int, seed: int) -> _Recommender:
        """A recommender that has learned from the past."""
        return _Recommender(self, seed)


@dataclass
class _Recommender:
    how: Recommender
    seed: int
    losses: list[float] = field(default_factory=list)
    gates: list[GateReading] = field(default_factory=list)
    processed: int = 0

    def __post_init__(self) -> None:
        self.windows: list[tuple[Tensor, Tensor, Tensor]] = []
        self.known = torch.zeros(self.how.items, dtype=torch.bool)
        self._anew()
        if self.how.past is not None:
            self._train(*self.how.past, passes=self.how.past_passes)
            size = len(self.how.past[1]) // max(self.how.memory or 1, 1)
            cuts = zip(*(c.split(max(size, 1)) for c in self.how.past), strict=True)
            self.windows = list(cuts)[-(self.how.memory or 1) :]
        self.processed = 0
        self.served = deepcopy(self.net)

    def _anew(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.net = Factors(self.how.users, self.how.items, self.how.size)
        self.known[:] = False
        self._forget()

    def _forget(self) -> None:
        self.solver = torch.optim.Adam(self.net.parameters(), lr=self.how.lr)

    @torch.no_grad()
    def outlook(self, context: Float[Tensor, "B d"]) -> Outlook:
        """Logits over temperature of the served recommender."""
        return Outlook(self._scores(self.served, context))

    def _scores(self, net: Factors, context: Tensor) -> Tensor:
        ids = context.long()
        return net(ids[:, 0], ids[:, 1:]).double() / self.how.temperature

    def learn(self, batch: Any) -> None:
        """Score the window with what was served, learn, pass the gate, learn the rest."""
        context, action, reward = batch.context, batch.action, batch.reward
        with torch.no_grad():
            logit = self._scores(self.served, context) * self.how.temperature
            own = logit.gather(1, action[:, None])[:, 0]
            self.losses.append(float(
                nn.functional.binary_cross_entropy_with_logits(own, reward.double())
            ))  # fmt: skip
        if self.how.memory == 0:
            return
        cut = round(len(action) * (1 - self.how.held))
        first, rest = slice(0, cut), slice(cut, None)
        if self.how.memory is None:
            if not self.how.keep_moments:
                self._forget()
            self._train(context[first], action[first], reward[first], self.how.passes)
        else:
            self.windows = [*self.windows, (context, action, reward)][-self.how.memory :]
            self._anew()
            seen = (*self.windows[:-1], (context[first], action[first], reward[first]))
            self._train(*(torch.cat(c) for c in zip(*seen, strict=True)), self.how.passes)  # type: ignore[arg-type]
        self._gate(batch, rest, cut)
        if self.how.memory is None:
            self._train(context[rest], action[rest], reward[rest], self.how.passes)

    def _gate(self, batch: Any, rest: slice, cut: int) -> None:
        """Self-normalized values of candidate and served on the same held-out rows."""
        context = batch.context[rest]
        with torch.no_grad():
            candidate, served = (
                torch.softmax(self._scores(net, context), 1) for net in (self.net, self.served)
            )
        p = served.gather(1, batch.action[rest][:, None])[:, 0]
        query = Query(batch.action[rest], batch.reward[rest].double(), p, candidate,
                      reference=served)  # fmt: skip
        value, gain = self_normalized()(query), paired(self_normalized())(query)
        root = len(p) ** 0.5
        low = float(gain.mean() - 1.96 * gain.std() / root)
        promoted = low > -self.how.margin
        rows = torch.arange(cut, cut + len(p))
        self.gates.append(GateReading(
            float(value.mean()), float(value.std()) / root, float(gain.mean()), low, promoted,
            candidate, rows,
        ))  # fmt: skip
        if promoted:
            self.served = deepcopy(self.net)

    def _train(self, context: Tensor, action: Tensor, reward: Tensor, passes: int) -> None:
        """Bernoulli likelihood, `passes` times in the order of time."""
        ids = context.long()
        user, item = ids[:, 0], ids[:, 1:].gather(1, action[:, None])
        shown = torch.unique(ids[:, 1:])
        fresh = shown[~self.known[shown]]
        if self.how.start_at_mean:
            self.net.start_items(fresh, self.known.nonzero()[:, 0])
        self.known[shown] = True
        with torch.enable_grad():
            for _ in range(passes):
                for at in torch.arange(len(user)).split(self.how.batch):
                    logit = self.net(user[at], item[at])[:, 0]
                    loss = nn.functional.binary_cross_entropy_with_logits(logit, reward[at].float())
                    self.solver.zero_grad()
                    loss.backward()
                    self.solver.step()
                    self.processed += len(at)
