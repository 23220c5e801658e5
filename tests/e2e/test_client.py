"""The Python client against the whole product, from a thread and from an event loop."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from taskflow_client import AsyncClient, Client, files, keys, pools, schedules, tasks
from taskflow_client.errors import (
    ChangedSinceError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NoAnswerError,
    NotFoundError,
    UnauthenticatedError,
)
from tests.e2e.product import Product, eventually

pytestmark = pytest.mark.e2e
NS = "default"


@pytest.fixture
def client(product: Product, tmp_path: Path) -> Iterator[Client]:
    env = product.stack.env()
    # As a pod has it: in a file.
    token = tmp_path / "token"
    token.write_text(env["TASKFLOW_API_TOKEN"] + "\n")
    with Client(env["TASKFLOW_API_URL"], token) as client:
        yield client


@pytest.fixture
async def aclient(product: Product) -> AsyncIterator[AsyncClient]:
    env = product.stack.env()
    async with AsyncClient(env["TASKFLOW_API_URL"], lambda: env["TASKFLOW_API_TOKEN"]) as client:
        yield client


def test_a_task_from_its_creation_to_its_result(client: Client) -> None:
    made = client.send(tasks.create(NS, "taskflow.echo", name="client-echo", kwargs={"value": {"a": [1]}}))
    assert (made.name, made.handler, made.live) == ("client-echo", "taskflow.echo", True)
    done = client.wait(NS, made.name)
    assert (done.phase, done.result, done.finished) == ("Succeeded", {"a": [1]}, True)
    found = eventually(lambda: client.send(tasks.get(NS, made.name)), lambda task: bool(task and task.attempts))
    assert found is not None
    assert client.send(tasks.get(NS, made.name, if_none_match=found.etag)) is None
    assert client.send(tasks.why(NS, made.name)).waiting is False
    with pytest.raises(ConflictError):
        client.send(tasks.create(NS, "taskflow.echo", name="client-echo"))
    again = client.send(tasks.retry(NS, made.name))
    assert client.wait(NS, again.name).phase == "Succeeded"
    client.send(tasks.delete(NS, again.name))


def test_a_request_with_a_key_is_one_task_however_often_it_is_sent(client: Client) -> None:
    key = secrets.token_hex(8)
    call = tasks.create(NS, "taskflow.echo", idempotency_key=key, wait_seconds=30)
    first, second = client.send(call), client.send(call)
    assert first.uid == second.uid
    assert first.phase == "Succeeded"
    with pytest.raises(InvalidError) as caught:
        client.send(tasks.create(NS, "taskflow.fail", idempotency_key=key))
    assert caught.value.code == "idempotency-key-reused"


def test_a_task_is_changed_only_if_nobody_else_did(client: Client) -> None:
    made = client.send(tasks.create(NS, "taskflow.echo", name="client-held", suspend=True))
    changed = client.send(tasks.change(NS, made.name, if_match=made.etag, priority=7))
    assert changed.priority == 7
    with pytest.raises(ChangedSinceError):
        client.send(tasks.change(NS, made.name, if_match=made.etag, priority=8))
    client.send(tasks.cancel(NS, made.name))
    assert client.wait(NS, made.name).phase == "Cancelled"


def test_many_are_created_listed_page_by_page_and_cancelled_together(client: Client) -> None:
    items = [
        {
            "generateName": "client-many-",
            "labels": {"made": "by-client"},
            "spec": {"handler": "taskflow.echo", "suspend": True},
        }
        for _ in range(7)
    ]
    batch = client.send(tasks.create_many(NS, items))
    assert [item.status for item in batch.items] == [201] * 7

    def listed() -> list[str]:
        call = tasks.listed(NS, label_selector="made=by-client", limit=3)
        return [task.name for page in client.pages(call) for task in page.items]

    names = eventually(listed, lambda found: len(found) == 7)
    assert set(names) == {item.name for item in batch.items}
    operation = client.send(tasks.cancel_many(NS, labelSelector="made=by-client"))
    done = eventually(
        lambda: client.send(tasks.operation(NS, operation.id)),
        lambda found: found.state != "Running" and found.done == 7,
    )
    assert (done.matched, done.failed) == (7, 0)


def test_a_file_goes_in_by_a_link_and_in_parts(client: Client) -> None:
    link = client.send(files.upload(NS, "client/one.txt", "text/plain"))
    client.put(link.url, b"one", link.headers)
    content = os.urandom(6 * 1024 * 1024)
    begun = client.send(files.begin(NS, "client/two.bin"))
    size = begun.min_part_bytes
    parts = {n + 1: content[n * size : (n + 1) * size] for n in range(-(-len(content) // size))}
    links = client.send(files.sign(NS, begun.id, sorted(parts)))
    etags = {part.number: client.put(part.url, parts[part.number]) for part in links.parts}
    client.send(files.complete(NS, begun.id, etags))
    keys = [file.key for page in client.pages(files.listed(NS, prefix="client/", limit=1)) for file in page.items]
    assert keys == ["client/one.txt", "client/two.bin"]
    fetched = client.fetch(client.send(files.get(NS, "client/two.bin")).url)
    assert hashlib.sha256(fetched).digest() == hashlib.sha256(content).digest()
    for key in keys:
        client.send(files.delete(NS, key))
    with pytest.raises(NotFoundError):
        client.send(files.get(NS, "client/one.txt"))


def test_pools_are_listed_and_paused(client: Client) -> None:
    names = [pool.name for page in client.pages(pools.listed(NS)) for pool in page.items]
    assert names
    assert client.send(pools.get(NS, names[0])).queues


def test_what_the_handler_says_is_followed(client: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    made = client.send(tasks.create(NS, "e2e.talk_until", name="client-log", kwargs={"path": str(gate)}))
    lines = client.lines(tasks.logs(NS, made.name, follow=True))
    first = next(lines)
    # It was said while the handler ran.
    gate.touch()
    assert [first, *lines]
    assert client.wait(NS, made.name).phase == "Succeeded"
    assert len(list(client.lines(tasks.logs(NS, made.name, tail=1)))) == 1


def test_who_is_not_known_and_who_is_not_there_are_told_apart(product: Product) -> None:
    url = product.stack.env()["TASKFLOW_API_URL"]
    with Client(url, "no such token") as client, pytest.raises(UnauthenticatedError):
        client.send(tasks.get(NS, "x"))
    with Client("http://127.0.0.1:9", "t", retries=1) as client, pytest.raises(NoAnswerError):
        client.send(tasks.get(NS, "x"))


async def test_the_same_on_an_event_loop(aclient: AsyncClient, tmp_path: Path) -> None:
    made = await aclient.send(tasks.create(NS, "taskflow.sleep", name="client-async", kwargs={"seconds": 1}))
    phases = [event.task["phase"] async for event in aclient.events(tasks.events(NS, made.name))]
    assert phases[-1] == "Succeeded"
    done = await aclient.wait(NS, made.name)
    assert done.phase == "Succeeded"
    gate = tmp_path / "gate"
    gate.touch()
    talk = await aclient.send(tasks.create(NS, "e2e.talk_until", name="client-talk", kwargs={"path": str(gate)}))
    assert [line async for line in aclient.lines(tasks.logs(NS, talk.name, follow=True))]
    pages = [page async for page in aclient.pages(tasks.listed(NS, handler="taskflow.sleep", limit=1))]
    assert all(len(page.items) <= 1 for page in pages)
    link = await aclient.send(files.upload(NS, "client/async.txt"))
    await aclient.put(link.url, b"async", link.headers)
    assert await aclient.fetch((await aclient.send(files.get(NS, "client/async.txt"))).url) == b"async"
    await aclient.send(files.delete(NS, "client/async.txt"))
    with pytest.raises(NotFoundError):
        await aclient.send(tasks.get(NS, "client-nobody"))


def test_a_key_from_its_creation_to_its_end(product: Product, client: Client) -> None:
    role = ("role", "key-maker", "--verb=create", "--resource=serviceaccounts/token")
    product.kubectl("create", *role)
    product.kubectl("create", "rolebinding", "key-maker", "--role=key-maker", f"--serviceaccount={NS}:taskflow-client")
    try:
        made = client.send(keys.create(NS, "taskflow-client", scopes=["read"], name="nightly"))
        url = product.stack.env()["TASKFLOW_API_URL"]
        with Client(url, made.key) as by_key:
            assert by_key.send(tasks.listed(NS, limit=1)).items is not None
            with pytest.raises(ForbiddenError):
                by_key.send(tasks.create(NS, "taskflow.echo", name="by-key"))
            with pytest.raises(ForbiddenError):
                by_key.send(keys.listed(NS))
        second = client.send(keys.rotate(NS, made.id, grace_seconds=0))
        assert client.send(keys.get(NS, made.id)).replaced_by == second.id
        client.send(keys.revoke(NS, second.id))
        assert second.id not in [
            key.id for key in client.send(keys.listed(NS, service_account="taskflow-client")).items
        ]
        with Client(url, second.key, retries=0) as ended, pytest.raises(UnauthenticatedError):
            ended.send(tasks.listed(NS))
    finally:
        product.kubectl("delete", "role,rolebinding", "key-maker")


def test_a_schedule_from_its_creation_to_its_end(client: Client) -> None:
    hourly, year = {"seconds": 3600}, 2026
    made = client.send(
        schedules.create(NS, "client-hourly", "taskflow.echo", every=hourly, task={"kwargs": {"value": 5}})
    )
    assert (made.name, made.suspended) == ("client-hourly", False)
    try:
        changed = client.send(schedules.change(NS, made.name, concurrencyPolicy="Allow"))
        assert changed.spec["concurrencyPolicy"] == "Allow"
        with pytest.raises(ChangedSinceError):
            client.send(schedules.change(NS, made.name, if_match=made.etag, jitterSeconds=5))
        ticks = [tick.scheduled_time for tick in client.send(schedules.upcoming(NS, made.name, count=3)).items]
        assert [tick.minute for tick in ticks] == [0, 0, 0]
        assert client.send(schedules.suspend(NS, made.name)).suspended
        call = schedules.run(NS, made.name, idempotency_key="once")
        first, second = client.send(call), client.send(call)
        assert first.task is not None
        assert second.task is not None
        assert first.task.uid == second.task.uid
        assert client.wait(NS, first.task_name).result == 5
        from_, to = (datetime(year, 1, 1, hour, tzinfo=UTC) for hour in (0, 2))
        filled = client.send(schedules.backfill(NS, made.name, "january", from_, to, parallelism=2))
        assert [each["name"] for each in filled.spec["backfills"]] == ["january"]
        assert not client.send(schedules.resume(NS, made.name)).suspended

        def recorded() -> set[str | None]:
            pages = client.pages(schedules.runs(NS, made.name, outcome="Created", limit=2))
            return {run.task_name for page in pages for run in page.items}

        ran = {first.task_name, "client-hourly.20260101t000000z", "client-hourly.20260101t010000z"}
        eventually(recorded, lambda found: found >= ran)
        names = [each.name for page in client.pages(schedules.listed(NS, limit=1)) for each in page.items]
        assert made.name in names
        assert client.send(schedules.get(NS, made.name)).uid == made.uid
    finally:
        client.send(schedules.delete(NS, made.name))
    assert client.send(schedules.runs(NS, made.name)).items
    with pytest.raises(NotFoundError):
        client.send(schedules.get(NS, made.name))
    previewed = client.send(schedules.preview(NS, schedules=["0 12 * * *"], timeZone="Europe/Berlin", count=2))
    assert [tick.local_time[11:19] for tick in previewed.items] == ["12:00:00", "12:00:00"]


def test_a_pool_is_paused_and_goes_on(product: Product, client: Client) -> None:
    body = {"apiVersion": "taskflow.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": "client-pool"}}
    product.apply({**body, "spec": {"queues": ["client-pool"], "replicas": 0}})
    try:
        for paused in (True, False):
            assert client.send(pools.change(NS, "client-pool", paused=paused)).paused is paused
    finally:
        product.kubectl("delete", "tfp", "client-pool")
