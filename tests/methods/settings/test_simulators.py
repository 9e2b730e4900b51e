"""H2O's pieces against closed forms, and learning that ignores what the simulator gets wrong."""

import math
from types import SimpleNamespace

import pytest
import torch

import surpass
from surpass.critics.domains import domains
from surpass.forms import Spaces
from surpass.objectives.bellman import soft, td
from surpass.objectives.domains import dynamics_gap, pushed_down, tell_apart, trusted
from surpass.objectives.rows import Rows
from surpass.tasks.catalog import task
from surpass.tasks.recording import record


def batch(n=8, real=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    columns = {
        "obs": torch.randn(n, 2, generator=g), "action": torch.rand(n, 1, generator=g),
        "next_obs": torch.randn(n, 2, generator=g),
        "source": torch.tensor([0] * real + [1] * (n - real)),
    }  # fmt: skip
    return Rows(columns, ("log", "replay"))


class Known:
    """Logits that are stated; Q is the first observation, times 1 and times 2."""

    def __init__(self, added):
        self.domains = SimpleNamespace(added=lambda s, a, t: added(s, a, t))
        self.q = lambda obs, action: torch.stack([obs[:, 0], 2.0 * obs[:, 0]])

    def __getitem__(self, name):
        return getattr(self, name)


def test_simulated_errors_are_weighted_by_the_ratio_of_the_dynamics():
    rows = batch()
    found = trusted(high=1.0)(Known(lambda s, a, t: t[..., 0]), rows)
    assert torch.equal(found[:4], torch.ones(4))
    assert torch.allclose(found[4:], rows.next_obs[4:, 0].exp().clamp(1e-5, 1.0))


def test_the_gap_of_two_gaussian_dynamics_is_their_divergence():
    # P_sim = N(0, 1), P_real = N(m, 1): log ratio m x - m^2 / 2, KL(sim || real) = m^2 / 2
    m = 1.5
    rows = Rows({"obs": torch.zeros(3, 1), "action": torch.zeros(3, 1),
                 "next_obs": torch.zeros(3, 1)}, ("log", "replay"))  # fmt: skip
    nets = Known(lambda s, a, t: m * t[..., 0] - m * m / 2)
    found = dynamics_gap(nets, rows, samples=200_000)
    assert torch.allclose(found, torch.full((3,), m * m / 2), atol=0.02)


def test_where_dynamics_agree_all_simulated_values_are_pushed_down_alike():
    rows = batch()
    found = pushed_down()(Known(lambda s, a, t: torch.full(t.shape[:-1], -0.7)), rows)
    x = rows.obs[:, 0]
    by_hand = sum(
        torch.logsumexp(k * x[4:], 0) - math.log(4) - (k * x[:4]).mean() for k in (1.0, 2.0)
    )
    assert float(found) == pytest.approx(float(by_hand), abs=1e-5)
    only = pushed_down()(Known(lambda s, a, t: torch.where(s[..., 0] == x[5], -9.0, 1.0)), rows)
    one = 3.0 * float(x[5]) - 3.0 * float(x[:4].mean())  # the only row where dynamics differ
    assert float(only) == pytest.approx(one, abs=1e-3)


def test_the_classifier_finds_the_ratio_of_two_gaussian_dynamics():
    torch.manual_seed(0)
    net = domains((32,))(Spaces(1, 1, low=(-1.0,), high=(1.0,)))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    loss = tell_apart(noise=0.0)
    for _ in range(300):
        obs, action = torch.randn(512, 1), torch.rand(512, 1)
        source = torch.arange(512) % 2
        after = torch.randn(512, 1) + torch.where(source == 0, 1.0, 0.0)[:, None]
        rows = Rows({"obs": obs, "action": action, "next_obs": after, "source": source},
                    ("log", "replay"))  # fmt: skip
        optimizer.zero_grad()
        loss({"domains": net}, rows).mean().backward()
        optimizer.step()
    x = torch.linspace(-1.0, 2.0, 7)[:, None]
    found = net.added(torch.zeros(7, 1), torch.full((7, 1), 0.5), x)
    assert torch.allclose(found, x[:, 0] - 0.5, atol=0.35)


def test_what_can_be_told_apart_for_certain_still_counts_a_little():
    torch.manual_seed(0)
    net = domains((16,), limit=2.0)(Spaces(1, 1, low=(-1.0,), high=(1.0,)))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-2)
    source = torch.arange(256) % 2
    for _ in range(200):
        obs, action = torch.randn(256, 1), torch.rand(256, 1)
        after = obs + torch.where(source == 0, 1.0, -1.0)[:, None]
        rows = Rows({"obs": obs, "action": action, "next_obs": after, "source": source},
                    ("log", "replay"))  # fmt: skip
        optimizer.zero_grad()
        tell_apart(noise=0.0)({"domains": net}, rows).mean().backward()
        optimizer.step()
    weight = trusted()({"domains": net}, rows)
    assert torch.equal(weight[source == 0], torch.ones(128))
    assert torch.allclose(weight[source == 1], torch.full((128,), math.exp(-2.0)), rtol=0.1)


def test_it_acts_in_the_simulator_once_an_update_and_learns_from_both():
    """Its critic's loss is E_real[(Q - y)^2] + E_sim[w (Q - y)^2], summed over the critics."""
    real = task("pendulum").make(4, seed=0)
    log = record(real, lambda obs: 4.0 * torch.rand(len(obs), 1) - 2.0, 800)
    form = surpass.h2o(beta=0.0, batch=32, warm=100, hidden=(16,))
    trained = surpass.train(form, log, task=task("pendulum", gravity=20.0), steps=50, log_every=50)
    assert trained.history[-1]["env.steps"] == 150
    rows = Rows({**batch().columns, "obs": log.obs[:8], "next_obs": log.next_obs[:8],
                 "action": log.action[:8] / 2.0, "reward": log.reward[:8],
                 "terminated": torch.zeros(8)}, ("log", "replay"))  # fmt: skip
    known = Known(lambda s, a, t: t[..., 0] - 1.0)
    nets = {**dict(trained.nets.items()), "domains": known.domains}
    torch.manual_seed(1)
    plain = td(soft(entropy=False))(nets, rows)
    weight = (rows.next_obs[4:, 0] - 1.0).exp()
    torch.manual_seed(1)
    (loss,) = [s.loss for s in form.update if "q" in s.nets]
    found = loss(nets, rows).mean()
    assert torch.allclose(found, plain[:4].mean() + (weight * plain[4:]).mean())
