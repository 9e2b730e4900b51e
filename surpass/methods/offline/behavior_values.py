"""R-BVE: the values of the behavior policy, greedy when it acts."""

from __future__ import annotations

from surpass.critics.ensembles import critic
from surpass.forms import Learner, adam, copy, log, train
from surpass.objectives.behavior_values import ranked
from surpass.objectives.bellman import sarsa, td
from surpass.policies.acting import greedy
from surpass.registry import system

__all__ = ["r_bve"]


@system("r-bve")
def r_bve(
    lam: float = 0.1, margin: float = 0.05, beta: float = 2.0, cap: float = 20.0,
    gamma: float = 0.99, lr: float = 3e-4, every: int = 500, scale: float | str = 1.0,
    batch: int = 256, hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """min E[huber(r + gamma Q'(s', a'_log) - Q(s, a))] + lam E[w(s) sum_{i != a} max(Q(s, a_i) -
    Q(s, a) + margin, 0)^2]; a = argmax_a Q(s, a) only when it acts.

    `lam` 0 is behavior value estimation alone, `beta` infinity ranks without regard to returns.
    `scale` multiplies rewards ("range" takes a step's to about 1). The paper tunes lam for each
    task; 0.1 is our default.
    """
    return Learner(
        nets={"q": critic(1, hidden), "q_target": copy("q", every=every)},
        update=(
            train("q", td(sarsa(), gamma, huber=1.0) + lam * ranked(margin, beta, cap), adam(lr)),
        ),
        act=greedy(),
        source=log(batch, gamma=gamma, reward_scale=scale),
        discrete=True,
    )
