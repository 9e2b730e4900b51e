"""Evidence for Q-Evolve: quests in words whose reward comes at their end."""

from __future__ import annotations

from typing import Any

import torch

from surpass.critics.commands import command_critic, text_value
from surpass.data.records import Transitions
from surpass.data.selecting import only, successful
from surpass.forms import Collect, Learner, Repeat, Stage, Stages, Transform, adam, log, train
from surpass.methods.agents.self_evolving import q_evolve
from surpass.objectives.advantage import whitened
from surpass.objectives.text_turns import q_minus_v
from surpass.objectives.trust import exponential_gain, nll
from surpass.objectives.value import clone
from surpass.parts import stop
from surpass.policies.acting import InEnvironment, sampled
from surpass.policies.commands import command_scorer
from surpass.tasks.text import TextBatch, TextTask
from surpass.training.stages import gather

WIDTH = 32
HOUSE: dict[str, Any] = {"rooms": 5, "things": 4, "house": 1, "limit": 20, "buckets": 256}
GAMES, SHOWN, HELD, TRIES = 24, 8, 24, 10
COUNTS: dict[str, Any] = {"cycles": 2, "episodes": 3 * GAMES, "cloning": 150, "critic": 500,
                          "improve": 60}  # fmt: skip
NETS = (command_critic(2, WIDTH, (WIDTH,)), text_value(1, WIDTH, (WIDTH,)))
SCORER = command_scorer(WIDTH, (WIDTH,))


def evolving(**changed: Any) -> Stages:
    """Q-Evolve at the size of this experiment, or an ablation of it."""
    return q_evolve(**{**COUNTS, "policy": SCORER, "nets": NETS, **changed})


def filtered(step: float) -> Stages:
    """Clone, then each cycle: collect, keep what succeeded, clone that and the demonstrations."""
    learner = Learner({"policy": SCORER}, (train("policy", clone("policy"), adam(step)),),
                      sampled("policy"), log(128))  # fmt: skip
    cycle = (
        Stage(Transform(only(source=1))), Collect("policy", COUNTS["episodes"], "log"),
        Stage(Transform(successful())), Stage(learner, COUNTS["improve"]),
    )  # fmt: skip
    first = Learner({"policy": SCORER}, (train("policy", clone("policy"), adam(1e-3)),),
                    sampled("policy"), log(128))  # fmt: skip
    return Stages((Stage(first, COUNTS["cloning"]), Repeat(COUNTS["cycles"], cycle)))


def arms(step: dict[str, float], beta: float) -> dict[str, Stages]:
    """What is compared: the same demonstrations, episodes and updates for all."""
    weighted = stop(exponential_gain(beta)) * nll()
    return {
        "q-evolve": evolving(step=step["q-evolve"]),
        "filtered": filtered(step["filtered"]),
        "awr": evolving(trust=weighted, step=step["awr"]),
        "unweighted": evolving(weight=None, step=step["q-evolve"]),
        "q - v": evolving(rule=whitened(q_minus_v()), step=step["q-evolve"]),
        "clone": evolving(improve=0),
    }


def played(trained: Any, act: Any, task: TextTask, seed: int) -> Transitions:
    """Every game of a task, `TRIES` times, by a policy of the nets."""
    policy = InEnvironment(act(trained.nets, {}), trained.spaces)
    env = TextBatch(task.tree, task.games, TRIES * len(task.games), task.layout, task.limit, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return gather(policy, env, env.n, seed)


def success(trained: Any, act: Any, task: TextTask, seed: int) -> float:
    """The share of those games that were won, in percent."""
    log = played(trained, act, task, seed)
    return 100.0 * float((log.reward > 0).sum()) / (int(log.episode.max()) + 1)
