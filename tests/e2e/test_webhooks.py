"""From kubectl to a receiver that verifies: what ended is told, exactly that, whoever dies in between."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from taskflow_client import Client, webhooks
from taskflow_client.errors import NotFoundError
from taskflow_client.models import Delivery
from tests.e2e.conftest import POOL
from tests.e2e.own_stack import own_stack
from tests.e2e.product import Product, eventually, records, task
from tests.webhook_receiver import Receiver, answer, slowly

pytestmark = pytest.mark.e2e
HOOKS = "/v1/namespaces/default/webhooks"
LEASE_OF_A_DELIVERY = 45


@dataclass(frozen=True)
class Notified:
    product: Product
    receiver: Receiver
    secret: str

    def call(self, method: str, path: str, body: Any = None) -> Any:
        environment = self.product.stack.env()
        request = urllib.request.Request(
            environment["TASKFLOW_API_URL"] + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {environment['TASKFLOW_API_TOKEN']}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.loads(response.read() or "null")

    def told(self, *names: str) -> dict[str, list[str]]:
        """Type of each message about these Tasks, verified, by name and once for each id."""
        found: dict[str, dict[str, str]] = {name: {} for name in names}
        for got in [each for each in self.receiver.received if each.path == "/all"]:
            said = got.verified(self.secret)
            if (name := said["data"].get("name")) in found:
                found[name][got.id] = said["type"]
        return {name: sorted(types.values()) for name, types in found.items()}


@pytest.fixture(scope="module")
def notified() -> Iterator[Notified]:
    with (
        Receiver() as receiver,
        own_stack(
            "notifier",
            TASKFLOW_WEBHOOKS_ENABLED="true",
            TASKFLOW_WEBHOOKS_ALLOW_HTTP="true",
            TASKFLOW_WEBHOOKS_ALLOWED="127.0.0.1",
            TASKFLOW_WEBHOOKS_PORTS=str(receiver.port),
        ) as product,
    ):
        product.apply(POOL)
        eventually(lambda: product.pool("main").get("slots"), lambda slots: slots == 2, 60)
        made = Notified(product, receiver, "")
        secret = made.call("POST", HOOKS, {"name": "all", "url": receiver.url + "/all"})["secret"]
        yield Notified(product, receiver, secret)


def test_each_end_is_told_the_ones_without_a_worker_too(notified: Notified, tmp_path: Path) -> None:
    product = notified.product
    tmp_path.chmod(0o777)
    gate, record = tmp_path / "gate", tmp_path / "record"
    busy = {"record": str(record), "path": str(gate)}
    product.apply(*(task(name, "e2e.wait_for_file", kwargs=busy) for name in ("busy-1", "busy-2")))
    eventually(lambda: len(records(record, "start")), lambda count: count == 2, 60)
    # All slots are taken: what follows ends without a worker, but for `good`.
    product.apply(
        task("cancelled", "taskflow.echo"),
        task("late", "taskflow.echo", queueTimeoutSeconds=2),
        task("orphan", "taskflow.echo", dependsOn=[{"name": "late"}]),
        task("unserved", "taskflow.echo", queue="nobody", cancel=True),
        task("open", "taskflow.echo", suspend=True),
    )
    product.in_phase("cancelled", "Queued")
    product.kubectl("patch", "tft", "cancelled", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    product.apply(task("good", "taskflow.echo", kwargs={"value": 1}))
    wanted = {
        "cancelled": ["task.cancelled"],
        "late": ["task.failed"],
        "orphan": ["task.failed"],
        "unserved": ["task.cancelled"],
        "open": [],
        "good": [],
        "busy-1": [],
        "busy-2": [],
    }
    eventually(lambda: notified.told(*wanted), lambda found: found == wanted, 60)
    gate.touch()
    wanted |= {name: ["task.succeeded"] for name in ("good", "busy-1", "busy-2")}
    eventually(lambda: notified.told(*wanted), lambda found: found == wanted, 60)
    time.sleep(2)
    assert notified.told(*wanted) == wanted
    uid = product.task("good")["metadata"]["uid"]
    assert [got.id for got in notified.receiver.received].count(f"evt_{uid}_succeeded") == 1
    shown = notified.call("GET", HOOKS + "/all/deliveries?state=Delivered")["items"]
    assert {(each["taskName"], each["type"]) for each in shown} >= {("good", "task.succeeded"), ("late", "task.failed")}


def test_a_task_names_who_is_told_of_it(notified: Notified) -> None:
    product, receiver = notified.product, notified.receiver
    body = {"name": "named", "url": receiver.url + "/named", "tasks": "Named"}
    secret = notified.call("POST", HOOKS, body)["secret"]
    product.apply(task("names-it", "taskflow.echo", notify=["named", "nobody"]), task("names-none", "taskflow.echo"))
    eventually(lambda: notified.told("names-it", "names-none"), lambda found: all(found.values()), 60)
    found = eventually(lambda: [got for got in receiver.received if got.path == "/named"], bool, 20)
    assert [got.verified(secret)["data"]["name"] for got in found] == ["names-it"]
    said = product.kubectl("patch", "tft", "names-it", "--type=merge", "-p", '{"spec":{"notify":[]}}', check=False)
    assert "notify is immutable" in said
    notified.call("DELETE", HOOKS + "/named")


def test_a_test_message_and_a_replay_by_the_python_client(notified: Notified) -> None:
    receiver, env = notified.receiver, notified.product.stack.env()
    with Client(env["TASKFLOW_API_URL"], env["TASKFLOW_API_TOKEN"]) as client:
        made = client.send(webhooks.create("default", "tried", receiver.url + "/tried", tasks="Named"))
        assert made.name in [hook.name for hook in client.send(webhooks.listed("default")).items]
        begun = client.send(webhooks.test("default", "tried"))

        def delivery() -> Delivery:
            return client.send(webhooks.delivery("default", "tried", begun.id))

        ended = eventually(delivery, lambda found: found.state == "Delivered", 20)
        assert (ended.type, ended.tries[0]["status"]) == ("webhook.test", 204)
        second = client.send(webhooks.rotate("default", "tried", grace_seconds=0)).secret
        client.send(webhooks.replay("default", "tried", begun.id))
        messages = eventually(
            lambda: [got for got in receiver.received if got.path == "/tried"], lambda found: len(found) == 2, 20
        )
        assert [got.id for got in messages] == [begun.event_id] * 2
        assert [got.verified(key)["type"] for got, key in zip(messages, (made.secret, second), strict=True)] == [
            "webhook.test"
        ] * 2
        assert [each.id for page in client.pages(webhooks.deliveries("default", "tried")) for each in page.items] == [
            begun.id
        ]
        assert client.send(webhooks.change("default", "tried", enabled=False)).disabled_reason == "Disabled"
        client.send(webhooks.delete("default", "tried"))
        with pytest.raises(NotFoundError):
            client.send(webhooks.get("default", "tried"))


def test_a_notifier_that_is_killed_in_the_middle_loses_none(notified: Notified) -> None:
    product, receiver = notified.product, notified.receiver
    names = [f"kill-notifier-{number}" for number in range(6)]
    before = len(receiver.received)
    receiver.next = [slowly(6, answer(204))] * 4
    product.apply(*(task(name, "taskflow.echo") for name in names))
    eventually(lambda: len(receiver.received), lambda count: count > before, 60)
    product.stack.stop("notifier", signal.SIGKILL)
    receiver.next = []
    for name in names:
        product.finished(name)
    product.stack.start("notifier")
    wanted = {name: ["task.succeeded"] for name in names}
    eventually(lambda: notified.told(*names), lambda found: found == wanted, 60)
    # Those that were under way come once more when their lease is over, under the same id.
    listed = f"{HOOKS}/all/deliveries?state=Pending"
    eventually(lambda: notified.call("GET", listed)["items"], lambda items: items == [], LEASE_OF_A_DELIVERY + 30)
    assert notified.told(*names) == wanted


def test_an_operator_that_is_killed_in_the_middle_loses_none(notified: Notified, tmp_path: Path) -> None:
    product = notified.product
    tmp_path.chmod(0o777)
    gate, record = tmp_path / "gate", tmp_path / "record"
    kwargs = {"record": str(record), "path": str(gate)}
    names = ["kill-operator-1", "kill-operator-2"]
    product.apply(*(task(name, "e2e.wait_for_file", kwargs=kwargs) for name in names))
    eventually(lambda: len(records(record, "start")), lambda count: count == 2, 60)
    product.stack.stop("operator", signal.SIGKILL)
    gate.touch()
    eventually(lambda: len(records(record, "end")), lambda count: count == 2, 30)
    product.apply(task("kill-operator-3", "taskflow.echo", queue="nobody", cancel=True))
    product.stack.start("operator")
    wanted = {name: ["task.succeeded"] for name in names} | {"kill-operator-3": ["task.cancelled"]}
    eventually(lambda: notified.told(*wanted), lambda found: found == wanted, 60)
