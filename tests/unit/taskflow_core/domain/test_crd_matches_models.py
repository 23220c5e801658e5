"""The CRDs are the source; what the code reads and writes has to be the same, field for field."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import annotated_types
import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from taskflow_core import resources
from taskflow_core.domain import task
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.resource import Condition, Model
from taskflow_core.domain.task import TaskSpec, TaskStatus
from taskflow_core.domain.taskschedule import TaskScheduleSpec, TaskScheduleStatus
from taskflow_core.domain.workerpool import WorkerPoolSpec

Schema = dict[str, Any]
WIRE_TYPES = {str: "string", bool: "boolean", int: "integer", datetime: "string", dict: "object", tuple: "array"}


def crd(plural: str) -> Schema:
    text = (resources.path("crds") / f"{plural}.taskflow.dev.yaml").read_text()
    found: Schema = yaml.safe_load(text)
    return found


def schema(plural: str, part: str) -> Schema:
    found: Schema = crd(plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]
    return found


@dataclass(frozen=True)
class Pair:
    """A field of a model beside its schema."""

    path: str
    field: FieldInfo
    schema: Schema
    required: bool

    def __str__(self) -> str:
        return self.path


def plain(annotation: Any) -> Any:
    """The type itself: without None, and without what `Annotated` says of it."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        (annotation,) = [each for each in typing.get_args(annotation) if each is not type(None)]
        return plain(annotation)
    return annotation


def inner_model(annotation: Any) -> type[BaseModel] | None:
    kind = plain(annotation)
    if typing.get_origin(kind) is tuple:
        kind = typing.get_args(kind)[0]
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def pairs(model: type[BaseModel], found: Schema, path: str) -> Iterator[Pair]:
    properties = found["properties"]
    names = {str(field.alias): field for field in model.model_fields.values()}
    assert set(names) == set(properties), f"{path}: fields of {model.__name__} and of the CRD"
    for name, field in names.items():
        below = properties[name]
        yield Pair(f"{path}.{name}", field, below, name in found.get("required", ()))
        if (inner := inner_model(field.annotation)) is not None:
            yield from pairs(inner, below.get("items", below), f"{path}.{name}")


SPEC = list(pairs(TaskSpec, schema("tasks", "spec"), "tasks.spec"))
STATUS = list(pairs(TaskStatus, schema("tasks", "status"), "tasks.status"))
POOL = list(pairs(WorkerPoolSpec, schema("workerpools", "spec"), "workerpools.spec"))
SCHEDULE = list(pairs(TaskScheduleSpec, schema("taskschedules", "spec"), "taskschedules.spec"))
SCHEDULE_STATUS = list(pairs(TaskScheduleStatus, schema("taskschedules", "status"), "taskschedules.status"))
ALL = [*SPEC, *STATUS, *POOL, *SCHEDULE, *SCHEDULE_STATUS]


@pytest.mark.parametrize("pair", ALL, ids=str)
def test_a_field_has_the_type_that_the_crd_says(pair: Pair) -> None:
    kind = plain(pair.field.annotation)
    kind = typing.get_origin(kind) or kind
    if kind is Any:
        assert pair.schema["x-kubernetes-preserve-unknown-fields"] is True
        return
    expected = next((wire for base, wire in WIRE_TYPES.items() if issubclass(kind, base)), "object")
    assert pair.schema["type"] == expected
    assert (pair.schema.get("format") == "date-time") == (kind is datetime)


@pytest.mark.parametrize("pair", [*SPEC, *POOL, *SCHEDULE], ids=str)
def test_a_field_of_a_spec_is_required_or_has_the_default_that_the_crd_says(pair: Pair) -> None:
    assert pair.field.is_required() == pair.required
    if pair.required:
        return
    default = pair.field.get_default(call_default_factory=True)
    if isinstance(default, Model):
        wanted = default.model_dump(by_alias=True, mode="json")
        assert pair.schema.get("default", {}) == {
            name: value for name, value in wanted.items() if value not in ([], {}, None)
        }
    elif default is None:
        assert "default" not in pair.schema
    elif default not in ((), {}):
        assert pair.schema["default"] == default
    else:
        assert pair.schema.get("default", default) in (default, [], {})


def bounds(field: FieldInfo) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in field.metadata:
        if isinstance(each, annotated_types.Ge):
            found["minimum"] = each.ge
        if isinstance(each, annotated_types.Le):
            found["maximum"] = each.le
    return found


@pytest.mark.parametrize("pair", [pair for pair in [*SPEC, *SCHEDULE] if plain(pair.field.annotation) is int], ids=str)
def test_a_number_of_a_spec_has_the_bounds_that_the_crd_says(pair: Pair) -> None:
    assert bounds(pair.field) == {"minimum": pair.schema["minimum"], "maximum": pair.schema["maximum"]}


def test_the_phases_of_the_crd_are_ours() -> None:
    assert schema("tasks", "status")["properties"]["phase"]["enum"] == list(Phase)


def test_every_reason_fits_where_the_crd_keeps_reasons() -> None:
    status = schema("tasks", "status")["properties"]
    longest = max(map(len, Reason))
    condition = status["conditions"]["items"]["properties"]["reason"]
    assert longest <= min(
        status["reason"]["maxLength"], status["lastError"]["properties"]["reason"]["maxLength"], condition["maxLength"]
    )


def test_messages_are_as_long_as_the_code_cuts_them() -> None:
    status = schema("tasks", "status")["properties"]
    for found in (status, status["lastError"]["properties"], status["conditions"]["items"]["properties"]):
        assert found["message"]["maxLength"] == task.MAX_MESSAGE_CHARS


def test_conditions_are_those_of_a_task() -> None:
    pools, schedules, mine = (
        schema(each, "status")["properties"]["conditions"]["items"]
        for each in ("workerpools", "taskschedules", "tasks")
    )
    assert pools == schedules == mine
    assert {str(field.alias) for field in Condition.model_fields.values()} == set(mine["properties"])


@dataclass(frozen=True)
class Place:
    path: str
    schema: Schema

    def __str__(self) -> str:
        return self.path


def walk(found: Schema, path: str) -> Iterator[Place]:
    yield Place(path, found)
    for name, below in found.get("properties", {}).items():
        yield from walk(below, f"{path}.{name}")
    if "items" in found:
        yield from walk(found["items"], f"{path}[]")
    if isinstance(values := found.get("additionalProperties"), dict):
        yield from walk(values, f"{path}[*]")


PLURALS = sorted(path.name.removesuffix(".taskflow.dev.yaml") for path in resources.path("crds").glob("*.yaml"))
PLACES = [
    place
    for plural in PLURALS
    for part, found in crd(plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].items()
    if part in ("spec", "status")
    for place in walk(found, f"{plural}.{part}")
]


LONG_LISTS = {
    # The items of an array are values, and their size in all is what bounds them.
    "tasks.spec.array.items": 4096,
    "taskschedules.spec.taskTemplate.spec.array.items": 4096,
    "tasktemplates.spec.handlers": 256,
    # As many as run side by side.
    "taskschedules.status.backfills[].running": 100,
}


def of_type(kind: str) -> list[Place]:
    return [place for place in PLACES if place.schema.get("type") == kind]


def test_every_crd_is_looked_at() -> None:
    assert PLURALS == ["tasks", "taskschedules", "tasktemplates", "workerpools"]


@pytest.mark.parametrize("place", [place for place in PLACES if not place.path.endswith("[*]")], ids=str)
def test_every_field_says_what_it_is_for(place: Place) -> None:
    assert len(place.schema["description"].strip()) > 5
    assert place.schema["description"].strip().endswith(".")


@pytest.mark.parametrize("place", of_type("string"), ids=str)
def test_every_string_is_bounded(place: Place) -> None:
    assert {"maxLength", "enum", "format"} & set(place.schema)


@pytest.mark.parametrize("place", of_type("array"), ids=str)
def test_every_list_is_bounded_and_says_how_it_merges(place: Place) -> None:
    assert place.schema["maxItems"] <= LONG_LISTS.get(place.path, 64)
    if place.schema["items"].get("type") == "object":
        assert place.schema["x-kubernetes-list-type"] == "map"


@pytest.mark.parametrize("place", of_type("integer"), ids=str)
def test_every_number_is_bounded(place: Place) -> None:
    assert place.schema["format"] in ("int32", "int64")
    assert "minimum" in place.schema
    if ".spec." in place.path:
        assert "maximum" in place.schema


def test_no_field_is_a_float() -> None:
    assert of_type("number") == []


@pytest.mark.parametrize("plural", PLURALS)
def test_every_printer_column_says_what_it_shows(plural: str) -> None:
    for column in crd(plural)["spec"]["versions"][0]["additionalPrinterColumns"]:
        assert column["description"].endswith("."), column["name"]
