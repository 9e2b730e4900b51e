"""The manager of cached files, on files made by hand and on those of a real nginx."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from surpass.data.access_log import read_access_log
from surpass.errors import InputError
from surpass.evidence.online.cache_server import REPLAYED, Nginx
from surpass.serve.cache_files import CacheFiles, cache_file
from surpass.tasks.cache_policies import LRU, largest_first, lru_over_size
from surpass.tasks.web_cache import simulate, trap_workload

KB = 1024


def test_where_nginx_keeps_an_answer():
    digits = hashlib.md5(b"/a").hexdigest()
    assert cache_file("/c", "/a") == Path("/c") / digits[-1] / digits[-3:-1] / digits
    assert cache_file("/c", "/a", (2,)) == Path("/c") / digits[-2:] / digits


def put(root, key, kilobytes):
    path = cache_file(root, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * (kilobytes * KB))
    return path


def line(key, second, status="MISS", size=1):
    return f'{second}.000 200 {size} {status} 0.001 60 "{key}"'


def test_files_over_the_budget_are_unlinked(tmp_path):
    manager = CacheFiles(tmp_path, 5 * KB, LRU())
    a, b = put(tmp_path, "/a", 2), put(tmp_path, "/b", 2)
    manager.follow([line("/a", 1), line("/b", 2), line("/a", 3, "HIT")])
    assert a.exists() and b.exists() and manager.hits == 1
    c = put(tmp_path, "/c", 3)
    manager.follow([line("/c", 4)])
    assert a.exists() and not b.exists() and c.exists()  # b was asked for before a
    assert manager.evicted == 1 and manager.cache.used == 5 * KB
    big = put(tmp_path, "/big", 9)
    manager.follow([line("/big", 5), line("/none", 6)])  # one that cannot stay, one not kept
    assert not big.exists() and manager.cache.used == 5 * KB
    assert a.exists() and c.exists()


def test_files_from_before_are_taken_up_when_they_are_asked_for(tmp_path):
    a, b = put(tmp_path, "/a", 3), put(tmp_path, "/b", 3)
    manager = CacheFiles(tmp_path, 5 * KB, LRU())
    manager.follow([line("/a", 1, "HIT")])
    assert manager.hits == 1 and manager.cache.used == 3 * KB
    manager.follow([line("/b", 2, "HIT")])
    assert not a.exists() and b.exists() and manager.cache.used == 3 * KB
    manager.follow([line("/a", 3, "HIT")])  # logged before it was evicted, read after
    assert manager.hits == 3 and manager.cache.used == 3 * KB


def test_the_manager_decides_as_the_simulator(tmp_path):
    log = trap_workload(800, 120, seed=5)
    capacity = int(0.1 * log.footprint)
    manager = CacheFiles(tmp_path, capacity, lru_over_size(50 * KB))
    found = simulate(log, capacity, lru_over_size(50 * KB))
    hits = []
    for i in range(len(log)):
        key = f"/{log.object[i]}"
        path = cache_file(tmp_path, key)
        held = manager.cache.held.get(key)
        hit = path.exists() and held is not None and held.expires >= log.time[i]
        if not hit:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(int(log.size[i]))
        rtt = f"{log.rtt[i] / 1e6:.6f}"
        manager.follow([
            f'{log.time[i]!r} 200 {log.size[i]} {"HIT" if hit else "MISS"} {rtt} {log.ttl[i]!r} '
            f'"{key}"'.replace("np.float64(", "").replace(")", "")
        ])  # fmt: skip
        hits.append(hit)
    assert hits == found.hit.tolist()
    assert manager.evicted > 0


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="positive number of bytes"):
        CacheFiles(tmp_path, 0, LRU())
    with pytest.raises(InputError, match="not of the format"):
        CacheFiles(tmp_path, KB, LRU()).follow(["GET /"])


# ------------------------------------------------------------------------------------ a real nginx

nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


@nginx
def test_nginx_takes_a_file_that_is_gone_for_a_miss(tmp_path):
    with Nginx(tmp_path) as server:
        assert " MISS " in server.get("/1/3000")
        assert " HIT " in server.get("/1/3000")
        kept = cache_file(tmp_path / "cache", "/1/3000")
        assert kept.stat().st_size > 3000  # headers come first
        kept.unlink()
        assert " MISS " in server.get("/1/3000")
        assert " HIT " in server.get("/1/3000")
        assert kept.exists()
        assert server.served == ["/1/3000"] * 2
        log = read_access_log(tmp_path / "access.log")
    assert log.hit.tolist() == [0, 1, 0, 1] and log.size.tolist() == [3000] * 4
    assert log.ttl.tolist() == [3600.0] * 4


@nginx
def test_a_budget_is_kept_and_the_policy_decides_what_hits(tmp_path):
    # three small objects in a round, and then a large one that is never asked for again: LRU lets
    # each drive out the next; when the largest goes first, a large one drives out one small one
    rounds = ["/1/4000", "/2/4000", "/3/4000"]
    asked = [path for i in range(30) for path in (*rounds, f"/{100 + i}/12000")]
    ratios = {}
    for name, policy in (("lru", LRU()), ("largest first", largest_first())):
        place = tmp_path / name.replace(" ", "-")
        place.mkdir()
        with Nginx(place) as server:
            manager = CacheFiles(place / "cache", 22_000, policy)
            for path in asked:
                manager.follow([server.get(path)])
                used = sum(f.stat().st_size for f in (place / "cache").rglob("*") if f.is_file())
                assert used == manager.cache.used <= 22_000
        log = read_access_log(place / "access.log")
        ratios[name] = float(np.mean(log.hit))
        assert manager.hits == log.hit.sum()
    assert ratios["lru"] == 0.0
    assert ratios["largest first"] == pytest.approx(29 * 2 / 120)


@nginx
def test_a_log_sent_at_another_pace_keeps_its_clock(tmp_path):
    with Nginx(tmp_path, REPLAYED, {"/1/500": (7200.5, 0.25)}) as server:
        server.get("/1/500", 12.5)
        server.get("/1/500", 5000.25)
        log = read_access_log(tmp_path / "access.log")
    assert log.time.tolist() == [12.5, 5000.25] and log.hit.tolist() == [0, 1]
    assert log.ttl.tolist() == [7200.5] * 2 and log.rtt.tolist() == [250_000.0] * 2
