from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from taskflow_api.schedules.schemas import ScheduleSpecBody, ScheduleSpecChange, TimingBody
from taskflow_api.tasks.schemas import TaskSpecBody
from taskflow_core import resources
from taskflow_core.domain.task import TaskSpec
from tests.unit.taskflow_api.fakes import Api

BOUNDS = ("type", "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems", "maxProperties")

OPERATIONS = {
    "createTask",
    "createTasks",
    "streamEvents",
    "streamTaskEvents",
    "getLogs",
    "getWhy",
    "cancelTasks",
    "retryTasks",
    "listOperations",
    "getOperation",
    "deleteOperation",
    "listPools",
    "getPool",
    "changePool",
    "createSchedule",
    "listHandlers",
    "listSchedules",
    "getSchedule",
    "changeSchedule",
    "suspendSchedule",
    "resumeSchedule",
    "deleteSchedule",
    "backfillSchedule",
    "listScheduleRuns",
    "runSchedule",
    "getNextTicks",
    "previewSchedule",
    "changeTask",
    "cancelTask",
    "retryTask",
    "listTasks",
    "listItems",
    "getTask",
    "deleteTask",
    "forgetRuns",
    "listArtifacts",
    "getArtifact",
    "createUpload",
    "listFiles",
    "getFile",
    "deleteFile",
    "createMultipartUpload",
    "signParts",
    "completeMultipartUpload",
    "abortMultipartUpload",
    "createApiKey",
    "listApiKeys",
    "getApiKey",
    "rotateApiKey",
    "revokeApiKey",
    "createWebhook",
    "listWebhooks",
    "getWebhook",
    "changeWebhook",
    "deleteWebhook",
    "rotateWebhookSecret",
    "testWebhook",
    "listDeliveries",
    "getDelivery",
    "replayDelivery",
    "getLiveness",
    "getStartup",
    "getReadiness",
    "getVersion",
}


def _crd(plural: str) -> dict[str, Any]:
    text = (resources.path("crds") / f"{plural}.taskflow.dev.yaml").read_text()
    spec: dict[str, Any] = yaml.safe_load(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][
        "spec"
    ]
    return spec


def _resolved(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its references replaced."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            target = definitions[schema["$ref"].rpartition("/")[2]]
            return _resolved({**target, **{k: v for k, v in schema.items() if k != "$ref"}}, definitions)
        # What may be left out is null in JSON Schema, and absent in the CRD.
        if [each for each in schema.get("anyOf", ()) if each.get("type") == "null"]:
            (present,) = [each for each in schema["anyOf"] if each.get("type") != "null"]
            return _resolved({**present, **{k: v for k, v in schema.items() if k != "anyOf"}}, definitions)
        return {name: _resolved(value, definitions) for name, value in schema.items()}
    return schema


def _bounds(schema: dict[str, Any], where: str = "spec") -> dict[str, Any]:
    """Every bound, requirement and default, by path."""
    found = {f"{where}.{bound}": schema[bound] for bound in BOUNDS if bound in schema}
    # The API's own closed world (no unknown field) is stricter on purpose; empty lists are absent ones.
    if schema.get("required"):
        found[f"{where}.required"] = sorted(schema["required"])
    if schema.get("default") not in (None, [], {}):
        default = schema["default"]
        filled = {k: v for k, v in default.items() if v != []} if isinstance(default, dict) else default
        found[f"{where}.default"] = filled
    for name, child in schema.get("properties", {}).items():
        found |= _bounds(child, f"{where}.{name}")
    if isinstance(schema.get("items"), dict):
        found |= _bounds(schema["items"], f"{where}[]")
    return found


@pytest.mark.parametrize(("body", "plural"), [(TaskSpecBody, "tasks"), (ScheduleSpecBody, "taskschedules")])
def test_the_request_schema_has_the_bounds_and_defaults_of_the_crd(body: type[BaseModel], plural: str) -> None:
    schema = body.model_json_schema()
    ours = _bounds(_resolved(schema, schema["$defs"]))
    theirs = _bounds(_crd(plural))
    assert ours == theirs
    assert len(theirs) > 50


def test_a_preview_and_a_change_take_what_a_creation_takes() -> None:
    def fields(model: type[BaseModel]) -> dict[str, Any]:
        schema = model.model_json_schema()
        resolved = _resolved(schema, schema["$defs"])["properties"]
        return {
            name: {k: v for k, v in _bounds(each).items() if ".default" not in k} for name, each in resolved.items()
        }

    created, changed = fields(ScheduleSpecBody), fields(ScheduleSpecChange)
    assert created.keys() == changed.keys()
    for part in (fields(TimingBody), {name: each for name, each in changed.items() if name != "taskTemplate"}):
        assert part == {name: created[name] for name in part}


def test_defaults_are_those_that_the_operator_reads() -> None:
    ours = TaskSpecBody(handler="a").model_dump(mode="json", by_alias=True)
    assert ours == TaskSpec(handler="a").model_dump(mode="json", by_alias=True)


async def test_openapi_declares_ids_problems_security_and_bounds() -> None:
    document = (await Api().call("GET", "/openapi.json", token="")).json
    assert document["openapi"].startswith("3.1")
    operations = {
        operation["operationId"]: operation for path in document["paths"].values() for operation in path.values()
    }
    assert set(operations) == OPERATIONS
    for name, operation in operations.items():
        if name in ("getLiveness", "getStartup", "getReadiness", "getVersion"):
            assert "security" not in operation
            continue
        assert operation["security"] == [{"bearer": []}]
        for status in ("401", "403", "422", "503"):
            assert list(operation["responses"][status]["content"]) == ["application/problem+json"]
    schemas = document["components"]["schemas"]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert schemas["Problem"]["properties"]["errors"]["items"] == {"$ref": "#/components/schemas/FieldError"}
    assert schemas["TaskSpecBody"]["properties"]["handler"]["maxLength"] == 253
    assert "HTTPValidationError" not in schemas


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_no_page_loads_scripts_from_elsewhere(path: str) -> None:
    assert (await Api().call("GET", path)).status == 404


def test_a_delimiter_is_one_character_between_fields_of_csv() -> None:
    def accepted(**source: str) -> bool:
        TaskSpecBody.model_validate({"handler": "a.b", "array": {"itemsFrom": {"key": "in", **source}}})
        return True

    assert accepted(format="CSV", delimiter="\t")
    with pytest.raises(ValidationError, match="delimiter can only be set with format CSV"):
        accepted(delimiter=";")
    for wrong in (";;", "", '"', "\n"):
        with pytest.raises(ValidationError, match="delimiter"):
            accepted(format="CSV", delimiter=wrong)
