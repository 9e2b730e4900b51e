"""Stages of any form, repetition, collection, and stages that end by a monitor's alarm."""

from dataclasses import replace

import pytest
import torch
from tensordict import TensorDict
from training_counters import Counter, Regulator, TaskOf
from training_logs import random_log

from surpass.critics.ensembles import critic, value
from surpass.errors import InputError
from surpass.forms import (
    Collect,
    Learner,
    Monitor,
    PolicyGradient,
    Reading,
    Repeat,
    Stage,
    Stages,
    adam,
    best,
    copy,
    ema,
    log,
    resampled,
    rollouts,
    train,
)
from surpass.methods.online.policy_gradients import ppo
from surpass.objectives.advantage import ones, recorded
from surpass.objectives.rows import Rows
from surpass.objectives.trust import clip, ratio_loss
from surpass.objectives.value import clone
from surpass.parts import part
from surpass.policies.acting import mean, none
from surpass.policies.stochastic import stochastic
from surpass.training import run as running
from surpass.training.engine import Engine
from surpass.training.run import load_trained
from surpass.training.stages import legs_of
from surpass.training.stopping import plateau, reached
from surpass.training.streams import open_stream, spaces_of


@part
def reward_mean(nets, rows: Rows, /):
    """(V - r)^2: V becomes the mean reward of the log."""
    return (nets.v(rows.obs) - rows.reward).square().sum(0)


def fit(steps=4, lr=0.05):
    return Stage(Learner({"v": value(hidden=())}, (train("v", reward_mean(), adam(lr)),),
                         act=mean("v"), source=log(16)), steps)  # fmt: skip


def cloned(steps=6):
    return Stage(Learner({"policy": stochastic((8,))}, (train("policy", clone("policy")),),
                         act=mean("policy"), source=log(16)), steps)  # fmt: skip


def go(form, data=None, **more):
    defaults = {"compile": False, "log_every": 2}
    return running.train(form, random_log() if data is None else data, **{**defaults, **more})


def tensors_of(trained):
    return {k: v.detach().clone() for k, v in trained.nets.state_dict().items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def paying(amount):
    rows = random_log()
    rows.reward = torch.full_like(rows.reward, amount)
    return rows


def test_repeated_stages_are_as_many_stages_written_out():
    twice = go(Stages((Repeat(2, (fit(3), fit(2))),)), random_log())
    written = go(Stages((fit(3), fit(2), fit(3), fit(2))), random_log())
    assert_equal(tensors_of(twice), tensors_of(written))


def test_a_repetition_over_a_role_hands_in_one_log_after_the_other():
    form = Stages((Repeat("logs", (fit(150, 0.1),)),))
    worth = {}
    for name, amounts in {"up": (0.0, 5.0), "down": (5.0, 0.0)}.items():
        trained = running.train(form, logs=[paying(a) for a in amounts], compile=False)
        worth[name] = float(trained.nets["v"](torch.zeros(1, 3)).detach())
    assert worth["up"] == pytest.approx(5.0, abs=0.5)
    assert worth["down"] == pytest.approx(0.0, abs=0.5)
    with pytest.raises(InputError, match="once for each log of 'logs'"):
        go(form)


def test_a_stage_may_call_what_earlier_stages_trained_and_leaves_it_alone():
    first = Learner(
        {"v": value(hidden=()), "slow": ema("v", 0.5)},
        (train("v", reward_mean(), adam(0.1)),),
        act=mean("v"),
        source=log(16),
    )

    @part
    def above_value(nets, rows: Rows, /):
        return (nets.w(rows.obs) - nets.v(rows.obs) - nets.slow(rows.obs)).square().sum(0)

    second = Learner({"w": value(hidden=())}, (train("w", above_value(), adam(0.1)),),
                     act=mean("w"), source=log(16))  # fmt: skip
    alone = go(first, steps=20)
    both = go(Stages((Stage(first, 20), Stage(second, 20))))
    for name in ("v", "slow"):
        assert torch.equal(both.nets[name].net.bias0, alone.nets[name].net.bias0), name
    assert not torch.equal(both.nets["w"].net.bias0, both.nets["v"].net.bias0)


def test_a_net_of_another_size_begins_anew_and_so_does_its_optimizer():
    def engine(hidden, seed):
        form, rows = fit().do, random_log()
        form = replace(form, nets={"v": value(hidden=hidden), "slow": ema("v", 0.5)})
        stream = open_stream(form.source, {"log": rows}, spaces_of(rows))
        return Engine(form, stream, spaces_of(rows), seed=seed, compile=False)

    first, other, alike = engine((4,), 0), engine((8,), 1), engine((4,), 1)
    first.advance(5)
    for second in (other, alike):
        second.carry_over(first)
    assert (other.counts, alike.counts) == ([0], [5])
    for key, tensor in engine((8,), 1).state.items():  # the bias of the last layer fits, and stays
        assert torch.equal(other.state[key], tensor), key
    for key, tensor in first.state.items():
        assert torch.equal(alike.state[key], tensor), key


def test_a_policy_gradient_goes_on_with_the_policy_of_the_stage_before():
    task = TaskOf(Regulator())
    alone = go(cloned().do, data=_acted(task), task=task, steps=6)
    form = Stages((cloned(), Stage(ppo(envs=4, horizon=8, epochs=1, minibatches=1, lr=0.0), 64)))
    assert [leg.steps for leg in legs_of(form, None, {})] == [6, 2]  # 64 environment steps
    trained = go(form, data=_acted(task), task=task)
    assert set(trained.nets) == {"policy", "value"}
    assert trained.nets["policy"].net.layers[0].weight.shape[0] == 64
    # the recipe names a policy of its own size, which is built anew; without one it goes on
    bare = PolicyGradient(ones(), clip(), source=rollouts(4, 8), optimizer=adam(0.0))
    trained = go(Stages((cloned(), Stage(bare, 64))), data=_acted(task), task=task)
    for key, tensor in alone.nets["policy"].state_dict().items():
        assert torch.equal(trained.nets["policy"].state_dict()[key], tensor), key


def _acted(task):
    rows = random_log(obs=1)
    rows.action = rows.action[:, :1]
    from surpass.data.records import About

    return rows.described(About(spaces={"action_low": -1.0, "action_high": 1.0}))


def test_collected_episodes_are_whole_and_join_the_log():
    form = Stages((fit(2), Stage(Collect("w", 3, "log"))))
    with pytest.raises(InputError, match="no stage before has that net"):
        go(form)
    task = TaskOf(Counter(length=4))
    actor = Learner({"policy": stochastic((4,)), "v": value(hidden=())},
                    (train("v", reward_mean(), adam(0.1)),), act=mean("policy"),
                    source=log(16))  # fmt: skip
    seen = {}

    @part
    def counted(nets, rows: Rows, /):
        seen["rows"] = rows.log["reward"].clone()
        return nets.v(rows.obs).sum(0)

    last = Learner({"v": value(hidden=())}, (train("v", counted(), adam(0.1)),), act=mean("v"),
                   source=log(16))  # fmt: skip
    data = running.train(Stages((Stage(actor, 2), Collect("policy", 3, "log"), Stage(last, 2))),
                         _counted_log(), task=task, compile=False)  # fmt: skip
    assert data.nets is not None
    before = len(_counted_log())
    assert seen["rows"].shape[0] == before + 3 * 4  # three episodes of four steps
    assert seen["rows"][before:].tolist() == [1.0, 2.0, 3.0, 4.0] * 3


def _counted_log():
    rows = random_log(obs=1, n=40)
    rows.action = rows.action[:, :1]
    from surpass.data.records import About

    return rows.described(About(spaces={"action_low": -2.0, "action_high": 6.0}))


def test_a_stage_ends_at_the_alarm():
    def alarmed(watch, steps=40):
        marks = []
        form = Stages((Stage(fit().do, steps, Monitor(watch)), fit(4)))
        go(form, callback=lambda step, metrics, _: marks.append(step) and False)
        return marks

    never = reached("v", -1.0, above=False)  # a squared error is not negative
    assert alarmed(never) == list(range(2, 46, 2))
    assert alarmed(reached("v", 0.0)) == [2, 4, 6]
    assert alarmed(plateau("v", patience=3, least=1e6)) == [*range(2, 10, 2), 10, 12]
    with pytest.raises(InputError, match="a monitor watches 'w'; the run logs"):
        alarmed(reached("w", 0.0))


def test_a_callback_stops_the_run_and_not_its_stage_alone(tmp_path):
    form, marks = Stages((fit(6), fit(6))), []

    def callback(step, metrics, trained):
        marks.append(step)
        return step == 4

    go(form, callback=callback, out=tmp_path)
    assert marks == [2, 4]
    assert_equal(tensors_of(go(form, out=tmp_path, resume=True)), tensors_of(go(form)))


@part(state=lambda: {"marks": torch.zeros(())})
def third_mark(state, numbers, /):
    """An alarm at the third mark."""
    marks = state["marks"] + 1
    return Reading(float(marks), 3.0, bool(marks >= 3)), {"marks": marks}


@pytest.mark.parametrize("stop", [3, 8, 15])
def test_a_run_in_stages_goes_on_bit_by_bit(tmp_path, stop):
    task = TaskOf(Counter(length=4))
    policy = Learner({"policy": stochastic((4,)), "old": copy("policy", every=3, lag=1)},
                     (train("policy", clone("policy")),), act=mean("policy"),
                     source=log(16))  # fmt: skip
    form = Stages((
        Stage(policy, 40, Monitor(third_mark())), Collect("policy", 2, "log"), Stage(policy, 12),
    ))  # fmt: skip

    def run(out, interrupt=None, resume=False):
        def callback(step, metrics, trained):
            if step == interrupt:
                raise KeyboardInterrupt

        return go(form, _counted_log(), task=task, out=out, resume=resume, log_every=1,
                  save_every=2, callback=callback)  # fmt: skip

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", interrupt=stop)
    assert_equal(tensors_of(run(tmp_path / "cut", resume=True)), tensors_of(whole))
    again = load_trained(tmp_path / "cut")
    assert_equal(tensors_of(again), tensors_of(whole))


@part
def preferring_right(seq, /):
    """An advantage that grows with the action."""
    return seq.action[..., 0]


@part
def right(nets, rows, /):
    """How far to the right the policy's mean lies."""
    return nets.policy(rows.obs[:, 0])[:, 0]


def test_an_on_policy_objective_learns_from_states_of_a_log():
    improve = PolicyGradient(
        preferring_right(), clip(0.5, 0.5), source=resampled(64, by="anchor"),
        anchor=best("policy", right(), every=5), optimizer=adam(0.02),
        nets={"policy": stochastic((8,), log_std=-0.5), "q": critic(1, (4,))},
    )  # fmt: skip
    trained = go(improve, steps=40)
    start = go(improve, steps=1)
    obs = random_log().obs
    moved = trained.nets["policy"](obs)[:, 0] - start.nets["policy"](obs)[:, 0]
    assert float(moved.detach().min()) > 0.3
    assert float(trained.nets["anchor"](obs)[:, 0].detach().mean()) >= 0.3
    with pytest.raises(InputError, match="one minibatch a batch"):
        from dataclasses import replace

        go(replace(improve, epochs=2), steps=4)


# ------------------------------------------------------------------- the log's own actions


def judged_log():
    """A log whose steps were judged: an advantage each."""
    log = random_log()
    torch.manual_seed(5)
    log.extras = TensorDict({"advantage": torch.randn(len(log))}, batch_size=[len(log)])
    return log


@part(needs=("advantage",))
def weighed_likelihood(nets, rows: Rows, /):
    """-A log pi(a|s)."""
    return rows.advantage * nets.policy.imitation(rows.obs, rows.action)


def test_a_policy_gradient_on_a_log_begins_as_a_weighed_likelihood():
    nets = {"policy": stochastic((8,))}
    surrogate = PolicyGradient(recorded(), ratio_loss(), source=log(16), nets=nets,
                               anchor=copy("policy"), optimizer=adam(0.01))  # fmt: skip
    plain = Learner(nets, (train("policy", weighed_likelihood(), adam(0.01)),), mean("policy"),
                    log(16))  # fmt: skip
    first, second = (go(form, judged_log(), steps=1).nets for form in (surrogate, plain))
    moved = dict(go(plain, judged_log(), steps=2).nets.policy.named_parameters())
    for name, p in first.policy.named_parameters():
        torch.testing.assert_close(p, dict(second.policy.named_parameters())[name])
        assert not torch.equal(p, moved[name])


def test_a_log_without_judgment_and_several_minibatches_are_refused():
    form = PolicyGradient(recorded(), clip(), source=log(16), nets={"policy": stochastic((8,))})
    with pytest.raises(InputError, match="needs the column 'advantage'"):
        go(form, steps=1)
    with pytest.raises(InputError, match="one minibatch a batch"):
        go(replace(form, epochs=2), judged_log(), steps=1)


def test_only_what_acts_is_evaluated():
    judge = Learner({"v": value(hidden=())}, (train("v", reward_mean(), adam(0.1)),), act=none(),
                    source=log(16))  # fmt: skip
    seen = []

    def judged(policy):
        seen.append(policy.act(torch.zeros(1, 3)).action.shape)
        return {"return": 1.0}

    made = go(Stages((Stage(judge, 4), Stage(fit(4).do, 4))), evaluate=judged, evaluate_every=2)
    assert len(seen) == 2 and [h["step"] for h in made.history if "evaluation.return" in h]
