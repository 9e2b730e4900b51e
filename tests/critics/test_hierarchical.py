"""The hierarchical posterior against one big Gaussian, and its limits."""

from __future__ import annotations

import torch

from surpass.critics.hierarchical import HierarchicalGaussian

M, D, N = 3, 2, 25
G = torch.Generator().manual_seed(0)
X = torch.randn(N, D, generator=G, dtype=torch.float64)
R = torch.randn(N, generator=G, dtype=torch.float64)
TASK = torch.randint(M, (N,), generator=G)


def test_equals_the_marginals_of_the_joint_posterior():
    model = HierarchicalGaussian(between=0.7, within=0.3, noise=0.4)
    eye = torch.eye(D, dtype=torch.float64)
    prior = torch.kron(torch.full((M, M), 0.7, dtype=torch.float64), eye)
    prior += 0.3 * torch.eye(M * D, dtype=torch.float64)
    design = torch.zeros(N, M, D, dtype=torch.float64)
    design[torch.arange(N), TASK] = X
    design = design.flatten(1)
    covariance = torch.linalg.inv(torch.linalg.inv(prior) + design.T @ design / 0.16)
    mean = covariance @ design.T @ R / 0.16
    found = model.fit(X, R, TASK)
    assert torch.allclose(found.mean.flatten(), mean, atol=1e-8)
    for s in range(M):
        block = covariance[s * D : (s + 1) * D, s * D : (s + 1) * D]
        assert torch.allclose(found.covariance[s], block, atol=1e-8)


def test_without_spread_between_tasks_learning_alone_is_the_same():
    together = HierarchicalGaussian(between=1e-9).fit(X, R, TASK)
    alone = HierarchicalGaussian(between=1e-9, pooled=False).fit(X, R, TASK)
    assert torch.allclose(together.mean, alone.mean, atol=1e-6)


def test_known_shared_parameters_are_the_limit_of_very_many_tasks_and_tasks_without_rows_borrow():
    mu = torch.tensor([0.5, -1.0], dtype=torch.float64)
    known = HierarchicalGaussian().fit(X, R, TASK, M + 1, known=mu)
    assert torch.allclose(known.mean[M], mu)
    pooled = HierarchicalGaussian().fit(X, R, TASK, M + 1)
    assert float(pooled.mean[M].norm()) > 0.0
    assert float(pooled.covariance[M].trace()) > float(pooled.covariance[0].trace())


def test_lower_bound_is_the_mean_less_alpha_spreads():
    found = HierarchicalGaussian().fit(X, R, TASK)
    phi = torch.randn(2, 4, D, generator=G, dtype=torch.float64)
    task = torch.tensor([0, 2])
    gap = found.lower(phi, task, 0.0) - found.lower(phi, task, 1.0)
    hand = (phi[1, 3] @ found.covariance[2] @ phi[1, 3]).sqrt()
    assert torch.allclose(gap[1, 3], hand)
    assert torch.allclose(found.lower(phi, task, 0.0)[0, 0], phi[0, 0] @ found.mean[0])


def test_the_learner_of_improve_follows_the_lower_bound():
    from surpass.methods.decisions import LEARNERS
    from surpass.methods.decisions.hierarchical import HierarchicalRewards

    class Rows:
        context, action, reward, n_actions, lo, hi = X, TASK, R, M, -5.0, 5.0
        propensity = torch.full((N,), 1 / M, dtype=torch.float64)
        reference = offered = torch.full((N, M), 1 / M, dtype=torch.float64)

        def take(self, _: object) -> Rows:
            return self

    values = HierarchicalRewards(alpha=0.7).fit(Rows())
    noise = float(R.std())
    phi = torch.cat((torch.ones(N, 1), (X - X.mean(0)) / X.std(0, unbiased=False)), 1)
    model = HierarchicalGaussian(0.25 * noise**2, 0.05 * noise**2, noise)
    found = model.fit(phi, R - R.mean(), TASK, M)
    hand = torch.stack(
        [found.lower(phi[:, None], torch.full((N,), a), 0.7)[:, 0] for a in range(M)], 1
    )
    assert torch.allclose(values(X), hand + R.mean(), atol=1e-9)
    greedy = LEARNERS["hier-opo"](alpha=0.7).fit(Rows(), None, 0)[-1].policy(X, Rows.reference)
    assert torch.equal(greedy.argmax(1), hand.argmax(1))
