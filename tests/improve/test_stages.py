import pytest
import torch

from surpass.errors import InputError
from surpass.improve.stages import folds_of, plan_stages


def test_shares_of_rows():
    plan = plan_stages(1000, seed=3)
    assert plan.bounds == ((300, 500), (500, 750), (750, 1000))
    assert sorted(plan.order.tolist()) == list(range(1000))
    assert plan.scored_units == 700
    assert not set(plan.learn(1).tolist()) & set(plan.score(1).tolist())
    assert torch.equal(plan_stages(1000, seed=3).order, plan.order)
    assert not torch.equal(plan_stages(1000, seed=4).order, plan.order)


def test_time_orders_the_stages():
    time = torch.tensor([5.0, 1.0, 3.0, 2.0, 4.0, 9.0, 7.0, 8.0, 6.0, 0.0])
    plan = plan_stages(10, time=time)
    assert time[plan.order].tolist() == sorted(time.tolist())
    assert plan.by_time


@pytest.mark.parametrize("timed", [False, True])
def test_units_are_never_split(timed):
    group = torch.randint(0, 60, (900,), generator=torch.Generator().manual_seed(0))
    time = torch.rand(900, dtype=torch.float64) if timed else None
    plan = plan_stages(900, group=group, time=time, seed=1)
    parts = [plan.learn(0)] + [plan.score(j) for j in range(3)]
    assert sum(map(len, parts)) == 900
    seen = [set(group[p].tolist()) for p in parts]
    for i in range(4):
        for j in range(i):
            assert not seen[i] & seen[j]
    assert plan.largest_unit == int(group.bincount().max())
    assert plan.scored_units == sum(map(len, seen[1:]))
    if timed:  # units come in the order of their first rows
        first = [float(time[group == g].min()) for g in group[plan.order].unique_consecutive()]
        assert first == sorted(first)


def test_too_few_units():
    with pytest.raises(InputError, match="too few"):
        plan_stages(900, group=torch.arange(900) % 2)


def test_folds_keep_units_together_and_even():
    unit = torch.arange(90).repeat_interleave(4)
    fold = folds_of(unit, 3, seed=0)
    assert (fold.view(90, 4) == fold.view(90, 4)[:, :1]).all()
    assert torch.bincount(fold).tolist() == [120, 120, 120]


def test_fewer_units_than_folds_are_refused():
    assert folds_of(torch.tensor([4, 4, 7, 9]), 3, seed=0).unique().tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="2 units are too few for 3 folds"):
        folds_of(torch.tensor([4, 4, 7, 7]), 3, seed=0)
