"""Returns as value, skill and luck: an identity on every path, and the regression that finds it."""

from __future__ import annotations

import pytest
import torch

from surpass.critics.ensembles import critic, value
from surpass.critics.latent_outcomes import latent_luck, latent_outcomes
from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.objectives.rows import Rows
from surpass.objectives.skill_and_luck import (
    Paths,
    decomposed_return,
    outcome_bound,
    skill_ascent,
    split_by_regression,
    suffix_returns,
)
from surpass.policies.discrete import categorical
from surpass.tasks.worlds import random_mdp

GAMMA = 0.9


class Nets(dict):
    __getattr__ = dict.__getitem__


def problem(seed=0, branching=3, states=6, actions=3):
    g = torch.Generator().manual_seed(seed)
    mdp = random_mdp(states, actions, gamma=GAMMA, branching=branching, generator=g)
    raw = torch.rand(states, actions, generator=g, dtype=torch.float64) ** 4
    return mdp, raw / raw.sum(-1, keepdim=True), g


def walked(mdp, behavior, n, steps, g):
    log = mdp.rollout(behavior, n, steps, g, dtype=torch.float64)
    s = torch.cat([log.extras["state"], log.extras["next_state"][:, -1:]], 1)
    return Paths(s, log.action, log.reward)


def test_the_identity_holds_on_every_path_of_any_behavior():
    mdp, pi, g = problem()
    v, q, _ = mdp.evaluate(pi)
    skill, luck = q - v[:, None], v[None, None] - (mdp.P @ v)[..., None]
    s, a, r = walked(mdp, mdp.uniform(), 50, 7, g)
    rest = r - skill[s[:, :-1], a] - GAMMA * luck[s[:, :-1], a, s[:, 1:]]
    back = suffix_returns(rest, v[s[:, -1]], torch.ones_like(r), GAMMA)
    assert float((back - v[s[:, :-1]]).abs().max()) < 1e-10


def test_suffix_returns_by_hand_and_behind_the_end():
    paid, ahead = torch.tensor([[1.0, 2.0, 4.0], [1.0, 9.0, 9.0]]), torch.tensor([8.0, 10.0])
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    # 4 + 8 / 2 = 8, 2 + 8 / 2 = 6, 1 + 6 / 2 = 4; and 1 + 10 / 2
    want = torch.tensor([[4.0, 6.0, 8.0], [6.0, 0.0, 0.0]])
    torch.testing.assert_close(suffix_returns(paid, ahead, mask, 0.5), want)


def test_the_regression_finds_all_three_from_paths_of_another_policy():
    mdp, pi, g = problem(1)
    v, q, _ = mdp.evaluate(pi)
    found = split_by_regression(walked(mdp, mdp.uniform(), 1500, 6, g), pi, GAMMA, mdp.P)
    torch.testing.assert_close(found.v, v, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.skill, q - v[:, None], atol=2e-3, rtol=0)
    luck, often = v[None, None] - (mdp.P @ v)[..., None], mdp.P > 0.02
    torch.testing.assert_close(found.luck[often], luck[often], atol=5e-3, rtol=0)
    assert float(found.luck[mdp.P == 0].abs().max()) == 0.0
    assert float((pi * found.skill).sum(-1).abs().max()) < 1e-9
    assert float((mdp.P * found.luck).sum(-1).abs().max()) < 1e-9


def test_without_luck_it_is_wrong_off_policy_and_right_where_nothing_is_random():
    mdp, pi, g = problem(2)
    v = mdp.evaluate(pi).v
    paths = walked(mdp, mdp.uniform(), 1500, 6, g)
    blind = split_by_regression(paths, pi, GAMMA)
    plain = split_by_regression(paths, pi, GAMMA, skilled=False)
    told = split_by_regression(paths, pi, GAMMA, mdp.P)
    errors = [float((x.v - v).square().mean().sqrt()) for x in (told, blind, plain)]
    assert errors[0] < 0.1 * errors[1] < 0.1 * errors[2]
    certain, pi, g = problem(3, branching=1)
    paths = walked(certain, certain.uniform(), 800, 6, g)
    with_luck, without = (split_by_regression(paths, pi, GAMMA, p) for p in (certain.P, None))
    torch.testing.assert_close(with_luck.v, without.v, atol=1e-4, rtol=0)
    torch.testing.assert_close(without.v, certain.evaluate(pi).v, atol=1e-3, rtol=0)
    with pytest.raises(InputError, match="gamma"):
        split_by_regression(paths, pi, 1.0)
    with pytest.raises(InputError, match="one state more"):
        split_by_regression(Paths(paths.action, paths.action, paths.reward), pi, GAMMA)


def nets_and_rows(k=4):
    torch.manual_seed(0)
    spaces = Spaces(3, n_actions=4)
    nets = Nets(
        v=value(1, (8,))(spaces), v_target=value(1, (8,))(spaces), pi=categorical((8,))(spaces),
        advantage=critic(1, (8,))(spaces), outcomes=latent_outcomes(k, (8,), 0.5)(spaces),
        luck=latent_luck(k, (8,))(spaces), pi_slow=categorical((8,))(spaces),
    )  # fmt: skip
    g = torch.Generator().manual_seed(0)
    rows = {
        "obs": torch.randn(3, 5, 3, generator=g), "next_obs": torch.randn(3, 5, 3, generator=g),
        "action": torch.randint(4, (3, 5), generator=g),
        "reward": torch.randn(3, 5, generator=g), "terminated": torch.zeros(3, 5),
        "mask": torch.ones(3, 5),
    }  # fmt: skip
    rows["mask"][0, 3:] = 0.0
    rows["terminated"][0, 2] = 1.0
    return nets, rows


def test_the_loss_of_nets_is_the_square_of_the_identity_step_by_step():
    nets, rows = nets_and_rows()
    loss = decomposed_return(GAMMA)(nets, Rows(rows))
    with torch.no_grad():
        for b in range(3):
            steps, total = int(rows["mask"][b].sum()), 0.0
            obs, after, a = rows["obs"][b], rows["next_obs"][b], rows["action"][b]
            f, chance = nets.advantage.all(obs)[0], nets.pi.logits(obs).exp()
            skill = (f - (chance * f).sum(-1, keepdim=True))[torch.arange(5), a]
            end = rows["terminated"][b][:, None]
            told = torch.cat([(after - obs) * (1 - end), end], -1)
            apart = nets.outcomes.posterior(obs, a, told).exp() - nets.outcomes.prior(obs, a).exp()
            luck = (apart * nets.luck(obs, a)).sum(-1)
            for u in range(steps):
                y = (1 - rows["terminated"][b, steps - 1]) * nets.v_target(after)[0, steps - 1]
                for t in reversed(range(u, steps)):
                    y = rows["reward"][b, t] - skill[t] - GAMMA * luck[t] + GAMMA * y
                total += float((y - nets.v(obs)[0, u]).square()) / steps
            assert float(loss[b]) == pytest.approx(total, rel=1e-4)
    loss.sum().backward()
    reached = {k for k, net in nets.items() if any(p.grad is not None for p in net.parameters())}
    assert reached == {"v", "advantage", "luck"}
    with pytest.raises(InputError, match="segments"):
        decomposed_return()(nets, Rows(rows)[:, 0])


def test_the_bound_of_one_category_is_its_likelihood_and_no_bound_lies_below_it():
    nets, rows = nets_and_rows(k=1)
    seen = Rows(rows)
    told = torch.cat([(seen.next_obs - seen.obs) * (1 - seen.terminated)[..., None],
                      seen.terminated[..., None]], -1).flatten(0, 1)  # fmt: skip
    obs, action = seen.obs.flatten(0, 1), seen.action.flatten()
    exact = nets.outcomes.log_likelihoods(obs, action, told)[:, 0].reshape(3, 5)
    want = -(exact * seen.mask).sum(-1) / seen.mask.sum(-1)
    torch.testing.assert_close(outcome_bound()(nets, seen), want)
    nets, rows = nets_and_rows(k=4)
    prior = nets.outcomes.prior(obs, action)
    exact = (nets.outcomes.log_likelihoods(obs, action, told) + prior).logsumexp(-1).reshape(3, 5)
    assert (
        outcome_bound()(nets, Rows(rows)) >= -(exact * seen.mask).sum(-1) / seen.mask.sum(-1) - 1e-5
    ).all()


def test_the_actor_has_the_gradient_of_the_centered_advantage():
    nets, rows = nets_and_rows()
    nets.pi_slow.load_state_dict(nets.pi.state_dict())
    loss = skill_ascent(0.3)(nets, Rows(rows)).sum()
    (got,) = torch.autograd.grad(loss, [nets.pi.net.weight0])
    obs, mask = rows["obs"].flatten(0, 1), rows["mask"].flatten()
    f = nets.advantage.all(obs)[0].detach()
    p = nets.pi.logits(obs).exp()
    gain = (p * (f - (p * f).sum(-1, keepdim=True).detach())).sum(-1)  # KL is flat at its minimum
    per = (rows["mask"] / rows["mask"].sum(-1, keepdim=True)).flatten()
    (want,) = torch.autograd.grad(-(gain * per * mask).sum(), [nets.pi.net.weight0])
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)
