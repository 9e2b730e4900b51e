"""Evidence for learners that minimize a certificate."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from surpass.data.truth import Truth
from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.decisions.certified import Certified
from surpass.objectives.pac_bayes import bernstein, catoni, clipped_risk, smoothed
from surpass.objectives.views import Query
from surpass.parts import part

CLASSES, SIZE, ROWS = 10, 16, 20_000


@part
def clipped_and_decayed(query: Query, /, decay: float = 1.0, rows: int = 0) -> Tensor:
    """Clipped IPS with tau = 1 / sqrt n, and decay |theta - theta_0|^2 / 2n: what certificates are
    compared with."""
    n = rows or len(query.reward)
    return clipped_risk(query, n**-0.5) + decay * query.extras["kl"] / n


def bandit(eta: float, seed: int) -> tuple[Truth, Query, Tensor]:
    """A finite pool of 4,000 labeled contexts of norm 3 as the population, logged by a softmax
    policy of sharpness eta; and the prior's mean, that policy's own parameters."""
    rng = np.random.default_rng(seed)
    centers = 1.3 * rng.normal(size=(CLASSES, SIZE))
    label = rng.integers(CLASSES, size=4000)
    x = centers[label] + 0.8 * rng.normal(size=(4000, SIZE))
    x *= 3 / np.linalg.norm(x, axis=1, keepdims=True)
    model = LogisticRegression(C=10.0, max_iter=200).fit(x[:200], label[:200])
    w = np.zeros((CLASSES, SIZE + 1))
    w[model.classes_] = np.c_[model.intercept_, model.coef_]
    scores = torch.from_numpy(eta * (w[:, 0] + x @ w[:, 1:].T))
    paid = torch.from_numpy(np.eye(CLASSES)[label])
    truth = Truth(torch.from_numpy(x), paid, torch.softmax(scores, 1))
    log = truth.draw(ROWS, seed=seed + 1)
    query = Query(
        log.action, log.reward, log.propensity, log.propensities,  # type: ignore[arg-type]
        propensities=log.propensities, context=log.context,
    )  # fmt: skip
    return truth, query, eta * torch.from_numpy(w.T)


def learned(bound: Any, eta: float, seed: int) -> tuple[float, float, float, Any]:
    """True value of what is learned, its certificate, the logging policy's true value, and a
    function that gives other bounds on the same policy."""
    truth, query, prior = bandit(eta, seed)
    learner = Certified("evidence", bound, epochs=6, batch=1000, lr=0.05, draws=4)
    still = torch.zeros(SIZE, dtype=torch.float64)
    policy, found = learner.learn(query, prior, still, torch.ones_like(still), seed)

    def other(second: Any) -> float:
        return Certified("other", second).certify(policy, prior, query).value

    return truth.value(policy(truth.contexts)), found.value, truth.value(), other


@evidence(
    "exp-smoothing",
    claim="the certificate never exceeds the true value, learning beats logging by 5 points and "
    "clipped IPS by 2, and the certificate itself exceeds the logging policy's value at eta 0.1 "
    "and 0.3",
    setting="10 classes of 4,000 contexts as a finite population, 20,000 logged rows, softmax "
    "logging of sharpness 0.1, 0.3 and 0.6",
    baseline="clipped IPS (tau = 1 / sqrt n) with a quadratic penalty",
    metric="true value of the learned policy, eta 0.3",
    bar=at_least(0.02),
    minutes=3,
    note="The certificates hold and prove improvement, but clipped IPS with its penalty divided by "
    "the number of rows learns a better policy: a bound pays for a confidence that 20,000 rows of "
    "this problem do not need.",
)
def exp_smoothing_evidence(seed: int, zoo: Any) -> Result:
    also: dict[str, tuple[Any, ...]] = {}
    slack, main = 1.0, (0.0, 0.0)
    for eta in (0.1, 0.3, 0.6):
        value, certified, logging, _ = learned(smoothed(1.0, tried=2), eta, seed)
        smooth, second, _, _ = learned(smoothed(0.9, tried=2), eta, seed)
        clipped, _, _, _ = learned(clipped_and_decayed(), eta, seed)
        slack = min(slack, value - certified, smooth - second)
        also[f"value over logging, eta {eta}"] = (value, logging, at_least(0.05))
        bar = (at_least(0.0),) if eta < 0.6 else ()
        also[f"certificate over logging, eta {eta}"] = (max(certified, second), logging, *bar)
        also[f"certificate of alpha 0.9 against 1, eta {eta}"] = (second, certified)
        also[f"value of alpha 0.9 against clipped IPS, eta {eta}"] = (smooth, clipped)
        if eta == 0.3:
            main = (value, clipped)
        elif eta == 0.6:
            also["value against clipped IPS, eta 0.6"] = (value, clipped, at_least(0.02))
    also["least distance of a true value above its certificate"] = (
        slack, 0.0, at_least(0.0, alone=True),
    )  # fmt: skip
    return Result(*main, also)


@evidence(
    "pac-bayes-opl",
    claim="the conditional Bernstein certificate is never violated, is tighter than Catoni's, "
    "proves improvement over the logging policy at eta 0.1 and 0.3, and refuses with 100 rows",
    setting="10 classes of 4,000 contexts as a finite population, 20,000 logged rows, softmax "
    "logging",
    baseline="Catoni's bound on the clipped risk, of the policy learned under it",
    metric="certified value, eta 0.3",
    bar=at_least(0.0),
    minutes=2,
)
def pac_bayes_evidence(seed: int, zoo: Any) -> Result:
    also: dict[str, tuple[Any, ...]] = {}
    slack, main = 1.0, (0.0, 0.0)
    for eta in (0.1, 0.3):
        value, certified, logging, other = learned(bernstein(), eta, seed)
        rival, catonis, _, _ = learned(catoni(), eta, seed)
        same = {"catoni": other(catoni()), "smoothed": other(smoothed(1.0))}
        slack = min(slack, value - certified, rival - catonis, *(value - v for v in same.values()))
        also[f"certificate over logging, eta {eta}"] = (certified, logging, at_least(0.0))
        also[f"true value over logging, eta {eta}"] = (value, logging, at_least(0.0))
        for name, bound in same.items():
            also[f"certificate against {name} on the same policy, eta {eta}"] = (certified, bound)
        if eta == 0.3:
            main = (certified, catonis)
    truth, query, prior = bandit(0.3, seed)
    few, still = query.rows(slice(0, 100)), torch.zeros(SIZE, dtype=torch.float64)
    _, refused = Certified("few", bernstein()).learn(few, prior, still, still + 1, seed)
    also["certificate over logging with 100 rows"] = (refused.value, truth.value(), at_most(0.0))
    also["least distance of a true value above its certificate"] = (
        slack, 0.0, at_least(0.0, alone=True),
    )  # fmt: skip
    return Result(*main, also)
