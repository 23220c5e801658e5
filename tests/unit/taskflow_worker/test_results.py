from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_RESULT_BYTES
from taskflow_worker.attempts import results
from taskflow_worker.attempts.results import RESULT_OUTPUT
from taskflow_worker.sdk.json_text import as_json
from taskflow_worker.sdk.testing import run


class Sale(BaseModel):
    item: str
    on: date = Field(serialization_alias="soldOn")


@dataclass
class Point:
    x: int


class Colour(Enum):
    RED = "red"


def returning(value: Any) -> Callable[[], Any]:
    def give() -> Any:
        return value

    return give


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Sale(item="tea", on=date(2026, 3, 1)), {"item": "tea", "soldOn": "2026-03-01"}),
        ([Point(1), {"p": Point(2)}], [{"x": 1}, {"p": {"x": 2}}]),
        (datetime(2026, 3, 1, 12, tzinfo=UTC), "2026-03-01T12:00:00Z"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "red"),
        (Path("/a/b"), "/a/b"),
        ({1}, [1]),
        ((1, (2,)), [1, [2]]),
        ({3: None}, {"3": None}),
        (b"text", "text"),
    ],
)
def test_a_result_may_have_any_type_that_pydantic_can_encode(value: Any, expected: Any) -> None:
    assert run(returning(value)).result == expected


def numbers() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    "value",
    [object(), float("nan"), {"a": [Decimal(1), float("inf")]}, numbers(), b"\xff", "\ud800", Point(float("nan"))],  # type: ignore[arg-type]
    ids=["object", "nan", "infinity", "generator", "bytes", "surrogate", "nan inside"],
)
def test_a_value_without_a_json_form_is_refused(value: Any) -> None:
    failure = run(returning(value)).failure
    assert failure is not None
    assert failure.reason is Reason.RESULT_NOT_SERIALISABLE
    assert "has no JSON form" in failure.message


@dataclass
class Table:
    cells: dict[Any, int]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({1: "a", "1": "b"}, "the keys 1 and '1' of a dict are both \"1\" in JSON"),
        ([{"a": ({True: 1, "true": 2},)}], "the keys True and 'true' of a dict are both \"true\""),
        ({None: 1, "null": 2}, "the keys None and 'null' of a dict are both \"null\""),
        ({1.0: 1, "1.0": 2}, "the keys 1.0 and '1.0' of a dict are both \"1.0\""),
        ({"t": Table({1: 1, "1": 2})}, 'an object would have the key "1" twice'),
    ],
)
def test_keys_that_are_the_same_in_json_are_refused(value: Any, told: str) -> None:
    failure = run(returning(value)).failure
    assert failure is not None
    assert failure.reason is Reason.RESULT_NOT_SERIALISABLE
    assert told in failure.message


def test_keys_that_differ_in_json_are_kept() -> None:
    assert run(returning({1: 1, "a": {None: 2, True: 3}})).result == {"1": 1, "a": {"null": 2, "true": 3}}
    assert run(returning(Table({1: 1, 2: 2}))).result == {"cells": {"1": 1, "2": 2}}


def test_a_result_up_to_the_limit_is_inline() -> None:
    value = "x" * (MAX_RESULT_BYTES - 2)
    outcome = run(returning(value))
    assert outcome.result == value
    assert outcome.outputs == {}


def test_a_larger_result_is_stored_as_an_output() -> None:
    value = {"rows": ["é" * 100] * 100}
    outcome = run(returning(value))
    assert outcome.result == {"artifact": RESULT_OUTPUT}
    assert json.loads(outcome.outputs[RESULT_OUTPUT]) == value


def test_a_declared_output_is_never_overwritten_by_a_result() -> None:
    outcome = run(returning("x" * 5000), outputs=[RESULT_OUTPUT])
    assert outcome.failure is not None
    assert outcome.failure.reason is Reason.OUTPUT_MISSING


def test_a_result_beyond_the_stored_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_STORED_RESULT_BYTES", 10_000)
    failure = run(returning("x" * 9_999)).failure
    assert failure is not None
    assert failure.reason is Reason.RESULT_TOO_LARGE
    assert "10001 bytes of JSON, at most 10000 are stored" in failure.message


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [51, 500, 2000])
def test_a_result_nested_too_deeply_is_refused(levels: int) -> None:
    failure = run(returning(nested(levels))).failure
    assert failure is not None
    assert failure.reason is Reason.RESULT_NOT_SERIALISABLE


def test_integers_beyond_64_bits_are_refused() -> None:
    failure = run(returning({"a": [2**63]})).failure
    assert failure is not None
    assert failure.reason is Reason.RESULT_NOT_SERIALISABLE
    assert run(returning([2**63 - 1, -(2**63), True])).result == [2**63 - 1, -(2**63), True]


def test_a_value_is_written_as_plain_json() -> None:
    assert as_json({"a": [1, None, "é"]}) == '{"a": [1, None, "é"]}'.replace("None", "null")
