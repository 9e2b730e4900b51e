"""Mirror descent: many gradient steps find the tilted policy that a formula has."""

import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence
from training_counters import Regulator, TaskOf

from surpass.critics.ensembles import critic
from surpass.errors import InputError
from surpass.evaluation.rollouts import roll_out
from surpass.forms import Spaces
from surpass.methods.online.mirror_descent import mdpo, mdpo_off_policy
from surpass.objectives.divergence import Readout, anchor_kl, law
from surpass.objectives.mirror_descent import mirror_ascent, small_outputs
from surpass.objectives.planning import mirror_step
from surpass.objectives.ratio import per_decision
from surpass.objectives.rows import Rows
from surpass.objectives.trust import ratio_loss
from surpass.objectives.value import entropic, soft_value
from surpass.objectives.views import Steps
from surpass.parts import from_json, run, to_json
from surpass.policies.gaussian import SquashedGaussian, gaussian
from surpass.policies.stochastic import score, stochastic
from surpass.tasks.worlds import random_mdp
from surpass.training.engine import Engine
from surpass.training.on_policy import lowered
from surpass.training.run import train
from surpass.training.streams import open_stream

WHERE = TaskOf(Regulator())
P = (1 + 3**0.5) / 2  # P = 1 + P - P^2 / (P + 1/2), the regulator's Riccati equation


class Table(dict):
    __getattr__ = dict.__getitem__


def regulates(trained):
    """Whether it loses at most a tenth more than the best control."""
    best = roll_out(lambda x: -P / (P + 0.5) * x, WHERE, 64).mean
    return roll_out(trained, WHERE, 64).mean > 1.1 * best


def objective(trust, logits, before, gain):
    """What a trust rule makes of a table of policies [S, A], exactly: every action of every state
    is there, its mask its probability under the old policy."""
    logp, (states, actions) = logits.log_softmax(-1), logits.shape

    def whole(table):
        return table[:, None].expand(states, actions, actions)

    steps = Steps(logp=logp, anchor_logp=before, mask=before.exp(), advantage=gain,
                  extras={"law": whole(logp), "anchor_law": whole(before)})  # fmt: skip
    steps = steps.filled(log_ratio=per_decision()(steps))
    return (steps.mask * run(trust, (steps,))[0]).sum(-1).mean()


@pytest.fixture
def table():
    """A random process, a policy, and the policy's exact advantages."""
    mdp = random_mdp(10, 4, generator=torch.Generator().manual_seed(1))
    before = torch.randn(10, 4, dtype=torch.float64).log_softmax(-1)
    values = mdp.evaluate(before.exp())
    return before, (values.q - values.v[:, None]).double()


@pytest.mark.parametrize("step", [0.5, 4.0])
def test_many_gradient_steps_find_the_closed_form_and_one_is_the_policy_gradient(table, step):
    before, gain = table
    trust = mdpo(step, anneal=None).trust
    old = before.exp()
    closed = torch.from_numpy(mirror_step(old.numpy(), gain.numpy(), step, old.numpy()))
    torch.testing.assert_close(closed, (before + step * gain).softmax(-1))
    logits = before.clone().requires_grad_(True)
    first = torch.autograd.grad(objective(trust, logits, before, gain), logits)[0]
    plain = torch.autograd.grad(objective(ratio_loss(), logits, before, gain), logits)[0]
    torch.testing.assert_close(first, plain, rtol=0, atol=1e-12)
    optimizer = torch.optim.Adam([logits], 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        objective(trust, logits, before, gain).backward()
        optimizer.step()
    apart = kl_divergence(Categorical(closed), Categorical(logits=logits.detach()))
    assert apart.max() < 1e-3 < kl_divergence(Categorical(closed), Categorical(old)).max()


def test_nothing_is_better_than_the_closed_form(table):
    before, gain = table
    trust, best = mdpo(2.0, anneal=None).trust, before + 2.0 * gain
    least = objective(trust, best, before, gain)
    z = torch.logsumexp(before + 2.0 * gain, -1)  # log sum pi_k exp(t A)
    torch.testing.assert_close(least, -(z / 2.0).mean())
    for _ in range(20):
        assert objective(trust, best + 0.1 * torch.randn_like(best), before, gain) > least


@pytest.mark.parametrize("spaces", [Spaces(3, n_actions=4), Spaces(3, 2)])
def test_the_divergence_is_exact_and_from_the_new_policy_to_the_old_one(spaces):
    new, old = (stochastic((8,), log_std=s)(spaces) for s in (-0.5, 0.2))
    obs = torch.randn(6, 5, 3)
    for net in (new, old):
        for p in net.net.parameters():
            torch.nn.init.normal_(p, std=0.5)
    action = torch.randint(4, (6, 5)) if spaces.discrete else torch.randn(6, 5, 2)
    laws = [score(net, obs, action, (law,)) for net in (new, old)]
    mask = (torch.arange(5) < torch.tensor([5, 3, 4, 5, 1, 2])[:, None]).float()
    steps = Steps(logp=laws[0][0], mask=mask,
                  extras={"law": laws[0][1]["law"], "anchor_law": laws[1][1]["law"]})  # fmt: skip

    def distribution(net):
        if spaces.discrete:
            return Categorical(logits=net.logits(obs.flatten(0, 1)))
        return Independent(Normal(net(obs.flatten(0, 1)), net.log_std.exp()), 1)

    want = kl_divergence(distribution(new), distribution(old)).reshape(6, 5)
    torch.testing.assert_close(anchor_kl(0.5)(steps), 2.0 * want * mask, rtol=1e-4, atol=1e-5)
    other = kl_divergence(distribution(old), distribution(new)).reshape(6, 5)
    assert (want - other).abs().mean() > 0.02


def test_a_vocabulary_has_no_whole_law():
    with pytest.raises(InputError, match="never held whole"):
        law(Readout(torch.zeros(2), torch.ones(2), 1000))


SIZES = {"envs": 4, "horizon": 8, "hidden": (8,), "normalize": False}


def opened(form):
    """An engine bound to what it does in the regulator."""
    learner = lowered(form)
    stream = open_stream(learner.source, {"task": WHERE}, WHERE.spaces)
    engine = Engine(learner, stream, WHERE.spaces, compile=False)
    stream.bind(engine, {"task": WHERE})
    return engine, stream


def test_the_old_policy_is_the_one_that_collected_until_the_next_batch():
    engine, stream = opened(mdpo(m=3, lr=3e-2, anneal=None, **SIZES))
    for _ in range(2):
        engine.advance(2)
        tables = stream.tables
        obs, action = tables["obs"], tables["action"]
        net = engine.bank["policy"]
        found, now = score(net, obs, action, (law,))
        torch.testing.assert_close(tables["anchor_logp"], tables["behavior_logp"])
        extras = {"law": now["law"], "anchor_law": tables["anchor_law"]}
        apart = anchor_kl()(Steps(logp=found, mask=tables["mask"], extras=extras))
        old = Normal(tables["anchor_law"][..., 0], tables["anchor_law"][..., 1].exp())
        new = Normal(net(obs[:, 0])[:, None], net.log_std.exp())
        torch.testing.assert_close(apart, kl_divergence(new, old).sum(-1), rtol=1e-3, atol=1e-5)
        assert apart.mean() > 1e-4
        engine.advance(1)


def test_the_step_size_falls_from_batch_to_batch_and_stays_within_one():
    form = mdpo(step=2.0, m=3, minibatches=2, lr=1e-3, anneal=5 * 32, **SIZES)
    t, rate = form.trust.second.step, form.optimizer.lr
    assert [t.at(k) for k in range(0, 36, 6)] == pytest.approx([2.0, 1.6, 1.2, 0.8, 0.4, 0.4])
    assert all(t.at(k) == t.at(6 * (k // 6)) for k in range(36))
    assert [rate.at(k) / 1e-3 for k in (0, 11, 12)] == pytest.approx([1.0, 0.8, 0.6])
    assert mdpo(step=2.0, anneal=None).trust.second.step == 2.0


def test_it_controls_a_regulator():
    form = mdpo(m=10, anneal=20_000, gamma=0.95, lr=1e-2, envs=32, horizon=20, hidden=(32,))
    assert regulates(train(form, task=WHERE, steps=20_000, log_every=500))


# ---------------------------------------------------------------------- off-policy


class Fixed:
    """One Gaussian before the tanh, the same in all states."""

    density = staticmethod(SquashedGaussian.density)

    def __init__(self, mean, std):
        self.mean, self.log_std = torch.tensor(mean), torch.tensor(std).log()

    def parameters_of(self, obs):
        shape = (len(obs), 1, 1)
        return self.mean.expand(shape), self.log_std.expand(shape), torch.zeros(len(obs), 1)


def bowl(obs, action, first=None):
    """Q = -(3 / 2) (u - 1)^2, a = tanh(u)."""
    return -1.5 * (torch.atanh(action[None, :, 0]) - 1.0).square()


def test_where_value_and_old_policy_are_gaussian_the_tilted_policy_is_a_gaussian():
    """pi_old exp(t Q) has precision 1 / s^2 + 3 t; the loss is -log Z / t for every action of it,
    and above that on average for any other policy."""
    rows, t = Rows({"obs": torch.zeros(4_000, 1)}), 0.5
    precision = 1 / 0.8**2 + 3 * t
    mean = (-0.3 / 0.8**2 + 3 * t) / precision
    old = Fixed(-0.3, 0.8)
    loss = mirror_ascent(t, 0.0)
    found = loss(Table(pi=Fixed(mean, precision**-0.5), pi_old=old, q=bowl), rows)
    spread = 0.8**2 + 1 / (3 * t)  # Z is a Gaussian integral
    z = (1 + 3 * t * 0.8**2) ** -0.5 * torch.tensor(-0.5 * 1.3**2 / spread).exp()
    torch.testing.assert_close(found, (-z.log() / t).expand(4_000), rtol=1e-3, atol=1e-3)
    for m, s in ((mean + 0.2, precision**-0.5), (mean, 0.9), (-0.3, 0.8)):
        assert loss(Table(pi=Fixed(m, s), pi_old=old, q=bowl), rows).mean() > found.mean() + 0.02


def gradient(loss, nets):
    value = loss["actor"] if isinstance(loss, dict) else loss
    flat = torch.autograd.grad(value.mean(), list(nets.pi.parameters()))
    return torch.cat([g.flatten() for g in flat])


def test_sac_is_the_special_case():
    """Exactly where step = 1 / lam; where the old policy is the present one up to (1 / step - lam)
    grad log pi at given actions, which is 0 on average."""
    spaces, lam = Spaces(3, 2), 0.4
    nets = Table(pi=gaussian((16,))(spaces), q=critic(1, (16,))(spaces),
                 pi_old=gaussian((16,))(spaces))  # fmt: skip
    rows = Rows({"obs": torch.randn(1, 3).expand(80_000, -1), "action": torch.zeros(80_000, 2)})

    def drawn(loss, held=nets):
        torch.manual_seed(5)
        return gradient(loss(held, rows), held)

    sac = drawn(entropic(fixed=lam))
    torch.testing.assert_close(drawn(mirror_ascent(1 / lam, lam)), sac, rtol=1e-4, atol=1e-5)
    same = Table(nets, pi_old=nets.pi)
    torch.manual_seed(5)
    action, _ = nets.pi.sample(rows.obs)
    seen = gradient(nets.pi.logp(rows.obs, action.detach()), nets)
    ours = drawn(mirror_ascent(0.5, lam), same)
    torch.testing.assert_close(ours, sac + (2.0 - lam) * seen, rtol=1e-2, atol=1e-3)
    assert (ours - sac).norm() < 0.1 * sac.norm()
    assert (drawn(mirror_ascent(0.5, lam)) - sac).norm() > 0.1 * sac.norm()


def test_soft_values_and_small_outputs_by_hand():
    nets = Table(q=lambda obs, action: torch.tensor([[3.0], [1.0]]), v=lambda obs: obs.T,
                 pi=Table(sample=lambda obs: (obs, torch.tensor([-2.0]))))  # fmt: skip
    rows = Rows({"obs": torch.tensor([[0.5]])})
    assert soft_value(0.25)(nets, rows).tolist() == [(0.5 - (1.0 + 0.25 * 2.0)) ** 2]
    found = small_outputs()(Table(pi=Fixed(-0.3, 2.0)), rows)
    assert float(found) == pytest.approx(0.09 + torch.tensor(2.0).log().item() ** 2)


SMALL = {"hidden": (32, 32), "batch": 64, "warm": 200, "lr": 3e-3, "tau": 0.05, "envs": 4}


def test_the_old_policy_is_renewed_after_m_updates():
    engine, _ = opened(mdpo_off_policy(m=3, **SMALL))
    for k in range(7):
        same = all(torch.equal(p, q) for p, q in zip(
            engine.bank.pi.parameters(), engine.bank.pi_old.parameters(), strict=True))  # fmt: skip
        assert same == (k % 3 == 0)
        engine.advance(1)


def test_the_off_policy_form_controls_a_regulator():
    form = mdpo_off_policy(m=50, lam=0.05, gamma=0.9, **SMALL)
    assert regulates(train(form, task=WHERE, steps=800, log_every=500))


@pytest.mark.parametrize("form", [mdpo(), mdpo_off_policy()])
def test_the_recipes_come_back_from_json(form):
    assert from_json(to_json(form)) == form


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: mdpo(step=0.0), "positive"), (lambda: mdpo(m=0), "at least one"),
        (lambda: mdpo(anneal=100), "one batch"), (lambda: mdpo_off_policy(step=-1.0), "positive"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(make, what):
    with pytest.raises(InputError, match=what):
        make()
