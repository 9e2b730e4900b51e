"""Streams: what is drawn, which columns are derived, and what is refused."""

import pytest
import torch
from training_logs import random_log

from surpass.data.records import About, Transitions
from surpass.errors import InputError
from surpass.forms import Spaces, beside, log, mix
from surpass.objectives.rows import discounted, span_of
from surpass.training.streams import (
    LogStream,
    next_action,
    open_stream,
    return_to_go,
    spaces_of,
    unit_actions,
)


def counting_log(ends, truncated=()):
    """Rows 0, 1, 2 ...: obs is the number of the row, the reward too; `ends` terminate."""
    n = 8
    numbers = torch.arange(n).float()
    terminated = torch.zeros(n, dtype=torch.bool)
    cut = torch.zeros(n, dtype=torch.bool)
    terminated[list(ends)] = True
    cut[list(truncated)] = True
    episode = torch.cat([torch.zeros(1), (terminated | cut)[:-1].float().cumsum(0)]).long()
    return Transitions(
        obs=numbers[:, None], action=numbers[:, None] / 10, reward=numbers,
        next_obs=numbers[:, None] + 1, terminated=terminated, truncated=cut, episode=episode,
        batch_size=[n],
    )  # fmt: skip


def test_returns_to_go_restart_at_every_end():
    log = counting_log(ends=(2,), truncated=(5,))
    found = return_to_go(log, log.reward, 0.5)
    want = [0 + 0.5 * 1 + 0.25 * 2, 1 + 0.5 * 2, 2, 3 + 2 + 5 / 4, 4 + 2.5, 5, 6 + 3.5, 7]
    torch.testing.assert_close(found, torch.tensor(want))


def test_the_next_action_stays_within_its_episode():
    log = counting_log(ends=(2,))
    found = next_action(log, log.action)[:, 0]
    torch.testing.assert_close(found[:4] * 10, torch.tensor([1.0, 2.0, 2.0, 4.0]))
    assert found[7] * 10 == pytest.approx(7.0)


def test_an_n_step_window_sums_and_stops_where_its_episode_ends():
    rows = counting_log(ends=(3,), truncated=(6,))
    stream = LogStream(rows, log(64, view="n_step", n=3), spaces_of(rows), ("next_action",))
    drawn = stream.sample(stream.tables)
    totals, factors = discounted(drawn, 0.5), span_of(drawn, 0.5)
    for index, total, factor, after, ended, then in zip(
        drawn.index.tolist(), totals, factors, drawn.next_obs[:, 0], drawn.terminated,
        drawn.next_action[:, 0], strict=True,
    ):  # fmt: skip
        last = min(index + 2, 3 if index <= 3 else 6 if index <= 6 else 7)
        want = sum(0.5**k * (index + k) for k in range(last - index + 1))
        assert total == pytest.approx(want)
        assert factor == pytest.approx(0.5 ** (last - index + 1))
        assert (after, ended) == (last + 1, float(last == 3))
        follows = last if last in (3, 6, 7) else last + 1  # behind an end the last action again
        assert then == pytest.approx(follows / 10, abs=1e-6)


def test_rows_are_drawn_uniformly_or_by_weight():
    rows = random_log(n=4)
    rows.weight = torch.tensor([0.0, 1.0, 2.0, 5.0])
    spaces = spaces_of(rows)
    by_weight = LogStream(rows, log(8000, by_weight=True), spaces)
    share = torch.bincount(by_weight.sample(by_weight.tables).index, minlength=4) / 8000
    torch.testing.assert_close(share, torch.tensor([0, 1, 2, 5]) / 8.0, atol=0.02, rtol=0.0)
    uniform = LogStream(rows, log(8000), spaces)
    drawn = uniform.sample(uniform.tables)
    share = torch.bincount(drawn.index, minlength=4) / 8000
    torch.testing.assert_close(share, torch.full((4,), 0.25), atol=0.02, rtol=0.0)
    torch.testing.assert_close(drawn.weight, rows.weight[drawn.index] / 2.0)


def test_observations_are_standardized_and_actions_mapped_to_the_unit_box():
    rows = random_log()
    rows.obs, rows.next_obs = rows.obs * 5 + 3, rows.next_obs * 5 + 3
    rows.action = rows.action * 2 + 1
    rows = rows.described(About(spaces={"action_low": -1.0, "action_high": 3.0}))
    stream = LogStream(rows, log(8, normalize=True, reward_scale=2.0, reward_shift=-1.0),
                       spaces_of(rows))  # fmt: skip
    both = torch.cat([stream.tables["obs"], stream.tables["next_obs"]])
    torch.testing.assert_close(both.mean(0), torch.zeros(3), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(both.std(0), torch.ones(3), atol=1e-2, rtol=0.0)
    torch.testing.assert_close(stream.tables["action"], (rows.action - 1) / 2)
    torch.testing.assert_close(stream.tables["reward"], rows.reward * 2 - 1)


def test_a_mix_keeps_its_shares_and_marks_its_rows():
    a, b = random_log(seed=1), random_log(seed=2)
    source = mix(30, old=(2 / 3, log(20, role="old")), new=(1 / 3, log(10, role="new")))
    stream = open_stream(source, {"old": a, "new": b}, spaces_of(a))
    rows = stream.sample(stream.tables)
    assert rows.sources == ("old", "new")
    assert torch.bincount(rows.source).tolist() == [20, 10]
    torch.testing.assert_close(rows.obs[:20], a.obs[rows.index[:20]])
    torch.testing.assert_close(rows.obs[20:], b.obs[rows.index[20:]])


def test_weights_of_one_log_of_a_mix_count_and_rows_without_count_once():
    a, b = random_log(n=30, seed=1), random_log(n=30, seed=2)
    a.weight = torch.linspace(0.5, 1.5, 30)  # 1 on average
    source = mix(8, old=(0.5, log(4, role="old")), new=(0.5, log(4, role="new")))
    stream = open_stream(source, {"old": a, "new": b}, spaces_of(a))
    rows = stream.sample(stream.tables)
    torch.testing.assert_close(rows.weight, torch.cat([a.weight[rows.index[:4]], torch.ones(4)]))


@pytest.mark.parametrize("together", [
    mix(8, old=(0.5, log(4, normalize=True)), new=(0.5, log(4))),
    beside(log(8), other=log(3, normalize=True)),
])  # fmt: skip
def test_what_one_of_several_sources_standardizes_is_refused(together):
    rows = random_log()
    with pytest.raises(InputError, match="would standardize observations by itself"):
        open_stream(together, {"log": rows}, spaces_of(rows))


def test_sources_stand_beside_each_other_each_of_its_own_size():
    rows = random_log()
    form = beside(log(8), other=log(3, "segments", n=2))
    stream = open_stream(form, {"log": rows}, spaces_of(rows), ())
    drawn = stream.sample(stream.tables)
    assert drawn.obs.shape[0] == 8 and drawn.columns["other.obs"].shape[:2] == (3, 2)
    place = {tuple(o.tolist()): i for i, o in enumerate(rows.obs)}
    for obs, action in zip(drawn.obs, drawn.action, strict=True):
        torch.testing.assert_close(action, rows.action[place[tuple(obs.tolist())]])
    for obs, reward in zip(drawn.columns["other.obs"], drawn.columns["other.reward"], strict=True):
        torch.testing.assert_close(reward[0], rows.reward[place[tuple(obs[0].tolist())]])


def test_bounds_come_from_the_log_or_from_what_it_shows():
    rows = random_log()
    assert spaces_of(rows) == Spaces(3, 2, 0, (-1.0, -1.0), (1.0, 1.0))
    rows.note = None
    assert spaces_of(rows).low == (-1.0, -1.0)
    rows.action = rows.action * 7
    found = spaces_of(rows)
    torch.testing.assert_close(torch.tensor(found.high), rows.action.amax(0))


def test_an_action_that_never_changes_stands_at_the_lower_end():
    rows = random_log()
    rows.note = None
    rows.action[:, 1] = 100.0
    unit = unit_actions(rows.action, spaces_of(rows))
    torch.testing.assert_close(unit[:, 1], torch.full_like(unit[:, 1], -1.0))
    first = rows.action[:, 0]
    want = 2 * (first - first.min()) / (first.max() - first.min()) - 1
    torch.testing.assert_close(unit[:, 0], want, atol=1e-5, rtol=0)


def _broken(**columns):
    rows = random_log(n=10)
    for name, value in columns.items():
        setattr(rows, name, value)
    return rows


def test_bad_input_is_named_with_its_row():
    nan = torch.zeros(10)
    nan[6] = float("nan")
    with pytest.raises(InputError, match="reward is NaN or infinite in row 6"):
        LogStream(_broken(reward=nan), log(), spaces_of(random_log()))
    with pytest.raises(InputError, match="reward is NaN or infinite in row 0"):
        LogStream(_broken(reward=torch.full((10,), float("inf"))), log(), spaces_of(random_log()))
    far = random_log(n=10).action.clone()
    far[4, 1] = 3.0
    with pytest.raises(InputError, match=r"action 3 in row 4, dimension 1 .* \[-1, 1\]"):
        spaces_of(_broken(action=far))
    with pytest.raises(InputError, match=r"obs is \[10, 3\], but next_obs is \[10, 5\]"):
        LogStream(_broken(next_obs=torch.zeros(10, 5)), log(), spaces_of(random_log()))
    with pytest.raises(InputError, match="handed in as 'expert'"):
        open_stream(log(role="expert"), {}, Spaces(1, 1))
    with pytest.raises(InputError, match="needs the column 'danger'"):
        LogStream(random_log(), log(), spaces_of(random_log()), needs=("danger",))
    with pytest.raises(InputError, match=r"asks for the column 'rewards' .did you mean 'reward'"):
        stream = LogStream(random_log(), log(), spaces_of(random_log()))
        _ = stream.sample(stream.tables).rewards


def test_segments_stay_within_their_episode():
    """Each row of a segment is the next row of its episode; the mask ends where the episode
    does."""
    rows = random_log(n=60, episode=7)
    rows.terminated = torch.zeros(60, dtype=torch.bool)
    rows.truncated = torch.arange(60) % 7 == 6
    rows.reward = torch.arange(60.0)
    for whole in (False, True):
        source = log(32, "segments", n=4, whole=whole)
        stream = LogStream(rows, source, spaces_of(rows), ("age",))
        batch = stream.sample(stream.tables)
        steps = batch.mask.sum(1)
        assert bool((steps == 4).all()) == whole
        for b in range(32):
            used = int(steps[b])
            first = int(batch.index[b])
            assert batch.reward[b, :used].tolist() == list(range(first, first + used))
            assert batch.age[b, :used].tolist() == [(first + i) % 7 for i in range(used)]
            assert used == 4 or (first + used) % 7 == 0 or first + used == 60
    with pytest.raises(InputError, match="no episode of the log has 8 rows"):
        LogStream(rows, log(4, "segments", n=8, whole=True), spaces_of(rows))


def test_whole_segments_are_drawn_by_weight_among_those_that_fit():
    """Two episodes of 7 rows: segments of 5 begin in rows 0, 1, 2 and 7, 8, 9."""
    rows = random_log(n=14, episode=7)
    rows.terminated = torch.zeros(14, dtype=torch.bool)
    rows.weight = torch.arange(14.0)
    source = log(8000, "segments", n=5, whole=True, by_weight=True)
    stream = LogStream(rows, source, spaces_of(rows))
    batch = stream.sample(stream.tables)
    share = torch.bincount(batch.index, minlength=14) / 8000
    wanted = torch.tensor([0.0, 1, 2, 0, 0, 0, 0, 7, 8, 9, 0, 0, 0, 0]) / 27
    torch.testing.assert_close(share, wanted, atol=0.02, rtol=0.0)
    assert bool((batch.mask == 1).all())
    rows.weight = (torch.arange(14) > 9).float()
    with pytest.raises(InputError, match="no episode that is drawn at all has 5 rows"):
        LogStream(rows, source, spaces_of(rows))


def test_rewards_are_scaled_so_that_returns_span_the_length_of_an_episode():
    """Episodes of 3 and 5 rows return 0 + 1 + 2 = 3 and 3 + ... + 7 = 25: 5 / 22."""
    rows = counting_log([2, 7])
    stream = LogStream(rows, log(4, reward_scale="range"), spaces_of(rows))
    torch.testing.assert_close(stream.tables["reward"], rows.reward * 5 / 22)
    with pytest.raises(InputError, match="by a number or by 'range', not 'rnage'"):
        LogStream(rows, log(4, reward_scale="rnage"), spaces_of(rows))
