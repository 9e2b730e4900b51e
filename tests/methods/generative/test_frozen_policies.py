"""Recipes around a frozen policy: what they may move, what they hand back, where they end."""

import pytest
import torch
from one_number import AIM
from torch import nn

from surpass.errors import InputError
from surpass.registry import recipe
from surpass.training.run import load_trained, train


class Half(nn.Module):
    """G(s, w) = w / 2; proposes 0.4."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def decode(self, obs, noise):
        return self.scale * noise

    def sample(self, obs):
        return torch.full((len(obs), 1), 0.4), None


QUICK = {"hidden": (16, 16), "envs": 8, "lr": 1e-2}


@pytest.mark.parametrize(
    "key, hyper, steps",
    [
        ("dsrl", {"warm": 64, "per_step": 0.25, "batch": 64, "distill": 2}, 900),
        ("dsrl:sac", {"warm": 64, "per_step": 0.25, "batch": 64}, 400),
    ],
)
def test_noise_is_found_whose_action_is_best(key, hyper, steps):
    """a = w / 2, |w| <= 1.5: w = 1.2 gives 0.6; the base stays as it is."""
    base = Half()
    form = recipe(key)(**QUICK, **hyper)
    trained = train(form, task=AIM, base=base, steps=steps, seed=0, compile=False)
    assert trained.predict([[0.0]])[0, 0] == pytest.approx(0.6, abs=0.15)
    assert base.scale.item() == 0.5


def test_a_correction_moves_a_frozen_policy_as_far_as_its_scale(tmp_path):
    """0.4 + 0.1 rho, |rho| <= 1: 0.5 is the nearest to 0.6."""
    base = Half()
    form = recipe("resip")(scale=0.1, horizon=16, epochs=4, minibatches=2, **QUICK)
    trained = train(form, task=AIM, base=base, steps=4_000, seed=0, compile=False, out=tmp_path)
    assert trained.predict([[0.0]])[0, 0] == pytest.approx(0.5, abs=0.02)
    again = load_trained(tmp_path, task=AIM, base=base)
    assert again.predict([[0.0]])[0, 0] == pytest.approx(float(trained.predict([[0.0]])[0, 0]))


def test_a_missing_base_is_named():
    with pytest.raises(InputError, match="needs a net or log called 'base'"):
        train(recipe("resip")(), task=AIM, steps=10)
    with pytest.raises(InputError, match="'base'"):
        train(recipe("dsrl")(), task=AIM, steps=10)


def test_a_base_without_a_deterministic_sampler_is_refused():
    for key in ("dsrl", "dsrl:sac"):
        with pytest.raises(InputError, match="has no 'decode'; hand in a diffusion or flow net"):
            train(recipe(key)(), task=AIM, base=nn.Linear(1, 1), steps=10, compile=False)
