"""Help and routing: plans learned from random help against the true table, and value in context."""

from __future__ import annotations

import pytest
import torch

from surpass.critics.in_context import InContext, SetValue, Snapshots, train_set_value
from surpass.data.truth import Truth
from surpass.errors import InputError
from surpass.evaluation.decisions import evaluate
from surpass.forms import Outlook
from surpass.methods.ope.routing import afford, request_help, v0_value
from surpass.objectives.budgets import within_budget
from surpass.tasks.helping import Rooms
from surpass.training.explore import explore


def test_help_learned_offline_is_near_the_optimum_of_the_true_table():
    rooms = Rooms(3)
    mdp, S = rooms.mdp, rooms.mdp.n_states
    form = request_help(1.0, S, rooms.horizon)
    model = form.model(rooms.log(1500, seed=1))
    plan = form.solve(model)
    seen = model.P.sum(-1) > 0
    assert float((model.P - mdp.P)[seen].abs().max()) < 0.5
    success = sum(
        w * float(mdp.evaluate(p).value)
        for w, p in zip((plan.mix, 1 - plan.mix), plan.policy, strict=True)
    )
    calls = sum(
        w * float(mdp.occupancy(p)[..., 1][:, ~mdp.terminal_states].sum())
        for w, p in zip((plan.mix, 1 - plan.mix), plan.policy, strict=True)
    )
    best = within_budget(mdp.P, mdp.r, mdp.d0, 1.0, rooms.horizon)
    never = within_budget(mdp.P, mdp.r, mdp.d0, 0.0, rooms.horizon)
    assert success > best.success - 0.02 > never.success
    assert calls == pytest.approx(1.0, abs=0.08)
    assert float(mdp.evaluate(mdp.uniform()).value) <= 1.0


def test_the_cheapest_that_will_do_is_chosen():
    seen = Outlook(torch.tensor([[0.9, 0.8, 0.2]]))
    assert afford((3.0, 1.0, 0.0), 0.0)(seen).argmax() == 0
    assert afford((3.0, 1.0, 0.0), 0.1)(seen).argmax() == 1
    assert afford((3.0, 1.0, 0.0), 0.9)(seen).argmax() == 2


def tasks(seed=0):
    """Policies that are good at prompts on their own side of a plane."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 2, generator=g)
    side = torch.nn.functional.normalize(torch.randn(60, 2, generator=g), dim=1)
    return Snapshots(x, (4 * side @ x.T).sigmoid(), torch.arange(60))


def test_value_in_context_knows_policies_it_never_saw_and_routes_between_them():
    net = train_set_value(tasks(), support=40, queries=16, steps=100, seed=0)
    fresh = tasks(1)
    reward = fresh.success[:2].T.double()
    world = Truth(fresh.features, reward, torch.full_like(reward, 0.5))
    log = explore(v0_value(net, share=1.0), world, 1, 160, seed=0).log
    p = (
        InContext(net, 80)
        .fit(log.context, log.action, log.reward, n_actions=3)
        .predict(fresh.features)
    )
    assert float((p[:, :2] - reward).abs().mean()) < 0.25
    assert torch.equal(p[:, 2], torch.full((200,), 0.5).double())
    routed = reward.gather(1, p[:, :2].argmax(1, keepdim=True)).mean()
    assert float(routed) > float(reward.mean(0).max()) + 0.05
    again = explore(v0_value(net, share=0.2), world, 3, 80, seed=1)
    assert again.earned[2] > again.earned[0] + 0.05
    value = evaluate(torch.tensor([0.5, 0.5]), again.log, estimators=("snips",))["snips"]
    assert abs(value.value - float(reward.mean())) < 4 * value.error
    with pytest.raises(InputError, match="do not fit"):
        train_set_value(tasks(), support=300)
    assert isinstance(v0_value().model.net, SetValue)
