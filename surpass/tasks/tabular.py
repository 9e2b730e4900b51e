"""Tabular Markov decision processes with exact answers, in float64.

Values, occupancies, optimal and regularized-optimal policies are solved, not estimated, so that
estimators and learners can be held against the truth. All of `evaluate`, `occupancy` and the model
itself are differentiable.

Discounted problems (`gamma` < 1, no horizon) have stationary policies [S, A]; problems with a
`horizon` H may be non-stationary, P [H, S, A, S'], and take policies [S, A] or [H, S, A].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from tensordict import TensorDict
from torch import Tensor

from surpass.data.records import About, Sequences, Transitions
from surpass.errors import InputError
from surpass.tasks.protocol import Spaces, State, Step

__all__ = ["Solution", "TabularMDP", "TabularSimulator", "Values", "draw", "estimate"]


class Values(NamedTuple):
    """What a policy is worth: `v` [S] and `q` [S, A] (with a horizon [H, S], [H, S, A]); `value` =
    d0 . v."""

    v: Tensor
    q: Tensor
    value: Tensor


class Solution(NamedTuple):
    """An optimal policy, and what it is worth (its regularized worth after `solve_soft`)."""

    pi: Tensor
    v: Tensor
    q: Tensor
    value: Tensor


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """A Markov decision process given by its tables.

    Attributes:
        P: transition probabilities [S, A, S'], or [H, S, A, S'] when they change with the step.
        r: expected reward [S, A] or [H, S, A].
        d0: start distribution [S].
        gamma: discount; at most 1, below 1 unless there is a horizon.
        horizon: number of decisions of an episode; None for the infinite discounted problem.
        terminal: states [S] in which nothing is earned any more; their rows of P and r are
            replaced accordingly.

    Raises:
        InputError: when shapes do not fit, rows do not sum to one, or the value would be infinite.
    """

    P: Tensor
    r: Tensor
    d0: Tensor
    gamma: float = 1.0
    horizon: int | None = None
    terminal: Tensor | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        P, r, d0 = (torch.as_tensor(x, dtype=torch.float64) for x in (self.P, self.r, self.d0))
        if P.dim() == 4 and self.horizon is None:
            set_(self, "horizon", P.shape[0])
        end = torch.zeros(P.shape[-1], dtype=torch.bool)
        if self.terminal is not None:
            end = torch.as_tensor(self.terminal, dtype=torch.bool)
        _check(P, r, d0, self.gamma, self.horizon, end)
        if end.any():
            P = torch.where(end[:, None, None], torch.eye(P.shape[-1], dtype=P.dtype)[:, None], P)
            r = torch.where(end[:, None], torch.zeros_like(r), r)
        for name, value in (("P", P), ("r", r), ("d0", d0), ("terminal", end)):
            set_(self, name, value)

    @property
    def n_states(self) -> int:
        """S."""
        return self.P.shape[-1]

    @property
    def n_actions(self) -> int:
        """A."""
        return self.P.shape[-2]

    def uniform(self) -> Float[Tensor, "S A"]:
        """The policy that takes every action equally often."""
        return torch.full((self.n_states, self.n_actions), 1 / self.n_actions, dtype=torch.float64)

    def _at(self, table: Tensor, h: int, dims: int) -> Tensor:
        return table[h] if table.dim() > dims else table

    def _policy(self, pi: Tensor) -> Tensor:
        pi = pi.double()
        shape = (self.n_states, self.n_actions)
        good = tuple(pi.shape) == shape
        if self.horizon is None:  # several policies at once
            good = tuple(pi.shape[-2:]) == shape
        else:
            good = good or tuple(pi.shape) == (self.horizon, *shape)
        if not good:
            raise InputError(f"a policy of shape {shape} expected, got {tuple(pi.shape)}")
        if not torch.allclose(pi.sum(-1), torch.ones_like(pi[..., 0]), atol=1e-6):
            raise InputError("the rows of a policy must sum to one")
        return pi

    def backup(self, v: Float[Tensor, "... S"], h: int = 0) -> Float[Tensor, "... S A"]:
        """One Bellman backup at step h: r + gamma P v."""
        ahead = torch.einsum("sat,...t->...sa", self._at(self.P, h, 3), v)
        return self._at(self.r, h, 2) + self.gamma * ahead

    # ------------------------------------------------------------------------------------ exact
    # answers

    def evaluate(self, pi: Tensor, extra: Tensor | None = None) -> Values:
        """The exact value of a policy; differentiable in the policy and the model.

        Args:
            pi: action probabilities [S, A], or [H, S, A] with a horizon; without one also several
                policies at once, [..., S, A], with values [..., S].
            extra: a reward per state [S] or [H, S] that is added when the state is visited, such
                as an entropy bonus.
        """
        pi = self._policy(pi)
        bonus = torch.zeros(self.n_states, dtype=torch.float64) if extra is None else extra
        if self.horizon is None:
            P_pi = torch.einsum("...sa,sat->...st", pi, self.P)
            eye = torch.eye(self.n_states, dtype=torch.float64)
            paid = (pi * self.r).sum(-1) + bonus
            v = torch.linalg.solve(eye - self.gamma * P_pi, paid[..., None])[..., 0]
            return Values(v, self.backup(v), v @ self.d0)
        v = torch.zeros(self.n_states, dtype=torch.float64)
        vs, qs = [], []
        for h in reversed(range(self.horizon)):
            q = self.backup(v, h)
            v = (self._at(pi, h, 2) * q).sum(-1) + self._at(bonus, h, 1)
            vs.append(v)
            qs.append(q)
        return Values(torch.stack(vs[::-1]), torch.stack(qs[::-1]), self.d0 @ v)

    def occupancy(self, pi: Tensor) -> Tensor:
        """How often (s, a) is visited; sums to one (with a horizon: at every step).

        Discounted: d(s, a) = (1 - gamma) sum_t gamma^t P(s_t = s, a_t = a), so that the value is
            <d, r> / (1 - gamma).
        With a horizon: d_h(s, a) [H, S, A], so that the value is sum_h gamma^h <d_h, r_h>.
        """
        pi = self._policy(pi)
        if self.horizon is None:
            P_pi = torch.einsum("sa,sat->st", pi, self.P)
            eye = torch.eye(self.n_states, dtype=torch.float64)
            d = torch.linalg.solve((eye - self.gamma * P_pi).T, (1 - self.gamma) * self.d0)
            return d[:, None] * pi
        d, out = self.d0, []
        for h in range(self.horizon):
            both = d[:, None] * self._at(pi, h, 2)
            out.append(both)
            d = torch.einsum("sa,sat->t", both, self._at(self.P, h, 3))
        return torch.stack(out)

    def solve(self) -> Solution:
        """An optimal deterministic policy: backward induction with a horizon, otherwise policy
        iteration.

        Among equally good actions the first is taken (equal to 1e-10).
        """
        if self.horizon is not None:
            v = torch.zeros(self.n_states, dtype=torch.float64)
            pis: list[Tensor] = []
            for h in reversed(range(self.horizon)):
                pis.append(_greedy(self.backup(v, h)))
                v = self.backup(v, h).max(-1).values
            pi = torch.stack(pis[::-1])
            return Solution(pi, *self.evaluate(pi))
        pi = _greedy(self.r)
        while True:
            values = self.evaluate(pi)
            better = values.q.max(-1).values > (pi * values.q).sum(-1) + 1e-10
            if not better.any():
                return Solution(pi, *values)
            pi = torch.where(better[:, None], _greedy(values.q), pi)

    def solve_soft(self, temperature: float, reference: Tensor | None = None) -> Solution:
        """The optimum of reward + temperature * entropy, or of reward - temperature * KL(pi ||
        reference).

        pi(a|s) is proportional to reference(a|s) exp(q(s, a) / temperature); the reference is 1
        (no distribution) for
        entropy. Soft policy iteration, which converges quadratically, to 1e-13 in the policy.

        Raises:
            InputError: when the temperature is not positive.
        """
        if not temperature > 0:
            raise InputError(
                f"temperature must be positive, got {temperature}; solve() is its limit"
            )
        shape = (self.n_states, self.n_actions)
        log_ref = torch.zeros(shape, dtype=torch.float64)
        if reference is not None:
            log_ref = self._policy(reference).log()
        if self.horizon is not None:
            v = torch.zeros(self.n_states, dtype=torch.float64)
            pis, vs, qs = [], [], []
            for h in reversed(range(self.horizon)):
                q = self.backup(v, h)
                scores = self._at(log_ref, h, 2) + q / temperature
                v = temperature * scores.logsumexp(-1)
                for held, new in ((pis, scores.softmax(-1)), (vs, v), (qs, q)):
                    held.append(new)
            pi, vs, qs = (torch.stack(x[::-1]) for x in (pis, vs, qs))
            return Solution(pi, vs, qs, self.d0 @ v)
        pi = log_ref.softmax(-1)
        for _ in range(200):
            bonus = -temperature * (torch.xlogy(pi, pi) - _weighted(pi, log_ref)).sum(-1)
            values = self.evaluate(pi, bonus)
            new = (log_ref + values.q / temperature).softmax(-1)
            moved = (new - pi).abs().max()
            pi = new
            if moved < 1e-13:
                break
        return Solution(pi, *values)

    # -------------------------------------------------------------------------------------------
    # logs

    def rollout(
        self,
        pi: Tensor,
        n: int,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        *,
        noise: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> Sequences:
        """n episodes of the policy with exact behavior log-probs.

        `obs` is one-hot [n, T, S]; the state numbers are `extras["state"]` and
        `extras["next_state"]` [n, T]. After a
        terminal state the mask is 0. The last step of a horizon is `terminated` (nothing is earned
        after it), the last
        of a discounted problem, cut after `steps`, is `truncated`.

        Args:
            pi: action probabilities.
            n: number of episodes.
            steps: length; the horizon where there is one.
            generator: source of randomness.
            noise: standard deviation of Gaussian noise on the rewards.
            dtype: of observations, rewards and log-probs.

        Raises:
            InputError: when a discounted problem is rolled out without `steps`.
        """
        pi = self._policy(pi)
        T = self._length(steps)
        s = draw(self.d0.expand(n, -1), generator)
        alive = ~self.terminal_states[s]
        columns: dict[str, list[Tensor]] = {}
        for t in range(T):
            probs = self._at(pi, t, 2)[s]
            a = draw(probs, generator)
            r = self._at(self.r, t, 2)[s, a]
            if noise:
                r = r + noise * torch.randn(n, generator=generator, dtype=torch.float64)
            s2 = draw(self._at(self.P, t, 3)[s, a], generator)
            ended = self.terminal_states[s2] | (t == T - 1 and self.horizon is not None)
            row = {
                "state": s,
                "next_state": s2,
                "action": a,
                "mask": alive.to(dtype),
                "reward": (r * alive).to(dtype),
                "logp": probs.gather(-1, a[:, None])[:, 0].log().to(dtype),
                "terminated": ended & alive,
                "truncated": alive & ~ended & (t == T - 1),
            }
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
            alive, s = alive & ~ended, s2
        c = {name: torch.stack(values, 1) for name, values in columns.items()}
        eye = torch.eye(self.n_states, dtype=dtype)
        return Sequences(
            action=c["action"],
            mask=c["mask"],
            reward=c["reward"],
            behavior_logp=c["logp"],
            obs=eye[c["state"]],
            next_obs=eye[c["next_state"]],
            terminated=c["terminated"],
            truncated=c["truncated"],
            extras=TensorDict(
                {"state": c["state"], "next_state": c["next_state"]}, batch_size=[n, T]
            ),
            batch_size=[n],  # type: ignore[call-arg]
        ).described(self._about())

    def transitions(
        self,
        pi: Tensor,
        n: int,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        *,
        noise: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> Transitions:
        """The episodes of `rollout` as one row per step, in order, without what lies behind the
        ends.

        `extras` holds `state`, `next_state` and `step` [N].
        """
        log = self.rollout(pi, n, steps, generator, noise=noise, dtype=dtype)
        keep = log.mask > 0
        episode, step = keep.nonzero(as_tuple=True)
        assert log.obs is not None and log.next_obs is not None and log.extras is not None
        assert log.reward is not None and log.terminated is not None and log.truncated is not None
        return Transitions(
            obs=log.obs[keep],
            action=log.action[keep],
            reward=log.reward[keep],
            next_obs=log.next_obs[keep],
            terminated=log.terminated[keep],
            truncated=log.truncated[keep],
            episode=episode,
            behavior_logp=log.behavior_logp[keep],  # type: ignore[index]
            extras=TensorDict(
                {
                    "state": log.extras["state"][keep],
                    "next_state": log.extras["next_state"][keep],
                    "step": step,
                },
                batch_size=[len(step)],
            ),
            batch_size=[len(step)],  # type: ignore[call-arg]
        ).described(self._about())

    @property
    def terminal_states(self) -> Bool[Tensor, "S"]:
        """Which states end an episode."""
        assert self.terminal is not None
        return self.terminal

    def _length(self, steps: int | None) -> int:
        if self.horizon is not None:
            if steps not in (None, self.horizon):
                raise InputError(f"episodes have {self.horizon} steps, {steps} were asked for")
            return self.horizon
        if steps is None:
            raise InputError("a discounted problem never ends; say after how many steps to cut it")
        return steps

    def _about(self) -> About:
        return About(
            name="tabular",
            actions=tuple(str(a) for a in range(self.n_actions)),
            spaces={"obs": (self.n_states,), "n_actions": self.n_actions},
        )

    def as_env(self, steps: int | None = None) -> TabularSimulator:
        """The same problem as a pure batched environment with one-hot observations."""
        return TabularSimulator(self, self._length(steps))


class TabularSimulator:
    """A `TabularMDP` stepped many copies at once; state: `s` and `t`, both [n]. Rewards are their
    expectations."""

    noise_dim = 1

    def __init__(self, mdp: TabularMDP, steps: int, dtype: torch.dtype = torch.float32) -> None:
        self.mdp, self.steps, self.dtype = mdp, steps, dtype
        self.spaces = Spaces(mdp.n_states, n_actions=mdp.n_actions, horizon=steps)
        self._tables = {
            "cdf": _cdf(mdp.P if mdp.P.dim() == 4 else mdp.P[None]),
            "r": mdp.r if mdp.r.dim() == 3 else mdp.r[None],
            "eye": torch.eye(mdp.n_states, dtype=dtype),
            "end": mdp.terminal_states,
        }

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """n starts drawn from d0."""
        device = generator.device if generator is not None else torch.device("cpu")
        s = draw(self.mdp.d0.to(device).expand(n, -1), generator)
        return {"s": s, "t": torch.zeros_like(s)}, self._on(device)["eye"][s]

    def _on(self, device: torch.device) -> dict[str, Tensor]:
        """The tables, moved once to where the states are."""
        if self._tables["cdf"].device != device:
            self._tables = {k: v.to(device) for k, v in self._tables.items()}
        return self._tables

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """One transition; `noise` [n, 1] decides the next state by inverting its distribution
        function."""
        assert noise is not None, "a tabular environment needs noise"
        s, t = state["s"], state["t"]
        table = self._on(s.device)
        cdf, r, eye = table["cdf"], table["r"], table["eye"]
        row = cdf[t % cdf.shape[0], s, action]
        s2 = (noise.to(row.dtype) >= row).sum(-1)
        reward = r[t % r.shape[0], s, action].to(self.dtype)
        t2 = t + 1
        last = t2 >= self.steps
        ended = table["end"][s2]
        if self.mdp.horizon is not None:
            ended = ended | last
        return Step({"s": s2, "t": t2}, eye[s2], reward, ended, last & ~ended)


# ------------------------------------------------------------------------------------------
# estimation


def estimate(
    log: Transitions,
    n_states: int,
    n_actions: int,
    *,
    gamma: float = 1.0,
    horizon: int | None = None,
    prior: float = 0.0,
) -> tuple[TabularMDP, Float[Tensor, "... S A"]]:
    """The maximum-likelihood model of a tabular log, and how often each (s, a) was seen.

    Pairs that were never seen stay where they are and earn nothing. Episodes that terminate lead
    to nothing: the
    probability mass of a terminating step goes to an extra, last state, which is terminal, so the
    model has S + 1
    states (not with a horizon, whose end is part of the model).

    Args:
        log: with `extras["state"]`, `extras["next_state"]`, as `TabularMDP.transitions` writes
            them.
        n_states: S.
        n_actions: A.
        gamma: discount of the model.
        horizon: estimate one stationary model, to be solved with this horizon.
        prior: pseudo-count of every next state.
    """
    if log.extras is None or "state" not in log.extras or "next_state" not in log.extras:
        raise InputError("a tabular log needs the columns extras['state'] and extras['next_state']")
    s, s2, a = log.extras["state"], log.extras["next_state"], log.action
    S = n_states if horizon is not None else n_states + 1
    if horizon is None:
        s2 = torch.where(log.terminated, torch.full_like(s2, n_states), s2)
    at = (s * n_actions + a) * S + s2
    counts = torch.bincount(at, minlength=S * n_actions * S).double().reshape(S, n_actions, S)
    paid = torch.zeros(S * n_actions, dtype=torch.float64)
    paid = paid.index_add(0, s * n_actions + a, log.reward.double()).reshape(S, n_actions)
    seen = counts.sum(-1)
    smooth = counts + prior
    total = smooth.sum(-1, keepdim=True)
    stay = torch.eye(S, dtype=torch.float64)[:, None].expand_as(smooth)
    P = torch.where(total > 0, smooth / total.clamp_min(1e-300), stay)
    starts = torch.ones_like(log.episode, dtype=torch.bool)
    starts[1:] = log.episode[1:] != log.episode[:-1]
    d0 = torch.bincount(s[starts], minlength=S).double()
    end = torch.zeros(S, dtype=torch.bool)
    if horizon is None:
        end[-1] = True
    return TabularMDP(P, paid / seen.clamp_min(1), d0 / d0.sum(), gamma, horizon, end), seen


def draw(probs: Float[Tensor, "n K"], generator: torch.Generator | None = None) -> Int[Tensor, "n"]:
    """One index per row, by inverting the distribution function; never one of probability zero."""
    shape = (*probs.shape[:-1], 1)
    u = torch.rand(shape, generator=generator, dtype=torch.float64, device=probs.device)
    return (u >= _cdf(probs)).sum(-1)


def _cdf(probs: Tensor) -> Tensor:
    total = probs.double().cumsum(-1)
    return total / total[..., -1:]


def _greedy(q: Tensor) -> Tensor:
    best = (q >= q.max(-1, keepdim=True).values - 1e-10).to(torch.int8).argmax(-1)
    return torch.nn.functional.one_hot(best, q.shape[-1]).double()


def _weighted(pi: Tensor, log_ref: Tensor) -> Tensor:
    return torch.where(pi > 0, pi * log_ref, torch.zeros_like(pi))


def _check(
    P: Tensor, r: Tensor, d0: Tensor, gamma: float, horizon: int | None, end: Tensor
) -> None:
    S, A = P.shape[-1], P.shape[-2]
    if P.dim() not in (3, 4) or P.shape[-3] != S:
        raise InputError(f"P must be [S, A, S] or [H, S, A, S], got {tuple(P.shape)}")
    lengths = {x.shape[0] for x, dims in ((P, 3), (r, 2)) if x.dim() == dims + 1}
    if lengths - {horizon}:
        raise InputError(f"tables for {sorted(lengths)} steps, but the horizon is {horizon}")
    if tuple(r.shape[-2:]) != (S, A) or r.dim() > 3:
        raise InputError(f"r must be [{S}, {A}] (or [H, {S}, {A}]), got {tuple(r.shape)}")
    if tuple(d0.shape) != (S,) or tuple(end.shape) != (S,):
        raise InputError(
            f"d0 and terminal must have one entry for each of the {S} states, "
            f"got {tuple(d0.shape)} and {tuple(end.shape)}"
        )
    for name, x in (("P", P), ("d0", d0)):
        bad = (x < 0).any(-1) | ~((x.sum(-1) - 1).abs() < 1e-6)
        if bad.any():
            where = bad.nonzero()[0].tolist()
            raise InputError(
                f"{name}{where or ''} is no distribution: it sums to {x.sum(-1)[bad][0]:.6g}"
            )
    if not 0 <= gamma <= 1 or (gamma == 1 and horizon is None):
        raise InputError(
            f"gamma must lie in [0, 1), or [0, 1] with a horizon; got {gamma}, horizon {horizon}"
        )
