"""Evidence for asking for help under a budget, and for a generalist value model as a router."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

from surpass.critics.in_context import InContext, SetValue, Snapshots, train_set_value
from surpass.data.truth import Truth
from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.ope.routing import request_help, v0_value
from surpass.objectives.allocation import allocate, mixed_groups
from surpass.objectives.budgets import within_budget
from surpass.tasks.helping import Rooms
from surpass.tasks.snapshots import arithmetic_snapshots
from surpass.training.explore import explore

# ------------------------------------------------------------------------------------------- help

BUDGETS = (1.0, 2.0, 4.0)


def _worth(rooms: Rooms, pi: Tensor) -> tuple[float, float]:
    """Exact success and calls of a policy [S, 2] or [H, S, 2]."""
    mdp = rooms.mdp
    calls = mdp.occupancy(pi)[..., 1][:, ~mdp.terminal_states].sum()
    return float(mdp.evaluate(pi).value), float(calls)


def _mixed(rooms: Rooms, alone: Tensor, budget: float, even: bool = False) -> float:
    """The success of asking where `alone` lies below a threshold (or, `even`, of asking at random
    with that rate), mixed between the two settings beside the budget."""

    def make(knob: float) -> Tensor:
        return _asking(torch.full_like(alone, knob) if even else (alone < knob).double())

    low, high = (0.0, *_worth(rooms, make(0.0))), (1.0, *_worth(rooms, make(1.0)))
    if high[2] <= budget:
        return high[1]
    for _ in range(18):
        middle = (low[0] + high[0]) / 2
        found = (middle, *_worth(rooms, make(middle)))
        low, high = (low, found) if found[2] > budget else (found, high)
    mix = (budget - low[2]) / max(high[2] - low[2], 1e-12)
    return mix * high[1] + (1 - mix) * low[1]


def _asking(rows: Tensor) -> Tensor:
    """Probabilities [S, 2] from the probability of asking [S]."""
    return torch.stack((1 - rows, rows), -1)


@evidence(
    "request-help",
    claim="learned offline, it succeeds at least 10 points more often than asking at random and 4 "
    "more than asking where success is unlikely, with as many calls, and reaches 95 % of the "
    "optimum",
    setting="8 x 8 rooms with hazards, junctions at which the agent errs, and pits in which no "
    "help helps; 4,000 offline episodes with random help; exact success; three mazes a seed",
    baseline="ask where the agent's own success rate lies below a threshold, tuned on the truth to "
    "the same number of calls",
    metric="success rate with two calls an episode",
    bar=at_least(0.04),
    minutes=2,
    note="The gain differs much between mazes: where nearly every junction can be helped at, even "
    "random calls do well, and three mazes a seed leave a wide interval.",
)
def request_help_evidence(seed: int, zoo: Any) -> Result:
    out: dict[float, list[tuple[float, ...]]] = {c: [] for c in BUDGETS}
    for maze in range(3):
        rooms = Rooms(10 * seed + maze)
        mdp, S = rooms.mdp, rooms.mdp.n_states
        log = rooms.log(4000, seed=seed)
        alone = mdp.evaluate(_asking(torch.zeros(S, dtype=torch.float64))).v[0]
        for c in BUDGETS:
            form = request_help(c, S, rooms.horizon)
            plan = form.solve(form.model(log))
            made = [_worth(rooms, p) for p in plan.policy]
            ours = [plan.mix * a + (1 - plan.mix) * b for a, b in zip(*made, strict=True)]
            told = [_worth(rooms, _imitated(rooms, log, p)) for p in plan.policy]
            helper = plan.mix * told[0][0] + (1 - plan.mix) * told[1][0]
            best = within_budget(mdp.P, mdp.r, mdp.d0, c, rooms.horizon).success
            at_random = _mixed(rooms, torch.zeros_like(alone) + 0.5, c, even=True)
            unlikely = _mixed(rooms, alone, c)
            out[c].append((ours[0], at_random, unlikely, best, ours[1] / c, helper))
    mean = {c: np.mean(rows, axis=0) for c, rows in out.items()}
    two = mean[2.0]
    also: dict[str, tuple[Any, ...]] = {}
    for c, m in mean.items():
        also[f"success against random asking, {c:g} calls"] = (m[0], m[1], at_least(0.1))
        if c != 2.0:
            also[f"success against the threshold, {c:g} calls"] = (m[0], m[2], at_least(0.04))
        also[f"success over the optimum, {c:g} calls"] = (m[0], m[3], at_least(0.95, times=True))
        also[f"calls over the budget, {c:g} calls"] = (m[4], 1.0, at_most(1.05, alone=True))
    also["success of the imitated helper, 2 calls"] = (two[5], two[0], at_least(-0.02))
    return Result(two[0], two[2], also)


def _imitated(rooms: Rooms, log: Any, policy: Tensor) -> Tensor:
    """A decision tree on the features and the step, fitted to the plan on the states of the log."""
    s, step = log.extras["state"], log.extras["step"]
    wanted = policy[step, s, 1].numpy()
    if wanted.min() == wanted.max():
        return policy
    x = torch.cat((rooms.features[s], step[:, None].float()), 1).numpy()
    keep = np.random.default_rng(0).permutation(len(x))[:20_000]
    tree = DecisionTreeClassifier(class_weight="balanced", min_samples_leaf=5, random_state=0)
    tree.fit(x[keep], wanted[keep])
    H, S = policy.shape[:2]
    every = torch.cat(
        (rooms.features.repeat(H, 1), torch.arange(H).repeat_interleave(S)[:, None]), 1
    )
    return _asking(torch.from_numpy(tree.predict(every.numpy())).double().reshape(H, S))


# ------------------------------------------------------------------------------------------ value

SUPPORT = 96


def _read(net: SetValue, tasks: Snapshots, g: torch.Generator) -> list[dict[str, Any]]:
    """For every snapshot: predictions of the prompts outside a fresh support set, by all
    readers."""
    M, out = len(tasks.features), []
    for p in tasks.success:
        order = torch.randperm(M, generator=g)
        inside, rest = order[:SUPPORT], order[SUPPORT:]
        y = (torch.rand(SUPPORT, generator=g) < p[inside]).float()
        if y.min() == y.max():
            continue
        x, q = tasks.features[inside], tasks.features[rest]
        with torch.no_grad():
            ours = net(x[None], y[None], q[None])[0].sigmoid().numpy()
        fitted = LogisticRegression(C=1.0, max_iter=300).fit(x.numpy(), y.numpy())
        seen = (torch.rand(len(rest), generator=g) < p[rest]).numpy()
        if seen.min() == seen.max():
            continue
        out.append({
            "rest": rest.numpy(), "truth": p[rest].numpy(), "seen": seen, "ours": ours,
            "logistic": fitted.predict_proba(q.numpy())[:, 1],
            "mean": np.full(len(rest), float(y.mean())),
        })  # fmt: skip
    return out


def _grouped(reads: list[dict[str, Any]], name: str) -> float:
    """The mean over snapshots of the area under the curve within each."""
    return float(np.mean([roc_auc_score(r["seen"], r[name]) for r in reads]))


def _front(reward: np.ndarray, cost: np.ndarray, chosen: list[np.ndarray]) -> float:
    """Area under the upper hull of (cost, success) of several routers, from 0 to the largest
    cost."""
    points = {(0.0, 0.0)}
    for pick in chosen:
        rows = np.arange(len(reward))
        points.add((float(cost[pick].mean()), float(reward[rows, pick].mean())))
    top = float(cost.max())
    grid = np.linspace(0, top, 200)
    value = [
        max(
            (1 - t) * a[1] + t * b[1]
            for a in points for b in points if a[0] <= c <= b[0] or (a == b and a[0] <= c)
            for t in [(c - a[0]) / (b[0] - a[0]) if b[0] > a[0] else 0.0]
        )
        for c in grid
    ]  # fmt: skip
    return float(np.trapezoid(value, grid) / top)


@evidence(
    "v0-value",
    claim="on runs it never saw, its ranking of prompts within a snapshot is at least 0.05 better "
    "than difficulty alone, and no worse than a logistic regression fitted to each snapshot; "
    "rollouts allocated by it give at least 15 % more groups with both outcomes, and routing "
    "by it a better front of success and cost than any mixture of single models",
    setting="small nets trained by GRPO on digit arithmetic, 12 snapshots of each of 20 runs to "
    "learn from, 6 runs of another width to test on, 96 results as support",
    baseline="the mean success of each prompt over the training snapshots",
    metric="area under the curve within a snapshot, mean",
    bar=at_least(0.05),
    minutes=2,
    note="It ranks prompts two points better than their difficulty and routes better than "
    "any mixture, but snapshots differ too little in which prompts they solve for "
    "five points, or for more mixed groups.",
)
def v0_evidence(seed: int, zoo: Any) -> Result:
    known = arithmetic_snapshots(20, 12, seed=2 * seed)
    fresh = arithmetic_snapshots(6, 12, seed=2 * seed + 1, width=100)
    easy = torch.logit(known.success.mean(0, keepdim=True).T.clamp(0.02, 0.98)) / 2
    known, fresh = (  # prompts are known by their difficulty, too; so are they to the rivals
        Snapshots(torch.cat((t.features, easy), 1), t.success, t.run) for t in (known, fresh)
    )
    net = train_set_value(known, seed=seed)
    reads = _read(net, fresh, torch.Generator().manual_seed(seed))
    difficulty = known.success.mean(0).numpy()
    for r in reads:
        r["difficulty"] = difficulty[r["rest"]]
    brier = {
        k: np.mean([((r[k] - r["truth"]) ** 2).mean() for r in reads]) for k in ("ours", "mean")
    }
    groups = [
        [
            mixed_groups(r["truth"], np.full(len(r["truth"]), 8)) if k == "even"
            else mixed_groups(r["truth"], allocate(r[k], 8 * len(r["truth"])))
            for k in ("ours", "even")
        ]
        for r in reads
    ]  # fmt: skip
    ours, even = np.sum(groups, axis=0)
    routed, single = _routed(net, fresh, seed)
    return Result(
        _grouped(reads, "ours"),
        _grouped(reads, "difficulty"),
        {
            "against a logistic regression a snapshot": (
                _grouped(reads, "ours"), _grouped(reads, "logistic"), at_least(-0.01),
            ),
            "Brier score against the snapshot's mean": (
                float(brier["ours"]), float(brier["mean"]), at_most(0.0),
            ),
            "groups with both outcomes, against even rollouts": (
                float(ours), float(even), at_least(1.15, times=True),
            ),
            "area under success and cost, against mixtures of single models": (
                routed, single, at_least(0.0),
            ),
        },
    )  # fmt: skip


def _routed(net: SetValue, fresh: Snapshots, seed: int) -> tuple[float, float]:
    """The areas of routers among three snapshots of three runs, and of mixtures of single ones; the
    router's record is its own log of the prompts before."""
    which = [int((fresh.run == k).nonzero()[j, 0]) for k, j in ((0, 5), (1, 8), (2, 11))]
    reward = fresh.success[which].T.double()
    cost = np.array([1.0, 2.0, 3.0])
    world = Truth(fresh.features, reward, torch.full_like(reward, 1 / 3))
    log = explore(v0_value(net, share=1.0), world, 1, 450, seed=seed).log
    fitted = InContext(net, SUPPORT).fit(log.context, log.action, log.reward, n_actions=3)
    p = fitted.predict(fresh.features).numpy()
    picks = [(p - price * cost).argmax(1) for price in np.linspace(0, 0.6, 25)]
    alone = [np.full(len(p), k) for k in range(3)]
    truth = reward.numpy()
    return _front(truth, cost, picks + alone), _front(truth, cost, alone)
