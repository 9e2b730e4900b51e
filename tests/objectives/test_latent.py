"""Critics of a policy that acts through a frozen sampler: what is asked, where, and who learns."""

import pytest
import torch
from torch import nn

from surpass.critics.ensembles import critic
from surpass.forms import Spaces
from surpass.objectives.latent import decoded_backup, distilled
from surpass.objectives.rows import Rows
from surpass.parts import run


class Table(dict):
    __getattr__ = dict.__getitem__


class Twice(nn.Module):
    """G(s, w) = s + 2 w, and what it was asked."""

    def decode(self, obs, noise):
        self.noise = noise
        return obs + 2 * noise


class Given:
    """u = 0.5 always."""

    def sample(self, obs, samples=None):
        return torch.full((len(obs), 1), 0.5), None


ROWS = Rows({
    "obs": torch.tensor([[0.0], [1.0]]), "next_obs": torch.tensor([[2.0], [-1.0]]),
    "action": torch.zeros(2, 1), "reward": torch.zeros(2), "terminated": torch.zeros(2),
})  # fmt: skip


def two_values(obs, action):
    """a and 10 - a."""
    return torch.stack([action[:, 0], 10 - action[:, 0]])


def test_the_next_value_is_that_of_the_decoded_action():
    """a' = s' + 2 (3 * 0.5): 5 and 2; the lower of a and 10 - a."""
    nets = Table(pi=Given(), base=Twice(), q_target=two_values)
    found, _ = run(decoded_backup(3.0), (nets, ROWS))
    torch.testing.assert_close(found, torch.tensor([5.0, 2.0]))


class Recorded:
    """A latent critic that says what it is fitted to."""

    def fit(self, obs, action, y, huber=None):
        self.seen = obs, action, y
        return torch.stack([torch.ones(len(y)), 2 * torch.ones(len(y))])


def test_the_value_of_noise_is_that_of_what_it_decodes_to():
    torch.manual_seed(0)
    base, latent = Twice(), Recorded()
    rows = Rows({name: column.repeat(500, *(1,) * (column.dim() - 1))
                 for name, column in ROWS.columns.items()})  # fmt: skip
    found, _ = run(distilled(1.5), (Table(base=base, q=two_values, q_latent=latent), rows))
    obs, unit, worth = latent.seen
    torch.testing.assert_close(1.5 * unit, base.noise)  # what is asked is what is decoded
    action = obs + 2 * base.noise
    torch.testing.assert_close(worth, torch.minimum(action, 10 - action)[:, 0])
    torch.testing.assert_close(found, torch.full((1_000,), 3.0))  # both members
    assert float(unit.abs().max()) == 1.0  # within the box
    inside = unit[unit.abs() < 1]
    assert len(inside) / 1_000 == pytest.approx(0.866, abs=0.04)  # P(|w| < 1.5)
    again, _ = run(distilled(1.5), (Table(base=base, q=two_values, q_latent=latent), rows))
    assert not torch.equal(latent.seen[1], unit)  # fresh noise each time


def test_distilling_moves_the_latent_critic_alone():
    torch.manual_seed(0)
    spaces = Spaces(1, 1, 0, (-1.0,), (1.0,))
    nets = Table(base=Twice(), q=critic(2, (8,))(spaces), q_latent=critic(2, (8,))(spaces))
    loss, _ = run(distilled(), (nets, ROWS))
    loss.sum().backward()
    assert all(p.grad is None for p in nets.q.parameters())
    assert all(p.grad is not None for p in nets.q_latent.parameters())


def test_values_of_noise_converge_to_those_of_actions():
    """Q = -(a - 0.6)^2 through G = w / 2: the greatest of Q^W is at w = 1.2, u = 0.8."""
    torch.manual_seed(0)

    class Half(nn.Module):
        def decode(self, obs, noise):
            return noise / 2

    latent = critic(2, (32, 32))(Spaces(1, 1, 0, (-1.0,), (1.0,)))
    optimizer = torch.optim.Adam(latent.parameters(), 1e-2)
    rows = Rows({"obs": torch.zeros(128, 1), "action": torch.zeros(128, 1)})

    def worth(obs, action):
        return -(action[:, 0] - 0.6).square()[None].expand(2, -1)

    for _ in range(150):
        found, _ = run(distilled(1.5), (Table(base=Half(), q=worth, q_latent=latent), rows))
        optimizer.zero_grad()
        found.mean().backward()
        optimizer.step()
    unit = torch.linspace(-1, 1, 41)[:, None]
    with torch.no_grad():
        values = latent(torch.zeros(41, 1), unit).mean(0)
    torch.testing.assert_close(values, -(0.75 * unit[:, 0] - 0.6).square(), atol=0.1, rtol=0.0)
    assert float(unit[values.argmax(), 0]) == pytest.approx(0.8, abs=0.15)
