"""The log's own numbers, as the report shows them: rewards, actions, calibration, overlap,
drift."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from surpass.data.records import Decisions
from surpass.improve.procedure import Decision, Tested
from surpass.improve.results import Check

__all__ = ["actions", "columns", "diagnosis", "drift", "overlap", "reward_summary", "shares"]

BLOCKS = 20
QUANTILES = (0.5, 0.9, 0.99, 0.999)


def reward_summary(log: Decisions, low: float, high: float, source: str) -> dict[str, Any]:
    """Mean, range and, where there are few, the distinct values of the reward."""
    values = torch.unique(log.reward)
    return {
        "mean": float(log.reward.double().mean()),
        "low": float(log.reward.min()),
        "high": float(log.reward.max()),
        "values": values.tolist() if len(values) <= 6 else None,
        "range": [low, high],
        "range_source": {
            "stated": "stated by you",
            "two-valued": "the log's only two values",
            "observed": "seen in the log",
        }[source],
    }


def actions(log: Decisions) -> list[dict[str, Any]]:
    """Per action: how often it was logged, and its mean reward when it was."""
    k = log.n_actions
    names = log.about.actions or tuple(str(a) for a in range(k))
    count = torch.bincount(log.action.long(), minlength=k)
    total = torch.zeros(k, dtype=torch.float64).index_add_(
        0, log.action.long(), log.reward.double()
    )
    return [
        {
            "action": names[a],
            "count": int(count[a]),
            "share": float(count[a]) / len(log.action),
            "reward": float(total[a] / count[a]) if count[a] else None,
        }
        for a in range(k)
    ]


def calibration(log: Decisions, table: list[dict[str, Any]]) -> dict[str, Any]:
    """Predicted against observed frequencies: by propensity, or by action where the propensities
    take so few values that there would be little to see."""
    if len(table) >= 4 or log.propensities is None:
        return {"by": "propensity", "bins": table}
    n = len(log.action)
    predicted = log.propensities.double().mean(0)
    return {
        "by": "action",
        "bins": [
            {"label": a["action"], "predicted": float(mean), "observed": a["share"], "count": n}
            for a, mean in zip(actions(log), predicted, strict=True)
        ],
    }


def columns(log: Decisions) -> dict[str, Any]:
    """Which column was taken for what."""
    roles = log.about.provenance.get("roles", [])
    found: dict[str, Any] = {}
    for role, column, *_ in roles:
        found.setdefault(str(role), []).append(str(column))
    return {role: names[0] if len(names) == 1 else names for role, names in found.items()}


def overlap(tested: Tested) -> dict[str, Any]:
    """The weights pi / p of the tested policy on the scored rows."""
    w = tested.weight.numpy()
    total, squares = float(w.sum()), float((w**2).sum())
    ess = total**2 / squares if squares > 0 else 0.0
    top = max(float(w.max()), 1e-9)
    counts, edges = np.histogram(np.minimum(w, top), bins=min(40, max(10, len(w) // 50)))
    return {
        "ess": ess,
        "ess_share": ess / max(len(w), 1),
        "max": top,
        "unsupported": tested.unsupported,
        "quantiles": {f"{100 * q:g} %": float(np.quantile(w, q)) for q in QUANTILES},
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def shares(decision: Decision, tested: Tested) -> list[dict[str, Any]]:
    """Mean action probabilities of the reference and of the tested policy on scored rows."""
    index = tested.rows
    rows = decision.rows.take(index)
    names = [str(a) for a in range(rows.n_actions)]
    pi = candidate_probabilities(decision, tested)
    rho = rows.reference
    if rho is None:
        once = torch.nn.functional.one_hot(rows.action, rows.n_actions).double()
        rho = once
    return [
        {
            "action": names[a],
            "reference": float(rho[:, a].mean()),
            "candidate": float(pi[:, a].mean()),
        }
        for a in range(rows.n_actions)
    ]


@torch.no_grad()
def candidate_probabilities(decision: Decision, tested: Tested) -> Tensor:
    """The probabilities of the stage policies on the rows that each of them was scored on, [m,
    A]."""
    out = []
    for stage in tested.stages:
        rows = decision.rows.take(stage.rows)
        out.append(stage.candidate.policy(rows.context, rows.offered).double())
    return torch.cat(out)


@torch.no_grad()
def reward_predictions(decision: Decision, tested: Tested) -> Tensor:
    """The control variate's reward model on scored rows that it did not see, [m, A]."""
    out = []
    for stage in tested.stages:
        rows = decision.rows.take(stage.rows)
        critic = stage.candidate.critic
        if critic is None and decision.nominations:
            critic = decision.nominations[stage.stage].critic
        assert critic is not None
        out.append(critic(rows.context).double().expand(len(rows), rows.n_actions))
    return torch.cat(out)


def drift(log: Decisions, tested: Tested | None, by_time: bool) -> dict[str, Any]:
    """Mean reward in blocks of the log's order, and the gain of the scored rows among them."""
    n = len(log.action)
    order = np.argsort(log.time.numpy(), kind="stable") if log.time is not None else np.arange(n)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    blocks = max(2, min(BLOCKS, n // 50))
    block = place * blocks // n
    reward = log.reward.double().numpy()
    gains: dict[int, np.ndarray] = {}
    if tested is not None:
        rows = tested.rows.numpy()
        phi = torch.cat([s.phi for s in tested.stages]).numpy()
        gains = {b: phi[block[rows] == b] for b in range(blocks)}
    out = []
    for b in range(blocks):
        r = reward[block == b]
        entry: dict[str, Any] = {"label": f"{100 * b // blocks}–{100 * (b + 1) // blocks} %"}
        entry |= _interval(r, "reward", "low", "high")
        if len(gains.get(b, ())) > 5:
            entry |= _interval(gains[b], "gain", "gain_low", "gain_high")
        out.append(entry)
    return {"axis": "time" if log.time is not None else "order in the file", "blocks": out}


def _interval(x: np.ndarray, value: str, low: str, high: str) -> dict[str, float]:
    mean, error = float(x.mean()), 1.645 * float(x.std()) / max(np.sqrt(len(x)), 1.0)
    return {value: mean, low: mean - error, high: mean + error}


def context_drift(log: Decisions) -> dict[str, Any]:
    """Which context columns changed most from the first half of the log to the second."""
    n, d = log.context.shape
    if d == 0 or n < 200:
        return {}
    x = log.context.double().numpy()
    if log.time is not None:
        x = x[np.argsort(log.time.numpy(), kind="stable")]
    first, second = x[: n // 2], x[n // 2 :]
    spread = np.sqrt(first.var(0) / len(first) + second.var(0) / len(second))
    z = np.where(spread > 0, (second.mean(0) - first.mean(0)) / np.maximum(spread, 1e-300), 0.0)
    names = log.about.names.get("context", tuple(str(j) for j in range(d)))
    p = np.minimum(1.0, 2 * stats.norm.sf(np.abs(z)) * d)
    moved = [int(j) for j in np.argsort(p) if p[j] < 0.01][:5]
    return {
        "moved": [{"column": names[j], "z": float(z[j])} for j in moved],
        "tested": d,
    }


def diagnosis(
    log: Decisions, decision: Decision, checks: tuple[Check, ...], unit: str
) -> dict[str, Any]:
    """Everything the report shows about the log, as plain values."""
    tested = decision.best
    found: dict[str, Any] = {
        "rows": len(log.action),
        "scored": sum(b - a for a, b in decision.plan.bounds),
        "units": int(decision.plan.unit.max()) + 1,
        "unit": unit,
        "columns": columns(log),
        "reward": reward_summary(log, decision.range.lo, decision.range.hi, decision.range.source),
        "actions": actions(log),
        "drift": drift(log, tested, decision.plan.by_time),
        "context_drift": context_drift(log),
        "notes": [],
    }
    by_name = {check.name: check for check in checks}
    calibrated = by_name.get("logged propensities")
    if calibrated is not None and calibrated.ran:
        found["calibration"] = {
            **calibration(log, calibrated.details["table"]),
            "p_value": calibrated.statistic,
        }
    repeated = by_name.get("duplicated rows")
    if repeated is not None and repeated.ran:
        found["duplicates"] = dict(repeated.details)
    if tested is not None:
        names = log.about.actions
        found["overlap"] = overlap(tested)
        found["shares"] = [
            {**s, "action": names[int(s["action"])] if names else s["action"]}
            for s in shares(decision, tested)
        ]
    moved = found["context_drift"].get("moved", [])
    if moved:
        listed = ", ".join(str(m["column"]) for m in moved)
        found["notes"].append(f"The context changed along the log, most in: {listed}.")
    return found
