import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_core.settings import StorageSettings
from tests.integration.api.conftest import NAMESPACE, Installation
from tests.unit.taskflow_api.test_payload import CHANGED, KEPT

pytestmark = pytest.mark.integration
TASKS = f"/v1/namespaces/{NAMESPACE}/tasks"
SPEC = {"handler": "reports.summarise", "kwargs": {"n": 1}}


def _finish(installation: Installation, name: str, outputs: list[dict[str, Any]]) -> None:
    """What the operator writes at the end."""

    async def write(client: KubeClient) -> None:
        task = await client.request("GET", tasks_path(NAMESPACE, name))
        status = {
            "phase": "Succeeded",
            "reason": "Succeeded",
            "attempt": 1,
            "completionTime": "2026-09-21T12:00:00Z",
            "result": {"rows": 3},
            "outputs": outputs,
        }
        await client.patch_status("tasks", NAMESPACE, name, task["metadata"]["uid"], status)

    installation.kube(write)


def test_a_task_is_created_shown_refused_twice_deleted_and_remembered(installation: Installation) -> None:
    created = installation.call("POST", TASKS, {"name": "one", "labels": {"team": "a"}, "spec": SPEC})
    assert created.status == 201, created.body
    assert created.json["spec"]["retryPolicy"]["maxAttempts"] == 3
    shown = installation.call("GET", created.headers["Location"])
    assert (shown.status, shown.json["live"], shown.json["history"]) == (200, True, "available")
    assert shown.headers["ETag"].startswith(created.headers["ETag"].rstrip('"') + ".")
    kept = installation.call("GET", created.headers["Location"], If_None_Match=shown.headers["ETag"])
    assert (kept.status, kept.body) == (304, b"")

    again = installation.call("POST", TASKS, {"name": "one", "spec": SPEC})
    assert (again.status, again.json["code"]) == (409, "conflict")

    _finish(installation, "one", [])
    installation.mirror()
    assert installation.call("DELETE", TASKS + "/one").status == 204
    assert installation.call("DELETE", TASKS + "/one").status == 404
    gone = installation.call("GET", TASKS + "/one")
    assert (gone.status, gone.json["live"], gone.json["phase"], gone.json["result"]) == (
        200,
        False,
        "Succeeded",
        {"rows": 3},
    )
    assert gone.json["uid"] == created.json["uid"]
    assert installation.call("GET", TASKS + "/never").status == 404


def test_rbac_decides_for_each_account_and_verb(installation: Installation) -> None:
    assert installation.call("GET", TASKS, account="").status == 401
    installation.tokens["junk"] = "a.b.c"
    assert installation.call("GET", TASKS, account="junk").status == 401
    assert installation.call("GET", TASKS, account="reader").status == 200
    refused = installation.call("POST", TASKS, {"name": "x", "spec": SPEC}, account="reader")
    assert refused.status == 403
    assert "reader may not create tasks.taskflow.dev in namespace team-a" in refused.json["detail"]
    for method, path in (("GET", TASKS), ("GET", TASKS + "/one"), ("DELETE", TASKS + "/one")):
        assert installation.call(method, path, account="stranger").status == 403
    assert installation.call("GET", "/v1/namespaces/default/tasks").status == 403


def test_errors_of_the_api_server_have_pointers(installation: Installation) -> None:
    spec = SPEC | {"retryPolicy": {"backoffSeconds": 60, "maxBackoffSeconds": 10}}
    answer = installation.call("POST", TASKS, {"name": "bad", "spec": spec})
    assert answer.status == 422
    assert [error["pointer"] for error in answer.json["errors"]] == ["/spec/retryPolicy/maxBackoffSeconds"]
    assert "must not be less than backoffSeconds" in answer.json["errors"][0]["detail"]
    labelled = installation.call("POST", TASKS, {"name": "bad", "labels": {"a": "not ok"}, "spec": SPEC})
    assert (labelled.status, labelled.json["errors"][0]["pointer"]) == (422, "/labels")
    twice = [{"name": "n", "key": "a"}, {"name": "n", "key": "b"}]
    doubled = installation.call("POST", TASKS, {"name": "bad", "spec": SPEC | {"inputs": twice}})
    assert (doubled.status, doubled.json["errors"][0]["pointer"]) == (422, "/spec/inputs/1")
    assert installation.call("GET", TASKS + "/bad").status == 404


def test_pages_follow_their_links_to_the_end(installation: Installation) -> None:
    names = {
        installation.call("POST", TASKS, {"generateName": "page-", "spec": SPEC | {"queue": "paged"}}).json["name"]
        for _ in range(7)
    }
    installation.mirror()
    seen: list[str] = []
    path, pages = f"{TASKS}?queue=paged&phase=Pending&limit=3", 0
    while path:
        page = installation.call("GET", path)
        assert page.status == 200
        seen += [item["name"] for item in page.json["items"]]
        path, pages = page.headers.get("Link", "").partition(">")[0].removeprefix("<"), pages + 1
    assert (pages, len(seen), set(seen)) == (3, 7, names)
    first = installation.call("GET", f"{TASKS}?queue=paged&limit=3").json["nextCursor"]
    assert installation.call("GET", f"{TASKS}?queue=other&cursor={first}").status == 400


def test_uploads_and_downloads_bypass_the_api(installation: Installation) -> None:
    upload = installation.call(
        "POST", f"/v1/namespaces/{NAMESPACE}/uploads", {"key": "in/a b+ü.csv", "contentType": "text/csv"}
    )
    assert upload.status == 200, upload.body
    content = b"a,b\n1,2\n"
    sent = installation.http.request(
        upload.json["method"], upload.json["url"], body=content, headers=upload.json["headers"]
    )
    assert sent.status == 200

    created = installation.call("POST", TASKS, {"name": "artful", "spec": SPEC | {"outputs": [{"name": "r.csv"}]}}).json
    # The upload stands for what a worker stores; the object is the same, the key that of an output.
    key = f"{NAMESPACE}/{created['uid']}/1/r.csv"
    _store(installation, key, content)
    output = {
        "name": "r.csv",
        "key": key,
        "sizeBytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "contentType": "text/csv",
    }
    _finish(installation, "artful", [output])
    (listed,) = installation.call("GET", TASKS + "/artful/artifacts").json["items"]
    fetched = installation.http.request("GET", listed["url"])
    assert (fetched.status, fetched.data) == (200, content)
    assert hashlib.sha256(fetched.data).hexdigest() == listed["sha256"]
    assert "r.csv" in fetched.headers["Content-Disposition"]
    redirected = installation.call("GET", TASKS + "/artful/artifacts/r.csv?redirect=true")
    assert redirected.status == 307
    assert installation.http.request("GET", redirected.headers["Location"]).data == content
    assert installation.call("GET", TASKS + "/artful/artifacts/other").status == 404


def _store(installation: Installation, key: str, content: bytes) -> None:
    prefix = "TASKFLOW_S3_"
    found = installation.stack.env().items()
    values = {name.removeprefix(prefix).lower(): value for name, value in found if name.startswith(prefix)}
    ObjectStore(StorageSettings.model_validate(values)).put_bytes(key, content, "text/csv")


def test_without_postgresql_a_live_task_is_shown_and_a_list_says_try_again(installation: Installation) -> None:
    installation.call("POST", TASKS, {"name": "still", "spec": SPEC})
    installation.stack.stop("postgres")
    try:
        shown = installation.call("GET", TASKS + "/still")
        assert (shown.status, shown.json["live"], shown.json["history"]) == (200, True, "unavailable")
        listed = installation.call("GET", TASKS)
        assert (listed.status, listed.json["code"]) == (503, "unavailable")
        assert listed.headers["Retry-After"]
        assert b"127.0.0.1" not in listed.body
        assert installation.call("GET", "/livez", account="").status == 200
        assert _ready(installation, 503)["status"] == "unready"
        created = installation.call("POST", TASKS, {"generateName": "during-", "spec": SPEC})
        assert created.status == 201
    finally:
        installation.stack.start("postgres")
    assert _ready(installation, 200)["status"] == "ok"
    assert installation.call("GET", TASKS).status == 200


def test_without_the_object_store_the_api_is_degraded_and_ready(installation: Installation) -> None:
    installation.stack.stop("minio")
    try:
        deadline = time.monotonic() + 20
        while (health := _ready(installation, 200))["status"] != "degraded" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [check["name"] for check in health["checks"] if not check["ok"]] == ["objects"]
    finally:
        installation.stack.start("minio")


def _ready(installation: Installation, status: int) -> Any:
    """Its answer once it has the status; what it says may be a second old."""
    deadline = time.monotonic() + 20
    while True:
        answer = installation.call("GET", "/readyz?verbose", account="")
        if answer.status == status or time.monotonic() > deadline:
            assert answer.status == status
            return answer.json
        time.sleep(0.1)


def test_the_log_has_an_audit_line_for_each_write_and_no_token(installation: Installation) -> None:
    created = installation.call("POST", TASKS, {"generateName": "audited-", "spec": SPEC})
    name, log = created.json["name"], installation.stack.log("api")
    deadline = time.monotonic() + 10
    # The line is written after the answer was sent.
    while name not in (text := log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    (line,) = [each for each in text.splitlines() if name in each]
    for part in (
        " audit ",
        f"user=system:serviceaccount:{NAMESPACE}:allowed",
        "verb=create",
        f"namespace={NAMESPACE}",
        "status=201",
        f"request_id={created.headers['X-Request-Id']}",
    ):
        assert part in line
    assert not any(token in text for token in installation.tokens.values())


def test_a_request_with_a_key_makes_one_task_however_often_it_comes(installation: Installation) -> None:
    wanted = {"generateName": "order-", "spec": SPEC}
    first = installation.call("POST", TASKS, wanted, Idempotency_Key="order-7")
    again = installation.call("POST", TASKS, wanted, Idempotency_Key="order-7")
    assert (first.status, again.status, again.headers["Idempotent-Replayed"]) == (201, 200, "true")
    assert first.json["uid"] == again.json["uid"]
    other = installation.call(
        "POST", TASKS, {"spec": {"handler": "another"}, "generateName": "order-"}, Idempotency_Key="order-7"
    )
    assert (other.status, other.json["code"]) == (422, "idempotency-key-reused")

    name = first.json["name"]
    _finish(installation, name, [])
    installation.mirror()
    assert installation.call("DELETE", f"{TASKS}/{name}").status == 204
    late = installation.call("POST", TASKS, wanted, Idempotency_Key="order-7")
    assert (late.status, late.json["live"], late.json["uid"]) == (200, False, first.json["uid"])
    assert installation.call("DELETE", f"{TASKS}/{name}").status == 404


def test_a_dry_run_is_validated_by_the_api_server_and_creates_nothing(installation: Installation) -> None:
    assert installation.call("POST", TASKS + "?dryRun=true", {"name": "dry", "spec": SPEC}).status == 201
    assert installation.call("GET", TASKS + "/dry").status == 404


def test_a_caller_that_waits_is_answered_when_the_task_has_finished(installation: Installation) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(installation.call, "POST", TASKS, {"name": "awaited", "spec": SPEC}, Prefer="wait=18")
        deadline = time.monotonic() + 15
        while installation.call("GET", TASKS + "/awaited").status == 404:
            assert time.monotonic() < deadline
        _finish(installation, "awaited", [])
        answer = waiting.result(20)
    assert (answer.status, answer.json["phase"], answer.json["result"]) == (201, "Succeeded", {"rows": 3})
    assert answer.headers["Preference-Applied"] == "wait=18"


def test_a_task_is_changed_only_as_it_was_read(installation: Installation) -> None:
    created = installation.call("POST", TASKS, {"name": "changing", "spec": SPEC | {"queueTimeoutSeconds": 60}})
    change = {"spec": {"priority": 7, "queueTimeoutSeconds": None}}
    changed = installation.call("PATCH", TASKS + "/changing", change, If_Match=created.headers["ETag"])
    assert (changed.status, changed.json["priority"]) == (200, 7)
    assert "queueTimeoutSeconds" not in changed.json["spec"]
    stale = installation.call("PATCH", TASKS + "/changing", change, If_Match=created.headers["ETag"])
    assert (stale.status, stale.json["code"]) == (412, "changed-since")
    assert installation.call("PATCH", TASKS + "/changing", change, account="reader").status == 403
    cancelled = installation.call("POST", TASKS + "/changing:cancel")
    assert (cancelled.status, cancelled.json["spec"]["cancel"]) == (200, True)
    # What the CRD forbids is told with its words.
    refused = installation.call("PATCH", TASKS + "/changing", {"spec": {"cancel": False}})
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "/spec/cancel")


def test_a_finished_task_is_retried(installation: Installation) -> None:
    installation.call("POST", TASKS, {"name": "done", "labels": {"team": "a"}, "spec": SPEC})
    assert installation.call("POST", TASKS + "/done:retry").status == 409
    _finish(installation, "done", [])
    again = installation.call("POST", TASKS + "/done:retry")
    assert (again.status, again.json["labels"], again.json["phase"]) == (201, {"team": "a"}, "Pending")
    assert again.json["name"].startswith("done-")
    assert again.json["spec"]["kwargs"] == {"n": 1}


def test_many_tasks_in_one_request(installation: Installation) -> None:
    items: list[Any] = [{"name": f"many-{number}", "spec": SPEC} for number in range(200)]
    items[100]["spec"] = {"handler": "not a name"}
    answer = installation.call("POST", TASKS + ":batch", {"items": items})
    assert answer.status == 200, answer.body[:500]
    found = [item["status"] for item in answer.json["items"]]
    assert (found.count(201), found[100]) == (199, 422)
    assert answer.json["items"][100]["problem"]["errors"][0]["pointer"] == "/spec/handler"


def test_an_integer_is_refused_if_and_only_if_the_api_server_changes_it(installation: Installation) -> None:
    for number, text in enumerate((*KEPT, *CHANGED)):
        value = json.loads(text)
        body = {"apiVersion": "taskflow.dev/v1alpha1", "kind": "Task", "metadata": {"name": f"number-{number}"}}

        async def stored(client: KubeClient, body: Any = body, value: Any = value) -> Any:
            return await client.request(
                "POST", tasks_path(NAMESPACE), body | {"spec": {"handler": "a", "args": [value]}}
            )

        is_kept = installation.kube(stored)["spec"]["args"] == [value]
        assert is_kept is (text in KEPT)
        answer = installation.call(
            "POST", TASKS, {"generateName": "number-", "spec": {"handler": "a", "args": [value]}}
        )
        assert answer.status == (201 if is_kept else 422), text
        if is_kept:
            assert answer.json["spec"]["args"] == [value]


def test_head_is_answered_by_the_server_and_the_connection_goes_on(installation: Installation) -> None:
    for path in ("/livez", "/openapi.json", TASKS, TASKS + "/no-such", f"/v1/namespaces/{NAMESPACE}/events", TASKS):
        head = installation.call("HEAD", path)
        assert head.body == b""
        if not path.endswith("/events"):
            got = installation.call("GET", path)
            assert (head.status, head.headers["Content-Type"]) == (got.status, got.headers["Content-Type"])
            assert head.headers["Content-Length"] == got.headers["Content-Length"]
        else:
            assert (head.status, head.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
