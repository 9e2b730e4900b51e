"""Three policies in one loss: who collects, where trust is centered, who learns."""

from dataclasses import replace

import pytest
import torch
from training_counters import Regulator, TaskOf

from surpass.forms import PolicyGradient, adam, copy, rollouts
from surpass.methods.online.proximal import bpo, gbpo, ppo_ewma
from surpass.objectives.advantage import ewma_standardized, ones, returns, whitened
from surpass.objectives.trust import clip
from surpass.parts import from_json, part, run, to_json
from surpass.policies.stochastic import score
from surpass.registry import recipe
from surpass.training.engine import Engine
from surpass.training.on_policy import lowered
from surpass.training.rollouts import SequenceRows
from surpass.training.streams import open_stream

SIZES = {"envs": 4, "horizon": 8, "minibatches": 2, "hidden": (8,)}


def opened(form, seed=0):
    """An engine bound to its rollouts."""
    learner, task = lowered(form), TaskOf(Regulator())
    stream = open_stream(learner.source, {"task": task}, task.spaces)
    engine = Engine(learner, stream, task.spaces, seed=seed, compile=False)
    stream.bind(engine, {"task": task})
    return engine, stream


def flat(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_the_anchor_is_the_weighted_mean_of_all_policies():
    engine, _ = opened(ppo_ewma(com=3.0, lr=1e-2, **SIZES))
    seen = [flat(engine.bank["policy"]).clone()]
    for _ in range(5):
        engine.advance(1)
        seen.append(flat(engine.bank["policy"]).clone())
    weights = torch.tensor([0.75 ** (5 - k) for k in range(6)])
    want = (weights[:, None] * torch.stack(seen)).sum(0) / weights.sum()
    torch.testing.assert_close(flat(engine.bank["anchor"]), want, rtol=1e-4, atol=1e-6)


def test_where_all_three_are_one_the_loss_is_that_of_ppo():
    """At the first update anchor and behavior are the policy."""
    engine, stream = opened(ppo_ewma(entropy=0.0, **SIZES))
    stream.before(1)
    rows = stream.sample(stream.tables)
    ours = run(engine.steps[0].loss, (engine.bank, rows))[0]
    theirs = run(replace(engine.steps[0].loss, trust=clip()), (engine.bank, rows))[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    parameters = list(engine.bank["policy"].parameters())
    for a, b in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters),
                    strict=True):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lag", [1, 2])
def test_stale_rollouts_are_those_of_the_policy_so_many_batches_ago(lag):
    engine, stream = opened(ppo_ewma(stale=lag, lr=1e-2, **SIZES))
    begun = []
    for batch in range(5):
        begun.append(flat(engine.bank["policy"]).clone())  # as this batch is collected
        engine.advance(1)
        then = begun[max(batch - lag, 0)]
        torch.testing.assert_close(flat(engine.bank["behavior"]), then)
        tables = stream.tables
        logp, _ = score(engine.bank["behavior"], tables["obs"], tables["action"])
        torch.testing.assert_close(logp, tables["behavior_logp"], rtol=1e-4, atol=1e-5)
        engine.advance(1)


def batch(rewards):
    reward = torch.tensor(rewards)[:, None]
    return SequenceRows({"reward": reward, "mask": torch.ones_like(reward)})


def test_moments_of_advantages_are_averaged_over_batches():
    alone = ewma_standardized(returns(), com=0.0, eps=0.0)
    found, _ = run(alone, (batch([1.0, 2.0, 6.0]),))
    want = whitened(returns(), eps=0.0)(batch([1.0, 2.0, 6.0]))["advantage"] * (3 / 2) ** 0.5
    torch.testing.assert_close(found["advantage"], want)
    rule = ewma_standardized(returns(), com=1.0, eps=0.0)  # b = 1/2
    _, state = run(rule, (batch([0.0, 2.0]),))
    found, state = run(rule, (batch([4.0, 4.0, 4.0]),), state=state)
    weight = 0.5 * 2 + 3
    mean, square = (0.5 * 2 * 1 + 12) / weight, (0.5 * 2 * 2 + 48) / weight
    assert float(found["advantage"][0]) == pytest.approx((4 - mean) / (square - mean**2) ** 0.5)
    assert float(state[""]["weight"]) == weight


@part(state=lambda: {"batches": torch.zeros(())})
def counted_ones(state, seq, /):
    """An advantage of 1, and how many batches it has seen."""
    return torch.ones_like(seq.mask), {"batches": state["batches"] + 1}


@part(state=lambda: {"updates": torch.zeros(())})
def counted_clip(state, s, /):
    """PPO's clip, and how many minibatches it has seen."""
    return clip()(s), {"updates": state["updates"] + 1}


def test_state_in_the_slots_of_a_policy_gradient_is_kept_and_stored():
    form = PolicyGradient(counted_ones(), counted_clip(), source=rollouts(4, 8, pieces="decisions"),
                          optimizer=adam(1e-3), epochs=2, minibatches=2)  # fmt: skip
    engine, _ = opened(form)
    engine.advance(10)  # two batches of four, and half of the third
    found = {k.rpartition(":")[2]: float(v) for k, v in engine.state_dict()[0].items()
             if k.startswith("part.")}  # fmt: skip
    assert found == {"batches": 3.0, "updates": 10.0}


@part
def up_and_away(s, /):
    """Two terms: the surrogate, and one that a gradient rule drops."""
    return {"loss": clip()(s), "dropped": 1e3 * s.logp}


@part
def first_only(d, /):
    """The gradient of the surrogate alone."""
    return d.grad("loss")


def test_named_terms_of_trust_reach_the_gradient_rule():
    plain = PolicyGradient(ones(), clip(), source=rollouts(4, 8), optimizer=adam(1e-2))
    ruled = replace(plain, trust=up_and_away(), gradient=first_only())
    flats = []
    for form in (plain, ruled):
        engine, _ = opened(form)
        engine.advance(3)
        flats.append(flat(engine.bank["policy"]))
    torch.testing.assert_close(flats[0], flats[1])
    assert set(engine.metrics()) == {"policy.loss", "policy.dropped"}


def test_the_group_form_has_the_same_trust_rule():
    assert gbpo().trust.name == bpo().trust.name == "to_band"
    stale = replace(gbpo(batch=6, group=3, horizon=5), anchor=copy("policy", "batch", lag=1))
    engine, _ = opened(stale)
    engine.advance(2)
    assert torch.isfinite(flat(engine.bank["policy"])).all()


@pytest.mark.parametrize("key", ["ppo-ewma", "brrl-bpo", "brrl-bpo:group", "uni-o4", "mahalo"])
def test_a_recipe_comes_back_from_json(key):
    form = recipe(key)()
    assert from_json(to_json(form)) == form
