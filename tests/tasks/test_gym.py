"""The bridge to Gymnasium, both ways."""

import warnings

import numpy as np
import pytest
import torch

from surpass.errors import InputError
from surpass.tasks.catalog import opened
from surpass.tasks.control import CartPole
from surpass.tasks.protocol import VectorEnv

gymnasium = pytest.importorskip("gymnasium")
from surpass.tasks.gym import EnvCrash, GymBatch, from_gym, register  # noqa: E402


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_batch_steps_as_single_environments_do():
    env = from_gym("CartPole-v1", 3, seed=7)
    seeds = [int(s) for s in np.random.SeedSequence(7).generate_state(3)]
    single = [gymnasium.make("CartPole-v1") for _ in range(3)]
    obs = [e.reset(seed=s)[0] for e, s in zip(single, seeds, strict=True)]
    torch.testing.assert_close(env.reset(7), torch.as_tensor(np.stack(obs)))
    generator = seeded(1)
    ends = 0
    for _ in range(80):
        action = env.spaces.sample(3, generator)
        after = env.step(action)
        for i, e in enumerate(single):
            o, r, terminated, truncated, _ = e.step(int(action[i]))
            torch.testing.assert_close(after.final_obs[i], torch.as_tensor(o))
            assert (float(after.reward[i]), bool(after.terminated[i])) == (r, terminated)
            if terminated or truncated:
                o, ends = e.reset()[0], ends + 1
            torch.testing.assert_close(after.obs[i], torch.as_tensor(o))
    assert ends >= 3 and isinstance(env, VectorEnv)


def test_observations_that_were_handed_out_do_not_change():
    env = from_gym("Pendulum-v1", 2, seed=0)
    obs = env.reset(0)
    kept, steps = obs.clone(), []
    for _ in range(3):
        after = env.step(torch.ones(2, 1))
        steps.append((after.obs, after.obs.clone(), after.final_obs, after.final_obs.clone()))
    assert torch.equal(obs, kept)
    for o, o2, f, f2 in steps:
        assert torch.equal(o, o2) and torch.equal(f, f2)


@pytest.mark.parametrize("name", ["Pendulum-v1", "CartPole-v1", "Hopper-v5", "Acrobot-v1"])
def test_a_saved_batch_goes_on_exactly(name):
    if name == "Hopper-v5":
        pytest.importorskip("mujoco")

    def run(env):
        generator = seeded(2)
        out = []
        for _ in range(60):
            after = env.step(env.spaces.sample(2, generator))
            out.append(torch.cat([after.obs.flatten(), after.reward, after.truncated.float()]))
        return torch.stack(out)

    env = from_gym(name, 2, seed=1)
    for _ in range(150):
        env.step(env.spaces.sample(2, seeded(3)))
    held = env.state_dict()
    first = run(env)
    other = from_gym(name, 2, seed=5)
    other.load_state_dict(held)
    assert torch.equal(run(other), first)


def test_discrete_observations_are_one_hot():
    env = from_gym("FrozenLake-v1", 2, is_slippery=False)
    assert env.spaces.obs_dim == 16 and env.spaces.n_actions == 4
    after = env.step(torch.tensor([2, 1]))  # right, down
    assert after.final_obs.argmax(-1).tolist() == [1, 4]
    with pytest.raises(InputError, match=r"\(1,\) expected"):
        from_gym("FrozenLake-v1", 1).step(torch.zeros(2, dtype=torch.long))


def test_an_unknown_id_names_the_extra_and_a_near_one():
    with pytest.raises(
        InputError, match=r"no environment 'Hoper-v5' is installed.*Hopper-v5.*surpass\[control\]"
    ):
        from_gym("Hoper-v5", 1)
    with pytest.raises(InputError, match="is installed"):
        from_gym("ALE/Nothing-v5", 1)


class Brittle(gymnasium.Env):
    """Fails in the fifth step of every copy made but the first."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    made = 0

    def __init__(self):
        self.number = Brittle.made
        Brittle.made += 1

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        if self.t == 5 and self.number == 1:
            raise ZeroDivisionError("the axle broke")
        return np.zeros(1, np.float32), 0.0, False, False, {}


def test_a_crash_says_which_copy_and_why_and_the_batch_can_start_again():
    env = GymBatch("Brittle", Brittle, 3)
    for _ in range(4):
        env.step(torch.zeros(3, dtype=torch.long))
    with pytest.raises(
        EnvCrash, match=r"copy 1 of 3 of Brittle crashed in step 5.*the axle broke"
    ) as e:
        env.step(torch.zeros(3, dtype=torch.long))
    assert "raise ZeroDivisionError" in str(e.value)
    env.reset(0)
    for _ in range(8):
        env.step(torch.zeros(3, dtype=torch.long))
    assert env.envs[1].number == 3


def test_ours_are_registered_and_pass_gymnasiums_own_check():
    from gymnasium.utils.env_checker import check_env

    for id in register():
        env = gymnasium.make(id)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_env(env.unwrapped, skip_render_check=True)
    vector = gymnasium.make_vec("surpass/CartPole-v0", num_envs=4)
    obs, _ = vector.reset(seed=0)
    theirs = CartPole()
    for _ in range(40):
        action = vector.action_space.sample()
        state = {"x": torch.as_tensor(obs), "t": torch.zeros(4, dtype=torch.long)}
        expected = theirs.step(state, torch.as_tensor(action))
        obs, _reward, terminated, _, info = vector.step(action)
        assert terminated.tolist() == expected.terminated.tolist()
        if terminated.any():
            shown = info["final_obs"][terminated]
            torch.testing.assert_close(torch.as_tensor(shown), expected.obs[terminated])


def test_an_environment_and_what_makes_one_are_tasks():
    made = gymnasium.make("CartPole-v1", max_episode_steps=7)
    for task in (opened(made), opened(lambda: gymnasium.make("CartPole-v1", max_episode_steps=7))):
        env = task.make(2, seed=3)
        assert isinstance(env, VectorEnv) and env.n == 2 and task.spaces.n_actions == 2
        torch.testing.assert_close(env.reset(7), from_gym("CartPole-v1", 2).reset(7))
        for _ in range(7):
            after = env.step(torch.tensor([0, 1]))
        assert after.truncated.all()
    bare = made.unwrapped
    bare.spec = None
    with pytest.raises(InputError, match="task=lambda: CartPoleEnv"):
        opened(bare)
    with pytest.raises(InputError, match="makes a single one"):
        opened(gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"))
