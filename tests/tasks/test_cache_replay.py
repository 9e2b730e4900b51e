"""Replays: each reward against the miss that the eviction caused, and chances against counts."""

import numpy as np
import pytest
import torch

from surpass.errors import InputError
from surpass.tasks.cache_policies import LRU
from surpass.tasks.cache_replay import _until_full, replayed
from surpass.tasks.web_cache import FEATURES, simulate, trap_workload

LOG = trap_workload(3_000, 300, seed=2)
CAPACITY = 0.08 * LOG.footprint


def evictions(policy):
    """Of every eviction: when, and when what it drove out was asked for again before it expired."""
    found = []

    def watch(cache, victim):
        held = cache.held[victim]
        later = np.flatnonzero(LOG.object[cache.position :] == victim)
        back = cache.position + later[0] if len(later) else -1
        found.append((cache.position, back if back >= 0 and LOG.time[back] <= held.expires else -1))

    outcome = simulate(LOG, CAPACITY, policy, watch)
    return outcome, found


def test_every_miss_is_new_or_expired_or_was_caused_by_one_eviction():
    log = replayed(LOG, CAPACITY, k=8, behavior=(0.0,), gamma=0.9, tick=10.0)
    outcome, found = evictions(LRU())
    causes = [back for _, back in found if back >= 0]
    assert len(set(causes)) == len(causes)
    assert not outcome.hit[causes].any()  # each of them is a miss
    new = np.unique(LOG.object, return_index=True)[1]
    assert not set(causes) & set(new.tolist())
    rest = set(np.flatnonzero(~outcome.hit).tolist()) - set(causes) - set(new.tolist())
    born, expired = {}, set()
    for i, (what, now) in enumerate(zip(LOG.object.tolist(), LOG.time.tolist(), strict=True)):
        if not outcome.hit[i]:
            expired |= {i} if what in born and now > born[what] + LOG.ttl[i] else set()
            born[what] = now
    assert rest <= expired | set(np.flatnonzero(LOG.size > CAPACITY).tolist())

    # rewards: what time is worth, less the miss when it comes
    position = np.array([p for p, _ in found])
    elapsed = np.append(np.diff(position), 0) / 10.0
    charge = np.array([0.9 ** ((b - p) / 10.0) if b >= 0 else 0.0 for p, b in found])
    time = (1 - 0.9**elapsed) / 0.1
    expected = charge.sum() / time.sum() * time - charge
    torch.testing.assert_close(log.reward, torch.tensor(expected).float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log.extras["elapsed"], torch.tensor(elapsed).float())
    assert abs(float(log.reward.double().mean())) < 1e-6


def test_what_the_rows_hold():
    log = replayed(LOG, CAPACITY, k=8, behavior=(0.0,))
    outcome, found = evictions(LRU())
    assert len(log) == outcome.evicted == len(found)
    assert (log.action == 0).all() and (log.behavior_logp == 0).all()
    assert torch.equal(log.next_obs[:-1], log.obs[1:])
    assert torch.equal(log.extras["next_available"][:-1], log.available[1:])
    assert log.truncated.tolist() == [False] * (len(log) - 1) + [True]
    assert not log.terminated.any()
    idle = log.obs.reshape(-1, 8, 6)[..., FEATURES.index("idle")]
    assert (idle[:, 0] >= idle[:, -1]).all()  # the oldest comes first


def test_chances_are_those_with_which_it_chose():
    log = replayed(LOG, CAPACITY, k=4, behavior=(1.0, 0.5), seed=5)
    random, mixed = log.episode == 0, log.episode == 1
    n, chance = log.available.sum(1), log.behavior_logp.exp()
    torch.testing.assert_close(chance[random], 1.0 / n[random])
    oldest = log.action == 0
    torch.testing.assert_close(chance[mixed & oldest], 0.5 + 0.5 / n[mixed & oldest])
    torch.testing.assert_close(chance[mixed & ~oldest], 0.5 / n[mixed & ~oldest])
    share, expected = oldest[mixed].float().mean(), (0.5 + 0.5 / n[mixed]).mean()
    assert abs(float(share - expected)) < 4 * (0.25 / int(mixed.sum())) ** 0.5


def test_a_score_takes_the_place_of_lru():
    by_age = replayed(LOG, CAPACITY, k=8, behavior=(0.0,), score=lambda x: x[:, 3])  # idle
    lru = replayed(LOG, CAPACITY, k=8, behavior=(0.0,))
    assert torch.equal(by_age.obs, lru.obs) and (by_age.action == 0).all()
    last = replayed(LOG, CAPACITY, k=8, behavior=(0.0,), score=lambda x: -x[:, 3])
    assert (last.action == last.available.sum(1) - 1).all()


def test_the_reward_of_the_code():
    log = replayed(LOG, CAPACITY, k=8, behavior=(1.0,), retained=True, size_penalty=0.05, seed=3)
    plain = replayed(LOG, CAPACITY, k=8, behavior=(1.0,), retained=True, seed=3)
    stays = log.available.clone()
    stays[torch.arange(len(log)), log.action] = False
    megabytes = log.obs.reshape(-1, 8, 6)[..., 1].double().expm1() / 1024
    penalty = 0.05 * (megabytes * stays).sum(1)
    torch.testing.assert_close(plain.reward - log.reward, penalty.float(), atol=1e-5, rtol=1e-4)
    assert (plain.reward <= stays.sum(1)).all() and float(plain.reward.max()) > 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"k": 33}, "1 to 32, not 33"),
        ({"gamma": 1.0}, "gamma lies between 0 and 1"),
        ({"behavior": (1.5,)}, "shares of random evictions"),
        ({"capacities": 2 * LOG.footprint}, "nothing is evicted"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        replayed(LOG, **{"capacities": CAPACITY, **options})


def test_what_every_candidate_would_have_earned():
    log = replayed(LOG, CAPACITY, k=8, behavior=(1.0,), gamma=0.9, tick=10.0, seed=7)
    rewards, elapses = log.extras["rewards"], log.extras["elapses"]
    mine = torch.arange(len(log)), log.action
    torch.testing.assert_close(rewards[mine], log.reward)
    torch.testing.assert_close(elapses[mine], log.extras["elapsed"])
    # a larger victim leaves more free, so that the next one is due no earlier
    order = log.obs.reshape(-1, 8, 6)[..., 1].argsort(1)
    sorted_elapses = elapses[:-1].gather(1, order[:-1])
    there = log.available[:-1].all(1)
    assert (sorted_elapses[there].diff(dim=1) >= 0).float().mean() > 0.99


def test_the_time_to_the_next_eviction_is_counted_from_the_bytes():
    admitted = np.array([5, 3, 0, 4, -2, 6])
    # after request 1 come 0, 4, -2, 6 bytes: more than 3 by request 3, more than 7 by request 5
    found = _until_full(admitted, np.array([1, 5]), np.array([[0, 3, 7, 99, -1], [0] * 5]))
    assert found[0].tolist() == [2, 2, 4, 4, 0]
