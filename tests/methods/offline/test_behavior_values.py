"""R-BVE on a chain whose behavior values are known: never a maximum while it learns."""

import pytest
import torch

from surpass.data.records import About, Transitions
from surpass.methods.offline.behavior_values import r_bve
from surpass.parts import from_json, to_json
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, spaces_of

GAMMA = 0.5
SMALL = {"hidden": (32,), "batch": 128, "lr": 3e-3, "gamma": GAMMA, "every": 25}


def chain(episodes=400, right=0.5, seed=0):
    """Two states. Left (0) ends with 0; right (1) goes on from the first state, and ends with 1
    from the second."""
    g = torch.Generator().manual_seed(seed)
    rows = []
    for e in range(episodes):
        for s in (0, 1):
            a = int(torch.rand((), generator=g) < right)
            over = a == 0 or s == 1
            rows.append((s, a, float(a and s), over, e))
            if over:
                break
    s, a, r, over, e = (torch.tensor(column) for column in zip(*rows, strict=True))
    after = torch.where(over, s, 1)
    return Transitions(
        obs=torch.nn.functional.one_hot(s, 2).float(), action=a, reward=r,
        next_obs=torch.nn.functional.one_hot(after, 2).float(), terminated=over,
        truncated=torch.zeros_like(over), episode=e, batch_size=[len(rows)],
    ).described(About(spaces={"n_actions": 2}))  # fmt: skip


def values(trained):
    with torch.no_grad():
        return trained.nets.q.all(torch.eye(2))[0]


def test_without_ranking_values_are_those_of_the_behavior_policy_and_acting_improves_on_it():
    """Q(0, right) = gamma P(right) = 0.15 at 30 %, where the best policy's is 0.5."""
    log = chain(right=0.3)
    trained = train(r_bve(lam=0.0, **SMALL), log, steps=500, compile=False)
    share = float(log.action[log.obs[:, 1] == 1].float().mean())
    want = torch.tensor([[0.0, GAMMA * share], [0.0, 1.0]])
    torch.testing.assert_close(values(trained), want, rtol=0, atol=0.04)
    assert trained.predict(torch.eye(2)).tolist() == [1, 1]


def test_ranking_keeps_an_action_below_the_logged_one_that_the_log_does_not_have():
    """In the second state only right was logged; nothing says what left is worth there."""
    log = chain()
    log = log[(log.obs[:, 0] == 1) | (log.action == 1)]
    trained = train(r_bve(lam=1.0, margin=0.2, **SMALL), log, steps=500, compile=False)
    left, right = values(trained)[1].tolist()
    assert right - left > 0.15


def test_the_ranking_of_good_episodes_outweighs_that_of_bad_ones():
    """Left and right are logged alike in the first state; only episodes that went right paid."""
    free = {"beta": 0.05, "cap": 1e3}
    gap = {}
    for name, more in (("soft", free), ("even", {"beta": 1e9})):
        trained = train(r_bve(lam=1.0, margin=0.5, **more, **SMALL), chain(), steps=500,
                        compile=False)  # fmt: skip
        at = values(trained)[0]
        gap[name] = float(at[1] - at[0])
    assert gap["soft"] > gap["even"] + 0.05


def test_the_traced_update_equals_the_eager_one_and_the_recipe_comes_back_from_json():
    form, log = r_bve(**SMALL), chain(50)
    assert from_json(to_json(form)) == form
    spaces, needs = spaces_of(log), ("return_to_go", "next_action")
    stream = open_stream(form.source, {"log": log}, spaces, needs)
    engines = [Engine(form, stream, spaces, compile=c) for c in (False, True)]
    engines[1].compiler = traced
    for engine in engines:
        engine.advance(3)
    for name, tensor in engines[0].state.items():
        torch.testing.assert_close(engines[1].state[name], tensor, rtol=1e-5, atol=1e-7, msg=name)


def test_continuous_actions_are_refused():
    from training_logs import random_log

    from surpass.errors import InputError

    with pytest.raises(InputError, match="does not fit continuous actions"):
        train(r_bve(), random_log(), steps=1)
