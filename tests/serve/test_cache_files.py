"""The manager of cached files, on files made by hand and on those of a real nginx."""

from __future__ import annotations

import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from surpass.data.access_log import LOG_FORMAT, read_access_log
from surpass.errors import InputError
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
    assert not big.exists() and manager.cache.used == 0


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

CONF = """
daemon off; worker_processes 1; pid {place}/nginx.pid; error_log {place}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  log_format surpass '{log}';
  client_body_temp_path {place}/body; fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u;
  scgi_temp_path {place}/s; proxy_temp_path {place}/proxy;
  proxy_cache_path {place}/cache levels=1:2 keys_zone=surpass:4m max_size=10g inactive=1d
                   use_temp_path=off;
  server {{
    listen 127.0.0.1:{port};
    access_log {place}/access.log surpass;
    location / {{
      proxy_pass http://127.0.0.1:{origin}; proxy_cache surpass; proxy_cache_key $uri;
      proxy_cache_valid 200 1d; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""


class Origin(http.server.BaseHTTPRequestHandler):
    """/NUMBER/BYTES: so many bytes."""

    protocol_version = "HTTP/1.1"
    served: list[str]

    def do_GET(self):
        size = int(self.path.rsplit("/", 1)[1])
        self.served.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.send_header("X-TTL", "3600")
        self.end_headers()
        self.wfile.write(b"x" * size)

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nginx:
    """A real nginx with its cache in a folder, before an origin in a thread."""

    def __init__(self, place: Path):
        self.place, self.port, self.served = place, free_port(), []
        handler = type("Own", (Origin,), {"served": self.served})
        self.origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.origin.daemon_threads = True
        threading.Thread(target=self.origin.serve_forever, daemon=True).start()
        text = CONF.format(
            place=place, port=self.port, origin=self.origin.server_address[1], log=LOG_FORMAT
        )
        (place / "nginx.conf").write_text(text)
        (place / "cache").mkdir()
        place.chmod(0o777)  # a worker of a root's nginx is another user
        (place / "cache").chmod(0o777)
        self.process = subprocess.Popen(
            ["nginx", "-p", str(place), "-c", str(place / "nginx.conf"),
             "-g", "user root;" if os.geteuid() == 0 else ""],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.read = 0

    def __enter__(self):
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                assert self.process.poll() is None, (self.place / "error.log").read_text()
                time.sleep(0.02)
        raise AssertionError("nginx does not listen")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        self.origin.shutdown()
        self.origin.server_close()

    def get(self, path: str) -> str:
        """Ask for a path; gives the line that nginx wrote about it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            assert len(answer.read()) == int(path.rsplit("/", 1)[1])
        until = time.monotonic() + 20
        while time.monotonic() < until:
            lines = self.lines()
            if len(lines) > self.read:
                self.read = len(lines)
                return lines[-1]
            time.sleep(0.001)
        raise AssertionError("nginx wrote no line")

    def lines(self) -> list[str]:
        path = self.place / "access.log"
        return path.read_text().splitlines() if path.exists() else []


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
