"""Process rewards: a log whose every step is judged by critics that were fitted to it."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict

from surpass.data.records import Sequences, Transitions
from surpass.objectives.advantage import gae, whitened
from surpass.parts import Nets, Part, part

__all__ = ["process_rewards"]


@part
def process_rewards(
    nets: Nets, log: Transitions, /, rule: Part[[Any], Any] = whitened(gae()), q: str = "q",
    v: str = "v",
) -> Transitions:  # fmt: skip
    """The log with `extras["advantage"]` [N]: what an advantage rule says of it, read as one long
    sequence [1, N] that holds the episodes one after the other.

    The rule sees the log's own rewards and the columns `value` = V(s), `next_value` = V(s') and
    `q` = Q(s, a), the lowest of each ensemble; V(s') counts after a truncation, not after a
    termination.

    Self-evolving LLM agents with in-distribution Optimization (Q-Evolve, 2026), with GAE.
    """
    last = torch.ones_like(log.terminated)
    last[:-1] = log.episode[1:] != log.episode[:-1]
    with torch.no_grad():
        columns = {
            "value": nets[v](log.obs).amin(0), "next_value": nets[v](log.next_obs).amin(0),
            "q": nets[q](log.obs, log.action).amin(0),
        }  # fmt: skip
    whole: Any = Sequences(
        action=log.action[None], mask=torch.ones_like(log.reward)[None], reward=log.reward[None],
        terminated=log.terminated[None], truncated=(log.truncated | last)[None],
        extras=TensorDict({k: c[None] for k, c in columns.items()}, batch_size=[1]),
        batch_size=[1],  # type: ignore[call-arg]
    )  # fmt: skip
    found = rule(whole)
    judged = log.clone(recurse=False)  # type: ignore[call-arg]
    judged.note = log.note
    before = {} if log.extras is None else dict(log.extras.items())
    advantage = (found["advantage"] if isinstance(found, dict) else found)[0]
    judged.extras = TensorDict({**before, "advantage": advantage}, batch_size=log.batch_size)
    return judged
