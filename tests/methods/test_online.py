"""What acts while it learns, against known optima; and policy gradients on control against the same
parts on tokens."""

from dataclasses import replace

import pytest
import torch
from training_counters import Regulator, TaskOf

from surpass.critics.ensembles import critic
from surpass.data.records import Sequences
from surpass.evaluation.rollouts import roll_out
from surpass.forms import Learner, Spaces, log
from surpass.methods.online.action_values import dqn, pqn
from surpass.methods.online.actor_critic import rlpd, sac, td3, tqc, wsrl
from surpass.methods.online.policy_gradients import ppo
from surpass.methods.rlvr.policy_gradients import dapo, dr_grpo, grpo, gspo, reinforce, rloo
from surpass.objectives.greedy import best_action, lambda_returns, truncated_atoms
from surpass.objectives.rows import Rows
from surpass.parts import run
from surpass.policies.token_logps import TokenStats
from surpass.tasks.catalog import TabularTask, task
from surpass.tasks.recording import record
from surpass.tasks.tabular import TabularMDP
from surpass.training.engine import Bank, Engine
from surpass.training.module_losses import Running, gradient_loss
from surpass.training.on_policy import lowered
from surpass.training.rollouts import SequenceRows
from surpass.training.run import train
from surpass.training.streams import open_stream


def corridor(length=5, gamma=1.0, steps=10):
    """A row of states: left costs nothing, right leads on, the last one pays 1 and ends; staying at
    the left end pays 0.2 and ends. The best return is 1, the tempting one 0.2."""
    P = torch.zeros(length, 2, length)
    r = torch.zeros(length, 2)
    for s in range(length):
        P[s, 0, max(s - 1, 0)] = 1.0
        P[s, 1, min(s + 1, length - 1)] = 1.0
    r[1, 0], r[length - 2, 1] = 0.2, 1.0
    ends = torch.zeros(length, dtype=torch.bool)
    ends[0] = ends[-1] = True
    start = torch.zeros(length)
    start[length // 2] = 1.0
    horizon = steps if gamma == 1.0 else None
    mdp = TabularMDP(P, r, start, gamma, horizon, ends)
    return TabularTask("corridor", "", mdp.as_env(steps), mdp=mdp)


def measured(trained, where, episodes=64):
    return roll_out(trained, where, episodes).mean


# ---------------------------------------------------------------------- policy gradients


ON_EPISODES = {
    "reinforce": lambda **sizes: reinforce(lr=0.05, batch=32, **sizes),
    "rloo": lambda **sizes: rloo(beta=0.0, group=8, lr=0.05, batch=32, **sizes),
    "grpo": lambda **sizes: grpo(beta=0.01, group=8, lr=0.05, batch=32, epochs=2, **sizes),
    "dr-grpo": lambda **sizes: dr_grpo(group=8, lr=0.05, batch=32, **sizes),
    "gspo": lambda **sizes: gspo(0.2, 0.2, group=8, lr=0.05, batch=32, **sizes),
    "dapo": lambda **sizes: dapo(group=8, lr=0.05, batch=32, **sizes),
}


@pytest.mark.parametrize("name", ON_EPISODES)
def test_recipes_for_answers_solve_a_tabular_task(name):
    where = corridor()
    best = float(where.mdp.solve().value)
    trained = train(ON_EPISODES[name](horizon=10), task=where, steps=320 * 25, log_every=50)
    assert best == pytest.approx(1.0)
    assert measured(trained, where) >= 0.97 * best


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_recipes_for_answers_balance_a_pole(name):
    recipe = ON_EPISODES[name](horizon=100)
    recipe = replace(recipe, epochs=4, minibatches=2) if name == "grpo" else recipe
    trained = train(recipe, task="cart-pole", steps=3_200 * 30, log_every=100)
    # all that was taught is to hold it for 100 steps; how much longer differs by processor
    assert measured(trained, task("cart-pole")) > 95  # random: 22


def test_ppo_balances_a_pole():
    recipe = ppo(envs=16, horizon=64, epochs=4, minibatches=2, lr=3e-3)
    trained = train(recipe, task="cart-pole", steps=30_000, log_every=500)
    assert measured(trained, task("cart-pole")) > 250


def test_ppo_controls_a_regulator():
    where = TaskOf(Regulator())
    recipe = ppo(envs=32, horizon=20, epochs=4, minibatches=2, lr=1e-2, hidden=(32,), gamma=0.95)
    trained = train(recipe, task=where, steps=20_000, log_every=500)
    assert measured(trained, where) > 1.1 * regulated(where)


def regulation():
    """10 P of the Riccati equation P = 1 + P - P^2 / (P + 1/2), and the best gain P / (P + 1/2)."""
    p = 1.0
    for _ in range(200):
        p = 1.0 + p - p * p / (p + 0.5)
    return 10 * p, p / (p + 0.5)


def regulated(where):
    """The best return from the starts that `measured` has."""
    return measured(lambda x: -regulation()[1] * x, where)


def test_the_regulator_s_best_return_is_that_of_the_riccati_equation():
    p, gain = regulation()
    found = roll_out(lambda x: -gain * x, TaskOf(Regulator()), 6_000, copies=2_000)
    assert abs(found.mean + p / 3.0) < 4 * found.error  # -10 P E[x^2], x uniform on [-1, 1]


# ---------------------------------------------------------------------- one loss on both executors


def test_control_and_tokens_have_one_loss():
    spaces = Spaces(3, n_actions=4)
    form = grpo(beta=0.1, batch=6, group=3, horizon=5)
    learner = lowered(form)
    bank = Bank({name: net(spaces) for name, net in learner.nets.items() if name == "policy"})
    for p in bank.policy.parameters():
        torch.nn.init.normal_(p, std=0.5)
    obs, action = torch.randn(6, 5, 3), torch.randint(4, (6, 5))
    mask = (torch.arange(5) < torch.tensor([5, 3, 4, 5, 1, 2])[:, None]).float()
    columns = {k: torch.randn(6, 5) for k in ("anchor_logp", "behavior_logp", "ref_logp")}
    columns["advantage"] = torch.randn(6, 5)
    group = torch.arange(6) // 3
    rows = SequenceRows({"obs": obs, "action": action, "mask": mask, "group": group, **columns})
    ours = run(learner.update[0].loss, (bank, rows))[0]
    logp = bank.policy.logits(obs.flatten(0, 1)).gather(-1, action.reshape(-1, 1)).reshape(6, 5)
    seq = Sequences(action=action, mask=mask, group=group,
                    behavior_logp=columns["behavior_logp"], batch_size=[6])  # fmt: skip
    theirs = gradient_loss(form, seq, columns, Running())(TokenStats(logp, {}))
    assert torch.equal(ours, theirs)
    parameters = list(bank.policy.parameters())
    for a, b in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters),
                    strict=True):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * float(b.abs().max()))


def test_the_first_update_of_ppo_and_of_an_unclipped_ratio_is_that_of_the_policy_gradient():
    """With one epoch the ratio is 1, so the surrogate's gradient is -E[A grad log pi]."""
    spaces, where = Spaces(4, n_actions=2), task("cart-pole")
    form = lowered(ppo(envs=4, horizon=8, epochs=1, minibatches=1, hidden=(8,)))
    stream = open_stream(form.source, {"task": where}, spaces)
    engine = Engine(form, stream, spaces, compile=False)
    stream.bind(engine, {"task": where})
    stream.before(1)
    rows = stream.sample(stream.tables)
    parameters = list(engine.bank.policy.parameters())
    for p in parameters:
        p.requires_grad_(True)
    loss = run(form.update[0].loss, (engine.bank, rows))[0]
    plain = -(rows.advantage * engine.bank.policy.logp(rows.obs[:, 0], rows.action[:, 0])[:, None])
    for a, b in zip(torch.autograd.grad(loss, parameters),
                    torch.autograd.grad(plain.mean(), parameters), strict=True):  # fmt: skip
        assert torch.allclose(a, b, atol=1e-6)


# ---------------------------------------------------------------------- from replay


@pytest.mark.parametrize("recipe", [sac, td3, tqc])
def test_actor_critics_control_a_regulator(recipe):
    sizes = {"hidden": (32, 32), "batch": 64, "warm": 200, "lr": 3e-3, "tau": 0.05, "envs": 4}
    sizes["gamma"] = 0.9
    more = {"n": 2, "quantiles": 5, "drop": 1} if recipe is tqc else {}
    where = TaskOf(Regulator())
    steps = 1_200 if recipe is td3 else 800  # TD3 moves its actor at every second update
    trained = train(recipe(**sizes, **more), task=where, steps=steps, log_every=500)
    assert measured(trained, where) > 1.1 * regulated(where)


@pytest.mark.parametrize(("double", "dueling"), [(True, False), (False, True)])
def test_dqn_finds_the_exact_values(double, dueling):
    where = corridor(gamma=0.8, steps=20)
    recipe = dqn(double, dueling, gamma=0.8, lr=3e-3, batch=64, every=50, epsilon=0.5, decay=1,
                 warm=300, hidden=(32,), envs=4)  # fmt: skip
    trained = train(recipe, task=where, steps=1_300, log_every=500)
    exact = where.mdp.solve().q[1:-1].float()
    with torch.no_grad():
        found = trained.nets.q.all(torch.eye(5))[0][1:-1]
    assert torch.allclose(found, exact, atol=0.05), (found, exact)


def test_pqn_finds_the_best_policy():
    where = corridor(gamma=0.8, steps=20)
    recipe = pqn(gamma=0.8, lr=3e-3, envs=16, horizon=16, minibatches=4, epsilon=0.3, decay=50,
                 hidden=(32,))  # fmt: skip
    trained = train(recipe, task=where, steps=16 * 16 * 60, log_every=100)
    best = where.mdp.solve().pi[1:-1].argmax(-1)
    assert torch.equal(trained.nets.q.all(torch.eye(5))[0][1:-1].argmax(-1), best)


def regulator_log(where):
    def behave(x):
        return (-0.3 * x + 0.3 * torch.randn_like(x)).clamp(-1, 1)

    return record(where.make(8), behave, 800)


def test_rlpd_acts_once_for_many_updates():
    where = TaskOf(Regulator())
    both = rlpd(n=2, per_step=2, batch=32, warm=100, hidden=(16,))
    trained = train(both, regulator_log(where), where, steps=120, log_every=60)
    assert trained.history[-1]["env.steps"] == 100 + 120 / 2


@torch.no_grad()
def test_wsrl_goes_on_with_the_nets_of_its_first_stage():
    where = TaskOf(Regulator())
    rows = regulator_log(where)
    form = wsrl(60, 2, warm=40, n=2, per_step=2, batch=32, hidden=(16,))
    before = train(form.stages[0].do, rows, where, steps=60)
    after = train(form, rows, where, log_every=1)
    assert after.history[-1]["env.steps"] == 40 + 2 / 2  # warmed up by the policy, then as paid for
    moved = [
        float((a - b).abs().max())
        for a, b in zip(before.nets.parameters(), after.nets.parameters(), strict=True)
    ]
    assert 0 < max(moved) < 2e-3  # two steps of Adam at 3e-4 from where the log left them
    pi = max(float((a - b).abs().max()) for a, b in zip(
        before.nets.pi.parameters(), after.nets.pi.parameters(), strict=True))  # fmt: skip
    assert 0 < pi < 1e-3


# ---------------------------------------------------------------------- parts by hand


class Table(torch.nn.Module):
    """Values of two actions by state number."""

    def __init__(self, values):
        super().__init__()
        self.values = torch.as_tensor(values)  # [n, S, A]

    def all(self, obs):
        return self.values[:, obs[:, 0].long()]


def test_double_q_learning_takes_the_online_choice():
    bank = {"q": Table([[[1.0, 2.0]]]), "q_target": Table([[[5.0, 3.0]], [[6.0, 2.0]]])}
    rows = Rows({"next_obs": torch.zeros(1, 1)})
    assert best_action()(bank, rows).tolist() == [2.0]
    assert best_action(double=False)(bank, rows).tolist() == [5.0]


def test_truncation_drops_the_largest_atoms_of_all_critics():
    class Quantiles(torch.nn.Module):
        def outputs(self, obs, action):
            return torch.tensor([[[1.0, 5.0, 9.0]], [[2.0, 3.0, 4.0]]])

    class Policy(torch.nn.Module):
        def sample(self, obs):
            return torch.zeros(1, 1), torch.tensor([-0.5])

    bank = {"q_target": Quantiles(), "pi": Policy(), "alpha": lambda: torch.tensor(2.0)}
    rows = Rows({"next_obs": torch.zeros(1, 1)})
    found = truncated_atoms(drop=1)(bank, rows)
    assert found.tolist() == [[2.0, 3.0, 4.0, 5.0]]  # of 1 2 3 4 5 9; less 2 * -0.5


def test_lambda_returns_by_hand():
    obs = torch.arange(4.0)[None, :, None]
    seq = Sequences(
        action=torch.zeros(1, 3, dtype=torch.long), mask=torch.ones(1, 3),
        reward=torch.tensor([[1.0, 2.0, 4.0]]), obs=obs[:, :3], next_obs=obs[:, 1:],
        terminated=torch.tensor([[False, False, True]]),
        truncated=torch.tensor([[False, False, False]]), batch_size=[1],
    )  # fmt: skip
    bank = {"q": Table([[[0.0, 0.0], [10.0, 0.0], [0.0, 20.0], [30.0, 0.0]]])}
    g, lam = 0.5, 0.25
    third = 4.0
    second = 2.0 + g * (0.75 * 20.0 + lam * third)
    first = 1.0 + g * (0.75 * 10.0 + lam * second)
    found = lambda_returns(g, lam)(bank, seq).extras["q_target"]
    assert torch.allclose(found, torch.tensor([[first, second, third]]))
    seq.truncated = torch.tensor([[True, False, False]])
    found = lambda_returns(g, lam)(bank, seq).extras["q_target"]
    assert found[0, 0] == pytest.approx(1.0 + g * 10.0)


def test_wsrl_and_rlpd_keep_one_critic_ensemble():
    for form in (rlpd(n=4), wsrl(n=4).stages[1].do):
        assert isinstance(form, Learner)
        assert form.nets["q"] == critic(4, (256, 256), True)
    assert wsrl().stages[0].do.source == log(256, gamma=0.99)
