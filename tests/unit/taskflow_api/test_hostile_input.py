"""What a caller may send to confuse parsers, logs and browsers."""

import json
import subprocess
import sys
from typing import Any

import pytest

from taskflow_api.http.middleware import MAX_BODY_BYTES
from taskflow_api.http.nesting import MAX_LEVELS, nested_deeper
from taskflow_core.domain.task import MAX_JSON_LEVELS
from tests.unit.taskflow_api.fakes import UID, Api

TASKS = "/v1/namespaces/team-a/tasks"
PATH = "/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks"
ESCAPE = "\x1b[2J\x1b[31m"


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + closing * levels


def task(args: str = "[]", **fields: Any) -> bytes:
    rest = json.dumps({"name": "x", **fields})
    return f'{rest[:-1]}, "spec": {{"handler": "a.b", "args": {args}}}}}'.encode()


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ("[]" * 50, False),
        (nested(4), False),
        (nested(5), True),
        (nested(5)[:5], True),
        ('{"a":' * 5 + "1" + "}" * 5, True),
        (json.dumps(["[" * 50, '"[[[[[[', "\\[[[[[[[\\\\", {"[[[[[[[[": "{{{{{{{"}]), False),
        (json.dumps(["\\", [[[[[]]]]]]), True),
        ('"[[[[[[[[', False),
        ("]]]]][[[[[[[[[[", True),
        ("", False),
    ],
)
def test_depth_is_found_without_parsing(text: str, deep: bool) -> None:
    assert nested_deeper(text.encode(), 4) is deep


@pytest.mark.parametrize("levels", [MAX_LEVELS + 1, 400, 5000, MAX_BODY_BYTES // 2 - 200])
async def test_a_body_nested_deep_is_a_problem_of_the_caller(levels: int) -> None:
    api = Api()
    deep = nested(levels)
    for method, path, body in (
        ("POST", TASKS, task(deep)),
        ("POST", TASKS + ":batch", b'{"items": [' + task(deep) + b"]}"),
        ("POST", TASKS + ":batch", deep.encode()),
        ("PATCH", TASKS + "/x", f'{{"spec": {deep}}}'.encode()),
        ("POST", TASKS, f'{{"name": "x", "labels": {{"a": {deep}}}, "spec": {{"handler": "a.b"}}}}'.encode()),
        ("POST", TASKS + ":cancel", f'{{"filter": {deep}}}'.encode()),
        ("POST", "/v1/namespaces/team-a/uploads", ('{"a":' * levels)[: MAX_BODY_BYTES - 10].encode()),
    ):
        answer = await api.call(method, path, body[: MAX_BODY_BYTES - 1])
        assert (answer.status, answer.json["code"]) == (422, "invalid"), (path, answer.body)
        assert "nested deeper than" in answer.json["detail"]
    assert api.kube.objects == {}


@pytest.mark.parametrize(("levels", "status"), [(MAX_JSON_LEVELS + 1, 201), (MAX_JSON_LEVELS + 2, 422)])
async def test_a_payload_deeper_than_an_operator_accepts_is_refused_at_once(levels: int, status: int) -> None:
    api, args = Api(), "[" * levels + "1" + "]" * levels
    answer = await api.call("POST", TASKS, task(args))
    assert answer.status == status
    batch = await api.call("POST", TASKS + ":batch", b'{"items": [' + task(args, name="y") + b"]}")
    (item,) = batch.json["items"]
    assert item["status"] == status
    if status == 422:
        assert [each["pointer"] for each in answer.json["errors"]] == ["/spec/args"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
async def test_json_is_utf_8(encoding: str) -> None:
    answer = await Api().call("POST", TASKS, task('["\N{FOR ALL}"]').decode().encode(encoding))
    assert (answer.status, answer.json["code"]) == (400, "bad-request")


@pytest.mark.parametrize("levels", [60, 250, 900])
async def test_a_resource_nested_deep_is_shown_without_its_payload_and_not_repeated(levels: int) -> None:
    api = Api()
    meta = {"uid": UID, "name": "x", "namespace": "team-a", "resourceVersion": "1"}
    api.kube.objects[f"{PATH}/x"] = {
        "metadata": meta | {"creationTimestamp": "2026-09-20T12:00:00Z"},
        "spec": {"handler": "a.b", "args": [json.loads(nested(levels))]},
        "status": {"phase": "Failed"},
    }
    shown = await api.call("GET", TASKS + "/x")
    assert (shown.status, shown.json["spec"]) == (200, {"handler": "a.b"})
    assert (await api.call("POST", TASKS + "/x:retry")).status == 422
    assert len(api.kube.objects) == 1


@pytest.mark.parametrize(
    "labels",
    [
        {"a": "x" * 64},
        {"a": "x" * 500_000},
        {"a" * 400: "x"},
        {"a": "\ud800"},
        {"a": "b\n"},
        {"a": ESCAPE},
        {"../a": "b"},
        {"a/b/c": "d"},
        {"": "b"},
        {f"l{number}": "x" for number in range(65)},
    ],
)
async def test_labels_are_those_of_kubernetes(labels: dict[str, str]) -> None:
    api = Api()
    answer = await api.call("POST", TASKS, task(labels=labels))
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert len(answer.body) < 2000
    assert api.kube.objects == {}


async def test_a_label_of_kubernetes_is_accepted() -> None:
    labels = {"a": "", "app.kubernetes.io/Name_1": "A-b_c.9", "x" * 63: "y" * 63}
    assert (await Api().call("POST", TASKS, task(labels=labels))).status == 201


async def test_annotations_cannot_be_sent() -> None:
    tried: list[dict[str, Any]] = [
        {"annotations": {"taskflow.dev/request-sha256": "x"}},
        {"metadata": {"namespace": "team-b"}},
    ]
    for where in tried:
        assert (await Api().call("POST", TASKS, task(**where))).status == 422


async def test_an_idempotency_key_of_another_caller_is_another_key() -> None:
    api = Api()
    api.kube.allowed["bob"] = "team-a"
    spec = {"spec": {"handler": "a.b"}}
    for path, body in ((TASKS, spec), (TASKS + ":batch", {"items": [spec]})):
        names = []
        for token in ("alice-token", "bob-token"):
            answer = await api.call("POST", path, body, token=token, idempotency_key="same")
            made = answer.json["items"][0] if "items" in answer.json else answer.json
            assert answer.headers.get("idempotent-replayed") is None
            assert made.get("status", 201) == 201
            names.append(made["name"])
        assert len(set(names)) == 2
        again = await api.call("POST", path, body, idempotency_key="same")
        assert (again.json["items"][0] if "items" in again.json else again.json)["name"] == names[0]


LOGGING = """
import asyncio, sys
import structlog
from taskflow_core.settings import LogSettings
from taskflow_core.telemetry.logs import setup_logging
from tests.unit.taskflow_api.fakes import Api

async def main():
    api = Api(register=True)
    path = "x%0a2026%20%5binfo%5d%20forged%1b%5b31m%0d"
    evil = "x\\n2026 [info] forged \\x1b[31m\\r\\x9b31m\\u202e\\u2028"
    api.kube.failure, api.kube.fail_on = RuntimeError("broken \\x1b[31m"), "/tasks"
    await api.call("GET", "/v1/namespaces/team-a/tasks/" + path)
    await api.call("GET", "/v1/" + path)
    task = {"name": "x", "spec": {"handler": "a.b"}}
    await api.call("POST", "/v1/namespaces/team-a/tasks", task, x_request_id="a\\x1b[31m\\nb")
    await api.call("POST", "/v1/namespaces/team-a/uploads", {"key": "a\\u202eb\\u2028c\\x9b"})
    await api.call("POST", "/v1/auth/token", {"username": evil, "password": evil}, token="")
    await api.call("GET", "/v1/namespaces/team-a/tasks", token="tf_\\x1b[31m\\nx")
    structlog.get_logger("x").info("audit", user=evil, named=[evil])

setup_logging(LogSettings(format=sys.argv[1]), "api")
asyncio.run(main())
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_a_caller_names_neither_begins_a_line_of_the_log_nor_moves_a_cursor(form: str) -> None:
    # In a process of its own: loggers keep how they were set up first.
    ran = subprocess.run([sys.executable, "-c", LOGGING, form], capture_output=True, timeout=60, check=True)
    written = ran.stdout.decode()
    assert written.count("audit") >= 3
    assert "forged" in written
    assert not [c for c in written if not c.isprintable() and c != "\n"]
    assert not [line for line in written.split("\n") if line.startswith("2026 [info]")]


async def test_no_answer_is_a_page_of_this_origin() -> None:
    api = Api()
    for path in ("/openapi.json", TASKS + "/none", "/livez", "/v1/%3Cscript%3E"):
        answer = await api.call("GET", path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["content-type"] in (
            "application/json",
            "application/problem+json",
            "text/plain; charset=utf-8",
        )
