"""EPO: its averages and its corridor by hand, and where it must be PPO, GRPO or the bonus alone."""

import json
import math
from dataclasses import replace

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.errors import InputError  # noqa: E402
from surpass.methods.agents.entropy_regularized import epo, epo_grpo  # noqa: E402
from surpass.methods.rlvr.policy_gradients import grpo  # noqa: E402
from surpass.objectives.divergence import entropy_bonus  # noqa: E402
from surpass.objectives.entropy_corridor import each_turn, entropy_corridor  # noqa: E402
from surpass.objectives.reduce import token_mean  # noqa: E402
from surpass.objectives.trust import clip  # noqa: E402
from surpass.objectives.views import Steps  # noqa: E402
from surpass.parts import exponential, from_json, run, schedules, to_json  # noqa: E402
from surpass.policies.language import LanguagePolicy  # noqa: E402
from surpass.tasks.hop_search import HopSearch  # noqa: E402
from surpass.training.language_rollouts import RolloutStream, TaskPrompts  # noqa: E402
from surpass.training.modules import ModuleTrainer  # noqa: E402
from surpass.zoo.language import tiny_llama  # noqa: E402
from tests.methods.language_cases import assert_same, gradient  # noqa: E402

TASK = HopSearch(entities=6, relations=2, known=0.0, hops=(1, 2), turns=3)
SIZES = {"batch": 12, "horizon": 4, "turns": 3, "beta": 0.0, "lr": 1e-2}
TURN = torch.tensor([[0, 0, -1, 1, -1, 2, 2, 2], [0, -1, 1, 1, 1, -1, -1, -1], [-1] * 8])


def trainer(form):
    """On one batch of traces, four to a question, as if the policy had written them."""
    model = tiny_llama(TASK, width=16, layers=1, heads=2)
    model.lm_head.weight.data *= 20  # less than the largest entropy
    policy = LanguagePolicy(model)
    stream = RolloutStream(policy, TaskPrompts(TASK, 0), form.source, seed=0)
    draw = torch.Generator().manual_seed(0)
    seq = TASK.traces(TASK.prompts(3, draw).repeated(4), draw, error=0.3)
    seq.group = torch.arange(3).repeat_interleave(4)
    with torch.no_grad():
        seq.behavior_logp = policy.score(seq).logp
    batch = replace(stream.next(), sequences=seq, rows=[], exact=True)
    stream.next = lambda: batch
    return ModuleTrainer(form, policy, stream)


def steps(**values):
    mask = (TURN >= 0).float()
    return Steps(torch.zeros(3, 8), values.pop("mask", mask), turn=TURN, **values)


def mean_by_loops(value, weight=(1.0, 1.0)):
    out = []
    for row in range(2):
        turns = [[float(value[row, t]) for t in range(8) if TURN[row, t] == k]
                 for k in range(int(TURN[row].max()) + 1)]  # fmt: skip
        out.append(weight[row] * sum(sum(x) / len(x) for x in turns) / len(turns))
    return sum(out) / sum(weight)


def test_each_turn_counts_once():
    value = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    s = steps()
    got = token_mean()(s.filled(loss=each_turn()(s) * value))
    assert float(got) == pytest.approx(mean_by_loops(value), abs=1e-6)
    weighed = steps(mask=s.mask * torch.tensor([[3.0], [0.5], [1.0]]))
    got = token_mean()(weighed.filled(loss=each_turn()(weighed) * value))
    assert float(got) == pytest.approx(mean_by_loops(value, (3.0, 0.5)), abs=1e-6)
    plain = replace(s, turn=None)  # each decision a turn: 6 of the first, 4 of the second episode
    got = token_mean()(plain.filled(loss=each_turn()(plain) * value))
    first, second = (float((value[i] * s.mask[i]).sum()) for i in (0, 1))
    assert float(got) == pytest.approx((first / 6 + second / 4) / 2, abs=1e-6)


def test_the_corridor_by_hand():
    part = entropy_corridor(low=0.5, high=2.0, alpha=0.3)
    hard = entropy_corridor(low=0.5, high=2.0, alpha=0.3, kind="constant")
    first = torch.full((3, 8), 1.0)
    later = torch.tensor([[0.2, 4.0, 99.0, 1.5, 99.0, 3.1, 3.0, 0.8]] * 3)
    entropies, state, found = (first, 2 * first, later), {"": {}}, []
    for h in entropies:
        value, state = run(part, (steps(entropy=h),), state=state)
        found.append(value)
    assert not found[0].any() and not found[1].any()  # nothing before; then 2 is not above 2 * 1
    # the mean so far is (1 + 2) / 2: the corridor is 0.75 to 3
    want = 0.3 * torch.tensor([0.55, 1.0, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0])
    torch.testing.assert_close(found[2][0], want, atol=1e-6, rtol=0)
    assert not found[2][2].any() and float(state[""]["count"]) == 3
    own = later[:2][TURN[:2] >= 0]
    assert float(state[""]["sum"]) == pytest.approx(3 + float(own.mean()), abs=1e-5)
    before = {"": {"sum": torch.tensor(3.0), "count": torch.tensor(2.0)}}
    value, _ = run(hard, (steps(entropy=later),), state=before)
    want = 0.3 * torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    torch.testing.assert_close(value[0], want)
    with pytest.raises(InputError, match=r"kind='hing'.*did you mean 'hinge'"):
        run(entropy_corridor(kind="hing"), (steps(entropy=first),))


def narrow(kind, **more):
    """A corridor that acts from the second update on."""
    return epo_grpo(bonus=0.3, low=0.999, high=1.001, alpha=3.0, kind=kind, **{**SIZES, **more},
                    group=4)  # fmt: skip


def bonus_alone():
    form = narrow("hinge")
    return replace(form, trust=clip() + 0.3 * (each_turn() * entropy_bonus()))


def test_the_constant_form_trains_as_the_bonus_alone():
    constant = trainer(narrow("constant"))
    assert_same(gradient(trainer(bonus_alone()), updates=3), gradient(constant, updates=3))
    state = constant.running.state
    apart, _ = run(constant.form.trust, (steps_of_batch(constant),), state=state, at=("trust",))
    plain, _ = run(bonus_alone().trust, (steps_of_batch(constant),))
    assert float((apart - plain).detach().max()) > 0.1  # it is in the loss that is logged
    with pytest.raises(AssertionError):
        assert_same(gradient(trainer(bonus_alone()), updates=3),
                    gradient(trainer(narrow("hinge")), updates=3))  # fmt: skip


def steps_of_batch(made):
    from surpass.objectives.divergence import entropy
    from surpass.policies.language import steps_of

    seq = made.stream.next().sequences
    found = steps_of(seq, made.policy.score(seq, (entropy,)))
    zero = torch.zeros_like(found.mask)
    return found.filled(log_ratio=zero, advantage=zero)


def test_the_first_update_has_no_corridor_and_a_wide_one_never_acts():
    assert_same(gradient(trainer(bonus_alone())), gradient(trainer(narrow("hinge"))))
    wide = epo_grpo(bonus=0.3, high=1e9, alpha=3.0, group=4, **SIZES)
    assert_same(gradient(trainer(bonus_alone()), updates=3), gradient(trainer(wide), updates=3))


def test_without_a_bonus_it_is_grpo_and_ppo():
    plain = replace(grpo(beta=0.0, group=4, batch=12, horizon=4, lr=1e-2), reduce=token_mean())
    ours = epo_grpo(bonus=0.0, group=4, **SIZES)
    assert_same(gradient(trainer(plain), updates=2), gradient(trainer(ours), updates=2))
    with_critic = epo(bonus=0.0, **SIZES)
    without = replace(with_critic, trust=clip())
    assert_same(gradient(trainer(without), updates=2), gradient(trainer(with_critic), updates=2))


def test_the_bonus_raises_and_the_corridor_holds_entropy():
    """Where nothing is paid the bonus lifts entropy; a corridor whose weight is above that of the
    bonus keeps it near its mean so far."""
    ended = {}
    for name, form in (("bonus", bonus_alone()), ("corridor", narrow("hinge"))):
        made = trainer(form)
        made.stream.next().sequences.reward.zero_()
        first = made.update()["entropy"]
        for _ in range(12):
            last = made.update()["entropy"]
        ended[name] = last - first
    assert ended["bonus"] > 0.02 and abs(ended["corridor"]) < 0.5 * ended["bonus"]


def test_the_corridor_s_weight_falls_from_two_toward_one():
    form = epo(decay=2.0, updates=100)
    (fades,) = schedules(form).values()
    for k in (0, 10, 50, 100):
        assert fades.at(k) == pytest.approx(1 + math.exp(-2 * k / 50))
    assert from_json(json.loads(json.dumps(to_json(form)))) == form
    assert exponential(1.0, 0.0, steps=2.5).at(5) == pytest.approx(math.exp(-2))
    with pytest.raises(InputError, match="low=2, high=2"):
        epo(low=2.0)
    with pytest.raises(InputError, match="updates=1"):
        epo(updates=1)
