"""The operator's part for arrays on a real Redis and PostgreSQL; the API server and the workers' processes are in
memory.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import redis.asyncio

from taskflow_core.broker.publish import Outgoing
from taskflow_core.domain.events import Event, EventKind, Failure
from taskflow_core.domain.items import ItemHistory, ItemRow
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.task import Task
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.arrays import ArrayLedger
from taskflow_core.ledger.connect import connect_async, connect_sync
from taskflow_core.ledger.namespaces import Namespaces
from taskflow_core.ledger.operator import OperatorLedger
from taskflow_core.ledger.stream import StreamReader
from taskflow_core.ledger.worker import Claim, Holding, WorkerLedger
from taskflow_core.settings import DatabaseSettings, RedisSettings
from taskflow_core.store import items
from taskflow_core.store.engine import create_engine, transaction
from taskflow_core.telemetry.tracing import NoTracing
from taskflow_operator.arrays.chunk_delivery import ChunkDelivery
from taskflow_operator.arrays.controller import ArrayController
from taskflow_operator.arrays.driver import ArrayServices
from taskflow_operator.arrays.item_writer import ItemWriter
from taskflow_operator.pools.served_queues import ServedQueues
from taskflow_operator.runtime.acknowledgements import Acknowledgements
from taskflow_operator.runtime.status_writer import StatusWriter
from taskflow_operator.runtime.stream_group import StreamGroup
from taskflow_operator.runtime.stream_monitor import StreamMonitor
from taskflow_operator.runtime.supervisor import cancel_all
from taskflow_operator.tasks.attempt_times import AttemptTimes
from taskflow_operator.tasks.closer import Closer
from taskflow_operator.tasks.event_consumer import EventConsumer
from taskflow_operator.tasks.finished import Finished
from taskflow_operator.tasks.message_queue import MessageQueue
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.rules.decision import Decision, Enqueue
from taskflow_operator.tasks.settlement import Settlement
from taskflow_operator.tasks.status import TaskStatuses
from taskflow_operator.tasks.work_queue import WorkQueue
from taskflow_worker.attempts.chunk import run_chunk
from taskflow_worker.attempts.items import ItemReader
from taskflow_worker.sdk.context import Context
from taskflow_worker.sdk.registry import Registry
from taskflow_worker.sdk.stop import FixedStop
from tests.builders import TOKEN_KEY, make_task
from tests.objects import Objects

LEASE_MS = 2000


@dataclass
class Database:
    """PostgreSQL; while `down` is set it does not answer."""

    settings: DatabaseSettings
    down: bool = False
    commits: int = 0

    def __post_init__(self) -> None:
        self.engine = create_engine(self.settings, application_name="test")

    async def failed_of(self, namespace: str, uid: str) -> RangeSet | None:
        self._check()
        async with transaction(self.engine) as connection:
            return await items.failed_of(connection, namespace, uid)

    async def past(self, uid: str) -> ItemHistory:
        self._check()
        async with transaction(self.engine) as connection:
            return await items.past_of(connection, uid)

    async def store_items(self, ended: Any) -> None:
        self._check()
        async with transaction(self.engine) as connection:
            await items.store_items(connection, ended, datetime.now(UTC))
        self.commits += 1

    def _check(self) -> None:
        if self.down:
            raise Unavailable("history database: down")


@dataclass
class Api:
    """The API server: the last status of each Task."""

    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    writes: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    async def patch_status(self, plural: str, namespace: str, name: str, uid: str, status: dict[str, Any]) -> None:
        self.statuses[uid] = status
        self.writes.append((time.monotonic(), status))


@dataclass
class Orphans:
    """Ends whose Task is not open."""

    seen: list[Event]

    async def close(self, event: Event) -> None:
        self.seen.append(event)


class Worker:
    """Takes messages in a thread, as a pool process does. `before` sees each message that it claimed; False is
    death.
    """

    def __init__(self, site: Site, name: str, before: Callable[[Message], bool]) -> None:
        self._site = site
        self._before = before
        self._client = connect_sync(site.redis_settings)
        self.ledger = WorkerLedger(self._client, "team-a", name, site.lease_ms)
        self.alive = True
        self.fenced = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self.alive:
            try:
                message = self._site.messages.get(timeout=0.05)
            except queue.Empty:
                continue
            try:
                self._run(message)
            except Unavailable:
                # Redis is away or was emptied in the middle: the message is gone with it.
                continue

    def _run(self, message: Message) -> None:
        claim = self.ledger.claim(self.ledger.candidate(message, 1))
        if claim is None:
            return
        if not self._before(message):
            self.alive = False
            return
        self.finish(claim)

    def finish(self, claim: Claim) -> bool:
        message = claim.message
        assert message.chunk is not None
        outcome = run_chunk(
            message, message.chunk, self._site.registry, self._site.objects, ItemReader(), patience=1, stop=FixedStop()
        )
        kind = EventKind.FAILED if isinstance(outcome, Failure) else EventKind.SUCCEEDED
        counted = self.ledger.finish(claim, kind, outcome)
        self.fenced += not counted
        return counted

    def close(self) -> None:
        self.alive = False
        self._thread.join(timeout=10)
        self._client.connection_pool.disconnect()


class Site:
    """One operator's part for arrays, which may die and be started again, and its workers."""

    def __init__(self, redis_settings: RedisSettings, database: DatabaseSettings) -> None:
        self.redis_settings = redis_settings
        self.client: redis.asyncio.Redis = connect_async(redis_settings)
        self.database = Database(database)
        self.api = Api()
        self.messages: queue.Queue[Message] = queue.Queue()
        self.sent = 0
        self.lease_ms = LEASE_MS
        """Nobody renews them."""
        self.registry, self.objects = Registry(), Objects()
        self.executed: Counter[tuple[int, int]] = Counter()
        """(index, attempt) of the items that the handler `count` was given."""
        self.tasks = OpenTasks()
        self.workers: list[Worker] = []
        self.unknown: list[Event] = []
        self.closed: list[Task] = []
        self._jobs: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """An operator begins, with the Tasks that are open."""
        namespaces = Namespaces(self.client)
        await namespaces.ensure(["team-a"])
        self.namespaces = namespaces
        ledger = self.ledger = OperatorLedger(self.client, namespaces, TOKEN_KEY)
        writer = StatusWriter(self.api, 1000)
        work_queue = WorkQueue()
        finished = Finished()
        finished.subscribe(self.closed.append)
        closer = Closer(self.tasks, writer, Settlement(ledger), work_queue.add_at, finished)
        items_writer = ItemWriter(self.database)
        now = partial(datetime.now, UTC)
        reader = StreamReader(self.client, "cr", TOKEN_KEY)
        acknowledgements = Acknowledgements(reader)
        statuses = TaskStatuses(self.tasks, writer, 0)
        served = ServedQueues()
        served.put("team-a", "main", frozenset({"default"}))
        queue = MessageQueue(self, lambda: None)
        services = ArrayServices(
            tasks=self.tasks,
            delivery=ChunkDelivery(ledger, ArrayLedger(self.client, namespaces), queue, token_key=TOKEN_KEY, now=now),
            items=items_writer,
            statuses=statuses,
            closer=closer,
            pools=served,
            slots=lambda *_: 2,
            dispatch_at=lambda *_: None,
            max_lost_workers=3,
            now=now,
        )
        self.arrays = ArrayController(services, items_writer, acknowledgements.add)
        finished.subscribe(self.arrays.task_finished)
        resources = EventConsumer(
            self.tasks,
            statuses,
            closer,
            self.arrays,
            cast("Any", Orphans(self.unknown)),
            served,
            AttemptTimes(NoTracing()),
            acknowledgements,
            dispatch_at=work_queue.add_at,
            max_lost_workers=3,
        )
        group = StreamGroup(reader, resources.take, self._may_read, gather_seconds=0.01)
        monitor = StreamMonitor(namespaces, [group], lambda: ["team-a"], ledger.now_ms, self.client)
        loops = [
            writer.run(),
            self.arrays.run(),
            self._expire_for_ever(),
            self._find_lost_messages(),
            acknowledgements.run(),
            *monitor.loops(),
        ]
        self._jobs = [asyncio.create_task(loop) for loop in loops]

    async def _expire_for_ever(self) -> None:
        while True:
            with suppress(Unavailable):
                (found,) = await self.ledger.survey({"team-a": 0}, grace_ms=0, limit=1)
                await self.ledger.expire(found.expired)
            await asyncio.sleep(0.1)

    async def _find_lost_messages(self) -> None:
        """As the reconciler does: an operator died between the ledger and the queue."""
        while True:
            await asyncio.sleep(0.2)
            with suppress(Unavailable):
                (found,) = await self.ledger.survey({"team-a": 0}, grace_ms=200, limit=1000)
                for name, _ in found.waiting:
                    uid, attempt, chunk = name.uid, name.attempt, name.chunk
                    queued = {message.member for message in list(self.messages.queue)}
                    if chunk is not None and name.member not in queued and self.arrays.waits(uid, attempt, chunk):
                        await self.arrays.republish_chunks(uid, [(attempt, chunk)])

    async def _may_read(self) -> None:
        return

    def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """The broker."""
        for each in outgoing:
            self.sent += 1
            self.messages.put(Message.model_validate_json(each.message.model_dump_json(by_alias=True)))

    async def die(self) -> None:
        """The operator is killed: nothing of it is left but what is in Redis, PostgreSQL and the API server."""
        await cancel_all(self._jobs)
        kept = [known.task for known in self.tasks]
        self.tasks = OpenTasks()
        for task in kept:
            body = self.api.statuses.get(task.uid, {})
            self.tasks.add(task.model_copy(update={"status": type(task.status).model_validate(body)}))

    def add(self, decision: Decision | None = None, **spec: Any) -> Task:
        """An array that is to be run."""
        task = make_task(**{"handler": "count", **spec})
        assert self.tasks.add(task)
        self.arrays.decided(task, decision or Enqueue())
        return task

    def work(self, count: int = 1, before: Callable[[Message], bool] = lambda _: True) -> list[Worker]:
        """Start workers."""
        self.registry = Registry()
        self.registry.add("count", self._count)
        made = [Worker(self, f"w{len(self.workers) + number}:x", before) for number in range(count)]
        self.workers += made
        return made

    def _count(self, item: int, *, context: Context) -> None:
        self.executed[item, context.attempt] += 1
        if item in self.bad.get(context.attempt, ()):
            raise ValueError(f"{item} is bad")

    bad: dict[int, set[int]] = {}  # noqa: RUF012 - replaced by a test, never changed

    async def finished(self, uid: str, seconds: float = 30) -> dict[str, Any]:
        """The status once it is terminal."""
        await self.until(lambda: Phase(self.api.statuses.get(uid, {}).get("phase", "Pending")).terminal, seconds)
        await self.until(lambda: self.tasks.get(uid) is None)
        return self.api.statuses[uid]

    async def until(self, what: Callable[[], object], seconds: float = 30) -> None:
        """Wait for it."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"not within {seconds} s: {self.api.statuses}"
            await asyncio.sleep(0.01)

    async def past(self, uid: str) -> ItemHistory:
        """What PostgreSQL has."""
        async with transaction(self.database.engine) as connection:
            return await items.past_of(connection, uid)

    async def rows(self, uid: str) -> list[ItemRow]:
        """All rows of an array."""
        async with transaction(self.database.engine) as connection:
            return await items.items_of(connection, uid)

    async def close(self) -> None:
        for worker in self.workers:
            worker.close()
        await cancel_all(self._jobs)
        await self.database.engine.dispose()
        await self.client.aclose()
        await self.client.connection_pool.disconnect()


def holding(claim: Claim) -> Holding:
    return Holding(claim.message.member, 1, claim.message.token)
