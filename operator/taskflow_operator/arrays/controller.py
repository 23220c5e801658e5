"""The controller of arrays: one driver for each open array."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from taskflow_core.domain.events import ENDS, EntryId, Event, EventKind
from taskflow_core.domain.task import Task
from taskflow_core.ledger.arrays import ArrayKey
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.arrays.chunks import ChunkId
from taskflow_operator.arrays.driver import ArrayDriver, ArrayServices
from taskflow_operator.arrays.item_writer import ItemWriter
from taskflow_operator.runtime.supervisor import ConsecutiveErrors, cancel_all
from taskflow_operator.tasks.rules.decision import Decision, Hold, Keep

log = get_logger(__name__)
RESTART_SECONDS = 1.0
CHECK_SECONDS = 1.0
_HANDLED = ENDS | {EventKind.STARTED, EventKind.PROGRESS}
"""Kinds of events that go to a driver; refusals are counted as for any Task."""


class ArrayController:
    """Runs the open arrays. A driver that fails is restarted: everything that it knows is kept elsewhere.

    Args:
        services: what drivers use.
        items: writes what ended; stopped with the controller.
        acknowledge: acknowledges an event.
    """

    def __init__(self, services: ArrayServices, items: ItemWriter, acknowledge: Callable[[EntryId], None]) -> None:
        self._services = services
        self._items = items
        self._acknowledge = acknowledge
        self._drivers: dict[str, ArrayDriver] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._decisions: dict[str, Decision] = {}
        self._errors = ConsecutiveErrors("arrays")

    async def apply(self, decisions: Sequence[tuple[Task, Decision]]) -> None:
        """Hand decisions to the drivers."""
        for task, decision in decisions:
            self.decided(task, decision)

    def decided(self, task: Task, decision: Decision) -> None:
        """Hand a decision to the driver of an array."""
        if isinstance(decision, Keep | Hold) and decision.until is not None:
            self._services.dispatch_at(task.uid, decision.until)
        self._decisions[task.uid] = decision
        self._driver(ArrayKey(task.namespace, task.uid)).decided(decision)

    async def republish(self, task: Task) -> None:
        """Send again the chunks that wait: their list is another one now.

        Raises:
            Unavailable: Redis does not answer.
        """
        if (driver := self._drivers.get(task.uid)) is not None:
            await driver.republish()

    async def republish_chunks(self, uid: str, chunks: Sequence[ChunkId]) -> None:
        """Send chunks again whose messages were lost.

        Raises:
            Unavailable: Redis does not answer.
        """
        if (driver := self._drivers.get(uid)) is not None:
            await driver.republish(chunks)

    def owns(self, event: Event) -> bool:
        """Whether an event is of a chunk of an open array, and of a kind that its driver handles."""
        if event.chunk is None or event.kind not in _HANDLED:
            return False
        known = self._services.tasks.get(event.uid)
        return known is not None and known.task.spec.array is not None

    def take(self, event: Event) -> None:
        """Hand an event to the driver of its array."""
        self._driver(ArrayKey(event.namespace, event.uid)).take(event)

    def in_hand(self, event: Event) -> bool:
        """Whether a driver is working on the event."""
        driver = self._drivers.get(event.uid)
        return driver is not None and event.entry in driver.pending

    async def clean_up(self, namespace: str, uid: str) -> None:
        """Remove what an array that is not open left in Redis: an operator died before it did that."""
        if uid not in self._drivers:
            await self._services.delivery.forget(ArrayKey(namespace, uid))

    def task_finished(self, task: Task) -> None:
        """The Task finished, or its resource is gone."""
        if (driver := self._drivers.get(task.uid)) is not None:
            driver.look()

    def data_lost(self, seconds: float, namespaces: Collection[str]) -> None:
        """Redis lost data of these namespaces: take stock after that time."""
        for uid, driver in self._drivers.items():
            if self._services.tasks.namespace_of(uid) in namespaces:
                driver.data_lost(seconds)

    def waits(self, uid: str, attempt: int, chunk: int) -> bool:
        """Whether a chunk is in the ledger, as far as is known."""
        driver = self._drivers.get(uid)
        return driver is not None and driver.waits((attempt, chunk))

    def demand(self, namespace: str, queue: str) -> tuple[int, int]:
        """Chunks of a queue that wait for a worker, and chunks that one runs."""
        ready = running = 0
        for uid, driver in self._drivers.items():
            known = self._services.tasks.get(uid)
            if known is not None and (known.task.namespace, known.task.spec.queue) == (namespace, queue):
                waits, runs = driver.demand
                ready, running = ready + waits, running + runs
        return ready, running

    @property
    def history_wait_seconds(self) -> float:
        """How long an array has waited for the history; 0 if none does."""
        return max((driver.history_wait.seconds for driver in self._drivers.values()), default=0.0)

    async def run(self) -> None:
        """Watch over the drivers, until cancelled; they end with it."""
        try:
            while True:
                self._errors.check()
                await asyncio.sleep(CHECK_SECONDS)
        finally:
            await cancel_all(list(self._running.values()))
            await self._items.stop()

    def _driver(self, key: ArrayKey) -> ArrayDriver:
        uid = key.uid
        driver = self._drivers.get(uid)
        if driver is None:
            driver = self._drivers[uid] = ArrayDriver(key, self._services, self._acknowledge)
            if (decision := self._decisions.get(uid)) is not None:
                driver.decided(decision)
            self._running[uid] = asyncio.create_task(self._run(key, driver))
        return driver

    async def _run(self, key: ArrayKey, driver: ArrayDriver) -> None:
        uid, failed = key.uid, False
        try:
            await driver.run()
        except Exception as error:  # noqa: BLE001 - one array at fault must not stop the others
            failed = True
            self._errors.record(error, uid=uid)
        else:
            self._errors.clear()
        if failed:
            await asyncio.sleep(RESTART_SECONDS)
        del self._drivers[uid], self._running[uid]
        if failed and self._services.tasks.get(uid) is not None:
            # Events that it was given are not acknowledged, and come again when the backlog is read.
            self._driver(key)
        else:
            self._decisions.pop(uid, None)
