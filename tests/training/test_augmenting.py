"""Logs from a model of trajectories: consecutive rows, ends, units, and the whole recipe."""

import pytest
import torch
from torch import nn

from surpass.forms import Repeat, Stage
from surpass.methods.generative.augmentation import policy_guided_diffusion
from surpass.methods.offline.behavior_regularized import td3_bc
from surpass.parts import from_json, set_at, to_json
from surpass.tasks.point import point_log
from surpass.training.augmenting import policy_guided, supported
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, spaces_of


class Nothing(nn.Module):
    """The net of independent standard entries."""

    length = 5

    def forward(self, x, level):
        return torch.zeros_like(x)


def test_rows_of_a_segment_follow_one_another():
    log = point_log("medium", 240)
    torch.manual_seed(0)
    made = policy_guided(30, 0.0, 8)({"denoiser": Nothing()}, log)  # type: ignore[arg-type]
    same = made.episode[1:] == made.episode[:-1]
    torch.testing.assert_close(made.obs[1:][same], made.next_obs[:-1][same])
    assert len(made) == 30 * 4 and bool(made.truncated[3::4].all())
    assert bool((made.action.abs() <= 1).all())
    spread = log.obs.std(0) / made.obs.std(0)
    assert bool(((spread > 0.6) & (spread < 1.6)).all())  # in the log's units


class Around(nn.Module):
    """Draws the first two entries of an observation, plus a tenth for each draw before."""

    def sample(self, obs, samples):
        return obs[:, :2] + 0.1 * torch.arange(samples)[:, None, None], None


def test_every_row_gets_the_draws_of_its_own_state():
    log = point_log("medium", 240)
    aim = log.extras["aim"].clone()  # type: ignore[index]
    made = supported(3, size=50)({"pi": Around()}, log)  # type: ignore[arg-type]
    drawn = made.extras["support"].unflatten(-1, (3, 2))  # type: ignore[index]
    for k in range(3):
        torch.testing.assert_close(drawn[:, k], log.obs[:, :2] + 0.1 * k)
    torch.testing.assert_close(made.extras["aim"], aim)  # type: ignore[index]
    assert "support" not in log.extras.keys()  # type: ignore[union-attr]  # noqa: SIM118
    assert made.about == log.about and made.about.name == "point"


def small(rounds=2):
    inner = td3_bc(batch=32)
    for name in ("q", "pi"):
        inner = set_at(inner, f"nets.{name}.hidden", (8, 8))
    return policy_guided_diffusion(
        inner, length=5, count=20, levels=4, rounds=rounds, steps=5, model_steps=10, batch=16,
        width=8,
    )  # fmt: skip


def test_a_run_that_goes_on_reads_the_logs_that_it_made(tmp_path):
    log = point_log("medium", 600)
    whole = train(small(), log, seed=0, compile=False, out=tmp_path)
    again = train(small(), log, seed=0, compile=False, out=tmp_path, resume=True)
    assert len(list(tmp_path.glob("transformed*.parquet"))) == 2
    obs = torch.randn(4, 4)
    torch.testing.assert_close(again.policy.act(obs).action, whole.policy.act(obs).action)


def test_the_traced_update_of_the_model_equals_the_eager_one():
    form, log = small().stages[0].do, point_log("medium", 600)  # type: ignore[union-attr]
    engines = []
    for tracing in (False, True):
        stream = open_stream(form.source, {"log": log}, spaces_of(log))
        engine = Engine(form, stream, spaces_of(log), compile=tracing)
        engine.compiler = traced
        engine.advance(2)
        engines.append(engine)
    for name, tensor in engines[0].state.items():
        torch.testing.assert_close(engines[1].state[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_the_recipe_trains_the_model_once_and_the_learner_round_by_round():
    """Two rounds of sampling; the policy that the second is guided by is the one of the first."""
    form = small()
    assert from_json(to_json(form)) == form
    assert isinstance(form.stages[0], Stage) and isinstance(form.stages[1], Repeat)
    trained = train(form, point_log("medium", 600), seed=0, compile=False)
    assert trained.policy.act(torch.zeros(3, 4)).action.shape == (3, 2)
    assert [h["step"] for h in trained.history] == [pytest.approx(20)]
