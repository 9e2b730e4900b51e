"""EDA: a diffusion model aligned with values becomes the behavior tilted by them."""

from dataclasses import replace

import pytest
import torch
from training_logs import bandit, random_log

from surpass.errors import InputError
from surpass.forms import Transform
from surpass.parts import cosine, from_json, needs_of, to_json
from surpass.registry import recipe
from surpass.training.augmenting import supported
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.run import train
from surpass.training.streams import open_stream, spaces_of


def test_the_recipe_comes_back_from_json():
    form = recipe("eda")()
    assert from_json(to_json(form)) == form


def test_a_single_candidate_is_refused():
    with pytest.raises(InputError, match="1 candidates of a state cannot be compared; take 2"):
        recipe("eda")(candidates=1)


@pytest.mark.parametrize("stage", [0, 3])
def test_the_traced_update_equals_the_eager_one(stage):
    """The gradient of a gradient, in cloning; the loss over candidates, in aligning."""
    form = recipe("eda")(candidates=3, levels=20, fast=4, width=8, hidden=(8, 8), batch=16)
    nets = {**form.stages[1].do.nets, **form.stages[stage].do.nets}
    learner, rows = replace(form.stages[stage].do, nets=nets), random_log()
    if stage:
        pi = form.stages[0].do.nets["pi"](spaces_of(rows))
        rows = supported(3)({"pi": pi}, rows)  # type: ignore[arg-type]
    needs = tuple(n for n in needs_of(learner) if isinstance(n, str))
    engines = []
    for _ in range(2):
        stream = open_stream(learner.source, {"log": rows}, spaces_of(rows), needs)
        engines.append(Engine(learner, stream, spaces_of(rows), compile=False))
    eager, by_graph = engines
    by_graph.compile, by_graph.compiler = True, traced
    for engine in engines:
        engine.advance(3)
    for name, tensor in eager.state.items():
        torch.testing.assert_close(by_graph.state[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def around(center, spread, paid, n=3000):
    """One decision an episode, actions N(center, spread^2), reward a or nothing."""
    log = bandit(n)
    drawn = center + spread * torch.randn(n, 1, generator=torch.Generator().manual_seed(1))
    log.action = drawn.clamp(-1.0, 1.0)
    log.reward = log.action[:, 0] if paid else torch.zeros(n)
    return log


def test_the_aligned_law_is_the_behavior_times_the_exponential_of_the_values():
    """mu exp(5 Q), mu and Q as they were learned: what is drawn (64 candidates go most of the way,
    16 less), and the energy at the smallest noise. Only 300 of the actions have a reward."""
    log, unpaid = around(-0.2, 0.2, True, 300), around(-0.2, 0.2, False)
    form = recipe("eda")(
        5.0, candidates=64, n=1, behavior="unpaid", levels=100, fast=10, width=16, hidden=(32,),
        batch=128,
        lr=cosine(6e-3, 2e-4, steps=350), align_lr=cosine(1e-2, 2e-4, steps=300), pretrain=350,
        judge=350, steps=300,
    )  # fmt: skip
    nets = train(form, log, seed=0, compile=False, unpaid=unpaid).nets
    obs, grid = torch.ones(2000, 1), torch.linspace(-0.9, 0.9, 2000)[:, None]
    torch.manual_seed(0)
    with torch.no_grad():
        before, after = nets["mu"].sample(obs)[0][:, 0], nets["pi"].sample(obs)[0][:, 0]
        weight = (5.0 * nets["q_target"](obs, before[:, None]).amin(0)).softmax(0)
        level = torch.zeros(2000, dtype=torch.long)
        tilted = nets["mu"].energy(obs, grid, level) + 5.0 * nets["q_target"](obs, grid).amin(0)
        found, exact = nets["pi"].energy(obs, grid, level).log_softmax(0), tilted.log_softmax(0)
    assert float(before.mean()) == pytest.approx(-0.2, abs=0.06)
    way = float((weight * before).sum() - before.mean())
    assert way > 0.1
    assert 0.75 < float(after.mean() - before.mean()) / way < 1.15
    assert float((found.exp() * (found - exact)).sum()) < 0.05


def test_candidates_are_drawn_once_before_the_alignment():
    stages = recipe("eda")(candidates=5).stages
    assert [isinstance(s.do, Transform) for s in stages] == [False, False, True, False]
    assert stages[2].do.apply == supported(5)
