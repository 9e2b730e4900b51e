"""One log of two related groups: a value that both share, and a correction for the smaller one."""

from __future__ import annotations

from surpass.critics.ensembles import critic
from surpass.critics.fitted_q import Fourier
from surpass.critics.nested import correction, nested_greedy, nested_ridge, nested_td
from surpass.errors import InputError
from surpass.forms import Learner, Planner, Stage, Stages, adam, copy, log, train
from surpass.registry import system

__all__ = ["nested_fqi", "nested_fqi_ridge"]


@system("nested-fqi")
def nested_fqi(
    gamma: float = 0.95, column: int = -1, shared: int = 3_000, own: int = 3_000, every: int = 20,
    lr: float = 1e-3, batch: int = 256, hidden: tuple[int, ...] = (64, 64),
) -> Stages:  # fmt: skip
    """Q(s, a, g) = Q_sh(s, a) + g Q_fg(s, a), first Q_sh on the background's rows (g = 0), then
    Q_fg, from 0 on, on the foreground's (g = 1).

    The paper's nets are sigmoid ones on costs in [0, 1], fitted to the whole log with a fresh
    target before each step; these have ReLU units, minibatches, and rewards of any scale. Both
    groups have to occur in the log; discrete actions.

    Args:
        column: of the observation, which says the group, 0 or 1. shared, own: updates of both
            stages. every: updates between copies of the target. lr, batch, hidden: of the training.

    Raises:
        InputError: when gamma does not lie in [0, 1).
    """
    if not 0 <= gamma < 1:
        raise InputError(f"gamma lies in [0, 1), not at {gamma}")

    def sweep(net: str, group: int) -> Learner:
        return Learner(
            nets={"shared": critic(1, hidden), "shared_target": copy("shared", every=every),
                  "own": correction(hidden), "own_target": copy("own", every=every)},
            update=(train(net, nested_td(gamma, group, column), adam(lr)),),
            act=nested_greedy(column), source=log(batch), discrete=True,
        )  # fmt: skip

    return Stages((Stage(sweep("shared", 0), shared), Stage(sweep("own", 1), own)))


@system("nested-fqi:ridge")
def nested_fqi_ridge(
    gamma: float = 0.95, column: int = -1, features: Fourier | None = Fourier(150, 3.0),
    own: Fourier | None = None, ridge: float = 1.0, shrink: float = 100.0, rounds: int = 100,
) -> Planner:  # fmt: skip
    """The same by ridge regression on random features, in closed form each round: steadier than
    nets where rows are few. `solve` takes the log.

    Args:
        column: as above. features, own: of the shared values and of the correction; None takes the
            standardized observation. ridge, shrink: their penalties, counted in rows.
        rounds: of fitted Q-iteration.
    """
    return Planner(nested_ridge(gamma, features, own, ridge, shrink, rounds, column))
