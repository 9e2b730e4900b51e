"""Cold-RL against problems whose values are known."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict

import surpass as sp
from surpass.data.records import About, Transitions
from surpass.errors import InputError
from surpass.policies.candidate_scores import candidate_scores, save_scores
from surpass.registry import recipe

GAMMA = 0.8


def hurried(n=400):
    """One list for ever: the first candidate pays 1 and takes one tick, the second pays 1.5 and
    takes three, the third is not there. Counting decisions the second is better (7.5 against 5 in
    value), counting time the first: 1 / (1 - g) = 5 against 1.5 / (1 - g^3) = 3.07."""
    obs = torch.tensor([1.0, 0.5, 3.0, -0.5, 0.0, 0.0]).expand(n, 6).clone()
    obs += 0.01 * torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    action = torch.arange(n) % 2
    here = torch.tensor([True, True, False]).expand(n, 3)
    end = torch.arange(n) == n - 1
    return Transitions(
        obs=obs, action=action, reward=torch.where(action == 0, 1.0, 1.5), next_obs=obs,
        terminated=torch.zeros(n, dtype=torch.bool), truncated=end,
        episode=torch.zeros(n, dtype=torch.long), available=here,
        extras=TensorDict({"elapsed": torch.where(action == 0, 1.0, 3.0)}, batch_size=[n]),
        batch_size=[n],
    ).described(About(spaces={"n_actions": 3}))  # fmt: skip


@pytest.mark.parametrize("key", ["cold-rl", "cold-rl:shared"])
def test_values_are_those_of_the_semi_markov_process(key):
    form = recipe(key)(gamma=GAMMA, lr=2e-3, tau=0.05, batch=64, hidden=(16, 16), head=16)
    trained = sp.train(form, hurried(), steps=500, compile=False)
    scores = candidate_scores(trained)
    raw = hurried().obs[:50].reshape(50, 3, 2).clone()
    raw[:, 2] = float("nan")
    with torch.no_grad():
        found = scores(raw).mean(0)
    expected = torch.tensor([1.0 / (1.0 - GAMMA), 1.5 + GAMMA**3 / (1.0 - GAMMA)])
    torch.testing.assert_close(found[:2], expected, atol=0.35, rtol=0.0)
    assert float(found[2]) == -1e8
    assert (trained.predict(raw.flatten(1).numpy()) == 0).all()


@pytest.mark.parametrize("key", ["cold-rl", "cold-rl:shared"])
def test_onnx_gives_the_same_scores(key, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    form = recipe(key)(batch=16, hidden=(16, 16), head=16)
    trained = sp.train(form, hurried(), steps=2, compile=False)
    path = save_scores(candidate_scores(trained), tmp_path / "scores.onnx")
    raw = np.random.default_rng(0).normal(size=(7, 3, 2)).astype(np.float32)
    raw[3, 1:] = np.nan
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"candidates": raw})[0]
    with torch.no_grad():
        want = candidate_scores(trained)(torch.as_tensor(raw)).numpy()
    np.testing.assert_allclose(found, want, atol=1e-5, rtol=1e-5)
    assert (found[3, 1:] == -1e8).all()
    back = sp.load(trained.save(tmp_path / "run").parent)  # with the statistics of the log
    with torch.no_grad():
        np.testing.assert_allclose(candidate_scores(back)(torch.as_tensor(raw)), want, rtol=1e-5)


def test_statistics_are_of_candidates_that_are_there():
    form = recipe("cold-rl")(batch=16, hidden=(8, 8), head=8)
    policy = sp.train(form, hurried(), steps=1, compile=False).policy
    seen = hurried().obs.reshape(-1, 3, 2)[:, :2].reshape(-1, 2)
    torch.testing.assert_close(policy.mean, seen.mean(0).repeat(3))
    torch.testing.assert_close(policy.std, (seen.std(0) + 1e-3).repeat(3))


def test_bad_input():
    log = hurried()
    log.available = None
    with pytest.raises(InputError, match="available"):
        sp.train("cold-rl", log, steps=1, compile=False)
    log = hurried()
    log.extras = None
    with pytest.raises(InputError, match="elapsed"):
        sp.train("cold-rl", log, steps=1, compile=False)
    other = sp.train(sp.dqn(), task="CartPole-v1", steps=1, compile=False)
    with pytest.raises(InputError, match="does not score listed candidates"):
        candidate_scores(other)


def test_a_log_goes_through_a_file(tmp_path):
    from surpass.data.trajectories import open_trajectories, write_trajectories

    log = hurried(20)
    write_trajectories(log, tmp_path / "evictions.parquet")
    back = open_trajectories(tmp_path / "evictions.parquet").read()
    assert torch.equal(back.available, log.available)
    assert torch.equal(back.extras["elapsed"], log.extras["elapsed"])
    form = recipe("cold-rl")(batch=8, hidden=(8, 8), head=8)
    one, two = (sp.train(form, d, steps=2, compile=False) for d in (log, back))
    assert torch.equal(one.nets["q"].all(log.obs), two.nets["q"].all(log.obs))
