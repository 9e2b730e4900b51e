"""The cache against small logs worked out by hand, and against all that could have been done."""

from functools import cache as remembered

import numpy as np
import pytest

from surpass.data.access_log import Accesses
from surpass.errors import InputError
from surpass.tasks.cache_policies import (
    LRU,
    Belady,
    Scored,
    best_rule,
    gdsf,
    largest_first,
    lfu,
    lru_by_size,
    lru_over_size,
)
from surpass.tasks.web_cache import FEATURES, most_hits, simulate, trap_workload

KB = 1024


def asked(objects, sizes=None, ttl=1e9, gap=1.0):
    """A log from the letters of what is asked for."""
    known = {name: i for i, name in enumerate(dict.fromkeys(objects))}
    which = np.array([known[o] for o in objects])
    size = np.array([(sizes or {}).get(o, 1) * KB for o in objects])
    n = len(which)
    return Accesses(gap * np.arange(n, dtype=float), which, size, np.full(n, ttl), np.ones(n))


def hits(log, capacity, policy):
    return "".join("h" if h else "." for h in simulate(log, capacity * KB, policy).hit)


def test_the_least_recently_asked_for_goes():
    assert hits(asked("abacabb"), 2, LRU()) == "..h.h.h"  # c drives b out, b drives c out


def test_the_fewest_hits_go():
    # c and then d drive out the other newcomer, never a with its hits
    assert hits(asked("aabcbda"), 2, lfu()) == ".h....h"


def test_the_largest_goes():
    log = asked("abcab", {"a": 3, "b": 1, "c": 2})
    assert hits(log, 5, largest_first()) == "....h"  # c drives a out, and a comes back for c


def test_those_over_a_size_go_first():
    log = asked("abcab", {"a": 1, "b": 3, "c": 1})
    assert hits(log, 4, lru_over_size(2 * KB)) == "...h."
    assert hits(log, 4, LRU()) == "....."


def test_lru_and_size_are_the_ends_of_their_mixture():
    log = trap_workload(2_000, 300, seed=1)
    capacity = 0.1 * log.footprint
    alike = {0.0: LRU(), 1.0: largest_first()}
    for weight, policy in alike.items():
        found = simulate(log, capacity, lru_by_size(weight))
        assert (found.hit == simulate(log, capacity, policy).hit).all()


def test_gdsf_weighs_hits_by_size_and_ages():
    # ranks: a 1/4, with its hit 2/4, b 1; c drives a out (L = 1/2) and has 3/2; d drives b out
    # (L = 1) and has 5/4; so it is d that goes when b comes back, and c stays
    log = asked("abacdbc", {"a": 4, "b": 1, "c": 1, "d": 4})
    assert hits(log, 5, gdsf()) == "..h...h"
    assert hits(asked("aabbcda"), 2, gdsf()) == ".h.h..."  # all of one size: L catches up with a


def test_an_expired_object_is_fetched_again_and_one_too_large_is_passed_through():
    assert hits(asked("aaaa", ttl=1.5), 4, LRU()) == ".h.h"
    assert hits(asked("abab", {"b": 9}), 4, LRU()) == "..h."


def test_bytes_and_the_part_that_counts():
    found = simulate(asked("abab", {"a": 3, "b": 1}), 4 * KB, LRU())
    assert found.ratio() == 0.5 and found.ratio(0.5) == 1.0
    assert found.byte_ratio() == 0.5


def optimum(log, capacity):
    """The most hits of any policy that always admits, by trying all."""
    n, sizes, which = len(log), log.size.tolist(), log.object.tolist()

    @remembered
    def best(i, held):
        if i == n:
            return 0
        if which[i] in dict(held):
            return 1 + best(i + 1, held)
        if sizes[i] > capacity:
            return best(i + 1, held)
        return max(
            best(i + 1, tuple(sorted((*kept, (which[i], sizes[i]))))) for kept in fits(held, i)
        )

    def fits(held, i):
        if sum(s for _, s in held) + sizes[i] <= capacity:
            return [held]
        return [kept for j in range(len(held)) for kept in fits(held[:j] + held[j + 1 :], i)]

    return best(0, ())


@pytest.mark.parametrize("seed", range(6))
def test_belady_is_the_optimum_for_objects_of_one_size(seed):
    rng = np.random.default_rng(seed)
    log = asked("".join(rng.choice(list("abcdef"), 16)))
    assert simulate(log, 3 * KB, Belady(log)).hit.sum() == optimum(log, 3 * KB)


@pytest.mark.parametrize("seed", range(6))
def test_no_choice_of_victims_hits_more_than_the_bound(seed):
    rng = np.random.default_rng(seed)
    sizes = dict(zip("abcdef", rng.integers(1, 5, 6).tolist(), strict=True))
    log = asked("".join(rng.choice(list("abcdef"), 14)), sizes)
    best = optimum(log, 6 * KB)
    assert best <= most_hits(log, 6 * KB).sum()
    for policy in (LRU(), Belady(log), Belady(log, by_size=True), gdsf()):
        assert simulate(log, 6 * KB, policy).hit.sum() <= best


def test_the_bound_by_hand():
    # spans (bytes x requests): a 1 x 3, b 4 x 3, c 1 x 3; of 2 x 6 the two small ones fit, and the
    # third counts in part
    log = asked("abcabc", {"b": 4})
    assert most_hits(log, 2 * KB).tolist() == [False] * 3 + [True, False, True]  # b never fits
    assert most_hits(log, 4 * KB).tolist() == [False] * 3 + [True, True, True]
    assert not most_hits(asked("aa", ttl=0.5), KB).any()


def test_scores_see_the_least_recently_used_and_their_features():
    seen = []

    def score(features):
        seen.append(features)
        return features[:, FEATURES.index("size")]

    log = asked("abcad", {"a": 1, "b": 3, "c": 2, "d": 4}, ttl=100.0, gap=10.0)
    assert hits(log, 6, Scored(score, k=2)) == "...h."
    # at d: b (asked for at 10) and c (20) are the two oldest; b is larger
    expected = [[30, np.log(4), 0, 30, 70, 1], [20, np.log(3), 0, 20, 80, 1]]
    np.testing.assert_allclose(seen[0], expected, rtol=1e-6)


def test_the_best_rule_is_the_best():
    log = trap_workload(2_000, 300, seed=1)
    name, found = best_rule(log, 0.1 * log.footprint)
    assert found[name].ratio() == max(f.ratio() for f in found.values())
    assert found["lru"].ratio() == simulate(log, 0.1 * log.footprint, LRU()).ratio()


def test_the_workload_is_what_it_says():
    log = trap_workload(seed=3)
    assert len(log) == 25_000
    size = np.zeros(2_000)
    size[log.object] = log.size / KB
    large = size[log.object] >= 150
    assert 0.6 < large.mean() < 0.7  # nearly all of the requests for large objects are bursts
    often = np.bincount(log.object, minlength=2_000)
    small = (size > 0) & (size < 25)
    assert np.median(often[small]) <= 2
    busy = int(np.argmax(often * (size >= 150)))
    waits = np.diff(log.time[log.object == busy])
    assert 115 < np.median(waits) < 185  # a beat of 150 seconds, at its own tempo
    again = trap_workload(seed=3)
    assert (again.object == log.object).all() and (again.time == log.time).all()


def test_bad_input():
    log = asked("ab")
    with pytest.raises(InputError, match="positive number of bytes"):
        simulate(log, 0, LRU())

    class Wrong(LRU):
        def victim(self, cache):
            return 77

    with pytest.raises(InputError, match="evicts 77, which is not held"):
        simulate(log, KB, Wrong())
