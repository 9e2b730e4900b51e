"""Uni-O4's parts against what is computed by hand, and its stages on a small log."""

from dataclasses import replace

import pytest
import torch
from training_counters import Regulator, TaskOf
from training_logs import random_log

from surpass.data.records import About
from surpass.forms import Spaces, Stage
from surpass.methods.offline.on_policy import uni_o4
from surpass.objectives.model_values import diverse_clones, gains, model_value, tilted_gain
from surpass.objectives.rows import Rows
from surpass.policies.stochastic import stochastic
from surpass.training.rollouts import SequenceRows
from surpass.training.run import train


class Nets(dict):
    __getattr__ = dict.__getitem__


def test_clones_are_pushed_apart_and_the_gradient_reaches_the_others():
    torch.manual_seed(0)
    names = ("a", "b", "c")
    nets = Nets({n: stochastic((4,))(Spaces(3, 2)) for n in names})
    rows = Rows({"obs": torch.randn(7, 3), "action": torch.randn(7, 2)})
    logp = torch.stack([nets[n].logp(rows.obs, rows.action) for n in names])
    want = torch.zeros(7)
    for i in range(3):
        others = logp[[j for j in range(3) if j != i]].amax(0)
        want -= logp[i] + 0.3 * (logp[i] - others)
    torch.testing.assert_close(diverse_clones(names, 0.3)(nets, rows), want)
    alone = diverse_clones(("a",), 0.3)(nets, rows)
    torch.testing.assert_close(alone, -logp[0])
    # the first term of `a` moves `b` wherever `b` is the likeliest of the others
    (reached,) = torch.autograd.grad(
        diverse_clones(("a", "b"), 0.3)(nets, rows).sum() + (1.0 - 0.3 + 0.3) * logp[1].sum(),
        nets.b.log_std, retain_graph=True,
    )  # fmt: skip
    # for two members the sum is -(logp_a + logp_b): the diversity terms cancel exactly
    torch.testing.assert_close(reached, torch.zeros(2), atol=1e-5, rtol=0)


def test_a_policy_s_worth_in_a_model_is_the_mean_of_what_it_visits():
    """s' = s + a, a = -s / 2, Q = s + a: from s the visits are s, s/2, s/4 with Q = s/2, s/4,
    s/8. From 4 the actions are clipped: it visits 4, 3, 2 with Q = 3, 2, 1."""

    def model(obs, action):
        change = torch.cat([action, torch.zeros_like(action)], -1)
        return change.expand(3, *change.shape), None, None

    nets = Nets(policy=lambda obs: -0.5 * obs, model=model,
                q=lambda obs, action: (obs + action)[:, 0].expand(2, -1))  # fmt: skip
    seq = SequenceRows({"obs": torch.tensor([[[1.0]], [[4.0]]]), "mask": torch.ones(2, 1)})
    found = model_value(horizon=3)(nets, seq)
    assert found.tolist() == pytest.approx([(0.5 + 0.25 + 0.125) / 3, (3 + 2 + 1) / 3])


def test_a_gain_is_that_of_the_action_which_the_environment_would_see():
    nets = Nets(q=lambda obs, action: torch.stack([action[:, 0], 2 + action[:, 0]]),
                value=lambda seq: torch.full((2, 1), 0.25))  # fmt: skip
    seq = SequenceRows({
        "obs": torch.zeros(2, 1, 1), "action": torch.tensor([[[0.5]], [[3.0]]]),
        "mask": torch.ones(2, 1),
    })  # fmt: skip
    found = gains()(nets, seq)
    assert found.extras["gain"][:, 0].tolist() == pytest.approx([0.25, 0.75])


def test_a_bounded_mean_stays_within_the_box():
    torch.manual_seed(0)
    free, held = (stochastic((4,), bounded=b)(Spaces(3, 2)) for b in (False, True))
    held.load_state_dict(free.state_dict())
    obs = 1e3 * torch.randn(50, 3)
    torch.testing.assert_close(held(obs), torch.tanh(free(obs)))


def test_good_news_counts_more():
    gain = torch.tensor([[1.0], [2.0], [3.0], [6.0]])
    seq = SequenceRows({"gain": gain, "mask": torch.ones(4, 1)})
    found = tilted_gain(0.7)(seq)
    spread = 3.5**0.5
    want = [0.3 * -2 / spread, 0.3 * -1 / spread, 0.0, 0.7 * 3 / spread]
    assert found[:, 0].tolist() == pytest.approx(want, abs=1e-6)


def test_the_stages_run_and_the_gate_keeps_the_best():
    rows = random_log(obs=1, n=200)
    rows.action = rows.action[:, :1]
    rows.next_obs = rows.obs + rows.action
    rows.reward = -rows.obs[:, 0].square()
    rows = rows.described(About(spaces={"action_low": -1.0, "action_high": 1.0}))
    form = uni_o4(
        members=2, horizon=5, every=4, lr=3e-3, batch=32, models=2, values=30, model=30, cloning=30,
        offline=12, online=1, envs=2, hidden=(8,),
    )  # fmt: skip
    last = replace(form.stages[-1].do, epochs=1, minibatches=1)
    whole = replace(form, stages=(*form.stages[:-1], Stage(last, 1)))
    trained = train(whole, rows, task=TaskOf(Regulator()), compile=False, log_every=4)
    assert set(trained.nets) >= {"policy", "pi0", "pi1", "model", "q", "value"}
    chosen = trained.nets["chosen"]  # what was best offline, by the model, stays as it was
    seq = SequenceRows({"obs": rows.obs[:, None], "mask": torch.ones(200, 1)})
    nets = {n: trained.nets[n] for n in ("chosen", "pi0", "pi1", "model", "q")}
    worth = {n: float(model_value(5, policy=n)(nets, seq).mean().detach())
             for n in ("chosen", "pi0", "pi1")}  # fmt: skip
    assert worth["chosen"] >= max(worth["pi0"], worth["pi1"]) - 0.05
    assert not torch.equal(chosen.log_std, trained.nets["policy"].log_std)
