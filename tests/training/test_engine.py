"""The compiled executor against a loop written by hand, and against itself."""

import copy
from dataclasses import replace

import pytest
import torch
from training_logs import random_log

from surpass.critics.ensembles import critic, value
from surpass.errors import InputError
from surpass.forms import Learner, adam, ema, log, project, train
from surpass.forms import copy as snapshot
from surpass.methods.offline.behavior_regularized import td3_bc
from surpass.methods.offline.cloning import bc
from surpass.objectives.rows import Rows
from surpass.objectives.value import clone
from surpass.parts import linear, needs_of, part, set_at
from surpass.policies.acting import mean
from surpass.training.engine import Engine
from surpass.training.streams import open_stream, spaces_of


def small(form, width=16):
    """The same recipe with narrow nets and small batches."""
    for name, net in form.nets.items():
        if hasattr(net, "definition") and "hidden" in net.hyper:
            form = set_at(form, f"nets.{name}.hidden", (width,) * len(net.hyper["hidden"]))
    return set_at(form, "source.size", 32)


def engine_of(form, rows=None, **more):
    rows = random_log() if rows is None else rows
    spaces = spaces_of(rows)
    needs = tuple(n for n in needs_of(form) if isinstance(n, str))
    stream = open_stream(form.source, {"log": rows}, spaces, needs)
    return Engine(form, stream, spaces, **{"compile": False, **more})


def test_td3_bc_equals_a_loop_written_with_modules_and_torch_optim():
    form = small(td3_bc(alpha=2.5))
    engine = engine_of(form, seed=3)
    q, pi = copy.deepcopy(engine.bank.q), copy.deepcopy(engine.bank.pi)
    q_target, pi_target = copy.deepcopy(q), copy.deepcopy(pi)
    of_q = torch.optim.Adam(q.parameters(), 3e-4)
    of_pi = torch.optim.Adam(pi.parameters(), 3e-4)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for update in range(6):
            rows = engine.stream.sample(engine.stream.tables)
            with torch.no_grad():
                after = pi_target(rows.next_obs)
                jitter = (0.2 * torch.randn_like(after)).clamp(-0.5, 0.5)
                future = q_target(rows.next_obs, (after + jitter).clamp(-1, 1)).min(0).values
                y = rows.reward + 0.99 * (1 - rows.terminated) * future
            of_q.zero_grad()
            (q(rows.obs, rows.action) - y).square().mean(1).sum().backward()
            of_q.step()
            if update % 2 == 1:
                of_pi.zero_grad()
                action = pi(rows.obs)
                worth = q(rows.obs, action)[0]
                scale = 2.5 / worth.abs().mean().detach()
                (-(scale * worth).mean() + (action - rows.action).square().mean()).backward()
                of_pi.step()
                for target, net in ((q_target, q), (pi_target, pi)):
                    for a, b in zip(target.parameters(), net.parameters(), strict=True):
                        a.data.lerp_(b.data, 0.005)
    engine.advance(6)
    for ours, theirs in (("q", q), ("pi", pi), ("q_target", q_target), ("pi_target", pi_target)):
        for a, b in zip(engine.bank[ours].parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_compiled_equals_eager_with_the_same_random_numbers():
    form = small(td3_bc())
    eager, compiled = engine_of(form), engine_of(form, compile=True)
    eager.advance(7)
    compiled.advance(7)  # three compiled pairs and one left over
    for key, tensor in eager.state.items():
        torch.testing.assert_close(compiled.state[key], tensor, rtol=1e-4, atol=1e-6, msg=key)
    assert eager.metrics() == pytest.approx(compiled.metrics(), rel=1e-4)


def test_several_seeds_at_once_start_as_they_would_alone_and_differ():
    form = small(td3_bc())
    engine = engine_of(form, seeds=3, seed=5)
    alone = engine_of(form, seed=6)
    for key, tensor in alone.bank.named_parameters():
        torch.testing.assert_close(engine.state[f"net.{key}"][1], tensor.detach())
    before = engine.state["net.q.net.weight0"].clone()
    engine.advance(2)
    moved = engine.state["net.q.net.weight0"] - before
    assert (moved.abs().amax((1, 2, 3)) > 0).all()
    assert not torch.allclose(moved[0], moved[1])
    torch.testing.assert_close(
        engine.nets(2).q.net.weight0.detach(), engine.state["net.q.net.weight0"][2]
    )


@part
def pull(nets, rows: Rows, /, toward: float = 1.0, net: str = "v"):
    """A loss whose gradient is known: half the squared distance of every bias of the last layer."""
    return 0.5 * (nets[net].net.bias0 - toward).square().sum()


def _sgd_like(lr):
    # with eps far above the moments Adam's step is lr * m / eps, so lr = eps makes it a gradient
    # step
    return adam(lr * 1e6, betas=(0.0, 0.0), eps=1e6)


def _tiny(update, **more):
    return Learner(
        nets={"v": value(hidden=()), "w": value(hidden=()), **more.pop("nets", {})},
        update=update,
        act=mean("v"),
        source=log(8),
        **more,
    )


def test_only_the_nets_of_a_step_move():
    engine = engine_of(_tiny((train("v", pull() + pull(net="w"), _sgd_like(0.5)),)))
    v, w = (engine.state[f"net.{n}.net.bias0"].clone() for n in "vw")
    engine.advance(1)
    torch.testing.assert_close(engine.state["net.v.net.bias0"], v + 0.5 * (1.0 - v))
    torch.testing.assert_close(engine.state["net.w.net.bias0"], w)


def test_a_schedule_is_followed_and_every_is_kept():
    toward = linear(0.0, 10.0, steps=10)
    engine = engine_of(_tiny((train("v", pull(toward), _sgd_like(1.0), every=3),)))
    start = engine.state["net.v.net.bias0"].clone()
    engine.advance(2)
    torch.testing.assert_close(engine.state["net.v.net.bias0"], start)
    engine.advance(1)  # the third update, whose step is 2
    torch.testing.assert_close(engine.state["net.v.net.bias0"], torch.full_like(start, 2.0))
    engine.advance(3)
    torch.testing.assert_close(engine.state["net.v.net.bias0"], torch.full_like(start, 5.0))


def test_snapshots_follow_as_they_say():
    nets = {"slow": ema("v", 0.25), "old": snapshot("v", every=2), "first": snapshot("v")}
    engine = engine_of(_tiny((train("v", pull(), _sgd_like(1.0)),), nets=nets))
    start = engine.state["net.v.net.bias0"].clone()
    engine.advance(1)  # v is 1 from here on
    torch.testing.assert_close(engine.state["net.slow.net.bias0"], start + 0.25 * (1 - start))
    torch.testing.assert_close(engine.state["net.old.net.bias0"], start)
    engine.advance(1)
    torch.testing.assert_close(
        engine.state["net.slow.net.bias0"], start + (1 - 0.75**2) * (1 - start)
    )
    torch.testing.assert_close(engine.state["net.old.net.bias0"], torch.ones_like(start))
    torch.testing.assert_close(engine.state["net.first.net.bias0"], start)


@part
def two_terms(nets, rows: Rows, /):
    """Terms whose gradients on the bias are 1 and -3."""
    bias = nets.v.net.bias0.sum()
    return {"up": bias, "down": -3.0 * bias}


@part
def twice_the_first(descent, /):
    """A gradient rule: twice the first term's gradient, the second's dropped."""
    return {k: 2.0 * g for k, g in descent.grad("up").items()}


def test_a_gradient_rule_combines_terms():
    engine = engine_of(
        _tiny((train("v", two_terms(), _sgd_like(0.5), gradient=twice_the_first()),))
    )
    start = engine.state["net.v.net.bias0"].clone()
    engine.advance(1)
    torch.testing.assert_close(engine.state["net.v.net.bias0"], start - 1.0)
    plain = engine_of(_tiny((train("v", two_terms(), _sgd_like(0.5)),)))
    start = plain.state["net.v.net.bias0"].clone()
    plain.advance(1)
    torch.testing.assert_close(plain.state["net.v.net.bias0"], start + 1.0)
    assert set(plain.metrics()) == {"v.up", "v.down"}


@part
def capped(parameters, /, at: float = 0.1):
    """A projection: every entry at most `at` in size."""
    return {k: p.clamp(-at, at) for k, p in parameters.items()}


def test_a_projection_puts_parameters_back():
    engine = engine_of(_tiny((train("v", pull(), _sgd_like(1.0)), project("v", capped()))))
    engine.advance(1)
    torch.testing.assert_close(
        engine.state["net.v.net.bias0"], torch.full_like(engine.state["net.v.net.bias0"], 0.1)
    )


@part(state=lambda: {"count": torch.zeros(())})
def counting(state, nets, rows: Rows, /):
    """A loss that grows by 1 at each update: its state is threaded."""
    return nets.v.net.bias0.sum() * 0.0 + state["count"], {"count": state["count"] + 1.0}


def test_the_state_of_parts_is_threaded_through_updates():
    engine = engine_of(_tiny((train("v", pull() + counting(), _sgd_like(0.1)),)))
    engine.advance(4)
    (key,) = [k for k in engine.state if k.endswith(":count")]
    assert engine.state[key] == 4.0


@part
def explodes(nets, rows: Rows, /, after: float = 0.0):
    """Infinite from the third update on."""
    return nets.v.net.bias0.sum() / (2.0 - after).clamp(min=0.0)


def test_a_loss_that_is_no_number_names_update_and_rows():
    form = _tiny((train("v", explodes(linear(0.0, 2.0, steps=2)), adam(1e-3)),))
    engine = engine_of(form)
    with pytest.raises(InputError, match=r"update 2: a loss became NaN or infinite in the batch "):
        engine.advance(5)


def test_a_stage_takes_nets_and_moments_over_by_name():
    first = engine_of(_tiny((train("v", pull(), adam(0.1)),)), seed=0)
    first.advance(5)
    second = engine_of(
        _tiny((train("w", pull(net="w"), adam(0.1)), train("v", pull(), adam(0.1)))), seed=1
    )
    second.carry_over(first)
    assert second.counts == [0, 5]
    torch.testing.assert_close(second.state["net.v.net.bias0"], first.state["net.v.net.bias0"])
    key = "adam.v.m.v.net.bias0"
    torch.testing.assert_close(second.state[key], first.state[key])


def test_what_does_not_fit_is_said():
    with pytest.raises(InputError, match="trains 'u'"):
        engine_of(_tiny((train("u", pull()),)))
    with pytest.raises(InputError, match="no such net"):
        engine_of(_tiny((train("v", pull()),), nets={"t": ema("u")}))
    with pytest.raises(InputError, match="cannot be called 'keys'"):
        engine_of(_tiny((train("v", pull()),), nets={"keys": critic()}))
    with pytest.raises(InputError, match="asks for the column 'goal'"):
        engine_of(_tiny((train("v", wants_goal()),))).advance(1)


@part
def wants_goal(nets, rows: Rows, /):
    """Reads a column that no one declared."""
    return rows.goal


@part(state=lambda: {"rate": torch.ones(())})
def halved(state, d, /):
    """The gradient as it is, and half of the step."""
    return d.grad(), {"rate": 0.5 * torch.ones(())}


def test_a_gradient_rule_may_scale_the_step():
    """Adam takes no notice of the size of a gradient, so half a step is that of half the rate."""

    def trained(lr, rule):
        form = small(bc(lr=lr))
        ruled = train("pi", clone(), adam(lr), gradient=rule)
        engine = engine_of(replace(form, update=(ruled,)), seed=1)
        engine.advance(3)
        return engine.nets().pi.state_dict()

    half, other = trained(1e-2, halved()), trained(5e-3, None)
    for name, tensor in half.items():
        torch.testing.assert_close(tensor, other[name])
