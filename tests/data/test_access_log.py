"""Access logs: lines of nginx's, by hand."""

import math

import numpy as np
import pytest

from surpass.data.access_log import Accesses, parse_access, read_access_log
from surpass.errors import InputError

LINES = [
    '1700000000.250 200 1000 MISS 0.020 3600 "/a"',
    '1700000001.000 200 500 MISS 0.010, 0.030 60 "/b"',
    '1700000002.000 304 0 HIT - - "/a"',
    '1700000003.000 200 1000 HIT - - "/a"',
    '1700000004.000 200 70 BYPASS - - "/c with space"',
]


def test_lines_are_read_and_what_is_missing_is_the_last_one_seen():
    log = read_access_log(LINES, ttl=99.0, rtt=5.0)
    assert log.names == ("/a", "/b", "/c with space")
    assert log.object.tolist() == [0, 1, 0, 2]  # the 304 has no bytes
    assert log.size.tolist() == [1000, 500, 1000, 70]
    assert log.ttl.tolist() == [3600.0, 60.0, 3600.0, 99.0]
    np.testing.assert_allclose(log.rtt, [2e4, 4e4, 2e4, 5.0])  # two origins were asked for /b
    assert log.hit is not None and log.hit.tolist() == [0, 0, 1, 0]
    assert log.footprint == 1570
    assert log.following.tolist() == [2, 4, 4, 4]


def test_a_line():
    access = parse_access(LINES[3])
    assert (access.time, access.key, access.size, access.hit) == (1.700000003e9, "/a", 1000, True)
    assert math.isnan(access.ttl) and math.isnan(access.rtt)


def test_lines_out_of_order_are_sorted_by_time():
    log = read_access_log(LINES[1::-1])
    assert log.time.tolist() == [1700000000.25, 1700000001.0]
    assert log.size.tolist() == [1000, 500]


def test_a_file(tmp_path):
    path = tmp_path / "access.log"
    path.write_text("\n".join(LINES) + "\n")
    assert len(read_access_log(path)) == 4
    with pytest.raises(InputError, match="cannot be read"):
        read_access_log(tmp_path / "none.log")


@pytest.mark.parametrize(
    "lines, message",
    [
        ([LINES[0], '127.0.0.1 - - [x] "GET / HTTP/1.1" 200 5'], "line 2 .* not of the format"),
        ([LINES[2]], "no answer of status 200"),
    ],
)
def test_what_cannot_be_read(lines, message):
    with pytest.raises(InputError, match=message):
        read_access_log(lines)


def test_columns_that_do_not_fit():
    one, n = np.ones(2), np.array([0, 1])
    with pytest.raises(InputError, match="request 1 is earlier"):
        Accesses(np.array([2.0, 1.0]), n, n + 1, one, one)
    with pytest.raises(InputError, match="request 0 has no bytes"):
        Accesses(np.array([1.0, 2.0]), n, n, one, one)
    with pytest.raises(InputError, match="different lengths"):
        Accesses(one, n, n + 1, one, np.ones(3))
