"""Which edits of an experiment void its finished seeds."""

import importlib.util

import pytest

from surpass.evidence.source import fingerprint

CODE = '''"""A module."""

from math import sqrt

ROWS = 10
OTHER = 3


def helper(x):
    """Doubles."""
    return 2 * x


def stranger():
    return OTHER


def declare(**words):
    return lambda function: function


@declare(claim="better", bar=1)
def experiment(seed):
    """What it does."""
    return helper(ROWS) + sqrt(seed)
'''


@pytest.fixture
def digest(tmp_path):
    count = iter(range(100))

    def of(code):
        path = tmp_path / f"made_{next(count)}.py"
        path.write_text(code)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return fingerprint(module.experiment)

    return of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Doubles."""', '"""Gives twice x."""  # a comment'),
        ("helper(ROWS) + sqrt(seed)", "(\n        helper(ROWS)\n        + sqrt(seed)\n    )"),
        ('claim="better", bar=1', 'claim="much better", bar=2'),
        ("OTHER = 3", "OTHER = 4"),
        ("def stranger():\n    return OTHER", "def stranger():\n    return -OTHER"),
    ],
)
def test_words_layout_and_strangers_do_not_count(digest, old, new):
    assert old in CODE
    assert digest(CODE.replace(old, new)) == digest(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return 2 * x", "return 3 * x"),
        ("ROWS = 10", "ROWS = 11"),
        ("+ sqrt(seed)", "- sqrt(seed)"),
        ("from math import sqrt", "from cmath import sqrt"),
    ],
)
def test_every_value_that_is_reached_counts(digest, old, new):
    assert old in CODE
    assert digest(CODE.replace(old, new)) != digest(CODE)


def test_a_nested_function_counts_itself():
    def first(seed):
        return seed

    def second(seed):
        return seed + 1

    assert fingerprint(first) != fingerprint(second)
