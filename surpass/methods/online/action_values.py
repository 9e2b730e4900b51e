"""Methods that learn the values of discrete actions: DQN from replay, PQN from fresh rollouts."""

from __future__ import annotations

from surpass.critics.dueling import dueling as dueling_net
from surpass.critics.ensembles import critic
from surpass.forms import Learner, adam, copy, replay, rollouts, train
from surpass.objectives.bellman import td
from surpass.objectives.greedy import best_action, lambda_returns, toward
from surpass.parts import linear
from surpass.policies.acting import greedy
from surpass.policies.greedy import epsilon_greedy
from surpass.registry import system

__all__ = ["dqn", "pqn"]

Hidden = tuple[int, ...]


@system("dqn")
def dqn(
    double: bool = True, dueling: bool = False, gamma: float = 0.99, lr: float = 3e-4,
    batch: int = 128, every: int = 500, epsilon: float = 0.05, decay: int = 5_000,
    warm: int = 1_000, per_step: float = 1.0, envs: int = 1, capacity: int = 100_000,
    hidden: Hidden = (128, 128),
) -> Learner:  # fmt: skip
    """min E[(r + gamma Q_target(s', argmax_a Q(s', a)) - Q(s, a))^2], Huber, epsilon-greedy."""
    return Learner(
        nets={
            "q": dueling_net(1, hidden) if dueling else critic(1, hidden),
            "q_target": copy("q", every=every),
        },
        update=(train("q", td(best_action(double), gamma, huber=1.0), adam(lr, max_norm=10.0)),),
        act=greedy(),
        explore=epsilon_greedy(linear(1.0, epsilon, steps=decay)),  # type: ignore[arg-type]
        source=replay(batch, capacity, warm, per_step, envs=envs),
        discrete=True,
    )


@system("pqn")
def pqn(
    gamma: float = 0.99, lam: float = 0.65, lr: float = 3e-4, envs: int = 32, horizon: int = 32,
    epochs: int = 2, minibatches: int = 16, epsilon: float = 0.05, decay: int = 2_000,
    hidden: Hidden = (128, 128),
) -> Learner:  # fmt: skip
    """Regression on lambda-returns of the policy's own fresh steps; LayerNorm in place of target
    net and replay."""
    return Learner(
        nets={"q": critic(1, hidden, norm=True)},
        update=(train("q", toward(), adam(lr, max_norm=10.0)),),
        act=greedy(),
        explore=epsilon_greedy(linear(1.0, epsilon, steps=decay)),  # type: ignore[arg-type]
        source=rollouts(
            envs, horizon, then=(lambda_returns(gamma, lam),), epochs=epochs,
            minibatches=minibatches, continuing=True, pieces="rows",
        ),
        discrete=True,
    )  # fmt: skip
