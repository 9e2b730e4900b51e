"""Off-policy learning over many steps, with traces that may depend on the whole past."""

from __future__ import annotations

import torch

from surpass.critics.ensembles import critic
from surpass.errors import InputError
from surpass.forms import Learner, Planner, adam, copy, log, train
from surpass.objectives.traces import greedy_target, recency_bounded, traced
from surpass.parts import part
from surpass.policies.acting import greedy
from surpass.registry import system
from surpass.tasks.tabular import TabularMDP
from surpass.training.backward_view import Learned, backward_view, epsilon_greedy_rows

__all__ = ["rbis", "rbis_table", "stepwise"]


@part
def stepwise(
    mdp: TabularMDP, /, rule: object = recency_bounded(), alpha: float = 0.5, steps: int = 3_000,
    behavior: float = 0.2, target: float = 0.1, wild: int = 5, runs: int = 1, seed: int = 0,
) -> Learned:  # fmt: skip
    """Control by `surpass.training.backward_view`: it acts epsilon-greedily with `behavior` (evenly
    in the first `wild` episodes) and learns about the epsilon-greedy policy with `target`, both of
    the table as the episode found it. Tables [runs, S, A] begin at N(0, 0.01^2)."""
    g = torch.Generator().manual_seed(seed)
    start = 0.01 * torch.randn(runs, mdp.n_states, mdp.n_actions, generator=g, dtype=torch.float64)

    def follow(
        rows: torch.Tensor, s: torch.Tensor, episode: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        acts = epsilon_greedy_rows(rows, behavior)
        acts = torch.where((episode < wild)[:, None], 1 / mdp.n_actions, acts)
        return acts, epsilon_greedy_rows(rows, target)

    return backward_view(mdp, rule, follow, start, alpha, steps, generator=g)  # type: ignore[arg-type]


@system("rbis")
def rbis(
    lam: float = 0.9, gamma: float = 0.99, epsilon: float = 0.1, length: int = 16,
    lr: float = 3e-4, batch: int = 32, every: int = 200, hidden: tuple[int, ...] = (128, 128),
) -> Learner:  # fmt: skip
    """A critic of discrete actions from a log, toward Q + sum_u gamma^(u-t) beta_{t,u} delta_u with
    beta_{t,u} = min(lam^(u-t), rho_u beta_{t,u-1}); the log needs `behavior_logp`.

    Args:
        lam: how far back credit reaches. epsilon: of the greedy policy that is learned about.
        length: of the segments, beyond which nothing is credited. every: updates between copies of
            the target net. lr, batch, hidden: of the net's training, batch in segments.

    Raises:
        InputError: when lam does not lie in [0, 1].
    """
    if not 0 <= lam <= 1:
        raise InputError(f"lam lies in [0, 1], not at {lam}")
    return Learner(
        nets={"q": critic(1, hidden), "q_target": copy("q", every=every)},
        update=(train("q", traced(recency_bounded(lam), greedy_target(epsilon), gamma), adam(lr)),),
        act=greedy(),
        source=log(batch, "segments", n=length),
        discrete=True,
    )


@system("rbis:table")
def rbis_table(
    lam: float = 0.9, alpha: float = 0.5, steps: int = 3_000, behavior: float = 0.2,
    target: float = 0.1, runs: int = 1, seed: int = 0,
) -> Planner:  # fmt: skip
    """The same on a table, updated after every step: `solve` takes a `TabularMDP` to act in.

    Args:
        lam: of the traces. alpha: step size. behavior, target: epsilon of both greedy policies.
        runs: side by side. seed: of all.
    """
    rule = recency_bounded(lam)
    return Planner(stepwise(rule, alpha, steps, behavior, target, runs=runs, seed=seed))
