"""Batched control against Gymnasium, step by step, and against what is known of each."""

import math

import pytest
import torch

from surpass.errors import InputError
from surpass.tasks.control import Acrobot, CartPole, DiscreteMountainCar, MountainCar, Pendulum
from surpass.tasks.protocol import Batched, Simulator, Spaces, Step, step_and_reset
from surpass.tasks.recording import record

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


ORIGINALS = {
    "Pendulum-v1": Pendulum(dtype=F64),
    "CartPole-v1": CartPole(dtype=F64),
    "MountainCarContinuous-v0": MountainCar(dtype=F64),
    "MountainCar-v0": DiscreteMountainCar(dtype=F64),
    "Acrobot-v1": Acrobot(dtype=F64),
}


@pytest.mark.parametrize("name", ORIGINALS)
def test_every_step_is_gymnasiums(name):
    gymnasium = pytest.importorskip("gymnasium")
    ours, theirs = ORIGINALS[name], gymnasium.make(name)
    theirs.reset(seed=0)
    generator = seeded(1)
    checked = ended = 0
    for episode in range(12):
        state, _obs = ours.reset(1, generator)
        theirs.reset(seed=episode)
        theirs.unwrapped.state = state["x"][0].numpy().copy()
        for _t in range(120 if episode else 1000):
            action = ours.spaces.sample(1, generator)
            if name == "MountainCarContinuous-v0" and episode % 2:
                action = torch.sign(
                    state["x"][:, 1:]
                ).float()  # drives up, so that the top is checked
            if name == "MountainCar-v0" and episode % 2:
                action = 2 * (state["x"][:, 1] > 0).long()
            if name == "CartPole-v1" and episode == 0:
                x = state["x"][0]  # a controller that holds it up, so that truncation is checked
                action = (x @ torch.tensor([0.1, 0.5, 3.0, 1.0], dtype=F64) > 0).long()[None]
            step = ours.step(state, action.double() if action.is_floating_point() else action)
            given = action[0].numpy() if action.dim() == 2 else int(action[0])
            after, reward, terminated, truncated, _ = theirs.step(given)
            tolerance = 1e-5 if name == "MountainCarContinuous-v0" else 2e-6  # it keeps float32
            torch.testing.assert_close(
                step.obs[0].float(), torch.as_tensor(after), atol=tolerance, rtol=1e-5
            )
            assert float(step.reward[0]) == pytest.approx(float(reward), rel=1e-6, abs=1e-6)
            assert bool(step.terminated[0]) == terminated
            assert bool(step.truncated[0]) == (truncated and not terminated)
            checked += 1
            state = step.state
            if terminated or truncated:
                ended += 1
                break
            if name == "MountainCarContinuous-v0":
                state = {**state, "x": torch.as_tensor(theirs.unwrapped.state)[None].double()}
    assert checked > 200
    rare = {"Pendulum-v1": 1, "Acrobot-v1": 1, "MountainCar-v0": 3}
    assert ended >= rare.get(name, 5)


@pytest.mark.parametrize("name", ORIGINALS)
def test_spaces_are_gymnasiums(name):
    gymnasium = pytest.importorskip("gymnasium")
    theirs, ours = gymnasium.make(name), ORIGINALS[name].spaces
    assert theirs.observation_space.shape == (ours.obs_dim,)
    assert theirs.spec.max_episode_steps == ours.horizon
    if ours.discrete:
        assert theirs.action_space.n == ours.n_actions
    else:
        assert theirs.action_space.low.tolist() == list(ours.low)
        assert theirs.action_space.high.tolist() == list(ours.high)


def test_a_hanging_pendulum_without_torque_hangs():
    env = Pendulum(dtype=F64)
    state = {"x": torch.tensor([[math.pi, 0.0]], dtype=F64), "t": torch.zeros(1, dtype=torch.long)}
    for _ in range(50):
        step = env.step(state, torch.zeros(1, 1, dtype=F64))
        state = step.state
        assert float(step.reward[0]) == pytest.approx(-(math.pi**2), abs=1e-9)


def test_gravity_is_what_the_pendulum_falls_by():
    # upright with angle e: the speed after one step is 1.5 g sin(e) dt
    state = {"x": torch.tensor([[0.1, 0.0]], dtype=F64), "t": torch.zeros(1, dtype=torch.long)}
    for g in (10.0, 20.0):
        after = Pendulum(gravity=g, dtype=F64).step(state, torch.zeros(1, 1, dtype=F64))
        assert float(after.state["x"][0, 1]) == pytest.approx(1.5 * g * math.sin(0.1) * 0.05)


@pytest.mark.parametrize("env", [Pendulum(), CartPole(), MountainCar(), Acrobot()])
def test_the_step_vmaps_and_has_gradients(env):
    state, _ = env.reset(6, seeded())
    action = env.spaces.sample(6, seeded(1))
    whole = env.step(state, action)
    split = {k: v.reshape(2, 3, *v.shape[1:]) for k, v in state.items()}
    mapped = torch.vmap(env.step)(split, action.reshape(2, 3, *action.shape[1:]))
    torch.testing.assert_close(mapped.obs.flatten(0, 1), whole.obs)
    torch.testing.assert_close(mapped.reward.flatten(), whole.reward)
    x = state["x"].clone().requires_grad_()
    (g,) = torch.autograd.grad(env.step({**state, "x": x}, action).obs.sum(), x)
    up = env.step({**state, "x": state["x"].double() + 1e-6}, action.double()).obs.sum()
    down = env.step({**state, "x": state["x"].double() - 1e-6}, action.double()).obs.sum()
    assert float(g.sum()) == pytest.approx(float((up - down) / 2e-6), rel=1e-2, abs=1e-2)


def test_a_batch_restarts_what_ended_and_keeps_where_it_ended():
    env = Batched(CartPole(), 64, seed=0)
    obs = env.reset(0)
    ends = 0
    for _t in range(100):
        before = env.state["x"]
        after = env.step(torch.ones(64, dtype=torch.long))
        expected = env.simulator.step({"x": before, "t": env.state["t"]}, torch.ones(64).long())
        torch.testing.assert_close(after.final_obs, expected.obs)
        done = after.terminated | after.truncated
        assert (after.obs[done].abs() <= 0.05).all()
        assert (env.state["t"][done] == 0).all()
        torch.testing.assert_close(after.obs[~done], after.final_obs[~done])
        ends += int(done.sum())
    assert ends > 64
    assert obs.shape == (64, 4)


def test_a_batch_goes_on_from_its_state():
    def run(env):
        generator = seeded(3)
        return torch.stack([env.step(env.spaces.sample(8, generator)).obs for _ in range(250)])

    env = Batched(Pendulum(), 8, seed=1)
    for _ in range(10):
        env.step(torch.zeros(8, 1))
    held = env.state_dict()
    first = run(env)
    other = Batched(Pendulum(), 8, seed=99)
    other.load_state_dict(held)
    assert torch.equal(run(other), first)


def test_compiled_steps_are_the_eager_steps():
    eager, compiled = Batched(Pendulum(), 32, seed=5), Batched(Pendulum(), 32, seed=5, compile=True)
    generator = seeded(6)
    for _ in range(30):
        action = 4 * torch.rand(32, 1, generator=generator) - 2
        a, b = eager.step(action), compiled.step(action)
        torch.testing.assert_close(a.obs, b.obs, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(a.reward, b.reward, atol=1e-4, rtol=1e-4)


def test_records_are_whole_episodes_in_order_with_log_probs():
    env = Batched(CartPole(), 7, seed=2)
    generator = seeded(7)

    def act(obs):
        return torch.randint(2, (len(obs),), generator=generator), torch.full(
            (len(obs),), 0.5
        ).log()

    log = record(env, act, 500, seed=3)
    lengths = torch.bincount(log.episode)
    assert int(lengths.sum()) == len(log) >= 500
    assert (log.episode.diff() >= 0).all() and (log.episode.diff() <= 1).all()
    last = lengths.cumsum(0) - 1
    assert log.terminated[last].all() and int(log.terminated.sum()) == len(lengths)
    inside = torch.ones(len(log), dtype=torch.bool)
    inside[last] = False
    torch.testing.assert_close(log.next_obs[:-1][inside[:-1]], log.obs[1:][inside[:-1]])
    state = {"x": log.obs, "t": torch.zeros(len(log), dtype=torch.long)}
    torch.testing.assert_close(CartPole().step(state, log.action).obs, log.next_obs)
    assert float(log.behavior_logp.exp().mean()) == pytest.approx(0.5)


def test_cut_records_are_truncated_where_they_are_cut():
    env = Batched(Pendulum(), 4, seed=2)
    log = record(env, lambda obs: torch.zeros(len(obs), 1), 1200, seed=3, whole=False)
    assert len(log) == 1200
    assert torch.bincount(log.episode).tolist() == [200, 100] * 4
    assert not log.terminated.any() and int(log.truncated.sum()) == 8


def test_confusing_truncation_with_termination_gives_a_wrong_value():
    """One a step for ever, cut every 5 steps: worth 1 / (1 - 0.9) = 10, not 5 steps."""

    class Forever:
        spaces = Spaces(1, n_actions=2, horizon=5)
        noise_dim = 0

        def reset(self, n, generator=None):
            return {"t": torch.zeros(n, dtype=torch.long)}, torch.ones(n, 1)

        def step(self, state, action, noise=None):
            t = state["t"] + 1
            never = torch.zeros_like(t, dtype=torch.bool)
            ones = torch.ones(len(t))
            return Step({"t": t}, ones[:, None], ones, never, t >= 5)

    log = record(Batched(Forever(), 3), lambda obs: torch.zeros(len(obs), dtype=torch.long), 60)

    def value(end):
        v = 0.0
        for _ in range(500):
            v = float((log.reward + 0.9 * (~end) * v).mean())
        return v

    assert value(log.terminated) == pytest.approx(10.0, abs=1e-3)
    assert value(log.terminated | log.truncated) == pytest.approx(1 / (1 - 0.9 * 0.8), abs=1e-3)


def test_wrong_actions_are_refused():
    env = Batched(Pendulum(), 4)
    with pytest.raises(InputError, match=r"\(4, 1\) expected"):
        env.step(torch.zeros(4))
    with pytest.raises(InputError, match="floating-point"):
        env.step(torch.zeros(4, 1, dtype=torch.long))
    with pytest.raises(InputError, match="whole numbers"):
        Batched(CartPole(), 2).step(torch.zeros(2))


def test_simulators_keep_the_protocol():
    for env in ORIGINALS.values():
        assert isinstance(env, Simulator)
        state, _ = env.reset(3, seeded())
        fresh = env.reset(3, seeded(1))
        again = step_and_reset(
            env, {**state, "t": state["t"] + 10_000}, env.spaces.sample(3), fresh
        )
        assert (again[0]["t"] == 0).all()
        torch.testing.assert_close(again[1].obs, fresh[1])
