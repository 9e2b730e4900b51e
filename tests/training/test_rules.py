"""Gradient rules, projections, virtual steps and two timescales: the same numbers eager, traced for
the compiler and for several seeds at once, and after a restart."""

import pytest
import torch
from training_logs import random_log

from surpass.critics.ensembles import value
from surpass.forms import Learner, adam, ema, log, project, train
from surpass.objectives.descent import divided_by, norm_ball, orthogonal
from surpass.objectives.dice import chi2_dice
from surpass.objectives.rows import Rows
from surpass.parts import needs_of, part
from surpass.policies.acting import mean
from surpass.policies.borrowed import after_step
from surpass.policies.deterministic import deterministic
from surpass.training.compiling import traced
from surpass.training.engine import Engine
from surpass.training.streams import open_stream, spaces_of


@part
def all_rows(nets, rows: Rows, /):
    """The batch is the whole log, in order, so that nothing is random."""
    return {name: rows.log[name] for name in rows.columns if name in rows.log}


@part
def weighted_fit(nets, rows: Rows, /, net: str = "pi"):
    """Cloning, each row weighed by what another net says of its state."""
    weight = torch.sigmoid(nets.weight(rows.obs)[0])
    return weight * (nets[net](rows.obs) - rows.action).square().mean(-1)


@part
def clean_fit(nets, rows: Rows, /, net: str = "pi"):
    """Cloning of the rows with a positive reward."""
    keep = (rows.reward > 0).float()
    return keep * (nets[net](rows.obs) - rows.action).square().mean(-1)


@part
def kept_and_removed(nets, rows: Rows, /):
    """A loss of two terms; the second is there for its size."""
    error = (nets.w(rows.obs) - rows.reward).square().sum(0)
    return {"loss": error, "removed": torch.where(error > 1.0, error, 0.0 * error)}


def form():
    return Learner(
        nets={"v": value(2, (8,)), "w": value(1, (8,)), "weight": value(1, (8,)),
              "pi": deterministic((8,)), "v_target": ema("v", 0.1)},
        update=(
            train("v", chi2_dice(), adam(1e-2), gradient=orthogonal("forward", "backward", 0.7)),
            project("v", norm_ball(1.5)),
            train("w", kept_and_removed(), adam(1e-2), gradient=divided_by("removed", warmup=2)),
            train("pi", weighted_fit(), adam(1e-3)),
            train("weight", after_step(clean_fit(), weighted_fit(), lr=0.5), adam(3e-2), every=2),
        ),
        act=mean(), source=log(60), prepare=(all_rows(),),
    )  # fmt: skip


def engine(**more):
    rows = random_log(n=60)
    spaces = spaces_of(rows)
    recipe = form()
    needs = tuple(n for n in needs_of(recipe) if isinstance(n, str))
    stream = open_stream(recipe.source, {"log": rows}, spaces, needs)
    return Engine(recipe, stream, spaces, **{"compile": False, **more})


def test_traced_equals_eager():
    eager, graph = engine(), engine(compile=True)
    graph.compiler = traced
    for each in (eager, graph):
        each.advance(6)
    for key, tensor in eager.state.items():
        torch.testing.assert_close(graph.state[key], tensor, rtol=1e-4, atol=1e-5, msg=key)
    assert eager.metrics() == pytest.approx(graph.metrics(), rel=1e-4)
    norm = eager.state["net.v.net.weight0"].square().sum((-2, -1)).sqrt()
    assert float(norm.max()) <= 1.5 + 1e-5
    counts = [v for k, v in eager.state.items() if k.endswith(":count")]
    assert [float(c) for c in counts] == [2.0]


def test_seeds_at_once_equal_each_alone():
    together = engine(seeds=2, seed=3)
    together.advance(4)
    for s in range(2):
        alone = engine(seed=3 + s)
        alone.advance(4)
        for key, tensor in alone.state.items():
            if not key.startswith("watch."):
                torch.testing.assert_close(together.state[key][s], tensor, rtol=1e-4, atol=1e-5,
                                           msg=key)  # fmt: skip


def test_a_restart_changes_nothing():
    whole, begun, again = engine(), engine(), engine(seed=9)
    whole.advance(6)
    begun.advance(3)
    tensors, rest = begun.state_dict()
    again.load_state_dict({k: v.clone() for k, v in tensors.items()}, rest)
    again.advance(3)
    for key, tensor in whole.state.items():
        assert torch.equal(again.state[key], tensor), key


def test_a_virtual_step_teaches_which_rows_to_clone():
    """Rows with a positive reward gain weight, whose cloning helps the clean loss."""
    rows = random_log(n=60)
    made = engine()
    before = torch.sigmoid(made.bank["weight"](rows.obs)[0]).detach()
    made.advance(40)
    after = torch.sigmoid(made.bank["weight"](rows.obs)[0]).detach()
    good = rows.reward > 0
    assert float((after - before)[good].mean()) > float((after - before)[~good].mean())
