"""Tasks around a frozen policy: what is played, seen, kept, and handed back out."""

import pytest
import torch
from torch import nn

from surpass.errors import InputError
from surpass.forms import Acted, Spaces
from surpass.policies.acting import InEnvironment
from surpass.tasks.protocol import Batched, Step
from surpass.tasks.transformed import LatentTask, ResidualTask, outward


class Line:
    """x <- x + a, reward a, three steps; actions within [-2, 2]."""

    spaces = Spaces(1, 1, 0, (-2.0,), (2.0,), horizon=3)
    noise_dim = 0

    def reset(self, n, generator=None):
        x = torch.zeros(n, 1)
        return {"x": x, "t": torch.zeros(n, dtype=torch.long)}, x

    def step(self, state, action, noise=None):
        x, t = state["x"] + action, state["t"] + 1
        never = torch.zeros(len(x), dtype=torch.bool)
        return Step({"x": x, "t": t}, x, action[:, 0], never, t >= 3)

    def make(self, n, seed=0, **settings):
        return Batched(self, n, seed)


class Halving(nn.Module):
    """G(s, w) = w / 2 - s / 10."""

    def decode(self, obs, noise):
        return noise / 2 - obs / 10


class Counting(nn.Module):
    """A chunk of two actions, 0.1 k and 0.1 k + 0.05, k how often it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def sample(self, obs):
        self.asked += 1
        both = torch.tensor([0.1 * self.asked, 0.1 * self.asked + 0.05])
        return both.expand(len(obs), 2), None


class Always:
    def __init__(self, value):
        self.value = value

    def act(self, obs, memory=None):
        return Acted(torch.full((len(obs), 1), self.value), None, memory)


def test_noise_is_decoded_and_mapped_to_the_bounds():
    env = LatentTask(Line(), Halving(), bound=1.5).make(2)
    env.reset(0)
    first = env.step(torch.tensor([[1.0], [-0.4]]))
    assert first.reward.tolist() == pytest.approx([1.0, -0.4])  # 2 (w / 2)
    second = env.step(torch.tensor([[1.0], [1.0]]))
    assert second.reward.tolist() == pytest.approx([0.8, 1.08])  # 2 (w / 2 - x / 10)


def test_a_policy_over_noise_comes_back_as_one_over_actions():
    task = LatentTask(Line(), Halving(), bound=1.5)
    inside = InEnvironment(Always(0.5), task.spaces)  # w = 0.75
    outside = outward(task, inside)
    acted = outside.act(torch.tensor([[0.0], [1.0]])).action[:, 0]
    assert acted.tolist() == pytest.approx([0.75, 0.55])
    assert outward(Line(), inside) is inside


def test_corrections_are_added_to_the_pending_action_of_the_chunk():
    """Steps play 0.10, 0.15, then a fresh chunk's 0.20; after the end a fresh one again."""
    base = Counting()
    env = ResidualTask(Line(), base, scale=0.5, execute=2).make(1)
    assert env.reset(0).tolist() == [[0.0, pytest.approx(0.1)]]
    first = env.step(torch.tensor([[0.2]]))  # 2 (0.1 + 0.5 * 0.2)
    assert first.reward.item() == pytest.approx(0.4)
    assert first.obs[0].tolist() == pytest.approx([0.4, 0.15])
    second = env.step(torch.zeros(1, 1))
    assert second.reward.item() == pytest.approx(0.3)
    third = env.step(torch.tensor([[5.0]]))  # |rho| <= 1
    assert third.reward.item() == pytest.approx(2 * (second.obs[0, 1].item() + 0.5))
    assert third.truncated.item() and third.obs[0, 0].item() == 0.0
    assert third.final_obs[0, 0].item() == pytest.approx(0.7 + third.reward.item())


def test_a_corrected_policy_keeps_its_chunk_in_memory():
    base = Counting()
    task = ResidualTask(Line(), base, scale=0.5, execute=2)
    policy = outward(task, InEnvironment(Always(0.0), task.spaces))
    obs, memory, played = torch.zeros(1, 1), None, []
    for _ in range(4):
        acted = policy.act(obs, memory)
        memory = acted.memory
        played.append(acted.action.item())
    assert played == pytest.approx([0.2, 0.3, 0.4, 0.5]) and base.asked == 2
    policy.act(obs, memory)
    memory = policy.remember(memory, torch.zeros(1), torch.ones(1, dtype=torch.bool))
    assert policy.act(obs, memory).action.item() == pytest.approx(0.8)  # the fourth chunk's first


def test_a_saved_residual_environment_goes_on_alike():
    task = ResidualTask(Line(), Counting(), scale=0.5, execute=2)
    one, other = task.make(1), task.make(1)
    one.reset(0)
    one.step(torch.zeros(1, 1))
    other.reset(0)
    other.load_state_dict(one.state_dict())
    again = [e.step(torch.full((1, 1), 0.3)) for e in (one, other)]
    assert again[0].reward.item() == again[1].reward.item()


def test_what_cannot_be_steered_is_refused():
    with pytest.raises(InputError, match="has no 'decode'"):
        LatentTask(Line(), Counting())
    wide = Halving()
    wide.size = 4  # type: ignore[assignment]
    with pytest.raises(InputError, match="gives 4 numbers, the task takes 1"):
        LatentTask(Line(), wide)
    with pytest.raises(InputError, match="proposes 2 actions, not 3"):
        ResidualTask(Line(), Counting(), execute=3).make(1).reset(0)
