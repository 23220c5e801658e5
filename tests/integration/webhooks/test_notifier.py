"""Deliveries from the database to a verifying receiver, over real HTTP."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_api.webhooks import notifier as module
from taskflow_api.webhooks.deliveries import DeliveryRow, PostgresDeliveries
from taskflow_api.webhooks.endpoints import PostgresEndpoints
from taskflow_api.webhooks.notifier import Notifier
from taskflow_api.webhooks.retry_schedule import SCHEDULE
from taskflow_api.webhooks.secrets import Vault, new_secret
from taskflow_api.webhooks.sender import Answer
from taskflow_core.errors import Conflict
from taskflow_core.store.engine import transaction
from tests.integration.webhooks.rows import (
    VAULT,
    added,
    apply,
    ended,
    endpoint,
    let_leases_run_out,
    make_due,
    notifier,
    rows,
)
from tests.webhook_receiver import Receiver, answer, slowly

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)


@contextlib.asynccontextmanager
async def running(*notifiers: Notifier) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.run()) for each in notifiers]
    try:
        yield
    finally:
        for each in notifiers:
            each.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 30)


async def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def only(engine: AsyncEngine, name: str = "all") -> DeliveryRow:
    (row,) = await PostgresDeliveries(engine).page(f"id-of-{name}", state=None, after=None, limit=9)
    return row


async def settled(engine: AsyncEngine, attempts: int) -> DeliveryRow:
    deadline = time.monotonic() + 20
    while (row := await only(engine)).attempts < attempts or len(row.tries) < attempts:
        assert time.monotonic() < deadline, row
        await asyncio.sleep(0.02)
    return row


async def test_a_delivery_verifies_with_the_reference_library(engine: AsyncEngine, receiver: Receiver) -> None:
    secret = await added(engine, "all", receiver.url + "/hook?x=1")
    await apply(engine, ended("u1", "Succeeded"))
    async with running(notifier(engine, receiver)):
        row = await settled(engine, 1)
    (got,) = receiver.received
    assert got.verified(secret)["data"]["uid"] == "u1"
    assert (got.path, got.id, got.headers["content-type"]) == ("/hook?x=1", "evt_u1_succeeded", "application/json")
    assert len(got.body) < 20_000
    assert (row.state, row.attempts, row.next_at) == ("Delivered", 1, None)
    assert (row.tries[0]["status"], row.tries[0]["error"]) == (204, "")


async def test_a_failed_delivery_is_retried_by_the_schedule_with_the_same_id(
    engine: AsyncEngine, receiver: Receiver
) -> None:
    secret = await added(engine, "all", receiver.url)
    await apply(engine, ended("u1", "Failed"))
    receiver.next = [answer(500, b"no\0"), answer(302, Location="/x"), answer(429, Retry_After="900"), answer(404)]
    async with running(notifier(engine, receiver)):
        for made in range(1, 5):
            row = await settled(engine, made)
            assert (row.state, row.attempts) == ("Pending", made)
            assert row.next_at is not None
            pause = (row.next_at - datetime.now(UTC)).total_seconds()
            expected = 900 if made == 3 and SCHEDULE[made].total_seconds() < 900 else SCHEDULE[made].total_seconds()
            assert expected * 0.9 - 3 < pause < expected * 1.1 + 1, (made, pause)
            await make_due(engine)
        row = await settled(engine, 5)
    assert row.state == "Delivered"
    assert [each["status"] for each in row.tries] == [500, 302, 429, 404, 204]
    assert row.tries[0]["answer"] == "no\N{REPLACEMENT CHARACTER}"
    assert {got.id for got in receiver.received} == {"evt_u1_failed"}
    assert [got.verified(secret)["type"] for got in receiver.received] == ["task.failed"] * 5


async def test_after_the_last_attempt_a_delivery_fails_and_can_be_replayed(
    engine: AsyncEngine, receiver: Receiver
) -> None:
    await added(engine, "all", receiver.url)
    await apply(engine, ended("u1", "Failed"))
    receiver.next = [answer(500)] * 10
    store = PostgresDeliveries(engine)
    async with running(notifier(engine, receiver)):
        for made in range(1, 11):
            row = await settled(engine, made)
            await make_due(engine)
        assert (row.state, row.next_at) == ("Failed", None)
        assert row.finished_at is not None
        replayed = await store.replay("id-of-all", row.id)
        assert replayed is not None
        assert (replayed.state, replayed.attempts, len(replayed.tries)) == ("Pending", 0, 10)
        await eventually(lambda: len(receiver.received) == 11)
    row = await only(engine)
    assert (row.state, row.attempts, len(row.tries)) == ("Delivered", 1, 11)
    assert {got.id for got in receiver.received} == {"evt_u1_failed"}
    assert await store.replay("id-of-all", "f" * 32) is None
    await store.replay("id-of-all", row.id)
    with pytest.raises(Conflict, match="is already pending"):
        await store.replay("id-of-all", row.id)


async def test_410_disables_the_endpoint_and_fails_its_pending_deliveries(
    engine: AsyncEngine, receiver: Receiver
) -> None:
    await added(engine, "all", receiver.url)
    await apply(engine, *(ended(f"u{number}", "Failed") for number in range(3)))
    async with transaction(engine) as connection:
        await connection.execute(
            text("UPDATE webhook_deliveries SET next_at = now() + interval '1 h' WHERE task_uid <> 'u0'")
        )
    receiver.next = [answer(410)]
    async with running(notifier(engine, receiver)):
        await eventually(lambda: len(receiver.received) == 1)
        await asyncio.sleep(0.2)
        await apply(engine, ended("u9", "Failed"))
    row = await PostgresEndpoints(engine).get("team-a", "all")
    assert row is not None
    assert (row.disabled_reason, row.disabled_at is not None) == ("Gone", True)
    assert await rows(engine, "task_uid", "state") == [(f"u{number}", "Failed") for number in range(3)]
    assert len(receiver.received) == 1


async def test_while_a_secret_is_rotated_there_are_two_signatures_and_afterwards_one(
    engine: AsyncEngine, receiver: Receiver
) -> None:
    old, new = await added(engine, "all", receiver.url), new_secret()
    row, _ = endpoint("all")
    store = PostgresEndpoints(engine)
    there = await store.get("team-a", "all")
    assert there is not None
    values = {
        "secret": VAULT.encrypt(new),
        "old_secret": there.secret,
        "old_secret_until": datetime.now(UTC) + timedelta(hours=1),
    }
    await store.change(row.id, values)
    await apply(engine, ended("u1", "Failed"))
    async with running(notifier(engine, receiver)):
        await eventually(lambda: len(receiver.received) == 1)
        for secret in (old, new):
            receiver.received[0].verified(secret)
        await store.change(row.id, {"old_secret_until": datetime.now(UTC)})
        await apply(engine, ended("u2", "Failed"))
        await eventually(lambda: len(receiver.received) == 2)
    receiver.received[1].verified(new)
    assert len(receiver.received[1].headers["webhook-signature"].split()) == 1


async def test_concurrent_notifiers_send_each_message_once(engine: AsyncEngine, receiver: Receiver) -> None:
    for name in ("one", "two", "three"):
        await added(engine, name, f"{receiver.url}/{name}")
    await apply(engine, *(ended(f"u{number:02}", "Succeeded") for number in range(40)))
    async with running(*(notifier(engine, receiver) for _ in range(3))):
        await eventually(lambda: len(receiver.received) >= 120)
        await asyncio.sleep(0.3)
    assert len(receiver.received) == len({(got.path, got.id) for got in receiver.received}) == 120
    assert {state for (state,) in await rows(engine, "state")} == {"Delivered"}


async def test_leases_of_a_dead_notifier_expire_and_its_late_outcome_is_ignored(
    engine: AsyncEngine, receiver: Receiver
) -> None:
    await added(engine, "all", receiver.url)
    await apply(engine, ended("u1", "Succeeded"))
    store = PostgresDeliveries(engine)
    (taken,) = await store.lease("dead", 10)
    assert await store.lease("other", 10) == []
    async with running(notifier(engine, receiver)):
        await asyncio.sleep(0.2)
        assert receiver.received == []
        await let_leases_run_out(engine)
        await eventually(lambda: len(receiver.received) == 1)
    assert (await only(engine)).state == "Delivered"
    assert not await store.record(taken, "dead", module.outcome_of(1, Answer(500), datetime.now(UTC), 0.5))
    assert (await only(engine)).state == "Delivered"


async def test_a_slow_endpoint_does_not_delay_the_others(engine: AsyncEngine, receiver: Receiver) -> None:
    with Receiver() as slow:
        await added(engine, "slow", slow.url)
        await apply(engine, *(ended(f"s{number}", "Failed") for number in range(20)))
        await added(engine, "quick", receiver.url)
        await apply(engine, ended("u1", "Failed"))
        slow.next = [slowly(1, answer(204))] * 20
        both = notifier(engine, receiver, slow)
        begun = time.monotonic()
        async with running(both):
            await eventually(lambda: len(receiver.received) == 1, 2)
            assert time.monotonic() - begun < 0.9
            assert len(slow.received) <= 8


async def test_stop_finishes_running_attempts_and_leases_no_more(engine: AsyncEngine, receiver: Receiver) -> None:
    await added(engine, "all", receiver.url)
    await apply(engine, ended("u1", "Failed"))
    receiver.next = [slowly(0.5, answer(200))]
    async with running(notifier(engine, receiver)):
        await eventually(lambda: len(receiver.received) == 1)
    row = await only(engine)
    assert (row.state, row.attempts) == ("Delivered", 1)
    await apply(engine, ended("u2", "Failed"))
    await asyncio.sleep(0.2)
    assert len(receiver.received) == 1


async def test_a_refused_url_and_a_lost_key_are_recorded(engine: AsyncEngine, receiver: Receiver) -> None:
    await added(engine, "all", "https://127.0.0.9:1/")
    await apply(engine, ended("u1", "Failed"))
    async with running(notifier(engine, receiver)):
        row = await settled(engine, 1)
    assert (row.state, row.tries[0]["status"]) == ("Pending", None)
    assert row.tries[0]["error"].startswith("refused: expected one of the ports")
    await make_due(engine)
    other = notifier(engine, receiver)
    other._vault = Vault(["A" * 43 + "="])
    async with running(other):
        row = await settled(engine, 2)
    assert "not in TASKFLOW_WEBHOOKS_KEY" in row.tries[1]["error"]


async def test_old_deliveries_are_swept_and_pending_ones_stay(engine: AsyncEngine, receiver: Receiver) -> None:
    await added(engine, "all")
    await apply(engine, *(ended(f"u{number}", "Failed") for number in range(4)))
    async with transaction(engine) as connection:
        for uid, state, days in (("u0", "Delivered", 31), ("u1", "Failed", 31), ("u2", "Delivered", 29)):
            await connection.execute(
                text(
                    "UPDATE webhook_deliveries SET state = :s, finished_at = now() - :d * interval '1 day'"
                    " WHERE task_uid = :u"
                ),
                {"s": state, "d": days, "u": uid},
            )
    store = PostgresDeliveries(engine)
    assert await store.sweep(timedelta(days=30)) == 2
    assert await rows(engine, "task_uid") == [("u2",), ("u3",)]
    count, late = await store.backlog()
    assert (count, late >= 0) == (1, True)
    assert await PostgresEndpoints(engine).delete("id-of-all")
    assert await rows(engine, "task_uid") == []
    assert not await PostgresEndpoints(engine).delete("id-of-all")


async def test_endpoint_names_are_unique_and_their_number_is_limited(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskflow_api.webhooks.endpoints.MAX_ENDPOINTS", 2)
    store = PostgresEndpoints(engine)
    made = await asyncio.gather(
        *(store.add(endpoint("same", id=f"id-{number}")[0]) for number in range(4)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in made) == ["Conflict"] * 3 + ["NoneType"]
    await added(engine, "second")
    with pytest.raises(Conflict, match="already has 2 webhooks, the limit"):
        await added(engine, "third")
    await added(engine, "third", namespace="team-b")
    assert [row.name for row in await store.of_namespace("team-a")] == ["same", "second"]


async def test_a_delivery_of_another_namespace_is_not_leased(engine: AsyncEngine) -> None:
    await added(engine, "ours")
    await apply(engine, ended("u1", "Succeeded"), ended("u2", "Succeeded"))
    async with transaction(engine) as connection:
        await connection.execute(text("UPDATE webhook_deliveries SET namespace = 'victim' WHERE task_uid = 'u1'"))
    await make_due(engine)
    leased = await PostgresDeliveries(engine).lease("me", 10)
    assert [each.delivery.task_uid for each in leased] == ["u2"]
