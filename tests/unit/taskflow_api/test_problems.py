import ast
from pathlib import Path
from typing import Any

import pytest
import structlog

import taskflow_api
from taskflow_api.http import problems
from taskflow_api.http.middleware import MAX_BODY_BYTES
from taskflow_api.http.problem_types import PROBLEM_TYPES
from taskflow_core.errors import Cause, Conflict, Forbidden, Invalid, NotFound, TaskflowError, Unavailable
from tests.unit.taskflow_api.fakes import Answer, Api

TASKS = "/v1/namespaces/team-a/tasks"
BODY = {"name": "x", "spec": {"handler": "a.b"}}


def _check(answer: Answer, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json
    assert (answer.status, problem["status"], problem["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"https://taskflow.dev/problems/{code}"
    assert problem["requestId"] == answer.headers["x-request-id"]
    assert problem["title"]
    return problem


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (NotFound("gone"), 404, "not-found"),
        (Conflict("exists"), 409, "conflict"),
        (Forbidden("quota"), 403, "forbidden"),
        (Invalid("bad"), 422, "invalid"),
    ],
)
async def test_errors_of_the_api_server_are_returned_with_its_messages(
    failure: TaskflowError, status: int, code: str
) -> None:
    api = Api()
    api.kube.failure, api.kube.fail_on = failure, "/tasks"
    answer = await api.call("POST", TASKS, BODY)
    assert _check(answer, status, code)["detail"] == str(failure)


async def test_the_api_servers_causes_point_into_the_body() -> None:
    api = Api()
    causes = [
        Cause("spec.inputs[0].key", "bad key"),
        Cause("metadata.labels", "bad label"),
        Cause("<nil>", "all of it"),
    ]
    api.kube.failure, api.kube.fail_on = Invalid("refused", causes), "/tasks"
    problem = _check(await api.call("POST", TASKS, BODY), 422, "invalid")
    assert [(each["pointer"], each["detail"]) for each in problem["errors"]] == [
        ("/spec/inputs/0/key", "bad key"),
        ("/labels", "bad label"),
        ("", "all of it"),
    ]


@pytest.mark.parametrize("failure", [Unavailable("SELECT secret FROM db at 10.1.2.3"), TaskflowError("INSERT secret")])
async def test_a_failed_dependency_reveals_no_internals(failure: TaskflowError) -> None:
    api = Api()
    api.history.failure = failure
    answer = await api.call("GET", TASKS)
    assert answer.status in (500, 503)
    assert b"secret" not in answer.body
    if isinstance(failure, Unavailable):
        _check(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "5"


async def test_the_unexpected_is_a_problem_without_a_stack_and_a_log_with_one() -> None:
    api = Api()
    api.history.failure = RuntimeError("secret")
    with structlog.testing.capture_logs() as logs:
        answer = await api.call("GET", TASKS)
    _check(answer, 500, "internal")
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    assert [log["event"] for log in logs if log.get("exc_info")] == ["request_failed"]


async def test_the_frameworks_own_refusals_are_problems_too() -> None:
    api = Api()
    _check(await api.call("GET", "/no/such/path"), 404, "not-found")
    answer = await api.call("PATCH", TASKS)
    _check(answer, 405, "method-not-allowed")
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "x"}, "/spec"),
        ({"name": "x", "spec": {"handler": "a b"}}, "/spec/handler"),
        ({"name": "x", "spec": {"handler": "a", "priority": "1"}}, "/spec/priority"),
        ({"name": "x", "spec": {"handler": "a", "inputs": [{"name": "n", "key": "../x"}]}}, "/spec/inputs/0/key"),
        ({"name": "x", "spec": {"handler": "a", "retryPolicy": {"max_attempts": 1}}}, "/spec/retryPolicy/max_attempts"),
        ({"name": "x", "spec": {"handler": "a"}, "a/b~c": 1}, "/a~1b~0c"),
        ({"spec": {"handler": "a"}}, "/name"),
        ({"name": "x", "generateName": "x-", "spec": {"handler": "a"}}, ""),
        ({"name": "X", "spec": {"handler": "a"}}, "/name"),
        ([], ""),
    ],
)
async def test_a_body_that_does_not_fit_is_pointed_at_and_not_sent(body: Any, pointer: str) -> None:
    api = Api()
    problem = _check(await api.call("POST", TASKS, body), 422, "invalid")
    assert [each["pointer"] for each in problem["errors"]] == [pointer]
    assert api.kube.objects == {}


async def test_a_query_that_does_not_fit_is_named() -> None:
    problem = _check(await Api().call("GET", TASKS + "?limit=501&phase=Nope"), 422, "invalid")
    assert {(each["location"], each["pointer"]) for each in problem["errors"]} == {
        ("query", "/limit"),
        ("query", "/phase"),
    }


async def test_a_body_that_is_not_json_has_its_own_problem_type() -> None:
    api = Api()
    _check(await api.call("POST", TASKS, b"{"), 400, "bad-json")
    _check(await api.call("POST", TASKS, b"[" * 100_000), 422, "invalid")
    _check(await api.call("POST", TASKS, b"name=x", content_type="text/plain"), 415, "unsupported-media-type")


async def test_a_large_body_is_refused_by_its_header_and_by_its_bytes() -> None:
    api = Api()
    large = b" " * (MAX_BODY_BYTES + 1)
    _check(await api.call("POST", TASKS, large, content_length=str(len(large))), 413, "too-large")
    assert api.kube.calls == []
    _check(await api.call("POST", TASKS, large), 413, "too-large")
    for junk in ("-1", "x", "9" * 400):
        _check(await api.call("POST", TASKS, b"{}", content_length=junk), 413, "too-large")


async def test_payload_larger_than_8_kib_is_refused_with_the_way_out() -> None:
    api = Api()
    around = len('[[],{"x":""}]')
    for size, status in ((8 * 1024 - around, 201), (8 * 1024 - around + 1, 413)):
        body = {"name": "x", "spec": {"handler": "a", "kwargs": {"x": "y" * size}}}
        answer = await api.call("POST", TASKS, body)
        assert answer.status == status
    assert "upload" in _check(answer, 413, "payload-too-large")["detail"]


@pytest.mark.parametrize("value", ["NaN", "-Infinity", '"\\ud800"'])
async def test_a_value_that_json_does_not_have_is_refused(value: str) -> None:
    body = '{"name": "x", "spec": {"handler": "a", "args": [%s]}}' % value  # noqa: UP031 - braces everywhere
    _check(await Api().call("POST", TASKS, body.encode()), 422, "invalid")


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2_3", True), ("x" * 65, False), ("a b", False), ("a\x1b[0m", False), ("", False)]
)
async def test_a_valid_request_id_is_returned(given: str, kept: bool) -> None:
    answer = await Api().call("GET", "/livez", x_request_id=given)
    assert (answer.headers["x-request-id"] == given) is kept
    assert answer.headers["x-request-id"]


async def test_every_write_leaves_one_audit_line_however_it_ends() -> None:
    api = Api()
    with structlog.testing.capture_logs() as logs:
        await api.call("POST", TASKS, {"generateName": "x-", "spec": {"handler": "a"}})
        await api.call("DELETE", TASKS + "/x-abcde")
        await api.call("DELETE", TASKS + "/x-abcde")
        await api.call("POST", TASKS, BODY, token="bob-token")
        await api.call("POST", "/v1/namespaces/team-a/uploads", {"key": "a/b.csv"})
        await api.call("GET", TASKS)
    fields = ("user", "verb", "namespace", "name", "status")
    assert [tuple(log[name] for name in fields) for log in logs if log["event"] == "audit"] == [
        ("alice", "create", "team-a", "x-abcde", 201),
        ("alice", "delete", "team-a", "x-abcde", 204),
        ("alice", "delete", "team-a", "x-abcde", 404),
        ("bob", "create", "team-a", "", 403),
        ("alice", "upload", "team-a", "a/b.csv", 200),
    ]


def test_every_problem_that_the_source_raises_is_of_a_known_kind_and_status() -> None:
    """Every code in the source has an entry in the list, and every entry is used."""
    raised: dict[str, set[int]] = {code: {status} for status, code in problems.CODES.items()}
    for path in Path(taskflow_api.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in (
                "ProblemError",
                "problem_response",
            ):
                continue
            code = next((each.value for each in node.keywords if each.arg == "code"), None)
            statuses = {
                each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, int)
            }
            if isinstance(code, ast.Constant):
                raised.setdefault(str(code.value), set()).update(statuses)
    assert set(raised) == set(PROBLEM_TYPES)
    assert {code: {PROBLEM_TYPES[code].status} for code in raised if raised[code]} == {
        c: s for c, s in raised.items() if s
    }
