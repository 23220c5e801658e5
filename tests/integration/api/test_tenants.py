"""Callers with permissions in one namespace get nothing of another through any route of the OpenAPI document.

New routes are tested without a change here. If this module cannot fill in a parameter, the test fails and names it.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import urllib3

from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_core.store.schedules import RunOutcome, RunRow
from tests.integration.api.conftest import Answer, Installation

pytestmark = pytest.mark.integration
OURS, THEIRS = "tenant-a", "tenant-b"
CANARY = "canary-of-b"
"""In everything of the other tenant that could be told."""
SPEC = {"handler": "reports.summarise", "kwargs": {"told": CANARY}}
OPEN = {"/livez", "/startupz", "/readyz", "/version", "/v1/auth/register", "/v1/auth/token"}
"""Routes of no namespace: they have nothing of a tenant."""
UNKNOWN = "teach tests/integration/api/test_tenants.py what to put there"
STREAM_SECONDS = 3.0


@dataclass(frozen=True)
class Operation:
    """One route and method, as openapi.json has it."""

    method: str
    path: str
    id: str
    has_body: bool
    needs_body: bool
    parameters: tuple[str, ...]
    """Of the path, but for the namespace."""
    has_cursor: bool

    def urls(self, namespace: str, known: dict[str, list[str]], cursor: str) -> list[str]:
        """The path for each combination of what is known of the other tenant."""
        missing = [name for name in self.parameters if name not in known]
        assert not missing, f"{self.id}: parameters {missing} of {self.path}: {UNKNOWN}"
        assert "{namespace}" in self.path, f"{self.id}: {self.path} is of no namespace: {UNKNOWN}"
        found = []
        for values in itertools.product(*(known[name] for name in self.parameters)):
            url = self.path.replace("{namespace}", namespace)
            for name, value in zip(self.parameters, values, strict=True):
                url = url.replace(f"{{{name}}}", value)
            found += [url, f"{url}?cursor={cursor}"] if self.has_cursor else [url]
        return found


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        shared = methods.get("parameters", [])
        for method, operation in methods.items():
            if method == "parameters":
                continue
            parameters = [*shared, *operation.get("parameters", [])]
            named = tuple(each["name"] for each in parameters if each["in"] == "path" and each["name"] != "namespace")
            body = operation.get("requestBody")
            yield Operation(
                method.upper(),
                path,
                operation["operationId"],
                body is not None,
                bool(body and body.get("required")),
                named,
                any(each["in"] == "query" and each["name"] == "cursor" for each in parameters),
            )


class Tenants:
    """Two of them, and what the second one has."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        document = installation.call("GET", "/openapi.json", account="").json
        self.operations = list(operations(document))
        for namespace, account in ((OURS, "a-app"), (THEIRS, "b-app")):
            installation.stack.add_namespace(namespace)
            installation.add_account(account, [], namespace=namespace)
            self._all_rights(account, {"kind": "ServiceAccount", "name": account, "namespace": namespace}, namespace)
        self._all_rights("a-oidc", {"kind": "User", "name": "oidc:tenant-a"}, OURS)
        self.known, self.cursor = self._of_b()
        self.ways = self._ways_of_a()
        self.bodies = self._bodies()

    def _all_rights(self, role: str, subject: dict[str, str], namespace: str) -> None:
        tasks = {"apiGroups": ["taskflow.dev"], "resources": ["*"], "verbs": ["*"]}
        keys = {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}
        self.installation.grant(role, subject, tasks, keys, namespace=namespace)

    def _of_b(self) -> tuple[dict[str, list[str]], str]:
        """Tasks with outputs, live and gone, and keys; by the names of the parameters that could ask for them."""
        tasks, call = f"/v1/namespaces/{THEIRS}/tasks", self.installation.call
        created = []
        for name in ("b-live", "b-gone"):
            body: dict[str, Any] = {
                "name": name,
                "labels": {"told": CANARY},
                "spec": SPEC | {"outputs": [{"name": "r.csv"}]},
            }
            answer = call("POST", tasks, body, account="b-app")
            assert answer.status == 201, answer.body
            created.append(answer.json)
            self._finish(name, answer.json["uid"])
        self.installation.mirror(THEIRS)
        assert call("DELETE", tasks + "/b-gone", account="b-app").status == 204
        body = {"serviceAccount": "b-app", "scopes": ["read"], "name": CANARY}
        key = call("POST", f"/v1/namespaces/{THEIRS}/apikeys", body, account="b-app").json
        page = call("GET", tasks + "?limit=1", account="b-app").json
        assert page["nextCursor"]
        names = [each for task in created for each in (task["name"], task["uid"])]
        begun = call("POST", tasks + ":cancel", {"filter": {"labelSelector": f"told={CANARY}"}}, account="b-app").json
        names += ["b-hook", self._schedule()]
        sent = {"key": "big.bin", "contentType": "text/plain"}
        upload = call("POST", f"/v1/namespaces/{THEIRS}/multipart-uploads", sent, account="b-app").json
        known = {
            "name": names,
            "id": [key["id"]],
            "output": ["r.csv"],
            "operation": [begun["id"]],
            "key": ["big.bin", f"{created[0]['uid']}/1/r.csv"],
            "upload": [upload["id"]],
            "delivery": [self._told_by_webhook()],
        }
        return known, page["nextCursor"]

    def _schedule(self) -> str:
        """A schedule of theirs, of which the history has a run."""
        spec = {"every": {"seconds": 3600}, "taskTemplate": {"spec": SPEC}}
        schedules = f"/v1/namespaces/{THEIRS}/schedules"
        answer = self.installation.call("POST", schedules, {"name": "b-hourly", "spec": spec}, account="b-app")
        assert answer.status == 201, answer.body
        self.installation.record_run(
            RunRow(
                schedule_uid=answer.json["uid"],
                namespace=THEIRS,
                schedule="b-hourly",
                tick=datetime(2026, 9, 21, 12, tzinfo=UTC),
                outcome=RunOutcome.SKIPPED,
                reason=CANARY,
                decided_at=datetime(2026, 9, 21, 12, tzinfo=UTC),
            )
        )
        return "b-hourly"

    def _told_by_webhook(self) -> str:
        """A delivery of an endpoint of theirs."""
        hooks, call = f"/v1/namespaces/{THEIRS}/webhooks", self.installation.call
        body = {"name": "b-hook", "url": f"https://hooks.example.com/{CANARY}"}
        assert call("POST", hooks, body, account="b-app").status == 201
        return str(call("POST", hooks + "/b-hook:test", account="b-app").json["id"])

    def _finish(self, name: str, uid: str) -> None:
        output = {
            "name": "r.csv",
            "key": f"{THEIRS}/{uid}/1/r.csv",
            "sizeBytes": 1,
            "sha256": "0" * 64,
            "contentType": "text/csv",
        }
        status = {
            "phase": "Succeeded",
            "reason": "Succeeded",
            "attempt": 1,
            "completionTime": "2026-09-21T12:00:00Z",
            "result": CANARY,
            "outputs": [output],
        }

        async def write(client: KubeClient) -> None:
            task = await client.request("GET", tasks_path(THEIRS, name))
            await client.patch_status("tasks", THEIRS, name, task["metadata"]["uid"], status)

        self.installation.kube(write)

    def _ways_of_a(self) -> list[str]:
        """The first tenant by each way in; the accounts of the installation under which it comes."""
        call, tokens = self.installation.call, self.installation.tokens
        body: dict[str, Any] = {"serviceAccount": "a-app", "scopes": ["read", "write"]}
        tokens["a-key"] = call("POST", f"/v1/namespaces/{OURS}/apikeys", body, account="a-app").json["key"]
        body["scopes"] = ["read"]
        tokens["a-reading"] = call("POST", f"/v1/namespaces/{OURS}/apikeys", body, account="a-app").json["key"]
        tokens["a-oidc"] = self.installation.issuer.token("tenant-a")
        sent = {"username": "tenant-a", "password": "correct horse battery"}
        registered = call("POST", "/v1/auth/register", sent, account="").json["id"]
        assert self.installation.command("accounts", "bind", "tenant-a", registered, f"{OURS}/a-app").returncode == 0
        tokens["a-account"] = call("POST", "/v1/auth/token", sent, account="").json["accessToken"]
        return ["a-app", "a-key", "a-oidc", "a-account"]

    def _bodies(self) -> dict[str, Any]:
        """What is sent to a route of the first tenant's own namespace; what it names is of the second."""
        task = {"spec": {"handler": "a.b", "dependsOn": [{"name": "b-live"}]}}
        return {
            "createTask": {"generateName": "crossing-", **task},
            "createTasks": {"items": [{"generateName": "crossing-", **task}]},
            "changeTask": {"spec": {"priority": 9}},
            "createUpload": {"key": "r.csv", "contentType": "text/csv"},
            "createMultipartUpload": {"key": "big.bin"},
            "signParts": {"parts": [1]},
            "completeMultipartUpload": {"parts": [{"number": 1, "etag": "e"}]},
            "createApiKey": {"serviceAccount": "b-app", "scopes": ["read"]},
            "rotateApiKey": {},
            "cancelTasks": {"filter": {"queue": "b-live"}},
            "retryTasks": {"filter": {"queue": "b-live"}},
            "changePool": {"spec": {"paused": True}},
            "createSchedule": {"name": "crossing", "spec": {"every": {"seconds": 3600}, "taskTemplate": task}},
            "changeSchedule": {"spec": {"suspend": True}},
            "backfillSchedule": {"name": "b", "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"},
            "previewSchedule": {"name": "b-hourly", "spec": {"schedules": ["H * * * *"]}},
            "createWebhook": {"name": "crossing", "url": "https://hooks.example.com/"},
            "changeWebhook": {"enabled": False},
            "rotateWebhookSecret": {},
        }

    def of_namespaces(self) -> list[Operation]:
        return [each for each in self.operations if each.path not in OPEN]

    def ask(self, operation: Operation, url: str, account: str, body: Any = None) -> Answer:
        """The answer, or what a stream told in its first seconds."""
        stack, token = self.installation.stack, self.installation.tokens.get(account)
        response = self.installation.http.request(
            operation.method,
            f"http://127.0.0.1:{stack.port('api')}{url}",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            json=body,
            redirect=False,
            preload_content=False,
            timeout=urllib3.Timeout(connect=5, read=STREAM_SECONDS if operation.method == "GET" else 20),
        )
        content = b""
        try:
            for chunk in response.stream(65536):
                content += chunk
        except urllib3.exceptions.ReadTimeoutError:
            assert response.headers.get("Content-Type", "").startswith("text/event-stream"), url
        finally:
            response.close()
        return Answer(response.status, response.headers, content)

    def body(self, operation: Operation) -> Any:
        if operation.id in self.bodies:
            return self.bodies[operation.id]
        assert not operation.needs_body, f"{operation.id}: body: {UNKNOWN}"
        return {} if operation.has_body else None


@pytest.fixture(scope="module")
def tenants(installation: Installation) -> Tenants:
    return Tenants(installation)


def test_every_route_is_one_that_can_be_tried(tenants: Tenants) -> None:
    found = tenants.of_namespaces()
    assert len(found) > 15
    for operation in found:
        assert operation.urls(OURS, tenants.known, tenants.cursor)
        tenants.body(operation)
    assert {operation.path for operation in tenants.operations} >= OPEN
    assert {operation.id for operation in found} >= set(tenants.bodies)


def test_an_unknown_route_fails_this_test() -> None:
    def made(path: str, **fields: Any) -> Operation:
        where = [{"name": name.rstrip("}"), "in": "path"} for name in path.split("{")[1:]]
        (found,) = operations({"paths": {path: {"post": {"operationId": "x", "parameters": where, **fields}}}})
        return found

    with pytest.raises(AssertionError, match="parameters"):
        made("/v1/namespaces/{namespace}/things/{thing}").urls(OURS, {"name": ["x"]}, "")
    with pytest.raises(AssertionError, match="of no namespace"):
        made("/v1/everything").urls(OURS, {}, "")
    assert made("/v1/namespaces/{namespace}/things", requestBody={"required": True}).needs_body


def test_no_route_answers_without_a_token(tenants: Tenants) -> None:
    for operation in tenants.of_namespaces():
        for url in operation.urls(THEIRS, tenants.known, tenants.cursor):
            assert tenants.ask(operation, url, "").status == 401, (operation.id, url)


def test_the_other_namespace_is_closed_for_every_kind_of_token(tenants: Tenants) -> None:
    for account, operation in itertools.product(tenants.ways, tenants.of_namespaces()):
        for url in operation.urls(THEIRS, tenants.known, tenants.cursor):
            answer = tenants.ask(operation, url, account, tenants.body(operation))
            assert answer.status in (403, 404), (account, operation.id, url, answer.status, answer.body)
            assert CANARY not in answer.body.decode(), (account, operation.id, url)


def test_objects_of_the_other_namespace_do_not_appear_in_the_own_one(tenants: Tenants) -> None:
    for account, operation in itertools.product(tenants.ways, tenants.of_namespaces()):
        for url in operation.urls(OURS, tenants.known, tenants.cursor):
            answer = tenants.ask(operation, url, account, tenants.body(operation))
            told = (account, operation.id, url, answer.status, answer.body)
            assert CANARY not in answer.body.decode(), told
            assert answer.status < 500, told
            if operation.parameters:
                # An object of the other tenant is none here.
                assert answer.status in (403, 404), told


def test_nothing_of_the_other_tenant_was_changed(tenants: Tenants) -> None:
    call = tenants.installation.call
    live = call("GET", f"/v1/namespaces/{THEIRS}/tasks/b-live", account="b-app")
    assert (live.status, live.json["result"], live.json["priority"]) == (200, CANARY, 0)
    gone = call("GET", f"/v1/namespaces/{THEIRS}/tasks/b-gone", account="b-app")
    assert (gone.status, gone.json["live"], gone.json["result"]) == (200, False, CANARY)
    keys = call("GET", f"/v1/namespaces/{THEIRS}/apikeys", account="b-app").json["items"]
    assert [(key["name"], key["replacedBy"]) for key in keys] == [(CANARY, None)]
    schedule = call("GET", f"/v1/namespaces/{THEIRS}/schedules/b-hourly", account="b-app").json
    assert (schedule["suspended"], schedule["backfills"], "backfills" in schedule["spec"]) == (False, [], False)
    (run,) = call("GET", f"/v1/namespaces/{THEIRS}/schedules/b-hourly/runs", account="b-app").json["items"]
    assert run["reason"] == CANARY
    (hook,) = call("GET", f"/v1/namespaces/{THEIRS}/webhooks", account="b-app").json["items"]
    assert (hook["name"], hook["enabled"], hook["oldSecretUntil"]) == ("b-hook", True, None)
    (delivery,) = call("GET", f"/v1/namespaces/{THEIRS}/webhooks/b-hook/deliveries", account="b-app").json["items"]
    assert (delivery["type"], delivery["state"]) == ("webhook.test", "Pending")


def test_a_key_for_reading_changes_nothing_through_any_route(tenants: Tenants) -> None:
    tried = 0
    for operation in tenants.of_namespaces():
        if operation.method == "GET":
            continue
        for url in operation.urls(OURS, tenants.known, tenants.cursor):
            answer = tenants.ask(operation, url, "a-reading", tenants.body(operation))
            assert answer.status == 403, (operation.id, url, answer.status, answer.body)
            assert "scopes" in answer.json["detail"] or "an API key may not" in answer.json["detail"], operation.id
            tried += 1
    assert tried > 10
