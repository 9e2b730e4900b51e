"""The sidecar on the wire, byte by byte, and the client's deadline against sidecars that sleep."""

import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from surpass.errors import InputError
from surpass.methods.online.cold_rl import cold_rl_shared
from surpass.serve.candidates import Asker, Sidecar, SidecarEviction, chosen, scorer
from surpass.tasks.cache_policies import LRU, Scored
from surpass.tasks.cache_replay import replayed
from surpass.tasks.web_cache import simulate, trap_workload
from surpass.training.run import train

LOG = trap_workload(1_500, 200, seed=4)
CAPACITY = 0.1 * LOG.footprint


def by_size(features):
    return features[:, 1]


@pytest.fixture
def place(tmp_path):
    return tmp_path / "s.sock"


def test_the_mask_of_the_highest_scores():
    assert chosen(np.array([0.1, 3.0, -1.0, 3.0])) == 0b0010
    assert chosen(np.array([0.1, 3.0, -1.0, 3.0]), 3) == 0b1011


def test_the_wire(place):
    with Sidecar(by_size, k=16, d=6, path=place), socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(10)
        wire.connect(str(place))
        for _ in range(2):  # a connection is kept
            body = [0, 1.5, 0, 0, 0, 0, 9, 2.5, 9, 9, 9, 9, 0, 0.5, 0, 0, 0, 0]
            wire.sendall(struct.pack("<IHH18f", 1, 3, 6, *body))
            assert wire.recv(16) == b"\x02\x00\x00\x00"
        wire.sendall(struct.pack("<IHH6f", 1, 1, 6, *body[:6])[:20])  # in two pieces
        wire.sendall(struct.pack("<IHH6f", 1, 1, 6, *body[:6])[20:])
        assert wire.recv(16) == b"\x01\x00\x00\x00"


@pytest.mark.parametrize("head", [(2, 3, 6), (1, 17, 6), (1, 3, 5), (1, 0, 6)])
def test_what_is_not_a_request_is_not_answered(place, head):
    with Sidecar(by_size, k=16, d=6, path=place), socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(10)
        wire.connect(str(place))
        wire.sendall(struct.pack("<IHH", *head))
        assert wire.recv(16) == b""
        asker = Asker(place, deadline=10.0)  # others are still answered
        assert asker.ask(np.zeros((2, 6), np.float32)) == 1


def test_evictions_over_the_socket_are_those_of_the_scores(place):
    with Sidecar(by_size, k=16, d=6, path=place) as sidecar:
        policy = SidecarEviction(Asker(place, deadline=10.0))
        found = simulate(LOG, CAPACITY, policy)
        assert policy.fallbacks == 0 and sidecar.answered == policy.decisions == found.evicted
    assert (found.hit == simulate(LOG, CAPACITY, Scored(by_size)).hit).all()


def sleeping(place, seconds):
    """A sidecar that sleeps before each answer."""

    def score(features):
        time.sleep(seconds)
        return by_size(features)

    return Sidecar(score, k=16, d=6, path=place)


def test_a_sidecar_that_sleeps_is_not_waited_for(place):
    log = LOG.first(0.2)
    with sleeping(place, 0.2):
        policy = SidecarEviction(Asker(place, deadline=500e-6, retry=0.0))
        found = simulate(log, CAPACITY / 4, policy)
    assert policy.fallbacks == policy.decisions == found.evicted > 50
    assert (found.hit == simulate(log, CAPACITY / 4, LRU()).hit).all()
    # the deadline, and what a busy machine adds until this process runs again
    assert min(policy.seconds) < 1e-3 and statistics.median(policy.seconds) < 20e-3


def test_a_late_answer_is_not_taken_for_the_next(place):
    naps = iter([0.1])

    def score(features):
        time.sleep(next(naps, 0.0))
        return by_size(features)

    with Sidecar(score, k=16, d=6, path=place):
        asker = Asker(place, deadline=20e-3, retry=0.0)
        first = np.zeros((3, 6), np.float32)
        first[2, 1] = 1.0
        assert asker.ask(first) is None
        time.sleep(0.15)  # the late answer is out
        asker.deadline = 10.0
        second = np.zeros((3, 6), np.float32)
        second[1, 1] = 1.0
        assert asker.ask(second) == 0b010


def test_no_sidecar_a_deaf_one_and_one_that_comes_back(place):
    asker = Asker(place, retry=0.0)
    features = np.zeros((2, 6), np.float32)
    assert asker.ask(features) is None
    with socket.socket(socket.AF_UNIX) as deaf:  # accepts, never reads
        deaf.bind(str(place))
        deaf.listen(1)
        start = time.perf_counter()
        assert asker.ask(features) is None
        assert time.perf_counter() - start < 1.0
    with Sidecar(by_size, k=16, d=6, path=place):  # takes over the file that was left
        asker.deadline = 10.0
        assert asker.ask(features) == 1


def test_several_ask_at_once(place):
    wrong = []

    def many(number):
        asker = Asker(place, deadline=10.0)
        for i in range(50):
            features = np.zeros((16, 6), np.float32)
            best = (number + i) % 16
            features[best, 1] = 1.0
            if asker.ask(features) != 1 << best:
                wrong.append((number, i))

    with Sidecar(by_size, k=16, d=6, path=place):
        threads = [threading.Thread(target=many, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_of_several_chosen_the_oldest_goes(place):
    with Sidecar(lambda x: -x[:, 3], k=4, d=6, path=place, count=4):  # idle: the newest best
        policy = SidecarEviction(Asker(place, deadline=10.0), k=4)
        found = simulate(LOG, CAPACITY, policy)
        assert policy.fallbacks == 0
    assert (found.hit == simulate(LOG, CAPACITY, LRU()).hit).all()


def test_bad_input(place, tmp_path):
    with pytest.raises(InputError, match="not 1 of 33"):
        Sidecar(by_size, k=33, d=6, path=place)
    with (
        Sidecar(by_size, k=4, d=6, path=place),
        pytest.raises(InputError, match=r"listens on .* already"),
    ):
        Sidecar(by_size, k=4, d=6, path=place)
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(InputError, match="cannot be read as an ONNX graph"):
        scorer(tmp_path / "text.onnx")
    with pytest.raises(InputError, match="cannot be listened on"):
        Sidecar(by_size, k=4, d=6, path=tmp_path / "none" / "s.sock")


def test_serve_answers_on_a_unix_socket(tmp_path):
    """From a training run's folder to a sidecar that says the index of the best candidate."""
    form = cold_rl_shared(batch=8, hidden=(8, 8), head=8)
    log = trap_workload(1_500, 200, seed=4)
    data = replayed(log, 0.1 * log.footprint, k=8)
    trained = train(form, data, steps=2, compile=False, out=tmp_path / "run")
    path = tmp_path / "s.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "surpass", "serve", str(tmp_path / "run"), "--socket", str(path)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert "1 of up to 8 candidates (6 features each)" in process.stdout.readline()
        asker = Asker(path, deadline=20.0)
        raw = data.obs[:5].reshape(5, 8, 6).numpy()
        masks = [asker.ask(features) for features in raw]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    best = trained.predict(data.obs[:5].numpy())
    assert masks == [1 << int(b) for b in best]
    assert not path.exists()
