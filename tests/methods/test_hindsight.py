"""OPPO on a log of two behaviors, of which preferences choose one."""

import pytest
import torch

import surpass as sp
from surpass.data.records import Transitions
from surpass.data.segments import compared
from surpass.errors import InputError
from surpass.training.run import train

SMALL = {"code": 2, "context": 4, "width": 16, "layers": 1, "ages": 8, "lr": 3e-3, "batch": 32,
         "code_lr": 0.03, "scale": 0.1}  # fmt: skip


def log(episodes=60, steps=8):
    """In half of the episodes all actions are 0.6, in the others -0.6; states say nothing."""
    g = torch.Generator().manual_seed(0)
    n = episodes * steps
    which = (torch.arange(episodes) % 2 * 2.0 - 1.0).repeat_interleave(steps)
    ended = torch.zeros(n, dtype=torch.bool)
    ended[steps - 1 :: steps] = True
    noise = 0.05 * torch.randn(n, generator=g)
    obs = torch.randn(n, 2, generator=g)
    return Transitions(
        obs=obs, action=(0.6 * which + noise)[:, None], reward=torch.zeros(n), next_obs=obs,
        terminated=torch.zeros(n, dtype=torch.bool), truncated=ended,
        episode=torch.arange(episodes).repeat_interleave(steps), batch_size=[n],
    )  # fmt: skip


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_preferences_choose_between_behaviors_that_the_mean_action_would_mix(sign):
    rows = log()
    pairs = compared(rows, sign * rows.action[:, 0], 100, 4, seed=0)
    trained = train(sp.oppo(**SMALL), rows, pairs=pairs, steps=150, seed=0, compile=False)
    obs, played, memory = torch.randn(6, 20, 2), [], None
    for step in obs:
        acted = trained.policy.act(step, memory)
        played.append(acted.action)
        memory = trained.policy.remember(acted.memory, torch.zeros(20), torch.zeros(20).bool())
    assert float(sign * torch.cat(played).mean()) == pytest.approx(0.6, abs=0.15)


def test_it_asks_for_pairs_by_name():
    with pytest.raises(InputError, match="give pairs="):
        train(sp.oppo(**SMALL), log(), steps=1, compile=False)
