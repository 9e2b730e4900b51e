"""From running environments to logs: `record` what a policy does, and join logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from surpass.data.records import About, Transitions
from surpass.errors import InputError
from surpass.tasks.protocol import VectorEnv

__all__ = ["Act", "about_env", "joined", "record", "whole_episodes"]

Act = Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]
"""Observations [n, d] to actions, or to actions and their exact log-probs [n]."""


def record(
    env: VectorEnv, act: Act, steps: int, *, seed: int | None = None, whole: bool = True
) -> Transitions:
    """A log of a policy: episodes consecutive, with the behavior log-probs that `act` gives.

    `next_obs` is the true next observation also at an end, so a truncated row can be bootstrapped
    from.

    Args:
        env: n copies; reset first.
        act: the policy.
        steps: rows to record; rounded up to a multiple of n, and with `whole` to the ends of
            episodes.
        seed: of the environment's reset.
        whole: record until `steps` rows of finished episodes are there and drop what is unfinished
            (raises when an
            episode does not end within 100 times `steps`); otherwise cut, marking the last row of
            each copy truncated.

    Raises:
        InputError: when episodes do not end.
    """
    obs = env.reset(seed)
    columns: dict[str, list[Tensor]] = {}
    finished, t = 0, 0
    age = torch.zeros(env.n, dtype=torch.long, device=obs.device)
    while finished < steps if whole else t * env.n < steps:
        if whole and t * env.n > max(100 * steps, 100_000) and finished == 0:
            raise InputError(f"no episode ended in {t} steps of {env.n} copies; set a time limit")
        answer = act(obs)
        action, logp = answer if isinstance(answer, tuple) else (answer, None)
        after = env.step(action)
        row = {
            "obs": obs,
            "action": action,
            "reward": after.reward,
            "next_obs": after.final_obs,
            "terminated": after.terminated,
            "truncated": after.truncated & ~after.terminated,
        }
        if logp is not None:
            row["behavior_logp"] = logp
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
        done = after.terminated | after.truncated
        age = age + 1
        finished += int(age[done].sum())
        age = torch.where(done, 0, age)
        obs, t = after.obs, t + 1
    return _by_episode(columns, whole).described(about_env(env))


def whole_episodes(
    terminated: Sequence[Tensor], truncated: Sequence[Tensor]
) -> tuple[Bool[Tensor, "n*T"], Int[Tensor, "N"]]:
    """Which rows of n copies over T steps are of finished episodes, and of which.

    Args:
        terminated: T times [n].
        truncated: T times [n].

    Returns:
        `keep` over the rows of `torch.stack(column, 1).flatten(0, 1)`, and the episodes of the rows
        kept.
    """
    done = torch.stack(list(terminated), 1) | torch.stack(list(truncated), 1)
    before = done.cumsum(1) - done.long()
    keep = (before < done.sum(1, keepdim=True)).flatten()
    many = done.sum(1) + 1
    episode = before + (torch.cumsum(many, 0) - many)[:, None]
    _, number = torch.unique_consecutive(episode.flatten()[keep], return_inverse=True)
    return keep, number


def _by_episode(columns: dict[str, list[Tensor]], whole: bool) -> Transitions:
    if not whole:
        columns["truncated"][-1] = ~columns["terminated"][-1]
    keep, number = whole_episodes(columns["terminated"], columns["truncated"])
    flat = {name: torch.stack(values, 1).flatten(0, 1)[keep] for name, values in columns.items()}
    return Transitions(
        **flat,
        episode=number,
        batch_size=[len(number)],  # type: ignore[call-arg]
    )


def joined(logs: Sequence[Transitions]) -> Transitions:
    """Logs one after the other, episodes renumbered; a column stays where all logs have it.

    Raises:
        InputError: when there are no logs.
    """
    if not logs:
        raise InputError("no logs to join")
    out, first = [], 0
    names = ["behavior_logp", "available", "cost", "goal", "instrument", "task", "weight", "source"]
    missing = [k for k in (*names, "extras") if any(getattr(log, k) is None for log in logs)]
    common = set() if "extras" in missing else set.intersection(*(_keys(log) for log in logs))
    for log in logs:
        part = log.clone(recurse=False)  # type: ignore[call-arg]
        part.note = None
        for name in missing:
            setattr(part, name, None)
        if common:
            part.extras = part.extras.select(*sorted(common))
        elif part.extras is not None:
            part.extras = None
        part.episode = part.episode - part.episode.min() + first
        first = int(part.episode.max()) + 1
        out.append(part)
    return torch.cat(out).described(logs[0].about)  # type: ignore[arg-type]


def _keys(log: Transitions) -> set[str]:
    return set() if log.extras is None else {str(k) for k in log.extras.keys()}  # noqa: SIM118


def about_env(env: VectorEnv) -> About:
    """What an environment says about its logs."""
    s = env.spaces
    spaces: dict[str, object] = {"obs": (s.obs_dim,)}
    if s.discrete:
        spaces["n_actions"] = s.n_actions
    else:
        spaces["action"] = (s.action_dim,)
        spaces |= {"action_low": list(s.low), "action_high": list(s.high)}
    names = tuple(str(a) for a in range(s.n_actions))
    return About(name=str(getattr(env, "name", "")), actions=names, spaces=spaces)
