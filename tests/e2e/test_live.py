"""What a client outside of Kubernetes sees of Tasks while they run."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from taskflow_core.kube.client import KubeClient, tasks_path
from tests.e2e.product import Product, eventually, task

pytestmark = pytest.mark.e2e
TASKS = "/v1/namespaces/default/tasks"
EVENTS = "/v1/namespaces/default/events?handler=taskflow.sleep"


class Stream(threading.Thread):
    """Reads an answer while it is sent."""

    def __init__(self, product: Product, path: str, **headers: str) -> None:
        super().__init__(daemon=True)
        sent = {"Authorization": f"Bearer {product.stack.env()['TASKFLOW_API_TOKEN']}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection = HTTPConnection("127.0.0.1", product.stack.port("api"), timeout=60)
        self._connection.request("GET", path, headers=sent)
        self.answer = self._connection.getresponse()
        assert self.answer.status == 200
        self.text = ""
        self._cut = False
        self.start()

    def run(self) -> None:
        try:
            while chunk := self.answer.read1(65536):
                self.text += chunk.decode()
        except IncompleteRead:
            if not self._cut:
                raise
        finally:
            self._connection.close()

    def cut(self) -> None:
        """Hang up, and end."""
        self._cut = True
        self._connection.sock.shutdown(socket.SHUT_RDWR)
        self.join()

    @property
    def states(self) -> list[tuple[int, str, str]]:
        """(resourceVersion, name, phase) of each event `task`."""
        found = []
        for block in self.text.split("\n\n"):
            fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
            if fields.get("event") == "task":
                state = json.loads(fields["data"])["task"]
                found.append((int(fields["id"]), state["name"], state["phase"]))
        return found


class Witness(threading.Thread):
    """The same changes, by a watch of its own, past the API."""

    def __init__(self, product: Product) -> None:
        super().__init__(daemon=True)
        self._product = product
        self._ended = threading.Event()
        self.began = threading.Event()
        self.states: list[tuple[int, str, str]] = []
        self.start()

    def run(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", self._product.stack.env()["KUBECONFIG"])
            asyncio.run(self._until_stopped())

    def stop(self) -> None:
        self._ended.set()
        self.join(10)

    async def _until_stopped(self) -> None:
        watching = asyncio.create_task(self._watch())
        await asyncio.to_thread(self._ended.wait)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        client = await KubeClient.connect()
        try:
            page = await client.request("GET", tasks_path("default"), params={"limit": "1"})
            async for events in client.watch(tasks_path("default"), page["metadata"]["resourceVersion"]):
                self.began.set()
                for event in events:
                    body = event["object"]
                    if event["type"] != "BOOKMARK" and body["spec"]["handler"] == "taskflow.sleep":
                        phase = (body.get("status") or {}).get("phase", "Pending")
                        self.states.append((int(body["metadata"]["resourceVersion"]), body["metadata"]["name"], phase))
        finally:
            await client.close()


def test_the_log_of_a_running_task_is_followed_to_its_end(product: Product, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    product.apply(task("talker", "e2e.talk_until", kwargs={"path": str(gate)}))
    product.in_phase("talker", "Running")
    stream = Stream(product, f"{TASKS}/talker/logs?follow=true")
    eventually(lambda: stream.text, lambda text: "line 5" in text)
    later = len(stream.text)
    eventually(lambda: stream.text, lambda text: len(text) > later)
    assert stream.is_alive()
    gate.touch()
    stream.join(30)
    assert not stream.is_alive()
    lines = [line.split(" ", 2)[2] for line in stream.text.splitlines()]
    assert lines == [*(f"line {number}" for number in range(len(lines) - 1)), "the end"]
    whole = Stream(product, f"{TASKS}/talker/logs")
    whole.join(30)
    assert whole.text == stream.text


def test_no_state_is_missed_over_a_restart_of_the_api(product: Product) -> None:
    witness = Witness(product)
    assert witness.began.wait(20)
    first = Stream(product, EVENTS)
    eventually(lambda: first.text, lambda text: "event: ready" in text)
    product.apply(*(task(f"seen-{number}", "taskflow.sleep", kwargs={"seconds": 1.5}) for number in range(6)))
    eventually(lambda: first.states, lambda states: any(phase == "Running" for _, _, phase in states))
    product.stack.stop("api")
    first.join(10)
    assert not first.is_alive()
    # Meanwhile others begin and end.
    eventually(
        lambda: [product.task(f"seen-{number}").get("status", {}).get("phase") for number in range(4)],
        lambda phases: set(phases) == {"Succeeded"},
    )
    product.stack.start("api")
    last = max(version for version, _, _ in first.states)
    second = Stream(product, EVENTS, Last_Event_ID=str(last))
    for number in range(6):
        product.finished(f"seen-{number}")

    def ended(states: list[tuple[int, str, str]]) -> bool:
        return {name for _, name, phase in states if phase == "Succeeded"} == {f"seen-{number}" for number in range(6)}

    eventually(lambda: [*first.states, *second.states], ended)
    eventually(lambda: witness.states, ended)
    time.sleep(1)
    witness.stop()
    second.cut()
    told: list[Any] = [*first.states, *second.states]
    assert len(told) == len(set(told))
    assert sorted(told) == sorted(witness.states)


def test_a_task_without_a_pool_says_why_it_waits_and_a_queued_one_where_it_stands(
    product: Product, tmp_path: Path
) -> None:
    product.apply(task("unserved", "taskflow.echo", queue="nobody"))
    why = eventually(lambda: product.get(f"{TASKS}/unserved/why"), lambda found: found["phase"] == "Pending")
    assert (why["waiting"], why["reason"]) == (True, "NoWorkerPool")
    assert why["message"] == "no WorkerPool serves queue 'nobody'; served queues: default"
    product.kubectl("delete", "tft", "unserved")

    gate = tmp_path / "gate"
    names = [f"busy-{number}" for number in range(2)]
    product.apply(*(task(name, "e2e.talk_until", kwargs={"path": str(gate)}) for name in names))
    for name in names:
        product.in_phase(name, "Running")
    product.apply(*(task(f"wait-{number}", "taskflow.echo", priority=number) for number in range(0, 9, 3)))
    product.in_phase("wait-0", "Queued")
    eventually(
        lambda: [product.get(f"{TASKS}/wait-{number}/why") for number in (6, 3, 0)],
        # What the worker has fetched already stands nowhere.
        lambda found: (
            found[-1]["queuePosition"] is not None
            and found[-1]["reason"] == "AllSlotsBusy"
            and found[-1]["queuePosition"] >= found[0]["queuePosition"]
        ),
    )
    pool = product.get("/v1/namespaces/default/pools/main")
    assert (pool["slots"], pool["busySlots"]) == (2, 2)
    gate.touch()
    for number in range(0, 9, 3):
        product.finished(f"wait-{number}")
    assert product.get(f"{TASKS}/wait-0/why")["waiting"] is False
