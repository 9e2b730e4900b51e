"""One hypothesis profile for all tests; compilation is off except where a test turns it on."""

import os

os.environ.setdefault("SURPASS_COMPILE", "0")

import pytest
import torch
from hypothesis import settings

settings.register_profile("surpass", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("surpass")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    yield
