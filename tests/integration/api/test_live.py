"""Logs, changes, pools and operations on a real API server, PostgreSQL and S3, over restarts of the API."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.domain import naming
from taskflow_core.kube.client import KubeClient, resource_path, tasks_path
from taskflow_core.settings import StorageSettings
from tests.integration.api.conftest import NAMESPACE, Installation

pytestmark = pytest.mark.integration
TASKS = f"/v1/namespaces/{NAMESPACE}/tasks"
EVENTS = f"/v1/namespaces/{NAMESPACE}/events"
POOLS = f"/v1/namespaces/{NAMESPACE}/pools"
SPEC = {"handler": "reports.summarise", "queue": "live"}


def create(installation: Installation, name: str, **fields: Any) -> dict[str, Any]:
    answer = installation.call("POST", TASKS, {"name": name, "spec": SPEC} | fields)
    assert answer.status == 201, answer.body
    found: dict[str, Any] = answer.json
    return found


def set_status(installation: Installation, name: str, phase: str, attempt: int = 1) -> None:
    async def write(client: KubeClient) -> None:
        task = await client.request("GET", tasks_path(NAMESPACE, name))
        status = {"phase": phase, "attempt": attempt}
        await client.patch_status("tasks", NAMESPACE, name, task["metadata"]["uid"], status)

    installation.kube(write)


def objects(installation: Installation) -> ObjectStore:
    names = {"endpoint": "ENDPOINT", "bucket": "BUCKET", "access_key": "ACCESS_KEY", "secret_key": "SECRET_KEY"}
    env = installation.stack.env()
    return ObjectStore(StorageSettings.model_validate({key: env[f"TASKFLOW_S3_{name}"] for key, name in names.items()}))


class Listener(threading.Thread):
    """Reads a stream until it ends."""

    def __init__(self, installation: Installation, path: str, account: str = "allowed", **headers: str) -> None:
        super().__init__(daemon=True)
        sent = {"Authorization": f"Bearer {installation.tokens[account]}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{installation.stack.port('api')}{path}"
        self.response = urllib3.PoolManager(retries=False).request(
            "GET", url, headers=sent, preload_content=False, timeout=urllib3.Timeout(connect=5, read=60)
        )
        self.text = ""
        self.start()

    def run(self) -> None:
        while chunk := self.response.read1(65536):
            self.text += chunk.decode()

    def until(self, text: str, seconds: float = 20) -> str:
        deadline = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < deadline, f"no {text!r} in {self.text!r}"
            time.sleep(0.02)
        return self.text

    @property
    def events(self) -> list[tuple[int, str, str]]:
        """(id, name, phase) of the events `task`."""
        found = []
        for block in self.text.split("\n\n"):
            fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
            if fields.get("event") == "task":
                state = json.loads(fields["data"])["task"]
                found.append((int(fields["id"]), state["name"], state["phase"]))
        return found


@pytest.fixture
def restarted(installation: Installation) -> Iterator[Installation]:
    """The API runs again at the end, whatever happens."""
    yield installation
    if installation.stack.pid("api") is None:
        installation.stack.start("api")


def test_a_log_is_ranged_and_followed_to_its_end(installation: Installation) -> None:
    created = create(installation, "talks")
    path = f"{TASKS}/talks/logs"
    assert installation.call("GET", path).status == 404
    set_status(installation, "talks", "Running")
    store, prefix = objects(installation), naming.log_prefix(NAMESPACE, created["uid"], 1)
    store.put_bytes(prefix + "000001.log", b"first\n")
    listener = Listener(installation, path + "?follow=true")
    listener.until("first\n")
    store.put_bytes(prefix + "000001.log", b"first\nsecond \xc3\xa4\n")
    store.put_bytes(prefix + "000002.log", b"third\n")
    listener.until("third\n")
    set_status(installation, "talks", "Succeeded")
    listener.join(20)
    assert not listener.is_alive()
    assert listener.text == "first\nsecond ä\nthird\n"
    whole = installation.call("GET", path)
    assert whole.body.decode() == listener.text
    part = installation.call("GET", path, Range="bytes=4-20")
    assert (part.status, part.body) == (206, whole.body[4:21])
    assert part.headers["Content-Range"] == f"bytes 4-20/{len(whole.body)}"
    assert installation.call("GET", path, Range="bytes=99-").status == 416
    assert installation.call("GET", path + "?tail=1").body == b"third\n"
    assert installation.call("GET", path, account="stranger").status == 403


def test_no_change_is_lost_or_repeated_over_a_restart_of_the_api(restarted: Installation) -> None:
    listener = Listener(restarted, EVENTS + "?queue=live")
    listener.until("event: ready")
    for number in range(5):
        create(restarted, f"live-{number}")
    set_status(restarted, "live-0", "Running")
    before = listener.until('"phase":"Running"')
    began = time.monotonic()
    restarted.stack.stop("api")
    assert time.monotonic() - began < 10, "the open stream held it up"
    listener.join(5)
    assert not listener.is_alive()
    last = max(place for place, _, _ in listener.events)
    assert str(last) in before
    set_status(restarted, "live-0", "Succeeded")
    set_status(restarted, "live-1", "Failed")
    restarted.stack.start("api")
    again = [Listener(restarted, EVENTS + "?queue=live", Last_Event_ID=str(place)) for place in (last, last, last - 1)]
    for each in again:
        each.until('"phase":"Failed"')
        assert [event[1:] for event in each.events if event[0] > last] == [
            ("live-0", "Succeeded"),
            ("live-1", "Failed"),
        ]
    set_status(restarted, "live-2", "Failed")
    for each in again:
        each.until('"name":"live-2"')
    # All of them on one watch: that of a resourceVersion further back, and no other.
    expected = [(f"live-{number}", "Pending") for number in range(5)] + [("live-0", "Running")]
    assert [event[1:] for event in listener.events] == expected


def test_a_task_is_streamed_to_its_end(installation: Installation) -> None:
    create(installation, "single")
    listener = Listener(installation, f"{TASKS}/single/events")
    listener.until("current")
    set_status(installation, "single", "Succeeded")
    listener.join(20)
    assert [phase for _, _, phase in listener.events] == ["Pending", "Succeeded"]
    path = f"http://127.0.0.1:{installation.stack.port('api')}{TASKS}/single/events"
    headers = {
        "Authorization": f"Bearer {installation.tokens['allowed']}",
        "Last-Event-ID": str(listener.events[-1][0]),
    }
    assert installation.http.request("GET", path, headers=headers).status == 204


def test_events_need_the_right_to_watch(installation: Installation) -> None:
    for account in ("reader", "stranger"):
        assert installation.call("GET", EVENTS, account=account).status == 403
    answer = installation.call("GET", EVENTS, Last_Event_ID="99999999999999")
    assert (answer.status, b"event: reset" in answer.body) == (200, True)


def test_pools_are_read_paused_and_drained_with_permissions_on_workerpools(installation: Installation) -> None:
    collection = resource_path(f"apis/{naming.API_VERSION}", "workerpools", NAMESPACE)
    body = {
        "apiVersion": naming.API_VERSION,
        "kind": "WorkerPool",
        "metadata": {"name": "main"},
        "spec": {"queues": ["elsewhere"], "concurrency": 2},
    }
    installation.kube(lambda client: client.request("POST", collection, body))
    assert [item["name"] for item in installation.call("GET", POOLS).json["items"]] == ["main"]
    shown = installation.call("GET", POOLS + "/main")
    assert (shown.json["queues"], shown.json["concurrency"], shown.json["slots"]) == (["elsewhere"], 2, None)
    paused = installation.call("PATCH", POOLS + "/main", {"spec": {"paused": True}}, If_Match=shown.headers["ETag"])
    assert (paused.status, paused.json["paused"]) == (200, True)
    stale = installation.call("PATCH", POOLS + "/main", {"spec": {"drain": True}}, If_Match=shown.headers["ETag"])
    assert (stale.status, stale.json["code"]) == (412, "changed-since")
    for method, path in (("GET", POOLS), ("GET", POOLS + "/main"), ("PATCH", POOLS + "/main")):
        answer = installation.call(
            method, path, {"spec": {"drain": True}} if method == "PATCH" else None, account="reader"
        )
        assert (answer.status, "workerpools" in answer.json["detail"]) == (403, True)

    create(installation, "alone")
    why = installation.call("GET", f"{TASKS}/alone/why").json
    assert (why["waiting"], why["reason"]) == (True, "NoWorkerPool")
    assert why["message"] == "no WorkerPool serves queue 'live'; served queues: elsewhere"
    assert installation.call("GET", f"{TASKS}/alone/why", account="reader").json["pools"] is None
    create(installation, "held", spec=SPEC | {"queue": "elsewhere"})
    why = installation.call("GET", f"{TASKS}/held/why").json
    assert (why["reason"], why["pools"][0]["paused"], why["queuePosition"]) == ("PoolPaused", True, None)
    create(installation, "after", spec=SPEC | {"dependsOn": [{"name": "alone"}]})
    why = installation.call("GET", f"{TASKS}/after/why").json
    assert (why["reason"], why["dependsOn"][0]["phase"]) == ("DependencyWaiting", "Pending")


def test_tasks_are_listed_by_their_labels_and_times(installation: Installation) -> None:
    made = create(installation, "red", labels={"colour": "red", "size": "l"})
    create(installation, "blue", labels={"colour": "blue"})
    installation.mirror()

    def names(query: str) -> set[str]:
        answer = installation.call("GET", f"{TASKS}?{query}&limit=500")
        assert answer.status == 200, answer.body
        return {item["name"] for item in answer.json["items"]}

    assert names("labelSelector=colour%3Dred") == {"red"}
    assert names("labelSelector=colour%20in%20(red,blue),!size") == {"blue"}
    assert {"red", "blue"} <= names(f"createdAfter={made['createdAt']}")
    assert not {"red", "blue"} & names(f"createdBefore={made['createdAt']}")
    first = installation.call("GET", f"{TASKS}?labelSelector=colour&limit=1").json["nextCursor"]
    assert installation.call("GET", f"{TASKS}?labelSelector=colour&limit=1&cursor={first}").status == 200
    other = installation.call("GET", f"{TASKS}?labelSelector=size&limit=1&cursor={first}")
    assert (other.status, other.json["code"]) == (400, "bad-cursor")
    wrong = installation.call("GET", f"{TASKS}?labelSelector=a%20b")
    assert (wrong.status, wrong.json["errors"][0]["location"]) == (422, "query")


def _operation(installation: Installation, location: str, holds: Any, seconds: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while True:
        found: dict[str, Any] = installation.call("GET", location).json
        if holds(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_many_are_cancelled_and_retried_once_each_over_a_killed_api(restarted: Installation) -> None:
    items = [
        {"name": f"crowd-{number:03}", "labels": {"many": "yes"}, "spec": SPEC | {"queue": "many"}}
        for number in range(130)
    ]
    made = restarted.call("POST", TASKS + ":batch", {"items": items})
    assert {item["status"] for item in made.json["items"]} == {201}, made.body
    restarted.mirror()
    begun = restarted.call("POST", TASKS + ":cancel", {"filter": {"labelSelector": "many=yes"}})
    assert begun.status == 202, begun.body
    found = _operation(restarted, begun.headers["Location"], lambda each: each["state"] == "Done")
    assert (found["matched"], found["done"], found["failed"], found["problems"]) == (130, 130, 0, [])

    async def all_of(client: KubeClient) -> list[dict[str, Any]]:
        page = await client.request("GET", tasks_path(NAMESPACE), params={"labelSelector": "many=yes"})
        tasks: list[dict[str, Any]] = page["items"]
        return tasks

    async def end(client: KubeClient) -> None:
        for task in await all_of(client):
            status = {"phase": "Failed", "attempt": 2, "reason": "HandlerError"}
            await client.patch_status("tasks", NAMESPACE, task["metadata"]["name"], task["metadata"]["uid"], status)

    assert all(task["spec"]["cancel"] for task in restarted.kube(all_of))
    restarted.kube(end)
    restarted.mirror()
    begun = restarted.call("POST", TASKS + ":retry", {"filter": {"queue": "many"}})
    _operation(restarted, begun.headers["Location"], lambda each: each["matched"] >= 50)
    pid = restarted.stack.pid("api")
    assert pid is not None
    restarted.stack.stop("api")
    restarted.stack.start("api")
    found = _operation(restarted, begun.headers["Location"], lambda each: each["state"] == "Done")
    assert found["failed"] == 0
    old = {task["metadata"]["uid"] for task in restarted.kube(all_of) if "retried-from" not in str(task["metadata"])}
    copies = [
        task["metadata"]["annotations"][naming.ANNOTATION_RETRIED_FROM]
        for task in restarted.kube(all_of)
        if naming.ANNOTATION_RETRIED_FROM in task["metadata"].get("annotations", {})
    ]
    assert len(copies) == len(set(copies)) == 130
    assert set(copies) == old
    assert restarted.call("DELETE", begun.headers["Location"]).status == 204
    assert restarted.call("POST", TASKS + ":cancel", {"filter": {}, "all": True}, account="reader").status == 403


def test_a_stream_ends_with_a_problem_after_its_key_was_revoked(installation: Installation) -> None:
    made = installation.command("keys", "create", "--namespace", NAMESPACE, "--service-account", "allowed")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip().split("_")[1]
    installation.tokens[key] = made.stdout.strip()
    listener = Listener(installation, EVENTS, account=key)
    listener.until("event: ready")
    # By another process than the one that serves the stream.
    assert installation.command("keys", "revoke", key).returncode == 0
    text = listener.until("event: problem", seconds=60)
    assert '"code": "access-ended"' in text
    listener.join(timeout=5)
    assert not listener.is_alive()
