from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Invalid
from taskflow_worker.describe.template import describe, drift, text
from taskflow_worker.sdk.failures import AttemptFailed
from taskflow_worker.sdk.registry import Registry
from tests.unit.taskflow_worker.describe.handlers_of_all_kinds import LATER, REGISTRY, RIGHT, WRONG

DESCRIBED = {each.entry["name"]: each for each in describe(REGISTRY)}
CASES = [(name, kwargs) for name, each in RIGHT.items() for kwargs in each]


def admits(name: str, kwargs: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(DESCRIBED[name].entry["kwargs"]).is_valid(kwargs))


def refused_by_the_worker(name: str, kwargs: dict[str, Any]) -> bool:
    args = [1] if name == "kinds.positional" else []
    try:
        REGISTRY.find(name).bind(args, kwargs)
    except AttemptFailed as error:
        return error.failure.reason == Reason.INVALID_ARGUMENTS
    return False


def test_every_handler_is_described() -> None:
    assert sorted(DESCRIBED) == sorted(RIGHT)


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_what_a_handler_takes_its_schema_admits(name: str, kwargs: dict[str, Any]) -> None:
    assert not refused_by_the_worker(name, kwargs)
    assert admits(name, kwargs)


@pytest.mark.parametrize(("name", "kwargs"), WRONG)
def test_what_its_schema_refuses_a_handler_does_not_take(name: str, kwargs: dict[str, Any]) -> None:
    assert not admits(name, kwargs)
    assert refused_by_the_worker(name, kwargs)


@pytest.mark.parametrize(("name", "kwargs"), LATER)
def test_what_a_schema_cannot_say_the_worker_refuses(name: str, kwargs: dict[str, Any]) -> None:
    assert admits(name, kwargs)
    assert refused_by_the_worker(name, kwargs)


def test_what_is_left_out_is_said_in_comments() -> None:
    written = text(DESCRIBED.values(), "kinds")
    for line in (
        "kwargs.day: format date",
        "kwargs.pair: prefixItems",
        "kwargs.many: multipleOf 5",
        r"kwargs.word: pattern ^\w+$",
        "kwargs.by_name: additionalProperties of one schema",
        "kwargs.rows[].parent: properties deeper than 3 levels",
        "kwargs.mixed: enum of some of several types",
        "kwargs.animal: oneOf of values of one type",
    ):
        assert f"    #   {line}\n" in written, line
    found = yaml.safe_load(written)
    assert found["metadata"] == {"name": "kinds"}
    assert found["spec"]["handlers"] == [each.entry for each in DESCRIBED.values()]


def test_the_summary_of_the_docstring_and_defaults_are_shown() -> None:
    entry = DESCRIBED["kinds.plain"].entry
    assert entry["description"] == "Take plain values."
    assert entry["kwargs"]["required"] == ["name"]
    assert entry["kwargs"]["properties"]["count"] == {"type": "integer", "default": 3}
    assert entry["kwargs"]["properties"]["anything"] == {}


def test_a_digit_is_any_digit_as_in_the_worker() -> None:
    properties = DESCRIBED["kinds.unions"].entry["kwargs"]["properties"]["place"]["properties"]
    assert properties["code"]["pattern"] == r"^\p{Nd}{5}$"


def test_only_what_describe_writes_is_compared() -> None:
    found = yaml.safe_load(text(DESCRIBED.values(), "kinds"))
    found["spec"]["revision"] = "2"
    for each in found["spec"]["handlers"]:
        each |= {"allow": [], "deprecated": "yes", "defaults": {"kwargs": {"a": 1}}}
    found["spec"]["handlers"].reverse()
    assert drift(DESCRIBED.values(), yaml.safe_dump(found), None, "t.yaml") == ""


def test_a_drift_is_shown_as_a_difference() -> None:
    written = text(DESCRIBED.values(), "kinds")
    changed = written.replace("1990", "1991").replace("kinds.plain", "kinds.other")
    found = drift(DESCRIBED.values(), changed, None, "t.yaml").splitlines()
    assert found[:2] == ["--- t.yaml", "+++ handlers of this worker"]
    for line in ("-        minimum: 1991", "+        minimum: 1990", "-  name: kinds.other", "+  name: kinds.plain"):
        assert line in found


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        ("a: [", None, "expected YAML"),
        ("kind: Task", None, "expected one TaskTemplate, found 0"),
        (
            "kind: TaskTemplate\n---\nkind: TaskTemplate",
            None,
            "expected one TaskTemplate, found 2; choose one with --name",
        ),
        ("kind: TaskTemplate\nmetadata: {name: a}", "b", "expected one TaskTemplate named b, found 0"),
        ("kind: TaskTemplate", None, "expected a list of objects in spec.handlers"),
    ],
)
def test_a_file_that_cannot_be_compared_is_an_error(content: str, name: str | None, why: str) -> None:
    with pytest.raises(Invalid, match=r"^t\.yaml: ") as error:
        drift(DESCRIBED.values(), content, name, "t.yaml")
    assert why in str(error.value)


def test_a_worker_without_handlers_of_its_own_is_an_error() -> None:
    with pytest.raises(Invalid, match="found 0 handlers, expected 1 to 256; name modules with --module"):
        describe(Registry())
