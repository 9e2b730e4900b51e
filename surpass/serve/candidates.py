"""A sidecar that scores candidates over a Unix stream socket, and a client that never waits longer
than its deadline.

All numbers are little endian and packed; a connection is kept and takes any number of requests.

    request   u32 version (1), u16 K, u16 d, float32 [K d]: raw features of K candidates
    response  u32 mask: bit i is set where candidate i is chosen

A request of another version or size gets no answer: the connection is closed. Whoever asks falls
back to a rule of its own when no answer comes in time.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from surpass.errors import InputError, extra
from surpass.policies.candidate_scores import candidate_scores, save_scores
from surpass.tasks.web_cache import Cache, Eviction, candidates
from surpass.training.opening import load

__all__ = [
    "VERSION", "Asker", "Score", "Sidecar", "SidecarEviction", "chosen", "scorer",
    "serve_candidates",
]  # fmt: skip

VERSION = 1
_HEAD, _MASK = struct.Struct("<IHH"), struct.Struct("<I")
Score = Callable[[np.ndarray], np.ndarray]


def chosen(scores: np.ndarray, count: int = 1) -> int:
    """The mask of the `count` highest scores, the first of equals."""
    best = np.argsort(-scores, kind="stable")[:count]
    return sum(1 << int(i) for i in best)


def scorer(graph: str | Path) -> tuple[Score, int, int]:
    """The scores of an ONNX graph of `save_scores`, on one thread, with its k and d: features
    [m, d] of m <= k candidates to [m].

    Raises:
        InputError: when the file is missing or no such graph.
    """
    runtime = extra("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = runtime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base
        line = " ".join(str(error).split())[:160]
        raise InputError(f"{graph} cannot be read as an ONNX graph: {line}") from error
    inputs = session.get_inputs()
    if [i.name for i in inputs] != ["candidates"] or len(inputs[0].shape) != 3:
        raise InputError(f"{graph} does not score candidates: its input is not candidates "
                         "[rows, k, d]; write it with save_scores")  # fmt: skip
    _, k, d = inputs[0].shape
    padded = np.full((1, k, d), np.nan, dtype=np.float32)

    def score(features: np.ndarray) -> np.ndarray:
        given = padded.copy()
        given[0, : len(features)] = features
        return session.run(None, {"candidates": given})[0][0, : len(features)]

    return score, int(k), int(d)


class Sidecar:
    """Answers requests on a Unix socket, each connection in a thread of its own; a context manager.

    Args:
        score: features [m, d] of m <= k candidates to scores [m].
        path: of the socket; a file there is replaced where nobody listens on it.
        count: how many candidates are chosen.

    Raises:
        InputError: when the path cannot be listened on.
    """

    def __init__(self, score: Score, k: int, d: int, path: str | Path, count: int = 1) -> None:
        if not 1 <= k <= 32 or not 1 <= count <= k:
            raise InputError(f"a mask of 32 bits chooses 1 to k of at most 32, not {count} of {k}")
        self.score, self.k, self.d, self.count, self.path = score, k, d, count, str(path)
        self.answered = 0
        self._listener = _listening(self.path)
        self._open: set[socket.socket] = set()
        self._closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Sidecar:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and close all connections."""
        self._closing = True
        for held in (self._listener, *list(self._open)):
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
            held.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        try:
            while (features := self._request(connection)) is not None:
                mask = chosen(self.score(features), self.count)
                self.answered += 1  # before it is out, so that who has it finds it counted
                connection.sendall(_MASK.pack(mask))
        except OSError:
            pass  # whoever asked has gone
        finally:
            self._open.discard(connection)
            connection.close()

    def _request(self, connection: socket.socket) -> np.ndarray | None:
        """The features of a request; None at the end, or where it is not one of ours."""
        head = _exactly(connection, _HEAD.size)
        if head is None:
            return None
        version, k, d = _HEAD.unpack(head)
        if version != VERSION or d != self.d or not 1 <= k <= self.k:
            return None
        body = _exactly(connection, 4 * k * d)
        if body is None:
            return None
        return np.frombuffer(body, dtype="<f4").reshape(k, d)


def _listening(path: str) -> socket.socket:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path):
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)  # what a sidecar that was killed left
            else:
                raise InputError(f"somebody listens on {path} already; give another --socket")
    except OSError as error:
        raise InputError(f"{path} cannot be used as a socket: {error.strerror}") from error
    finally:
        probe.close()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        os.chmod(path, 0o660)
        listener.listen(16)
    except OSError as error:
        listener.close()
        raise InputError(f"{path} cannot be listened on: {error.strerror or error}") from error
    return listener


def _exactly(connection: socket.socket, n: int) -> bytes | None:
    held = bytearray()
    while len(held) < n:
        piece = connection.recv(n - len(held))
        if not piece:
            return None
        held += piece
    return bytes(held)


class Asker:
    """Asks a sidecar, and has its answer or None within the deadline.

    A connection whose answer did not come is given up, so that no late answer is taken for that of
    the next request; the next request opens another, at most every `retry` seconds.

    Args:
        deadline: seconds, from the call to the return.
    """

    def __init__(self, path: str | Path, deadline: float = 500e-6, retry: float = 0.05) -> None:
        self.path, self.deadline, self.retry = str(path), deadline, retry
        self._connection: socket.socket | None = None
        self._again = 0.0

    def ask(self, features: np.ndarray) -> int | None:
        """The mask of the chosen among the candidates [K, d]; None where it did not come in
        time."""
        until = time.perf_counter() + self.deadline
        connection = self._connected()
        if connection is None:
            return None
        k, d = features.shape
        try:
            request = _HEAD.pack(VERSION, k, d) + features.astype("<f4").tobytes()
            if connection.send(request) != len(request):
                raise BlockingIOError  # it does not read: no time to wait for that
            answer = b""
            while len(answer) < _MASK.size:
                left = until - time.perf_counter()
                # select counts in microseconds, poll would round the deadline up to milliseconds
                if left <= 0 or not select.select([connection], [], [], left)[0]:
                    raise TimeoutError
                piece = connection.recv(_MASK.size - len(answer))
                if not piece:
                    raise ConnectionError
                answer += piece
        except (OSError, ValueError):
            self.close()
            return None
        mask = _MASK.unpack(answer)[0] & ((1 << k) - 1)
        return mask or None

    def _connected(self) -> socket.socket | None:
        if self._connection is not None or time.perf_counter() < self._again:
            return self._connection
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        fresh.setblocking(False)
        try:
            fresh.connect(self.path)
        except OSError:
            fresh.close()
            self._again = time.perf_counter() + self.retry
            return None
        self._connection = fresh
        return fresh

    def close(self) -> None:
        """Give the connection up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class SidecarEviction(Eviction):
    """Evicts what a sidecar chooses among the k least recently used (of several the oldest), and
    the least recently used where no answer comes in time.

    Attributes:
        decisions: asked for so far. fallbacks: those that fell back. seconds: how long each took.
    """

    def __init__(self, asker: Asker, k: int = 16) -> None:
        self.asker, self.k = asker, k
        self.decisions, self.fallbacks = 0, 0
        self.seconds: list[float] = []

    def victim(self, cache: Cache) -> int | str:
        keys, features = candidates(cache, self.k)
        start = time.perf_counter()
        mask = self.asker.ask(features)
        self.seconds.append(time.perf_counter() - start)
        self.decisions += 1
        if mask is None:
            self.fallbacks += 1
            return keys[0]
        return keys[(mask & -mask).bit_length() - 1]


def serve_candidates(policy: str | Path, path: str | Path, count: int = 1) -> None:
    """Serve a policy that scores candidates on a Unix socket until interrupted.

    Args:
        policy: an ONNX graph of `save_scores`, or the folder of a training run.
        path: of the socket. count: how many candidates are chosen.

    Raises:
        InputError: when the policy or the socket cannot be used.
    """
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(policy)
        if graph.is_dir():
            graph = save_scores(candidate_scores(load(policy)), Path(folder) / "scores.onnx")
        score, k, d = scorer(graph)
    with Sidecar(score, k, d, path, count):
        print(f"choosing {count} of up to {k} candidates ({d} features each) on {path}", flush=True)
        threading.Event().wait()
