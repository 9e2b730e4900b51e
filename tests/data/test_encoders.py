"""Context columns as numbers, against scikit-learn and by hand."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from surpass.data.encoders import Categories, Encoder
from surpass.errors import InputError


def test_by_hand() -> None:
    encoder = Encoder.fit(
        {"age": [30.0, None, 50.0, 70.0], "city": ["Oslo", "Rome", None, "Oslo"]}, min_count=1
    )
    assert encoder.names == (
        "age", "age missing", "city=Oslo", "city=Rome", "city=(other)", "city=(missing)",
    )  # fmt: skip
    new = {"age": [20.0, None, 1.0], "city": ["Rome", "Bern", None]}
    assert encoder.transform(new).tolist() == [
        [20, 0, 0, 1, 0, 0],
        [50, 1, 0, 0, 1, 0],
        [1, 0, 0, 0, 0, 1],
    ]


def test_numbers_and_levels_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=300)
    numbers[rng.random(300) < 0.2] = np.nan
    letters = rng.choice(
        list("abcdefghij"), 300, p=np.array([30, 25, 20, 10, 5, 4, 3, 1, 1, 1]) / 100
    )
    encoder = Encoder.fit({"x": numbers, "c": letters}, min_count=10, min_share=0, max_levels=4)
    out = encoder.transform({"x": numbers, "c": letters}).numpy()
    filled = SimpleImputer(strategy="median", add_indicator=True).fit_transform(numbers[:, None])
    np.testing.assert_allclose(out[:, :2], filled, rtol=1e-6)
    # scikit-learn counts its column of infrequent levels among max_categories
    peer = OneHotEncoder(min_frequency=10, max_categories=5, sparse_output=False)
    np.testing.assert_array_equal(out[:, 2:], peer.fit_transform(letters[:, None]))
    assert encoder.names[2:] == ("c=a", "c=b", "c=c", "c=d", "c=(other)")


def test_only_fitted_rows_decide() -> None:
    encoder = Encoder.fit({"x": [1.0, 3.0], "c": ["a", "a"]}, min_count=1)
    assert encoder.fitted_on == 2
    # A missing number that was never missing before is filled, without an indicator.
    assert encoder.transform({"x": [None], "c": ["new"]}).tolist() == [[2.0, 0.0, 1.0]]


def test_many_levels_are_hashed_into_one_bucket_each() -> None:
    words = [f"page{i}" for i in range(200)]
    encoder = Encoder.fit({"url": words}, hash_above=100, buckets=16)
    out = encoder.transform({"url": [*words, "never seen", None]})
    assert out.shape == (202, 16)
    assert torch.equal(out.sum(1), torch.ones(202))
    assert encoder.names == tuple(f"url#{b}" for b in range(16))
    # Published test vectors of MurmurHash3: the same bucket on every machine and in every run.
    assert Categories("x", buckets=1 << 32).bucket("test") == 0xBA6BD213
    assert Categories("x", buckets=1 << 32).bucket("Hello, world!") == 0xC0363E43
    assert out.argmax(1)[:3].tolist() == [encoder.categorical[0].bucket(w) for w in words[:3]]
    assert torch.equal(out[:1], encoder.transform({"url": ["page0"]}))


def test_other_types() -> None:
    table = pa.table(
        {
            "flag": [True, False, True],
            "day": [datetime(1970, 1, 2), datetime(1970, 1, 3), datetime(1970, 1, 4)],
            "emb": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            "plan": pa.array([3, 1, 3]),
            "kind": pa.array(["u", "v", "u"]).dictionary_encode(),
        }
    )
    encoder = Encoder.fit(table, categorical=["plan"], min_count=1)
    assert encoder.names == (
        "flag", "day", "emb[0]", "emb[1]", "plan=1", "plan=3", "plan=(other)", "kind=u", "kind=v",
        "kind=(other)",
    )  # fmt: skip
    assert encoder.transform(table).tolist() == [
        [1, 1, 1, 2, 0, 1, 0, 1, 0, 0],
        [0, 2, 3, 4, 1, 0, 0, 0, 1, 0],
        [1, 3, 5, 6, 0, 1, 0, 1, 0, 0],
    ]
    assert encoder.transform({**table.slice(0, 1).to_pydict(), "plan": [1.0]})[0, 4] == 1


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)),
            st.one_of(st.none(), st.sampled_from(["", "a", "b", "(other)", "é"])),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_json_keeps_everything_and_blocks_are_one_hot(rows: list[tuple[Any, Any]]) -> None:
    data = {
        "x": pa.array([r[0] for r in rows], pa.float64()),
        "c": pa.array([r[1] for r in rows], pa.string()),
    }
    encoder = Encoder.fit(data, min_count=1)
    again = Encoder.from_json(json.loads(json.dumps(encoder.to_json())))
    out = encoder.transform(data)
    assert again == encoder and again.names == encoder.names
    assert torch.equal(again.transform(data), out)
    one_hot = out[:, len(encoder.numeric) + sum(c.flagged for c in encoder.numeric) :]
    assert torch.equal(one_hot.sum(1), torch.ones(len(rows)))
    assert out.shape[1] == encoder.width == len(encoder.names)


def test_the_graph_half_is_a_torch_graph() -> None:
    data = {"x": [1.0, None, 3.0], "y": [None, 2.0, 2.0], "c": ["a", "b", None]}
    encoder = Encoder.fit(data, min_count=1)
    numbers, codes = encoder.split(data)
    assert numbers.isnan().tolist() == [[False, True], [True, False], [False, False]]
    assert codes.tolist() == [[0], [1], [3]]
    program = torch.export.export(encoder.graph(), (numbers, codes))
    assert torch.equal(program.module()(numbers, codes), encoder.transform(data))


def test_a_missing_column_is_named() -> None:
    encoder = Encoder.fit({"age": [1.0], "city": ["a"]})
    with pytest.raises(InputError) as caught:
        encoder.transform({"aeg": [1.0], "city": ["a"]})
    assert str(caught.value) == (
        "context column 'age' is missing (did you mean 'aeg'?); give all of the columns that the "
        "encoder was fitted on"
    )
    with pytest.raises(InputError) as caught:
        encoder.transform({"age": ["old"], "city": ["a"]})
    assert str(caught.value) == (
        "the log: column 'age', row 1: 'old' is not a number; write a number, or leave it empty if "
        "it is missing"
    )
    with pytest.raises(InputError, match=r"holds struct<.*flatten it"):
        Encoder.fit({"s": [{"k": 1}]})
