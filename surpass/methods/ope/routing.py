"""Who should answer: asking for help under a budget, and choosing among models by price and by how
likely each is to succeed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.critics.in_context import InContext, SetValue
from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.forms import Explorer, Outlook, Planner
from surpass.objectives.budgets import HelpPlan, within_budget
from surpass.parts import part
from surpass.policies.exploring import epsilon_greedy, sliced
from surpass.registry import system

__all__ = ["HelpModel", "afford", "help_model", "help_within", "request_help", "v0_value"]


class HelpModel(NamedTuple):
    """The estimated table: P [S, 2, S], reward [S, 2], start [S]."""

    P: Tensor
    reward: Tensor
    start: Tensor
    horizon: int


@part
def help_model(log: Transitions, /, states: int, horizon: int, least: int = 5) -> HelpModel:
    """Transition counts of episodes in which help was asked at random.

    A pair (s, h) seen fewer than `least` times ends there, with the success rate that was logged
    from that state when nobody helped any more (over all states, where there was no such visit):
    the process reward model's reading. States in which nobody ever acted end the episode.

    Args:
        log: `Transitions` with `extras["state"]`, `extras["next_state"]` and rewards of 1 for
            success. states: S. horizon: of an episode.
    """
    if log.extras is None or "state" not in log.extras or "next_state" not in log.extras:
        raise InputError("asking for help needs the columns extras['state'], extras['next_state']")
    s, s2, h = log.extras["state"], log.extras["next_state"], log.action.long()
    at = (s * 2 + h) * states + s2
    count = torch.bincount(at, minlength=2 * states * states).double().reshape(states, 2, states)
    paid = torch.zeros(2 * states, dtype=torch.float64)
    paid = paid.index_add(0, s * 2 + h, log.reward.double()).reshape(states, 2)
    n = count.sum(-1)
    P, reward = count / n.clamp_min(1)[..., None], paid / n.clamp_min(1)
    leaf = _alone(log, s, h, states)
    few = n < least
    P = torch.where(few[..., None], torch.zeros_like(P), P)
    reward = torch.where(few, leaf[:, None], reward)
    first = torch.ones_like(s, dtype=torch.bool)
    first[1:] = log.episode[1:] != log.episode[:-1]
    start = torch.bincount(s[first], minlength=states).double()
    ended = n.sum(1) == 0
    P[ended], reward[ended] = 0.0, 0.0
    return HelpModel(P, reward, start / start.sum(), horizon)


def _alone(log: Any, s: Tensor, h: Tensor, states: int) -> Float[Tensor, "S"]:
    """P(success | s, no help from here on), from the tails of episodes without help."""
    _, episode = torch.unique_consecutive(log.episode, return_inverse=True)
    zero = torch.zeros(int(episode.max()) + 1, dtype=torch.float64)
    won = zero.index_add(0, episode, log.reward.double())[episode]
    asked = zero.index_add(0, episode, h.double()).cumsum(0)[episode]  # up to this episode's end
    later = asked - (h.double().cumsum(0) - h.double())  # from this row on
    free = later == 0
    n = torch.bincount(s[free], minlength=states).double()
    good = torch.zeros(states, dtype=torch.float64).index_add(0, s[free], won[free])
    overall = float(won[free].mean()) if bool(free.any()) else 0.0
    return torch.where(n > 0, good / n.clamp_min(1), torch.full_like(n, overall))


@part
def help_within(model: HelpModel, /, budget: float = 2.0) -> HelpPlan:
    """The best plan of an estimated table with at most `budget` calls."""
    return within_budget(model.P, model.reward, model.start, budget, model.horizon)


@system("request-help")
def request_help(budget: float, states: int, horizon: int, least: int = 5) -> Planner:
    """When to ask an expensive helper under an expected budget of calls, learned offline from
    episodes with random help: `planner.solve(planner.model(log))`.

    Args:
        budget: calls per episode. states: of the table. horizon: of an episode.
        least: visits below which a state's own success rate stands in for its future.
    """
    return Planner(help_within(budget), help_model(states, horizon, least))


@part
def afford(seen: Outlook, /, cost: tuple[float, ...] = (), price: float = 1.0) -> Tensor:
    """The available action with the largest predicted reward - price x cost."""
    mean = seen.mean - price * torch.tensor(cost, dtype=seen.mean.dtype) if cost else seen.mean
    return epsilon_greedy(0.0)(Outlook(mean, available=seen.available))


@system("v0-value")
def v0_value(
    net: SetValue | None = None, cost: tuple[float, ...] = (), price: float = 0.0,
    share: float = 0.05, support: int = 96,
) -> Explorer:  # fmt: skip
    """Route each prompt to the model that is most likely to solve it for its price, as read from
    each model's last results: nothing is trained while it routes.

    Args:
        net: from `surpass.critics.in_context.train_set_value`; an untrained one when None.
        cost: of each model. price: of a unit of cost, in units of the reward.
        share: of uniform decisions, so that the log can judge other routers.
        support: results that each model is known by.
    """
    return Explorer(
        sliced(afford(cost, price), share), InContext(net or SetValue(27), support), None
    )
