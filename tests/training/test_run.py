"""A whole run: it reproduces, resumes bit by bit after a kill, and refuses what does not fit."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from training_logs import bandit, random_log

from surpass.data.records import About
from surpass.errors import InputError
from surpass.forms import Learner, log
from surpass.forms import train as train_step
from surpass.methods.offline.implicit import iql
from surpass.methods.online.actor_critic import sac
from surpass.objectives.rows import Rows
from surpass.parts import set_at
from surpass.policies.acting import mean
from surpass.policies.deterministic import deterministic
from surpass.training import checkpoint
from surpass.training.run import load_trained, train

_CHILD = """
import sys
from test_run import small
from training_logs import random_log
from surpass.training.run import train
train(small(), random_log(), steps=int(sys.argv[2]), out=sys.argv[1], resume=True,
      log_every=5, save_every=5, compile=False)
"""


def small(**hyper):
    form = iql(**hyper)
    for name in ("v", "q", "pi"):
        form = set_at(form, f"nets.{name}.hidden", (8, 8))
    return set_at(form, "source.size", 16)


def tensors_of(trained):
    return {k: v.detach().clone() for k, v in trained.nets.state_dict().items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def run(**more):
    return train(small(), random_log(), **{"steps": 30, "compile": False, "log_every": 10, **more})


def test_a_seed_reproduces_a_run_and_leaves_torchs_generator_alone():
    torch.manual_seed(1)
    first = run(seed=4)
    after = torch.rand(3)
    torch.manual_seed(99)
    assert_equal(tensors_of(run(seed=4)), tensors_of(first))
    other = tensors_of(run(seed=5))
    assert not torch.equal(other["q.net.weight0"], first.nets.q.net.weight0)
    torch.manual_seed(1)
    torch.testing.assert_close(torch.rand(3), after)


def test_a_run_that_was_killed_goes_on_bit_by_bit(tmp_path):
    whole = run(steps=400, log_every=5)
    out = tmp_path / "run"
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), str(here.parent.parent)])
    env = {**os.environ, "PYTHONPATH": paths, "SURPASS_COMPILE": "0"}
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(out), "400"], env=env)
    deadline = time.monotonic() + 120
    while not (out / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    _, info = checkpoint.read_tensors(out / "checkpoint.safetensors")
    assert 0 < info["engine"]["step"] < 400
    resumed = run(steps=400, out=out, resume=True, log_every=5, save_every=5)
    assert_equal(tensors_of(resumed), tensors_of(whole))
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 400


@pytest.mark.parametrize("task", [None, "point"])
def test_what_is_logged_goes_on_from_a_checkpoint_between_two_marks(tmp_path, task):
    def crash(step, metrics, trained):
        if step == 60:
            raise RuntimeError

    form = small() if task is None else sac(warm=20, batch=8, hidden=(8,))
    data = random_log() if task is None else None

    def go(name, **more):
        train(form, data, task, steps=110, out=tmp_path / name, log_every=30, compile=False, **more)
        return (tmp_path / name / "log.jsonl").read_text()

    whole = go("whole")
    with pytest.raises(RuntimeError):
        go("cut", save_every=21, callback=crash)
    assert go("cut", save_every=21, resume=True) == whole


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    def interrupt(step, metrics, trained):
        if step == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"update 20 is kept in .*; the same command"):
        run(out=tmp_path, callback=interrupt)
    assert_equal(tensors_of(run(out=tmp_path, resume=True)), tensors_of(run()))


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.write_tensors(path, {"a": torch.ones(3)}, {"step": 1})

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device; the one before it was kept"):
        checkpoint.write_tensors(path, {"a": torch.zeros(3)}, {"step": 2})
    tensors, info = checkpoint.read_tensors(path)
    assert info["step"] == 1 and torch.equal(tensors["a"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    run(out=tmp_path)
    with pytest.raises(InputError, match="is of another recipe or other hyperparameters"):
        train(small(tau=0.9), random_log(), steps=30, out=tmp_path, resume=True, compile=False)
    with pytest.raises(InputError, match="is of another spaces"):
        train(small(), random_log(obs=5), steps=30, out=tmp_path, resume=True, compile=False)
    with pytest.raises(InputError, match="is of seed 0, not 3"):
        run(out=tmp_path, resume=True, seed=3)
    path = tmp_path / "checkpoint.safetensors"
    tensors, info = checkpoint.read_tensors(path)
    checkpoint.write_tensors(path, tensors, {**info, "format": 99})
    with pytest.raises(InputError, match="has format 99, and this version reads format 1"):
        run(out=tmp_path, resume=True)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged"):
        run(out=tmp_path, resume=True)


def test_a_saved_policy_acts_the_same_in_the_units_of_its_environment(tmp_path):
    rows = random_log()
    rows.action = 3.0 * rows.action + 1.0
    rows = rows.described(About(spaces={"action_low": -2.0, "action_high": 4.0}))
    form = set_at(small(), "source.options", {"normalize": True})
    trained = train(form, rows, steps=20, compile=False)
    trained.save(tmp_path)
    again = load_trained(tmp_path)
    obs = rows.obs[:7]
    np.testing.assert_array_equal(again.predict(obs), trained.predict(obs))
    mean_, std = trained.policy.mean, trained.policy.std
    inside = trained.nets.pi((obs - mean_) / std).detach()
    np.testing.assert_allclose(trained.predict(obs), 1.0 + 3.0 * inside.numpy(), rtol=1e-6)
    assert again.form == form


def test_seeds_are_trained_one_after_the_other_on_a_cpu():
    both = run(seeds=2, seed=7)
    assert [len(both.seeds), both.seeds[0].nets is both.nets] == [2, True]
    assert_equal(tensors_of(both.seeds[1]), tensors_of(run(seed=8)))


def test_the_callback_sees_losses_and_may_stop_the_run():
    seen = []

    def callback(step, metrics, trained):
        seen.append((step, sorted(metrics), trained.predict(np.zeros(3)).shape))
        return step == 20

    run(callback=callback)
    assert seen == [(10, ["pi", "q", "v"], (2,)), (20, ["pi", "q", "v"], (2,))]


def test_an_evaluation_is_logged(tmp_path):
    run(out=tmp_path, evaluate=lambda p: {"score": float(p.spaces.obs_dim)}, evaluate_every=20)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    found = {line["step"]: line.get("evaluation.score") for line in lines}
    assert found == {10: None, 20: 3.0, 30: 3.0}


def test_a_function_fits_a_slot_and_its_file_asks_for_the_recipe(tmp_path):
    def squared(nets, rows: Rows):
        return (nets.pi(rows.obs) - rows.action).square().sum(-1)

    from surpass.parts import as_part

    form = Learner(nets={"pi": deterministic((8,))}, update=(train_step("pi", as_part(squared)),),
                   act=mean(), source=log(16))  # fmt: skip
    trained = train(form, bandit(n=50), steps=4, compile=False)
    trained.save(tmp_path)
    with pytest.raises(InputError, match="hand the recipe in too"):
        load_trained(tmp_path)
    np.testing.assert_array_equal(
        load_trained(tmp_path, form).predict([[1.0]]), trained.predict([[1.0]])
    )


def test_hyperparameters_reach_a_recipe_named_by_its_key_and_never_get_lost():
    trained = train("iql", random_log(), steps=1, compile=False, tau=0.9, batch=8, hidden=(8,))
    assert trained.form == iql(tau=0.9, batch=8, hidden=(8,)) != iql()
    with pytest.raises(InputError, match=r"tau=0.9 is neither an argument of train nor a role"):
        run(tau=0.9)
    with pytest.raises(InputError, match=r"tow=0.9 is neither"):
        train("iql", random_log(), steps=1, compile=False, tow=0.9)


def test_what_is_missing_is_asked_for():
    with pytest.raises(InputError, match="say how many updates"):
        train(small(), random_log())
    with pytest.raises(InputError, match="needs data"):
        train(small(), steps=1)
    with pytest.raises(InputError, match="resume needs the out"):
        run(resume=True)
