from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core.kube.deep_json import cut, read_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def nested(levels: int) -> bytes:
    return b'{"a":' + b"[" * levels + b'"x]}\\""' + b"]" * levels + b',"b":1}'


@given(JSON, st.integers(min_value=0, max_value=4))
def test_what_is_cut_is_json_and_no_deeper(value: Any, levels: int) -> None:
    def depth(value: Any) -> int:
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if children is None else 1 + max(map(depth, children), default=0)

    text = json.dumps(value).encode()
    found = json.loads(cut(text, levels))
    assert depth(found) <= levels
    if depth(value) <= levels:
        assert found == value


@pytest.mark.parametrize("levels", [10, 900, 5000, 10000])
def test_an_answer_of_any_depth_is_read(levels: int) -> None:
    found = read_json(nested(levels))
    assert found["b"] == 1
    assert isinstance(found["a"], list)
