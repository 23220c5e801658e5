"""Every call is a request of the API's document, and every request of the document has a call."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from taskflow_client import Call, files, handlers, keys, pools, schedules, tasks, webhooks

ROOT = Path(__file__).parents[3]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs/reference/openapi.json").read_text())
NS = "team-a"
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
CALLS: tuple[Call[Any], ...] = (
    tasks.create(NS, "h", name="a"),
    tasks.create_many(NS, [tasks.create(NS, "h", name="a").body]),
    tasks.get(NS, "a"),
    tasks.listed(NS, phase="Failed", limit=5),
    tasks.change(NS, "a", suspend=True),
    tasks.cancel(NS, "a"),
    tasks.retry(NS, "a"),
    tasks.delete(NS, "a"),
    tasks.forget_runs(NS, "a"),
    tasks.why(NS, "a"),
    tasks.cancel_many(NS, queue="q"),
    tasks.retry_many(NS, phase="Failed"),
    tasks.operation(NS, "0" * 32),
    tasks.events(NS),
    tasks.events(NS, "a"),
    tasks.logs(NS, "a"),
    files.upload(NS, "in/a"),
    files.begin(NS, "in/a"),
    files.sign(NS, "u", [1, 2]),
    files.complete(NS, "u", {1: "e"}),
    files.abort(NS, "u"),
    files.listed(NS, prefix="in/"),
    files.get(NS, "in/a"),
    files.delete(NS, "in/a"),
    handlers.listed(NS),
    pools.listed(NS),
    pools.get(NS, "main"),
    pools.change(NS, "main", paused=True),
    schedules.create(NS, "nightly", "h", schedules=["30 2 * * *"], timeZone="Europe/Berlin", task={"priority": 5}),
    schedules.listed(NS, label_selector="team=a", limit=5),
    schedules.get(NS, "nightly"),
    schedules.change(NS, "nightly", concurrencyPolicy="Queue", jitterSeconds=None),
    schedules.delete(NS, "nightly"),
    schedules.suspend(NS, "nightly"),
    schedules.resume(NS, "nightly"),
    schedules.run(NS, "nightly", idempotency_key="k"),
    schedules.backfill(NS, "nightly", "january", NEW_YEAR, NEW_YEAR + timedelta(days=31), parallelism=5),
    schedules.upcoming(NS, "nightly", count=3),
    schedules.preview(NS, name="nightly", count=3, every={"seconds": 60}),
    schedules.runs(NS, "nightly", outcome="Missed", backfill="january", limit=5),
    keys.create(NS, "ci", scopes=["read"], expiration_seconds=3600),
    keys.listed(NS, service_account="ci"),
    keys.get(NS, "k"),
    keys.rotate(NS, "k", grace_seconds=60),
    keys.revoke(NS, "k"),
    webhooks.create(NS, "billing", "https://hooks.example.com", types=["task.failed"], tasks="Named"),
    webhooks.listed(NS),
    webhooks.get(NS, "billing"),
    webhooks.change(NS, "billing", enabled=False),
    webhooks.rotate(NS, "billing", grace_seconds=0),
    webhooks.test(NS, "billing"),
    webhooks.delete(NS, "billing"),
    webhooks.deliveries(NS, "billing", state="Failed", limit=5),
    webhooks.delivery(NS, "billing", "0" * 32),
    webhooks.replay(NS, "billing", "0" * 32),
)
WITHOUT = {
    # Of the server itself.
    "getLiveness",
    "getStartup",
    "getReadiness",
    "getVersion",
    # How one comes to a token; the client has one.
    "registerAccount",
    "createToken",
    # Not wanted so far.
    "listItems",
    "listArtifacts",
    "getArtifact",
    "listOperations",
    "deleteOperation",
}


def operation(call: Call[Any]) -> dict[str, Any]:
    """What the document says of the request; a part of a path is matched before a whole rest."""
    found = []
    for template, methods in DOCUMENT["paths"].items():
        pattern = re.sub(r"\\\{key\\\}", ".+", re.escape(template))
        pattern = re.sub(r"\\\{\w+\\\}", "[^/:]+", pattern)
        if re.fullmatch(pattern, call.path) and call.method.lower() in methods:
            found.append(methods[call.method.lower()])
    (one,) = found
    return dict(one)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.path}")
def test_a_call_matches_the_document(call: Call[Any]) -> None:
    told = operation(call)
    assert call.params.keys() <= {each["name"] for each in told.get("parameters", []) if each["in"] == "query"}
    if "requestBody" not in told:
        assert call.body is None
        return
    schema = {**told["requestBody"]["content"]["application/json"]["schema"], "components": DOCUMENT["components"]}
    found = [error.message for error in Draft202012Validator(schema).iter_errors(call.body)]
    assert found == []


def test_every_request_of_the_document_has_a_call() -> None:
    ids = {told["operationId"] for methods in DOCUMENT["paths"].values() for told in methods.values()}
    assert ids - {operation(call)["operationId"] for call in CALLS} == WITHOUT
