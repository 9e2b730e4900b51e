"""A real nginx with its cache in a folder, before an origin that answers /NUMBER/BYTES with so many
bytes: on the loopback only, on free ports, for as long as a `with` lasts."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from surpass.data.access_log import LOG_FORMAT
from surpass.errors import InputError

__all__ = ["REPLAYED", "Nginx"]

REPLAYED = LOG_FORMAT.replace("$msec", "$http_x_time").replace(
    "$upstream_response_time", "$upstream_http_x_wait"
)  # the clock of a log that is sent at another pace, and the origin's times of that log

_CONF = """
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
_PATIENCE = 20.0


class _Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: list[str]
    about: dict[str, tuple[float, float]]

    def do_GET(self) -> None:
        size = int(self.path.rsplit("/", 1)[1])
        ttl, wait = self.about.get(self.path, (3600.0, 0.0))
        self.served.append(self.path)
        self.send_response(200)
        for name, value in (("Content-Length", size), ("X-TTL", ttl), ("X-Wait", wait)):
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(b"x" * size)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Nginx:
    """nginx before its origin.

    Args:
        place: an empty folder, for everything it writes. log: the format of its access log.
        about: of each path, the time to live and the origin's wait (seconds) that are announced.

    Attributes:
        served: the paths that the origin was asked for.

    Raises:
        InputError: when nginx is not installed or does not start.
    """

    def __init__(
        self,
        place: Path,
        log: str = LOG_FORMAT,
        about: dict[str, tuple[float, float]] | None = None,
    ) -> None:
        if shutil.which("nginx") is None:
            raise InputError("nginx is not installed; on Debian: apt-get install nginx")
        self.place, self.served, self.read = place, [], 0
        handler = type("Origin", (_Origin,), {"served": self.served, "about": about or {}})
        self.origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.origin.daemon_threads = True
        threading.Thread(target=self.origin.serve_forever, daemon=True).start()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        conf = place / "nginx.conf"
        conf.write_text(_CONF.format(
            place=place, port=self.port, origin=self.origin.server_address[1], log=log
        ))  # fmt: skip
        (place / "cache").mkdir()
        user = "user root;" if os.geteuid() == 0 else ""  # else its workers are another user
        self.process = subprocess.Popen(
            ["nginx", "-p", str(place), "-c", str(conf), "-g", user],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self) -> Nginx:
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                self.lines = open(self._log(), encoding="utf-8")
                return self
            except OSError:
                time.sleep(0.02)
        self.__exit__()
        errors = self.place / "error.log"
        raise InputError(f"nginx does not start: {errors.read_text() if errors.exists() else ''}")

    def __exit__(self, *_: Any) -> None:
        self.process.terminate()
        self.process.wait(_PATIENCE)
        self.origin.shutdown()
        self.origin.server_close()
        if hasattr(self, "lines"):
            self.lines.close()

    def _log(self) -> Path:
        return self.place / "access.log"

    def get(self, path: str, now: float = 0.0) -> str:
        """Ask for a path; gives the line that nginx writes about it.

        Raises:
            InputError: when the answer has another length, or no line comes.
        """
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers={"X-Time": f"{now:.6f}"}
        )
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            if len(answer.read()) != int(path.rsplit("/", 1)[1]):
                raise InputError(f"nginx cut the answer to {path} short")
        until, line = time.monotonic() + _PATIENCE, ""
        while time.monotonic() < until:
            line += self.lines.readline()
            if line.endswith("\n"):
                return line
            time.sleep(0.0005)
        raise InputError(f"nginx wrote no line about {path}")
