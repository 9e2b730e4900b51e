"""Evidence for tests of binary decision biases."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.ope.decision_bias import binary_decision_bias
from surpass.objectives.binary_series import battery, variance_ratio
from surpass.policies.binary_series import (
    SeriesNet,
    Teller,
    alternating,
    ask_in_series,
    coin,
    gambler,
    market,
    tempered,
)

BATTERIES, SERIES, LENGTH = 30, 200, 50


def _flagged(teller: Teller, seed: int, *names: str) -> float:
    """Share of batteries that flag one of the properties (any, when none is named)."""
    out = []
    for k in range(BATTERIES):
        found = battery(ask_in_series(teller, SERIES, LENGTH, seed * 1000 + k))
        out.append(any(t.flagged and (not names or t.name in names) for t in found))
    return float(np.mean(out))


def _alternation(teller: Teller, seed: int) -> float:
    bits = ask_in_series(teller, SERIES, LENGTH, seed)
    return float((bits[:, 1:] != bits[:, :-1]).mean())


@evidence(
    "binary-decision-bias",
    claim="fair coins pass all nine tests in at least 93 % of batteries, while a bias of the rate, "
    "of memory and of streaks is flagged in at least 95 %; a small transformer trained on "
    "gamblers' series is told apart asked alone and in series",
    setting="batteries of 200 series of 50 answers, 30 a seed and policy; market of 51 agents, "
    "20,000 rounds",
    baseline="the gambler's series put through the test of the rate only",
    metric="share of batteries that flag the gambler's streaks",
    bar=at_least(0.95, alone=True),
    minutes=2,
)
def decision_bias_evidence(seed: int, zoo: Any) -> Result:
    torch.manual_seed(seed)
    taught = ask_in_series(gambler(), 3000, LENGTH, seed + 77)
    net = SeriesNet(LENGTH).learn(taught, seed=seed).teller()
    found = binary_decision_bias(coins=0).measure(net)
    heat = {f"{t:g}": _alternation(tempered(net, t), seed) for t in (0.5, 1.0, 1.5)}
    own = float((taught[:, 1:] != taught[:, :-1]).mean())
    return Result(
        _flagged(gambler(), seed, "streaks"),
        _flagged(gambler(), seed, "rate"),
        {
            "share of coins' batteries without a flag": (
                1 - _flagged(coin(), seed), 1.0, at_least(0.93, alone=True),
            ),
            "share that flags a rate of 0.4": (
                _flagged(coin(0.4), seed, "rate"), 0.0, at_least(0.95, alone=True),
            ),
            "share that flags an alternation of 0.6": (
                _flagged(alternating(0.6), seed, "order 1"), 0.0, at_least(0.95, alone=True),
            ),
            "p-value of alternating alike alone and in series, transformer": (
                found.apart, 1.0, at_most(0.01, alone=True),
            ),
            "alternation of the transformer, less that of its data (size)": (
                abs(heat["1"] - own), 0.0, at_most(0.03, alone=True),
            ),
            "alternation at temperature 0.5 and 1.5": (heat["0.5"], heat["1.5"]),
            "variance ratio of the gamblers' market": (
                variance_ratio(market(gambler(), 20_000, seed=seed)), 1.0,
                at_most(0.99, alone=True),
            ),
            "distance of the coins' variance ratio from 1": (
                abs(variance_ratio(market(coin(), 20_000, seed=seed)) - 1), 0.0,
                at_most(0.05, alone=True),
            ),
        },
    )  # fmt: skip
