"""Nets that choose among commands in words."""

import pytest
import torch

from surpass.critics.commands import command_critic, text_value
from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.policies.commands import TextLayout, command_scorer
from surpass.tasks.quest import text_quest

TASK = text_quest(6, rooms=4, buckets=128)


@pytest.fixture
def obs():
    return TASK.make(6).reset(0)


def offered(obs):
    return TASK.layout.offered(obs)


def test_probabilities_are_those_of_the_commands_on_offer(obs):
    torch.manual_seed(0)
    policy = command_scorer(16, (16,))(TASK.spaces)
    p = policy.logits(obs).exp()
    torch.testing.assert_close(p.sum(-1), torch.ones(6))
    assert (p[~offered(obs)] == 0).all() and (p[offered(obs)] > 0).all()
    action, logp = policy.sample(obs, 200)
    assert offered(obs).gather(1, action.T).all()
    torch.testing.assert_close(logp, policy.logp(obs, action))


def test_a_score_is_the_mean_over_the_words_of_the_command_and_what_it_shares(obs):
    torch.manual_seed(1)
    policy = command_scorer(8, (8,))(TASK.spaces)
    net, layout = policy.net.requires_grad_(False), TASK.layout
    read = net.context(obs)[0].detach()
    bags, words = layout.bags_of(obs), layout.words_of(obs)
    by_hand = torch.full(offered(obs).shape, -1e9)
    for b, a in offered(obs).nonzero().tolist():
        known = [int(w) for w in words[b, a] if w > 0]
        said = sum(float(read[b, :8] @ net.turn.T @ net.context.words[w]) for w in known)
        shared = [sum(float(bags[b, k, w] > 0) for w in known) for k in range(layout.bags)]
        shared = float(read[b, 8 : 8 + layout.bags] @ torch.tensor(shared))
        by_hand[b, a] = (said + shared) / len(known)
    torch.testing.assert_close(net(obs)[0], by_hand, rtol=1e-4, atol=1e-4)


def test_the_order_of_the_commands_does_not_matter(obs):
    torch.manual_seed(2)
    policy, critic = command_scorer(8)(TASK.spaces), command_critic(2, 8)(TASK.spaces)
    start, layout = TASK.layout.bags * TASK.layout.buckets, TASK.layout
    order = torch.randperm(layout.commands)
    words = obs[:, start:].reshape(6, layout.commands, layout.length)[:, order]
    turned = torch.cat([obs[:, :start], words.flatten(1)], 1)
    torch.testing.assert_close(policy.logits(turned), policy.logits(obs)[:, order])
    torch.testing.assert_close(critic.all(turned), critic.all(obs)[:, :, order])


def test_critics_fit_one_member_each_and_agree_with_all(obs):
    torch.manual_seed(3)
    critic, value = command_critic(3, 8)(TASK.spaces), text_value(2, 8)(TASK.spaces)
    action = torch.tensor([0, 1, 2, 0, 1, 2])
    one = critic(obs, action)
    torch.testing.assert_close(
        one, critic.all(obs).gather(-1, action.expand(3, 6)[..., None])[..., 0]
    )
    many = torch.stack([action, 2 - action])
    torch.testing.assert_close(critic(obs, many)[:, 1], critic(obs, 2 - action))
    y = torch.arange(6.0)
    torch.testing.assert_close(critic.fit(obs, action, y), (one - y).square())
    torch.testing.assert_close(value.fit(obs, y), (value(obs) - y).square())
    assert value(obs).shape == (2, 6) and not torch.equal(one[0], one[1])


def test_a_net_for_words_says_what_it_needs():
    with pytest.raises(InputError, match="not of a text environment"):
        command_scorer()(Spaces(3, n_actions=4))
    assert TextLayout.of(TASK.spaces) == TASK.layout
