"""Planning with doubt: linear programs and numeric optima as oracles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, linprog

from surpass.errors import InputError
from surpass.methods.theory.robust import dr_rpo
from surpass.objectives.planning import choose, mirror_step, worst_mean
from surpass.tasks.linear_mdp import LinearPlay, fail_or_safe
from surpass.training.replan import replan

RNG = np.random.default_rng(0)


def test_the_worst_mean_in_a_total_variation_ball_is_the_linear_programs():
    for radius in (0.0, 0.1, 0.35, 2.0):
        mu, v = RNG.dirichlet(np.ones(5)), RNG.random(5)
        # p >= 0, sum p = 1, |p - mu| <= t, sum t <= 2 radius
        cost = np.r_[v, np.zeros(5)]
        eye = np.eye(5)
        A = np.r_[np.c_[eye, -eye], np.c_[-eye, -eye], [np.r_[np.zeros(5), np.ones(5)]]]
        b = np.r_[mu, -mu, 2 * radius]
        best = linprog(cost, A, b, [np.r_[np.ones(5), np.zeros(5)]], [1.0]).fun
        assert worst_mean(mu[None], v, np.array([radius]))[0] == pytest.approx(best)


def test_the_worst_mean_in_a_divergence_ball_is_the_tilted_one():
    mu, v, radius = RNG.dirichlet(np.ones(4) * 3), RNG.random(4), 0.08

    def tilted(b):
        p = mu * np.exp(-v / b)
        return p / p.sum()

    b = brentq(lambda b: (tilted(b) * np.log(tilted(b) / mu)).sum() - radius, 1e-2, 1e3)
    found = worst_mean(mu[None], v, np.array([radius]), "kl")[0]
    assert found == pytest.approx(tilted(b) @ v, abs=1e-6)
    assert worst_mean(mu[None], v, np.array([0.0]), "kl")[0] == pytest.approx(mu @ v)
    assert worst_mean(mu[None], v, np.array([50.0]), "kl")[0] == pytest.approx(v.min(), abs=1e-4)
    with pytest.raises(InputError, match="not negative"):
        worst_mean(mu[None], v, np.array([-0.1]))


def test_the_worst_mean_in_a_small_square_ball_is_in_closed_form():
    mu, v, radius = np.full(4, 0.25), np.array([0.2, 0.5, 0.7, 0.9]), 0.01
    gap = v - mu @ v  # no probability reaches zero, so p = mu (1 - c (v - mean))
    wanted = mu @ v - np.sqrt(radius * (mu @ gap**2))
    assert worst_mean(mu[None], v, np.array([radius]), "chi2")[0] == pytest.approx(wanted)


def test_the_mirror_step_maximizes_its_objective_and_ends_at_the_softmax():
    q, lam, eta = RNG.random((1, 3)), 0.3, 2.0
    ref, pi = RNG.dirichlet(np.ones(3))[None], RNG.dirichlet(np.ones(3))[None]

    def value(p):
        kl = lambda a, b: (a * np.log(a / b)).sum()  # noqa: E731
        return (p * q).sum() - lam * kl(p, ref) - kl(p, pi) / eta

    new = mirror_step(pi, q, eta, ref, lam)
    for _ in range(200):
        other = 0.9 * new + 0.1 * RNG.dirichlet(np.ones(3))
        assert value(new) >= value(other)
    end = mirror_step(pi, q, np.inf, ref, lam)
    soft = ref * np.exp(q / lam)
    assert end == pytest.approx(soft / soft.sum())
    for _ in range(200):
        pi = mirror_step(pi, q, eta, ref, lam)
    assert pi == pytest.approx(end, abs=1e-8)
    assert choose(end, q, ref, lam)[0] == pytest.approx(lam * np.log((ref * np.exp(q / lam)).sum()))
    assert mirror_step(pi, q, np.inf, ref).argmax() == q.argmax()


def test_the_safe_way_is_the_robust_optimum_and_the_risky_one_the_nominal():
    mdp = fail_or_safe()
    z = mdp.phi[0, :, 3]
    risky, safe = (np.tile(np.eye(16)[pick], (3, 5, 1)) for pick in (z.argmin(), z.argmax()))
    risky[:, 2] = safe[:, 2]  # nothing is at risk in x3
    assert mdp.value(risky) == pytest.approx(1.81, abs=0.02)
    assert mdp.value(safe) == pytest.approx(1.67, abs=0.02)
    assert mdp.value(mdp.solve()) == pytest.approx(mdp.value(risky), abs=1e-9)
    radius = np.zeros((3, 4))
    radius[0, 0] = 0.5
    assert mdp.value(mdp.solve(radius), radius) > mdp.value(risky, radius)
    hit = mdp.perturbed(0, 3, 1.0)
    assert hit.value(mdp.solve(radius)) > hit.value(risky) + 0.1
    assert mdp.value(risky, radius) <= mdp.value(risky)


def test_robust_policies_are_learned_online():
    mdp, radius = fail_or_safe(), np.zeros((3, 4))
    radius[0, 0] = 0.5
    found = replan(dr_rpo(mdp.phi, radius, 0.05, 5.0, 0.1, episodes=250), LinearPlay(mdp), seed=0)
    best = mdp.value(mdp.solve(radius, 0.05), radius, 0.05)
    lost = np.array([best - mdp.value(p, radius, 0.05) for p in found.plans])
    assert (lost >= -1e-9).all() and lost[-20:].mean() < 0.5 * lost.max()
    assert mdp.value(found.plans[-1], radius) > mdp.value(mdp.solve(), radius)
    with pytest.raises(InputError, match="given its model"):
        replan(dr_rpo(mdp.phi, episodes=0), LinearPlay(mdp))
