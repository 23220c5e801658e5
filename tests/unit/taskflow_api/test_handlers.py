from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from taskflow_api.handlers.examples import example
from taskflow_core.errors import Conflict, Invalid
from tests.unit.taskflow_api.fakes import Api

PATH = "/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasktemplates"
HANDLERS = "/v1/namespaces/team-a/handlers"
SCHEMA = {
    "type": "object",
    "required": ["region", "year"],
    "additionalProperties": False,
    "properties": {"region": {"enum": ["eu", "us"]}, "year": {"type": "integer", "minimum": 1990}, "note": {}},
}
FULL = {
    "name": "reports.build",
    "description": "Build it.",
    "kwargs": SCHEMA,
    "defaults": {"kwargs": {"region": "us"}, "attemptTimeoutSeconds": 60},
    "allow": ["priority"],
    "deprecated": "use reports.make",
}


def stored(*handlers: dict[str, Any], token: str = "") -> Api:
    api = Api()
    body = {"metadata": {"name": "reports", "namespace": "team-a"}, "spec": {"handlers": list(handlers)}}
    api.kube.objects[PATH] = {"items": [body], "metadata": {"continue": token}}
    return api


async def test_a_handler_is_shown_as_its_template_describes_it() -> None:
    answer = await stored(FULL).call("GET", HANDLERS)
    assert answer.status == 200
    assert answer.json == {
        "items": [
            FULL
            | {
                "template": "reports",
                "example": {
                    "generateName": "reports-build-",
                    "spec": {"handler": "reports.build", "kwargs": {"region": "us", "year": 1990}},
                },
            }
        ],
        "nextCursor": None,
    }


async def test_a_handler_of_which_nothing_is_said_takes_anything() -> None:
    [found] = (await stored({"name": "a"}).call("GET", HANDLERS)).json["items"]
    assert (found["kwargs"], found["allow"], found["defaults"], found["deprecated"]) == (None, None, {}, "")
    assert found["example"] == {"generateName": "a-", "spec": {"handler": "a", "kwargs": {}}}


@pytest.mark.parametrize(("handler", "prefix"), [("_", "task-"), ("A.b_C:d-", "a-b-c-d-"), ("x" * 253, "x" * 50 + "-")])
async def test_the_name_of_an_example_is_one_of_a_task(handler: str, prefix: str) -> None:
    [found] = (await stored({"name": handler}).call("GET", HANDLERS)).json["items"]
    assert found["example"]["generateName"] == prefix


async def test_pages_follow_the_templates() -> None:
    api = stored({"name": "a"}, {"name": "b"}, token="next")
    answer = await api.call("GET", HANDLERS + "?limit=1")
    assert ([item["name"] for item in answer.json["items"]], answer.json["nextCursor"]) == (["a", "b"], "next")
    for failure in (Conflict("410"), Invalid("400")):
        api.kube.failure, api.kube.fail_on = failure, "tasktemplates"
        answer = await api.call("GET", HANDLERS + "?cursor=old")
        assert (answer.status, answer.json["code"]) == (400, "bad-cursor")


async def test_the_right_is_that_on_tasktemplates() -> None:
    api = stored(FULL)
    answer = await api.call("GET", HANDLERS, token="bob-token")
    assert (answer.status, "tasktemplates.taskflow.dev" in answer.json["detail"]) == (403, True)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {"type": "integer", "minimum": 5, "maximum": 7},
        {"type": "integer", "exclusiveMinimum": 5},
        {"type": "integer", "maximum": -5},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "number", "exclusiveMaximum": 0},
        {"type": "string", "minLength": 10},
        {"type": "string", "maxLength": 2},
        {"type": ["null", "string"]},
        {"type": "boolean"},
        {"enum": [None, 1]},
        {"type": "array", "minItems": 2, "items": {"type": "integer", "minimum": 3}},
        {"type": "object", "required": ["a"], "properties": {"a": {"type": "object", "required": ["b"]}}},
        {"type": "integer", "default": 3},
        {},
        SCHEMA,
    ],
)
def test_an_example_fits_its_schema(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema).validate(example(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 3},
        {"type": []},
        {"type": "object", "required": "a", "properties": []},
        {"type": "object", "required": [1, "a"], "properties": {"a": 1}},
        {"type": "array", "minItems": 10**9},
        {"type": "array", "minItems": "x", "items": True},
        {"type": "string", "minLength": 10**9, "maxLength": -1},
        {"type": "number", "minimum": "1", "maximum": True},
        {"enum": {}},
    ],
)
def test_an_example_of_what_is_no_schema_is_no_error(schema: dict[str, Any]) -> None:
    example(schema)
