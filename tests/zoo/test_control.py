"""The zoo's logs of control: what they say of themselves is what their rows say."""

import math

import pytest
import torch

from surpass.methods.online.policy_gradients import ppo
from surpass.tasks.catalog import normalized
from surpass.zoo import control
from surpass.zoo.shelf import Zoo, items


def returns_of(log):
    return torch.zeros(int(log.episode.max()) + 1).index_add(0, log.episode, log.reward)


def test_the_logs_of_point_are_ordered_as_their_names_say(tmp_path):
    zoo = Zoo(folder=tmp_path)
    score = {k: float(normalized("point", returns_of(zoo(f"point-{k}"))).mean())
             for k in ("random", "medium-replay", "medium", "expert", "mixed")}  # fmt: skip
    assert abs(score["random"]) < 5 and score["expert"] > 90
    assert score["random"] < score["mixed"] < score["expert"]
    assert 15 < score["medium-replay"] < score["medium"] < score["expert"]
    log = zoo("point-random")
    assert torch.allclose(log.behavior_logp, torch.full_like(log.reward, -2 * math.log(2)))
    made = zoo.provenance("point-random")["made"]
    assert made["rows"] == len(log) and made["mean_return"] == pytest.approx(
        float(returns_of(log).mean()), abs=1e-3
    )


def test_a_school_s_logs_have_exact_propensities(tmp_path, monkeypatch):
    quick = control.School(
        "cart-pole", lambda: ppo(envs=16, horizon=32, epochs=4, minibatches=1, lr=1e-2,
                                 hidden=(16,)), 16 * 32 * 12, 12, 600, 0.1,
    )  # fmt: skip
    items()
    monkeypatch.setitem(control.SCHOOLS, "cart-pole", quick)
    zoo = Zoo(folder=tmp_path)
    policies = zoo("cart-pole-policies")
    note = zoo.provenance("cart-pole-policies")["made"]
    assert note["expert_return"] > 1.5 * note["random_return"]
    log = control._recorded("cart-pole", "medium", policies, note, 600)
    logits = policies["medium"].nets.policy.logits(log.obs)
    wanted = logits.gather(1, log.action[:, None])[:, 0]
    assert torch.allclose(log.behavior_logp, wanted.detach(), atol=1e-5)
    replay = control._recorded("cart-pole", "medium-replay", policies, note, 600)
    assert len(note["replay"]) >= 1 and len(replay) >= 600 // len(note["replay"])
    random = control._recorded("cart-pole", "random", policies, note, 600)
    assert torch.allclose(random.behavior_logp, torch.full_like(random.reward, -math.log(2)))
    control.references(zoo, "cart-pole", tmp_path / "scores.json")
    low, high = note["random_return"], note["expert_return"]
    found = normalized("cart-pole", torch.tensor([low, high]), tmp_path / "scores.json")
    assert torch.allclose(found, torch.tensor([0.0, 100.0]), atol=1e-3)
