from __future__ import annotations

import json
from typing import Any

import pytest

from taskflow_core.domain.message import HEADER_ENTERED, entered_ms


def raw(**fields: Any) -> str:
    return json.dumps({"body": "e30=", "headers": {HEADER_ENTERED: 1234, "task": "taskflow.run"}, **fields})


def test_the_time_of_entry_is_read_from_a_message() -> None:
    assert entered_ms(raw()) == 1234


def test_no_message_has_no_time() -> None:
    assert entered_ms(None) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        raw(headers=None),
        raw(headers={}),
        raw(headers=[]),
        raw(headers={HEADER_ENTERED: None}),
        raw(headers={HEADER_ENTERED: "x"}),
        raw(headers={HEADER_ENTERED: []}),
    ],
)
def test_a_message_that_is_not_ours_has_no_time(text: str) -> None:
    assert entered_ms(text) is None
