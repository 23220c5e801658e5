"""The OpenAPI document against the running API: what it declares, and that its examples can be sent."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests import rest_fuzz
from tests.integration.api.conftest import Installation

pytestmark = pytest.mark.integration
NAMESPACE = "examples"
ACCOUNT = "reader-of-docs"
BASE = f"/v1/namespaces/{NAMESPACE}"
SEED, CASES = "1", 250


@pytest.fixture(scope="module")
def documented(installation: Installation) -> Installation:
    installation.stack.add_namespace(NAMESPACE)
    everything = ["create", "get", "list", "watch", "patch", "delete"]
    installation.add_account(ACCOUNT, everything, ("get", "list", "patch"), tuple(everything), namespace=NAMESPACE)
    installation.add_account("ci", [], namespace=NAMESPACE)
    installation.grant(
        "docs",
        {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE},
        {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
        {"apiGroups": ["taskflow.dev"], "resources": ["webhooks"], "verbs": everything},
        namespace=NAMESPACE,
    )
    return installation


def schemas(document: Any, operation: Any) -> list[Any]:
    """Examples of the operation's body."""
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    options = [schema, *schema.get("anyOf", ())]
    names = [each["$ref"].rpartition("/")[2] for each in options if "$ref" in each]
    (name,) = names
    return list(document["components"]["schemas"][name]["examples"])


ORDER = (
    "createTask",
    "createTasks",
    "changeTask",
    "createUpload",
    "createMultipartUpload",
    "signParts",
    "completeMultipartUpload",
    "cancelTasks",
    "retryTasks",
    "createSchedule",
    "changeSchedule",
    "backfillSchedule",
    "previewSchedule",
    "createApiKey",
    "rotateApiKey",
    "createWebhook",
    "changeWebhook",
    "rotateWebhookSecret",
    "registerAccount",
)
"""The operations with a body, in an order in which each finds what it needs."""


def test_each_example_of_a_body_is_one_that_can_be_sent(documented: Installation) -> None:
    document = documented.call("GET", "/openapi.json", account="").json
    operations = {
        operation["operationId"]: (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "requestBody" in operation
    }

    def send(method: str, path: str, body: Any) -> Any:
        answer = documented.call(method, path, body, account=ACCOUNT)
        assert answer.status < 300, (method, path, body, answer.body)
        return answer.json if answer.body else None

    made: dict[str, Any] = {}

    def path_of(name: str) -> str:
        paths = {
            "changeTask": f"{BASE}/tasks/shown",
            "signParts": f"{BASE}/multipart-uploads/{made.get('upload')}:sign",
            "completeMultipartUpload": f"{BASE}/multipart-uploads/{made.get('upload')}:complete",
            "changeSchedule": f"{BASE}/schedules/nightly",
            "backfillSchedule": f"{BASE}/schedules/nightly:backfill",
            "rotateApiKey": f"{BASE}/apikeys/{made.get('key')}:rotate",
            "changeWebhook": f"{BASE}/webhooks/billing",
            "rotateWebhookSecret": f"{BASE}/webhooks/billing:rotate",
            "registerAccount": "/v1/auth/register",
            "createToken": "/v1/auth/token",
        }
        return str(paths.get(name, operations[name][1].replace("{namespace}", NAMESPACE)))

    def complete(example: Any) -> Any:
        link = send("POST", path_of("signParts"), {"parts": [1]})["parts"][0]["url"]
        put = urllib.request.Request(link, data=b"bytes", method="PUT")
        with urllib.request.urlopen(put) as answer:
            return {"parts": [{**example["parts"][0], "etag": answer.headers["ETag"]}]}

    prepared: dict[str, Callable[[Any], Any]] = {"completeMultipartUpload": complete}
    # No pool is there, and a token needs an account that somebody bound: tests of their own send those.
    unsent = {"changePool", "createToken"}
    assert set(ORDER) | unsent == set(operations)
    send("POST", f"{BASE}/tasks", {"name": "shown", "spec": {"handler": "a.b"}})
    for name in ORDER:
        method, _, operation = operations[name]
        examples = schemas(document, operation)
        assert examples, name
        for example in examples:
            body = prepared.get(name, lambda given: given)(example)
            answer = send(method, path_of(name), body)
            if name == "createMultipartUpload":
                made["upload"] = answer["id"]
            if name == "createApiKey":
                made["key"] = answer["id"]


def test_the_document_declares_every_answer(installation: Installation) -> None:
    # After the examples, which it sends too.
    done = rest_fuzz.run(installation, CASES, SEED)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr
    assert "No issues found" in done.stdout
