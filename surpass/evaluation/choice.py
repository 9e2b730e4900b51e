"""Which estimators an expert would read on a log, and why, in one sentence each.

The ordinary ones are always there. What is added or left out follows from what the log has: very
many actions, an instrument, episodes, continuous actions, missing probabilities. Nothing here
decides a verdict: only scores without bias can promote, and none of those that are added has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from surpass.critics.minimax_weights import MinimaxWeights
from surpass.data.records import Decisions, Sequences, Transitions
from surpass.evaluation.decisions import DEFAULT
from surpass.evaluation.trajectories import model_of
from surpass.forms import Estimator
from surpass.registry import build

__all__ = ["MANY", "Chosen", "for_decisions", "for_episodes", "many_actions", "through_instrument"]

MANY = 100  # actions from which on single ones are seen too rarely to be weighed


@dataclass(frozen=True)
class Chosen:
    """Estimators by name, and sentences about what is not ordinary among them."""

    forms: dict[str, Estimator]
    why: tuple[str, ...] = ()


def many_actions(actions: int, rows: int, full: bool, described: bool) -> tuple[bool, str]:
    """Whether clusters of actions should be weighed, and the sentence that says why (or why not);
    the sentence is empty where there are few actions."""
    if actions < MANY:
        return False, ""
    often = rows / actions
    times = "less than once" if often < 0.75 else "once" if often < 1.5 else f"{often:,.0f} times"
    seen = f"with {actions:,} actions each was logged about {times}"
    if not full:
        return False, (
            f"OffCEM is left out: {seen}, so clusters of actions would be weighed instead of "
            "single ones, but that needs the logged probabilities of all actions."
        )
    how = "by their description" if described else "by what a model learned of each"
    return True, (
        f"OffCEM is added: {seen}, too few to weigh them one by one, so it weighs "
        f"{max(2, round(actions**0.5))} clusters of them ({how}) and leaves the rest to a model; "
        "it is biased where that model is wrong, so it does not decide."
    )


def through_instrument(actions: int, instrument: Any) -> tuple[bool, str]:
    """Whether the instrument can be used, and the sentence that says why (or why not); the sentence
    is empty without an instrument."""
    if instrument is None:
        return False, ""
    values = torch.unique(torch.as_tensor(instrument)).tolist()
    if actions != 2 or not set(values) <= {0, 1}:
        return False, (
            f"IV is left out: it needs two actions and an instrument of 0 and 1, and this log has "
            f"{actions} actions and {len(values)} values of the instrument."
        )
    return True, (
        "IV is added: to name an instrument says that something unseen may have moved both action "
        "and reward; where its gain differs from the others', trust it before them, as far as the "
        "instrument is as good as random."
    )


def for_decisions(log: Decisions) -> Chosen:
    """The estimators for decisions, from some rows of the log."""
    forms: dict[str, Estimator] = {key: build(key) for key in DEFAULT}
    described = log.about.action_features is not None
    wanted, why = many_actions(log.n_actions, len(log), log.propensities is not None, described)
    if wanted:
        forms["off-cem"] = build("off-cem")
    found = [why] if why else []
    return Chosen(forms, tuple(found))


def for_episodes(log: Transitions | Sequences, gamma: float) -> Chosen:
    """The estimators for logged episodes."""
    obs = log.obs
    assert obs is not None
    if log.action.is_floating_point():
        forms = {key: build(key) for key in ("fqe-nets", "model-based")}
        if gamma == 1:
            del forms["fqe-nets"]
        why = (
            "Nets are taken: actions are continuous, so a deterministic policy never takes a "
            "logged one and ratios say nothing; what is left are models, which are biased where "
            "they are wrong.",
        )
        return Chosen(forms, why)
    steps = len(obs) if obs.dim() == 2 else obs.shape[0] * obs.shape[1]
    stepwise = gamma == 1 and log.truncated is not None and bool(log.truncated.any())
    episodes = len(torch.unique(log.episode)) if isinstance(log, Transitions) else len(obs)
    model = model_of(obs, episodes if stepwise else steps)
    features = model.features
    weight = MinimaxWeights(features)
    learned = {"fqe": build("fqe", model=model), "mwl": build("mwl", model=weight),
               "model-based": build("model-based")}  # fmt: skip
    why = []
    forms = {}
    if log.behavior_logp is None:
        why.append(
            "Importance weights are left out: the log has no probabilities of its actions, so only "
            "models are left, which are biased where they are wrong."
        )
    else:
        forms = {"pdis": build("pdis"), "snpdis": build("snpdis"),
                 "drt": build("drt", model=model), "sndrt": build("sndrt", model=model),
                 "star-arp": build("star-arp"),
                 "drl": build("drl", weight=weight, model=model)}  # fmt: skip
        why.append(
            "STAR is added: products of ratios grow with the length of an episode, so it folds "
            "states into a few bins and solves the reward process between them; it is biased "
            "with few episodes, so it does not decide."
        )
    instrument = _instrument(log)
    actions = int(log.about.spaces.get("n_actions", 0)) or int(log.action.max()) + 1
    usable, said = through_instrument(actions, instrument)
    usable = usable and gamma < 1
    if usable:
        forms["iv-ope"] = build("iv-ope", features=features)
    return Chosen({**forms, **learned}, (*why, *([said] if said else [])))


def _instrument(log: Transitions | Sequences) -> Any:
    own = getattr(log, "instrument", None)
    if own is None and log.extras is not None and "instrument" in log.extras.keys():  # noqa: SIM118
        own = log.extras.get("instrument")
    return own
