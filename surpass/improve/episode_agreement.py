"""Other estimators beside the one that decides on episodes: those that an expert would read, and
why."""

from __future__ import annotations

from typing import Any

import torch

from surpass.data.records import Transitions
from surpass.evaluation.choice import for_episodes
from surpass.evaluation.trajectories import evaluate_trajectories
from surpass.improve.episode_candidates import EpisodeCandidate, flat
from surpass.improve.results import Estimate

__all__ = ["beside"]

TITLES = {
    "pdis": "per-decision importance sampling", "snpdis": "the same, weights divided by their mean",
    "drt": "doubly robust", "sndrt": "weighted doubly robust", "fqe": "fitted Q evaluation",
    "star-arp": "STAR", "model-based": "model of the world", "iv-ope": "IV",
}  # fmt: skip
LEFT_OUT = ("mwl", "drl", "model-based")  # for discounted values, or too slow for a second opinion


@torch.no_grad()
def _with_behavior(log: Transitions, fitted: Any) -> Transitions:
    """The log with the log-probs of the fitted behavior policy, where it has none of its own."""
    if log.behavior_logp is not None or fitted is None:
        return log
    found = log.clone()
    chosen = fitted(flat(log.obs)).gather(1, log.action.long()[:, None])[:, 0]
    found.behavior_logp = chosen.clamp_min(1e-6).log().float()
    return found.described(log.about)


def beside(
    candidate: EpisodeCandidate, judging: Transitions, fitted: Any, level: float
) -> tuple[tuple[Estimate, ...], tuple[str, ...]]:
    """Gains in plain returns over the logged episodes by each estimator that fits the log, with
    the interval that leaves out `level` on either side, and the sentences that say why these.

    A candidate without probabilities of discrete actions gets none: its model speaks for it.
    """
    if candidate.probabilities is None:
        return (), ()
    log = _with_behavior(judging, fitted)
    chosen = for_episodes(log, 1.0)
    forms = {k: f for k, f in chosen.forms.items() if k not in LEFT_OUT}
    found = evaluate_trajectories(
        candidate.probabilities, log, estimators=forms, level=2 * level, method="normal"
    )
    return tuple(
        Estimate(r.gain, r.gain_low, r.gain_high, TITLES.get(r.estimator, r.estimator), r.biased,
                 r.assumptions)
        for r in found
    ), chosen.why  # fmt: skip
