"""Requests from templates: shares of novel intents, and no unfilled slots."""

from __future__ import annotations

from surpass.tasks.requests import FAMILIAR, NOVEL, requests


def test_shares_and_slots():
    texts, intents = requests(2000, 0.1, seed=1)
    assert not any("{" in t for t in texts)
    assert set(intents) == {*FAMILIAR, *NOVEL}
    assert 0.07 < sum(i in NOVEL for i in intents) / 2000 < 0.13
    assert len(FAMILIAR) == 12 and set(requests(500)[1]) <= set(FAMILIAR)
    assert requests(50, 0.3, seed=2) == requests(50, 0.3, seed=2)
