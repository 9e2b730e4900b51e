"""Recipes for generators, from a log to a better one; and drifts as recipes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from surpass.errors import InputError
from surpass.forms import Stage, Stages
from surpass.methods.online.denoising import flow_grpo, flow_matching, grpo_guard
from surpass.methods.online.drifts import mirror_learning
from surpass.methods.online.masked import masked_cloning, path_gradient, sepo
from surpass.methods.online.policy_gradients import ppo
from surpass.objectives.drift import clipped_away, no_drift
from surpass.objectives.trust import ratio_loss
from surpass.objectives.views import Steps
from surpass.parts import from_json, run, to_json
from surpass.policies.masked_diffusion import masked_diffusion
from surpass.policies.noisy_flow import noisy_flow
from surpass.registry import recipe
from surpass.tasks.catalog import ControlTask
from surpass.tasks.motifs import Motifs
from surpass.tasks.proxy import Proxied
from surpass.training.run import load_trained, train

KEYS = ("grpo-guard", "grpo-guard:flow-grpo", "grpo-guard:from-log", "grpo-guard:dance", "sepo",
        "sepo:path", "sepo:from-log", "lpo-dpo")  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_a_recipe_comes_back_from_json(key):
    form = recipe(key)()
    assert from_json(to_json(form)) == form


def rated(form, flow, steps=6):
    """The worth of a flow's draws after some training."""
    proxied = Proxied(2, 3, std=0.3)
    found = train(form, task=ControlTask("proxy", "", proxied), policy=flow, steps=steps * 48,
                  compile=False).nets["policy"]  # fmt: skip
    torch.manual_seed(0)
    classes = proxied.contexts(400)
    return float(proxied.proxy(classes, found.sample(classes)[0].detach().clamp(-1, 1)).mean())


@pytest.mark.parametrize("make", [grpo_guard, flow_grpo])
def test_a_flow_moves_toward_what_is_paid(make):
    torch.manual_seed(0)
    flow = noisy_flow(4, hidden=16, blocks=1, draws=8)(Proxied(2, 3).spaces)
    form = make(eps=0.05, lr=1e-2, samples=48, group=12)
    before, after = rated(form, flow, 0.01), rated(form, flow)
    away = rated(replace(form, trust=-form.trust), flow)
    assert away < before - 0.3 < before + 0.3 < after


def test_flow_grpo_is_what_is_left_when_both_repairs_are_taken_out():
    assert grpo_guard(ratio_norm=False, reweigh=False, beta=0.04) == flow_grpo(beta=0.04)
    assert grpo_guard().trust.second == flow_grpo(beta=0.0).trust


def test_a_log_then_a_reward(tmp_path):
    """Both stages of a recipe; what is stored draws as what was trained."""
    proxied = Proxied(2, 3, std=0.3)
    stages = Stages((
        Stage(flow_matching(4, width=16, blocks=1, batch=64), 20),
        Stage(grpo_guard(0.05, samples=24, group=12), 48),
    ))  # fmt: skip
    where = ControlTask("proxy", "", proxied)
    trained = train(stages, proxied.log(200), where, compile=False, out=tmp_path)
    again = load_trained(tmp_path, task=where)
    classes = proxied.contexts(5)
    draws = []
    for one in (trained, again):
        torch.manual_seed(3)
        draws.append(one.policy.act(classes).action)
    torch.testing.assert_close(*draws)


def test_letters_are_written_that_are_paid():
    torch.manual_seed(0)
    motifs = Motifs(length=4, letters=3)
    base = train(masked_cloning(width=16, blocks=1, batch=64, lr=1e-2), motifs.log(500), steps=60,
                 compile=False).nets["policy"]  # fmt: skip

    def reward(net):
        torch.manual_seed(0)
        return float(motifs.reward(net.sample(torch.ones(500, 1))[0]).mean())

    def after(form):
        found = train(form, task=ControlTask("motifs", "", motifs), policy=base, steps=64 * 8,
                      compile=False)  # fmt: skip
        return reward(found.nets["policy"])

    form = sepo(lr=1e-2, samples=64)
    up, down = after(form), after(replace(form, trust=-form.trust))
    kept = after(sepo(lr=1e-2, samples=64, beta=20.0))
    assert down < 0.5 * reward(base) and kept < 0.5 * up and up > 2 * reward(base)


def test_the_path_and_the_end_are_models_of_one_kind():
    """The baseline's model takes over the weights of the other."""
    torch.manual_seed(0)
    spaces = Motifs(length=4, letters=3).spaces
    end, path = masked_diffusion(8, 1)(spaces), masked_diffusion(8, 1, path=True)(spaces)
    path.load_state_dict(end.state_dict())
    torch.testing.assert_close(path(torch.ones(2, 1)), end(torch.ones(2, 1)))
    assert path_gradient().epochs == sepo().epochs


def test_bad_input_is_one_line():
    proxied = ControlTask("proxy", "", Proxied(2, 3))
    with pytest.raises(InputError, match="hand in policy="):
        train(grpo_guard(samples=24, group=12), task=proxied, steps=24, compile=False)
    with pytest.raises(InputError, match="weights='most'"):
        sepo(weights="most")
    with pytest.raises(InputError, match="has no probabilities"):
        motifs = Motifs(length=4, letters=3)
        model = masked_diffusion(8, 1)(motifs.spaces)
        train(sepo(weights="exact", samples=16), task=ControlTask("motifs", "", motifs),
              policy=model, steps=16, compile=False)  # fmt: skip


def test_ppo_is_mirror_learning_with_what_it_clips_away():
    form = mirror_learning(clipped_away())
    other = ppo()
    assert replace(form, trust=other.trust) == other
    g = torch.Generator().manual_seed(0)
    x, a = (torch.randn(5, 3, generator=g) for _ in range(2))
    s = Steps(logp=x, mask=torch.ones_like(x), log_ratio=0.3 * x, advantage=a)
    torch.testing.assert_close(run(form.trust, (s,))[0], run(other.trust, (s,))[0])
    plain = mirror_learning(no_drift())
    torch.testing.assert_close(run(plain.trust, (s,))[0], ratio_loss()(s))
