import numpy as np
import torch
from sklearn.linear_model import Ridge

from surpass.critics.deviations import (
    PENALTIES,
    DeviationModel,
    Standardizer,
    deviation_scale,
    grams,
    solve_deviations,
)


def _log(n=300, d=3, actions=4, seed=0):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(2.0, 3.0, (n, d)))
    action = torch.from_numpy(rng.integers(0, actions, n))
    reward = torch.from_numpy(rng.normal(size=n)) + 0.3 * x[:, 0] * (action == 1)
    return x, action, reward


def test_it_is_ridge_on_all_rows_then_ridge_on_residuals():
    x, action, reward = _log()
    model = DeviationModel.fit(x, action, reward, 4, penalty=(50.0, 50.0))
    z = ((x - x.mean(0)) / x.std(0, unbiased=False)).numpy()
    shared = Ridge(alpha=10.0).fit(z, reward)
    left = reward.numpy() - shared.predict(z)
    design = np.column_stack([np.ones(len(z)), z])
    for a in range(4):
        rows = (action == a).numpy()
        own = Ridge(alpha=50.0, fit_intercept=False).fit(design[rows], left[rows])
        expected = shared.predict(z) + design @ own.coef_
        np.testing.assert_allclose(model(x)[:, a].numpy(), expected, atol=1e-6)


def test_folds_are_differences_of_sums():
    x, action, reward = _log()
    fold = torch.arange(300) % 3
    features = Standardizer.of(x).features(x)
    rest = fold != 1
    shared, theta = solve_deviations(grams(features, reward, action, 4, fold, 3).without(1))
    again = solve_deviations(grams(features[rest], reward[rest], action[rest], 4))
    torch.testing.assert_close(shared, again[0])
    torch.testing.assert_close(theta, again[1])


def test_the_last_penalty_pair_is_context_free():
    x, action, reward = _log()
    features = Standardizer.of(x).features(x)
    _, theta = solve_deviations(grams(features, reward, action, 4), PENALTIES)
    assert theta[-1, :, 1:].abs().max() < 1e-4 * theta[-1, :, 0].abs().max()
    assert theta[0, 1, 1] > 10 * theta[2, 1, 1].abs()  # the slope of action 1 shrinks with penalty


def test_an_action_that_was_never_taken_has_no_deviation():
    x, action, reward = _log()
    model = DeviationModel.fit(x, action, reward, 6)
    assert (model.theta[4:] == 0).all()
    torch.testing.assert_close(model(x)[:, 4], model(x)[:, 5])


def test_constant_columns_do_no_harm():
    x, action, reward = _log()
    wide = torch.cat([x, torch.full((300, 1), 7.0, dtype=x.dtype)], 1)
    torch.testing.assert_close(
        DeviationModel.fit(wide, action, reward, 4)(wide),
        DeviationModel.fit(x, action, reward, 4)(x),
    )


def test_scale_by_hand():
    rho = torch.tensor([[0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    deviation = torch.tensor([[1.0, -1.0], [0.0, 1.0]], dtype=torch.float64)
    expected = np.sqrt((1.0 + 0.09) / 2)  # variances 1 and 0.9 * 0.1
    np.testing.assert_allclose(deviation_scale(deviation, rho).item(), expected, rtol=1e-12)
    assert deviation_scale(torch.zeros_like(deviation), rho).item() == 1.0
