"""Gradient rules against vectors computed by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surpass.errors import InputError
from surpass.objectives.descent import divided_by, norm_ball, orthogonal
from surpass.parts import initial_state, run
from surpass.training.descent import Descending


def descent(**gradients):
    """Terms linear in parameters a [2] and b [1], so that their gradients are known."""
    parameters = {"a": torch.tensor([0.3, -0.4]), "b": torch.tensor([2.0])}

    def terms_at(p):
        long = torch.cat([p["a"], p["b"]])
        return {n: (torch.tensor(g) * long).sum() for n, g in gradients.items()}

    terms, pull = torch.func.vjp(terms_at, parameters)
    return Descending(terms, pull, parameters, terms_at)


def long(gradient):
    return torch.cat([gradient["a"], gradient["b"]])


def test_the_projected_term_keeps_what_is_orthogonal_over_all_parameters():
    d = descent(value=[0.5, 0.0, 0.0], forward=[1.0, 2.0, 2.0], backward=[3.0, 0.0, 3.0])
    # <f, b> = 9, |f|^2 = 9: b - f = (2, -2, 1), orthogonal to f
    found = long(orthogonal("forward", "backward", weight=0.5)(d))
    torch.testing.assert_close(found, torch.tensor([0.5 + 1 + 1, 2 - 1, 2 + 0.5]))


vectors = st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3)


@given(vectors, vectors, st.floats(0, 2))
def test_the_projected_part_never_moves_the_kept_term(f, b, weight):
    d = descent(forward=f, backward=b)
    kept = torch.tensor(f)
    added = long(orthogonal("forward", "backward", weight)(d)) - kept
    if kept.norm() > 1e-2:
        assert float(added @ kept) == pytest.approx(0.0, abs=1e-3)
    else:  # nothing to be orthogonal to
        assert added.norm() <= weight * torch.tensor(b).norm() + 1e-3


def test_division_starts_when_clipping_removes_more_than_it_used_to():
    rule = divided_by("removed", warmup=3)
    state = initial_state(rule)
    factors = []
    for size in (0.0, 2.0, 4.0, 1.0, 8.0, 0.0, 1.0):
        g, state = run(
            rule, (descent(loss=[1.0, 0.0, 0.0], removed=[0.0, size, 0.0]),), state=state
        )
        factors.append(float(g["a"][0]))
    # the medians of what clipped: 2; (2, 4) -> 2; (1, 2, 4) -> 2; then it stays 2
    assert factors == pytest.approx([1.0, 1.0, 0.5, 1.0, 0.25, 1.0, 1.0])
    literal = divided_by("removed", literal=True)
    g, _ = run(literal, (descent(loss=[1.0, 0.0, 0.0], removed=[0.0, 0.5, 0.0]),))
    assert float(g["a"][0]) == pytest.approx(2.0)


def test_a_term_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"the term 'forwards' .did you mean 'forward'"):
        orthogonal("forwards", "backward")(descent(forward=[1.0, 0, 0], backward=[0, 1.0, 0]))


def test_terms_can_be_asked_for_at_other_parameters():
    d = descent(loss=[1.0, 2.0, 3.0])
    moved = {"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([1.0])}
    assert float(d.at(moved)["loss"]) == 6.0
    assert float(d.terms["loss"]) == pytest.approx(0.3 - 0.8 + 6.0)


def test_a_matrix_outside_the_ball_comes_back_to_its_surface():
    inside = torch.tensor([[0.3, 0.4]])
    weights = torch.stack([10 * inside, inside])  # two members of an ensemble
    found = norm_ball(2.0)({"net.weight0": weights, "net.bias0": torch.full((2, 1, 3), 9.0)})
    torch.testing.assert_close(found["net.weight0"], torch.stack([4 * inside, inside]))
    assert (found["net.bias0"] == 9.0).all()
