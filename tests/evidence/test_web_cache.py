"""The way of a log through a real nginx, against the simulator."""

import shutil
import time

import numpy as np
import pytest

from surpass.data.access_log import Accesses
from surpass.evidence.online.web_cache import through_nginx, waits
from surpass.serve.candidates import Asker, Sidecar, SidecarEviction
from surpass.tasks.cache_policies import LRU, Scored
from surpass.tasks.web_cache import simulate


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_hits_what_the_simulator_hits(tmp_path):
    """Objects of one size, so that what nginx writes before each answer does not matter."""
    rng = np.random.default_rng(0)
    which, n = rng.zipf(1.3, 200) % 12, 200
    log = Accesses(np.arange(n, dtype=float), which, np.full(n, 20_000), np.full(n, 1e5),
                   np.full(n, 1e4))  # fmt: skip
    budget = 90_000  # four objects, with room for their headers

    def newest(features):
        return -features[:, 3]

    with Sidecar(newest, 4, 6, tmp_path / "s.sock"):
        found = {
            "lru": through_nginx(log, budget, LRU()),
            "newest": through_nginx(
                log, budget, SidecarEviction(Asker(tmp_path / "s.sock", deadline=10.0), 4)
            ),
        }
    expected = {"lru": LRU(), "newest": Scored(newest, 4)}
    assert found == {k: simulate(log, budget, p).ratio() for k, p in expected.items()}
    assert found["lru"] != found["newest"]


def test_waits_are_counted_in_microseconds(tmp_path):
    def slow(features):
        time.sleep(0.005)
        return features[:, 0]

    quick = waits(lambda x: x[:, 0], tmp_path, calls=20)
    held = waits(slow, tmp_path, calls=20)
    assert held.shape == (20,) and held.min() >= 5_000  # what the scorer sleeps
    assert np.median(quick) < np.median(held)
