"""Handlers with hints of all kinds, and arguments that they take."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from taskflow_worker.sdk import Context
from taskflow_worker.sdk.registry import Registry

REGISTRY = Registry()


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Place(BaseModel):
    model_config = ConfigDict(extra="forbid")
    city: str
    code: Annotated[str, Field(pattern=r"^\d{5}$")] = "00000"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Row(BaseModel):
    id: int
    where: Place
    parent: Row | None = None


@dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.0


def plain(name: str, count: int = 3, *, ratio: float = 0.5, dry: bool = False, anything: Any = None) -> None:
    """Take plain values.

    And say more about it.
    """


def bounded(
    year: Annotated[int, Field(ge=1990, lt=2100)],
    name: Annotated[str, Field(min_length=2, max_length=5, pattern="^[a-z]+$")],
    tags: Annotated[list[str], Field(min_length=1, max_length=3)],
    many: Annotated[int, Field(multiple_of=5)] = 5,
    word: Annotated[str, Field(pattern=r"^\w+$")] = "a",
) -> None:
    pass


def unions(
    number: int | None,
    either: int | str,
    colour: Colour | None = None,
    literal: Literal["x", 1] | None = None,
    place: Place | list[int] | None = None,
    animal: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None,
    mixed: Literal["all"] | int = "all",
) -> None:
    pass


def nested(rows: list[Row], point: Point, level: Level = Level.LOW, by_name: dict[str, int] | None = None) -> None:
    pass


def formats(
    day: dt.date,
    moment: dt.datetime,
    pause: dt.timedelta,
    amount: decimal.Decimal,
    key: uuid.UUID,
    pair: tuple[int, str],
    some: set[int],
    data: bytes,
) -> None:
    pass


def positional(first: int, /, second: int, *rest: int, context: Context, **more: int) -> None:
    pass


def callback(call: Callable[[int], int] | None = None) -> None:
    pass


for function in (plain, bounded, unions, nested, formats, positional, callback):
    REGISTRY.add(f"kinds.{function.__name__}", function)

DEEP = {
    "id": 1,
    "where": {"city": "x"},
    "parent": {"id": 2, "where": {"city": "y"}, "parent": {"id": 3, "where": {"city": "z"}}},
}
RIGHT: dict[str, list[dict[str, Any]]] = {
    "kinds.plain": [{"name": "a"}, {"name": "a", "count": 1, "ratio": 1, "dry": True, "anything": {"a": [1]}}],
    "kinds.bounded": [
        {"year": 1990, "name": "ab", "tags": ["a"]},
        {"year": 2099, "name": "abcde", "tags": ["a", "b", "c"], "many": 10, "word": "ä"},
    ],
    "kinds.unions": [
        {"number": None, "either": "a"},
        {"number": 1, "either": 1, "colour": "red", "literal": 1, "place": {"city": "x"}, "mixed": 3},
        {"number": 1, "either": 1, "literal": "x", "place": [1, 2], "animal": {"kind": "cat", "lives": 9}},
        {"number": 1, "either": 1, "animal": {"kind": "dog", "name": "x"}, "mixed": "all"},
    ],
    "kinds.nested": [
        {"rows": [], "point": {"x": 1}},
        {"rows": [DEEP], "point": {"x": 1.5, "y": 2}, "level": 2, "by_name": {"a": 1}},
    ],
    "kinds.formats": [
        {
            "day": "2026-01-31",
            "moment": "2026-01-31T08:00:00Z",
            "pause": "PT5S",
            "amount": amount,
            "key": "6f1c2b7e-8f0a-4c8e-9a53-0f3f2d8b1c11",
            "pair": [1, "a"],
            "some": [1, 2],
            "data": "abc",
        }
        for amount in (1, 1.5, "1.50")
    ],
    "kinds.positional": [{"second": 1, "more": 2}, {"second": 1}],
    "kinds.callback": [{}],
}
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("kinds.plain", {}),
    ("kinds.plain", {"name": 1}),
    ("kinds.plain", {"name": "a", "unknown": 1}),
    ("kinds.plain", {"name": "a", "dry": "yes"}),
    ("kinds.bounded", {"year": 1989, "name": "ab", "tags": ["a"]}),
    ("kinds.bounded", {"year": 2100, "name": "ab", "tags": ["a"]}),
    ("kinds.bounded", {"year": 2000, "name": "AB", "tags": ["a"]}),
    ("kinds.bounded", {"year": 2000, "name": "ab", "tags": []}),
    ("kinds.unions", {"number": "1", "either": 1}),
    ("kinds.unions", {"number": 1, "either": [1]}),
    ("kinds.unions", {"number": 1, "either": 1, "colour": "green"}),
    ("kinds.unions", {"number": 1, "either": 1, "literal": "y"}),
    ("kinds.unions", {"number": 1, "either": 1, "place": {"city": "x", "more": 1}}),
    ("kinds.unions", {"number": 1, "either": 1, "place": ["a"]}),
    ("kinds.nested", {"rows": [{"id": "a", "where": {"city": "x"}}], "point": {"x": 1}}),
    ("kinds.nested", {"rows": [], "point": {"y": 1}}),
    ("kinds.nested", {"rows": [], "point": {"x": 1}, "level": 3}),
    ("kinds.formats", {"day": 1}),
    ("kinds.positional", {"second": "a"}),
]
"""What the schema refuses, and so does the worker."""
LATER: list[tuple[str, dict[str, Any]]] = [
    ("kinds.bounded", {"year": 2000, "name": "ab", "tags": ["a"], "many": 3}),
    ("kinds.formats", RIGHT["kinds.formats"][0] | {"day": "tomorrow"}),
    ("kinds.formats", RIGHT["kinds.formats"][0] | {"pair": ["a", 1]}),
    ("kinds.nested", {"rows": [], "point": {"x": 1}, "by_name": {"a": "b"}}),
    (
        "kinds.nested",
        {"rows": [{"id": 1, "where": {"city": "x"}, "parent": {"id": "a", "where": {}}}], "point": {"x": 1}},
    ),
    ("kinds.unions", {"number": 1, "either": 1, "animal": {"kind": "cat", "name": "x"}}),
    ("kinds.unions", {"number": 1, "either": 1, "mixed": "some"}),
]
"""What the schema cannot say, and the worker refuses."""
