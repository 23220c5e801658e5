"""A delivery exists exactly when the end of its Task does, because the same transaction writes both."""

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_api.webhooks.endpoints import PostgresEndpoints
from taskflow_core.domain.events import EventKind
from taskflow_core.domain.phases import Phase
from taskflow_core.store import repository
from taskflow_core.store.engine import transaction
from tests.builders import make_task
from tests.integration.webhooks.rows import NOW, added, apply, ended, rows
from tests.unit.taskflow_core.store.builders import event, snapshot, story

pytestmark = pytest.mark.integration
UID = "0b0e7d8e-5c0f-4a54-9a3a-0d5b8f6f7a01"


async def test_each_finished_task_has_one_delivery_with_a_stable_id_and_a_small_payload(engine: AsyncEngine) -> None:
    await added(engine, "all")
    for uid, phase in (("u1", "Succeeded"), ("u2", "Failed"), ("u3", "Cancelled")):
        await apply(engine, snapshot(EventKind.QUEUED, 1, uid=uid))
        assert await rows(engine, "event_id") == [
            (f"evt_{u}_{p}",) for u, p in (("u1", "succeeded"), ("u2", "failed")) if u < uid
        ]
        for _ in range(3):
            await apply(engine, ended(uid, phase))
    found = await rows(engine, "event_id", "type", "task_uid", "state", "payload")
    assert [row[:4] for row in found] == [
        ("evt_u1_succeeded", "task.succeeded", "u1", "Pending"),
        ("evt_u2_failed", "task.failed", "u2", "Pending"),
        ("evt_u3_cancelled", "task.cancelled", "u3", "Pending"),
    ]
    assert json.loads(found[1][4]) == {
        "type": "task.failed",
        "timestamp": "2026-09-21T12:00:09Z",
        "data": {
            "namespace": "team-a",
            "name": "task-u2",
            "uid": "u2",
            "handler": "reports.summarise",
            "queue": "default",
            "phase": "Failed",
            "reason": "Failed",
            "attempt": 1,
            "createdAt": "2026-09-20T12:00:00Z",
            "startedAt": None,
            "finishedAt": "2026-09-21T12:00:09Z",
        },
    }


async def test_in_any_order_of_events_and_split_over_batches_there_is_one(engine: AsyncEngine) -> None:
    await added(engine, "all")
    stream = story(lost=1)
    end = next(each for each in reversed(stream) if each.kind is EventKind.SETTLED)
    for number, size in enumerate((1, 3, len(stream))):
        uid = f"{UID[:-1]}{number + 2}"
        mine = [each.model_copy(update={"uid": uid}) for each in reversed(stream)]
        for start in range(0, len(mine), size):
            await apply(engine, *mine[start : start + size])
        assert (await rows(engine, "event_id")).count((f"evt_{uid}_succeeded",)) == 1
    assert len(await rows(engine, "event_id")) == 3
    assert end.attempt == 2


async def test_a_task_that_did_not_run_again_has_no_delivery(engine: AsyncEngine) -> None:
    await added(engine, "all")
    again = snapshot(EventKind.SETTLED, 1, uid="u1", phase="Succeeded", reason="AlreadyRan", completionTime=NOW)
    await apply(engine, again)
    await apply(engine, snapshot(EventKind.PENDING, 2, uid="u2", phase="Pending", reason="HistoryUnavailable"))
    await apply(engine, again.model_copy(update={"uid": "u2", "id": "9-0"}))
    assert await rows(engine, "event_id") == []
    await apply(engine, ended("u3", "Succeeded"))
    assert await rows(engine, "event_id") == [("evt_u3_succeeded",)]


async def test_a_retried_attempt_and_a_deleted_task_have_no_delivery(
    engine: AsyncEngine,
) -> None:
    await added(engine, "all")
    waiting: dict[str, Any] = {"phase": "Pending", "reason": "BackingOff"}
    await apply(
        engine,
        snapshot(EventKind.SETTLED, 1, uid="u1", **waiting),
        event(EventKind.FAILED, 2, uid="u1", reason="HandlerError"),
    )
    await apply(engine, event(EventKind.SUCCEEDED, 3, uid="u2", result=1))
    await apply(engine, snapshot(EventKind.DELETED, 4, uid="u3"))
    assert await rows(engine, "event_id") == []


async def test_nothing_is_sent_of_what_was_not_committed(engine: AsyncEngine) -> None:
    await added(engine, "all")
    async with engine.connect() as connection:
        await repository.apply_events(connection, [ended("u1", "Succeeded")])
        await connection.rollback()
    assert await rows(engine, "event_id") == []
    async with transaction(engine) as connection:
        await repository.apply_events(connection, [ended("u1", "Succeeded")])
        assert await rows(engine, "event_id") == []
    assert await rows(engine, "event_id") == [("evt_u1_succeeded",)]


async def test_lost_events_are_delivered_when_the_task_is_mirrored_again(engine: AsyncEngine) -> None:
    await added(engine, "all")
    await added(engine, "named", every_task=False)
    task = make_task(uid="u1", phase=Phase.CANCELLED, notify=["named"])
    for _ in range(2):
        async with transaction(engine) as connection:
            await repository.upsert_tasks(connection, [task, make_task(uid="u2", name="other", phase=Phase.RUNNING)])
    await apply(engine, ended("u1", "Cancelled"))
    assert await rows(engine, "webhook_id", "event_id") == [
        ("id-of-all", "evt_u1_cancelled"),
        ("id-of-named", "evt_u1_cancelled"),
    ]


async def test_which_endpoints_get_a_delivery(engine: AsyncEngine) -> None:
    await added(engine, "all")
    await added(engine, "failures", types=["task.failed"])
    await added(engine, "named", every_task=False)
    await added(engine, "elsewhere", namespace="team-b")
    await added(engine, "off")
    await PostgresEndpoints(engine).change("id-of-off", {"disabled_at": NOW})
    spec = {"handler": "a.b", "queue": "default"}
    await apply(engine, ended("u1", "Succeeded"), ended("u2", "Failed"))
    await apply(engine, ended("u3", "Succeeded", spec=spec | {"notify": ["named", "elsewhere", "nobody", "off"]}))
    # A later version may write anything there; the mirror must not stop for it.
    for number, odd in enumerate(("named", {"named": 1}, None, 7, [["named"]])):
        async with transaction(engine) as connection:
            await connection.execute(
                text(
                    "INSERT INTO tasks"
                    " (uid, namespace, name, handler, queue, priority, spec, phase, reason, message, attempt, seq,"
                    " created_at, outputs)"
                    " VALUES (:uid, 'team-b', 'x', 'a.b', 'q', 0, cast(:spec AS jsonb), 'Cancelled', '', '', 1, 1,"
                    " now(), '[]')"
                ),
                {"uid": f"odd-{number}", "spec": json.dumps({"notify": odd})},
            )
    found = [row for row in await rows(engine, "webhook_id", "task_uid") if not row[1].startswith("odd")]
    assert found == [
        ("id-of-all", "u1"),
        ("id-of-all", "u2"),
        ("id-of-all", "u3"),
        ("id-of-failures", "u2"),
        ("id-of-named", "u3"),
    ]
    assert len(await rows(engine, "id")) == len(found) + 5


async def test_concurrent_writers_create_one_delivery(engine: AsyncEngine) -> None:
    await added(engine, "all")
    await asyncio.gather(*(apply(engine, ended("u1", "Succeeded"), ended("u2", "Failed")) for _ in range(5)))
    assert await rows(engine, "event_id") == [("evt_u1_succeeded",), ("evt_u2_failed",)]
