"""Improvements as the main job would return them, one per verdict, and one whose every name is
hostile."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from surpass.improve.improvement import Improvement
from surpass.improve.results import CandidateResult, Check, Estimate, Figure, Settlement

HOSTILE = '<script>alert("x")</script>\u202e|`*[a](javascript:x)'


def checks(**failed: str) -> tuple[Check, ...]:
    checks = (
        Check(
            "logged propensities",
            True,
            8.7,
            0.001,
            "The actions were taken as often as the log says (p = 0.46).",
            True,
        ),
        Check("support", True, 0.0, 0.01, "Every action that the candidate takes was logged."),
        Check(
            "effective sample size",
            True,
            3120.0,
            50.0,
            "The rows that judge the candidate weigh as much as 3,120 equal ones.",
        ),
        Check(
            "duplicates",
            True,
            0.4,
            3.1,
            "Rows with the same context chose their actions independently.",
        ),
        Check("serial dependence", True, None, None, "The log has no time column.", ran=False),
        Check("fading gain", True, None, None, "The log has no time column.", ran=False),
    )
    return tuple(
        dataclasses.replace(c, passed=False, reason=failed[c.name.replace(" ", "_")])
        if c.name.replace(" ", "_") in failed
        else c
        for c in checks
    )


def candidate(key, gain, half, base, *, tested=False, truth=None, agreement=(), **params):
    return CandidateResult(
        key=key,
        params=params,
        value=base + gain,
        low=base + gain - half,
        high=base + gain + half,
        gain=gain,
        gain_low=gain - half,
        gain_high=gain + 1.1 * half,
        ess=3120.4,
        support=1.0,
        p_value=0.0004 if tested else None,
        tested=tested,
        truth=truth,
        agreement=agreement,
    )


def log_diagnosis(rows: int, names: list[str], seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    k = len(names)
    logged = rng.dirichlet(np.full(k, 8.0))
    new = rng.dirichlet(np.full(k, 1.0))
    weights = np.minimum(rng.gamma(0.9, 1.1, 4000), 6)
    counts, edges = np.histogram(weights, bins=24, range=(0, 6))
    gains = 0.02 + 0.008 * rng.standard_normal(12)
    return {
        "rows": rows,
        "scored": int(0.7 * rows),
        "units": rows,
        "unit": "row",
        "columns": {
            "action": "item",
            "reward": "click",
            "propensity": "pscore",
            "context": ["age", "city", "hour"],
        },
        "reward": {
            "mean": 0.104,
            "low": 0.0,
            "high": 1.0,
            "values": [0.0, 1.0],
            "range": [0.0, 1.0],
            "range_source": "the two values in the log",
        },
        "actions": [
            {
                "action": n,
                "count": int(p * rows),
                "share": p,
                "reward": 0.1 + 0.02 * rng.standard_normal(),
            }
            for n, p in zip(names, logged, strict=True)
        ],
        "shares": [
            {"action": n, "reference": a, "candidate": b}
            for n, a, b in zip(names, logged, new, strict=True)
        ],
        "calibration": {
            "bins": [
                {
                    "label": n,
                    "predicted": p,
                    "observed": p + 0.004 * rng.standard_normal(),
                    "count": rows,
                }
                for n, p in zip(names, logged, strict=True)
            ],
            "p_value": 0.46,
        },
        "overlap": {
            "ess": 3120.4,
            "ess_share": 0.223,
            "max": 5.96,
            "unsupported": 0.0,
            "quantiles": {"50 %": 0.61, "90 %": 2.4, "99 %": 4.6},
            "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        },
        "drift": {
            "axis": "day",
            "blocks": [
                {
                    "label": f"May {i + 1}",
                    "reward": 0.1 + 0.004 * math.sin(i),
                    "low": 0.09,
                    "high": 0.115,
                    "gain": float(g),
                    "gain_low": float(g) - 0.015,
                    "gain_high": float(g) + 0.015,
                }
                for i, g in enumerate(gains)
            ],
        },
        "duplicates": {"pairs": 12, "repeated": 0.25, "expected": 0.1},
    }


def promote() -> Improvement:
    agreement = (
        Estimate(0.0219, 0.011, 0.0331, "DR"),
        Estimate(0.0205, 0.0049, 0.0362, "IPS"),
        Estimate(0.0211, 0.0081, 0.0340, "SNIPS", biased=True),
        Estimate(0.0188, 0.0145, 0.0230, "DM", biased=True),
        Estimate(0.0214, 0.0102, 0.0326, "Switch-DR", biased=True),
        Estimate(0.0217, 0.0110, 0.0325, "MRDR"),
    )
    best = candidate(
        "tilt",
        0.02131,
        0.0112,
        0.1042,
        tested=True,
        truth=0.0243,
        agreement=agreement,
        c=4,
        model="ridge",
    )
    others = [
        candidate(key, gain, half, 0.1042, truth=gain + 0.003, **params)
        for key, gain, half, params in (
            ("tilt", 0.0182, 0.014, {"c": 2, "model": "ridge"}),
            ("greedy", 0.0263, 0.029, {"model": "boosting"}),
            ("softmax", 0.0221, 0.019, {"model": "logistic", "beta": 3.0}),
            ("tilt", 0.009, 0.011, {"c": 1, "model": "ridge"}),
            ("ips-gradient", 0.0148, 0.031, {"policy": "linear", "clip": 20}),
            ("dr-gradient", 0.0201, 0.018, {"policy": "linear"}),
            ("dr-gradient", 0.0157, 0.022, {"policy": "network"}),
            ("snips-gradient", -0.004, 0.027, {"policy": "network"}),
            ("constant", 0.0031, 0.0092, {"action": "item 7"}),
            ("constant", -0.012, 0.0093, {"action": "item 2"}),
            ("tilt", 0.0262, 0.083, {"c": 1000, "model": "no context"}),
        )
    ]
    return Improvement(
        verdict="PROMOTE",
        reason="On 14,000 rows it had never seen, tilt (c=4, model=ridge) earned more than the "
        "reference; the chance of such evidence without a gain is 0.0004.",
        log="digits:uniform",
        reference=Estimate(0.1042, 0.1001, 0.1083),
        best=best,
        candidates=(best, *others),
        checks=checks(),
        rows=20_000,
        diagnosis=log_diagnosis(20_000, [f"item {i}" for i in range(10)]),
        assumptions=(
            "The reward takes no other value than the two in the log, 0 and 1.",
            "One decision does not change the reward of another.",
            "Rewards were all recorded when the log was written.",
        ),
        versions={"surpass": "0.1.0", "torch": "2.13.0", "numpy": "2.3.1"},
        seconds={"read": 0.21, "learn": 12.7, "evaluate": 2.36, "report": 0.4},
        created="2026-05-12T08:30:00+00:00",
    )


def hold() -> Improvement:
    best = candidate(
        "tilt",
        0.0011,
        0.0021,
        0.0046,
        tested=True,
        c=2,
        model="ridge",
        agreement=(
            Estimate(0.0012, -0.0009, 0.0033, "DR"),
            Estimate(0.0009, -0.0019, 0.0038, "IPS"),
            Estimate(0.0005, 0.0001, 0.0009, "DM", biased=True),
        ),
    )
    others = tuple(
        candidate("softmax", g, h, 0.0046, beta=b)
        for g, h, b in ((0.0006, 0.0024, 1.0), (-0.0002, 0.0035, 3.0))
    )
    return Improvement(
        verdict="HOLD",
        reason="The candidate looks 24 % better, but 46 clicks in 10,000 rows cannot tell that "
        "from luck.",
        log="open-bandit:random/men",
        reference=Estimate(0.0046, 0.0034, 0.0060),
        best=best,
        candidates=(best, *others),
        checks=checks(),
        rows=10_000,
        diagnosis=log_diagnosis(10_000, [f"shirt {i}" for i in range(34)], 3),
        settlement=Settlement(
            rows=184_000,
            rows_low=41_000,
            rows_high=None,
            sentence="About 180,000 rows like these (41,000 or more) would have an 80 % chance of "
            "a PROMOTE.",
            exploration=(
                {"share": 0.1, "rows": 121_000, "cost": 0.00004},
                {"share": 0.3, "rows": 88_000, "cost": 0.00011},
                {"share": 1.0, "rows": 64_000, "cost": 0.0004},
            ),
            actions=(
                {"action": "shirt 12", "now": 0.029, "best": 0.11},
                {"action": "shirt 7", "now": 0.029, "best": 0.084},
            ),
        ),
        assumptions=("The reward takes no other value than the two in the log, 0 and 1.",),
        versions={"surpass": "0.1.0"},
        created="2026-05-12T08:30:00+00:00",
    )


def reject() -> Improvement:
    best = candidate(
        "given",
        -0.41,
        0.12,
        2.31,
        tested=True,
        agreement=(Estimate(-0.43, -0.56, -0.29, "DR"), Estimate(-0.38, -0.61, -0.14, "IPS")),
    )
    diagnosis = log_diagnosis(50_000, ["wait", "offer", "call"], 5)
    diagnosis["reward"] = {
        "mean": 2.31,
        "low": 0.0,
        "high": 40.0,
        "range": [0.0, 50.0],
        "range_source": "stated",
    }
    return Improvement(
        verdict="REJECT",
        reason="The policy you gave earns less than the reference; that is proven at 5 %.",
        log="orders/2026-04",
        reference=Estimate(2.31, 2.26, 2.36),
        best=best,
        candidates=(best,),
        checks=checks(
            logged_propensities="The logged propensities do not match the actions (p = 0.00002): "
            "'call' was taken 12 % more often than logged. Log them anew, or use --propensity "
            "fitted."
        ),
        rows=50_000,
        margin=0.05,
        diagnosis=diagnosis,
        assumptions=("No decision changes the reward of another.",),
        versions={"surpass": "0.1.0"},
        created="2026-05-12T08:30:00+00:00",
    )


def hostile() -> Improvement:
    base = promote()
    diagnosis = log_diagnosis(20_000, [f"{HOSTILE} {i}" for i in range(30)])
    diagnosis["columns"] = {HOSTILE: [HOSTILE, HOSTILE]}
    diagnosis["notes"] = [HOSTILE]
    diagnosis["drift"] |= {"axis": HOSTILE}
    diagnosis["drift"]["blocks"][0]["label"] = HOSTILE
    best = dataclasses.replace(base.candidates[0], key=HOSTILE, params={HOSTILE: HOSTILE})
    return dataclasses.replace(
        base,
        log=HOSTILE,
        reason=HOSTILE,
        reference_name=HOSTILE,
        diagnosis=diagnosis,
        best=best,
        candidates=(best, *base.candidates[1:]),
        assumptions=(HOSTILE,),
        checks=(Check(HOSTILE, False, 1.0, 2.0, HOSTILE), Check(HOSTILE, True, 1.0, 2.0, HOSTILE)),
        settlement=Settlement(
            1e5,
            1e4,
            1e6,
            HOSTILE,
            ({"share": 0.1, "rows": 5e4, "cost": 0.1},),
            ({"action": HOSTILE, "now": 0.1, "best": 0.2},),
        ),
        usage=((HOSTILE, HOSTILE),),
        versions={HOSTILE: HOSTILE},
        seconds={HOSTILE: 1.0},
        figures=(
            Figure(
                "bars",
                HOSTILE,
                {
                    "rows": [{"label": HOSTILE, "values": [0.1], "note": HOSTILE}],
                    "series": [HOSTILE],
                },
                HOSTILE,
            ),
        ),
    )
