"""SAC through the steps of a flow, from nothing and from a log, on a task with a known answer."""

import pytest
import torch
from one_number import AIM

from surpass.data.records import Transitions
from surpass.registry import recipe
from surpass.training.run import train

QUICK = {"hidden": (16, 16), "lr": 1e-2, "batch": 64, "width": 16, "steps": 2}


@pytest.mark.parametrize("velocity", ["gated", "decoder"])
def test_the_best_action_is_found(velocity):
    form = recipe("sac-flow")(velocity=velocity, warm=64, envs=8, **QUICK)
    trained = train(form, task=AIM, steps=500, seed=0, compile=False)
    assert trained.predict([[0.0]])[0, 0] == pytest.approx(0.6, abs=0.15)


def all_of(action: float, n: int = 256) -> Transitions:
    """A log of one action, with what it paid."""
    played = torch.full((n, 1), action)
    return Transitions(
        obs=torch.zeros(n, 1), action=played, reward=-(played[:, 0] - 0.6).square(),
        next_obs=torch.zeros(n, 1), terminated=torch.ones(n, dtype=torch.bool),
        truncated=torch.zeros(n, dtype=torch.bool), episode=torch.arange(n), batch_size=[n],
    )  # type: ignore[call-arg]  # fmt: skip


@pytest.mark.parametrize("near, expected", [(0.0, 0.6), (3.0, 0.15)])
def test_a_pretrained_flow_moves_as_far_from_the_log_as_it_is_allowed(near, expected):
    """The log plays 0; 3 |a - a_b|^2 + (a - 0.6)^2 is least at 0.15 where a_b stays 0, and a_b is
    half the log's, half the policy's own: somewhat above, well below 0.6."""
    form = recipe("sac-flow:pretrained")(
        offline=100, online=500, near=near, temperature=0.0, warm=64, **QUICK
    )
    trained = train(form, all_of(0.0), task=AIM, seed=0, compile=False)
    found = float(trained.predict([[0.0]])[0, 0])
    if near:
        assert expected - 0.1 < found < 0.4
    else:
        assert found == pytest.approx(expected, abs=0.15)
