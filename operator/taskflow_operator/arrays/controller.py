from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from taskflow_core.domain.events import ENDS, Event, EventKind
from taskflow_core.domain.task import Task
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.arrays.driver import ArrayDriver, ArrayServices
from taskflow_operator.arrays.state import ChunkId
from taskflow_operator.runtime.supervisor import ConsecutiveErrors, cancel_all
from taskflow_operator.tasks.rules.decision import Decision

log = get_logger(__name__)
AGAIN_SECONDS = 1.0
TURN_SECONDS = 1.0
OURS = ENDS | {EventKind.STARTED, EventKind.PROGRESS}
"""Kinds of events that a drive is told of; refusals are counted as for any Task."""


class Arrays:
    """The open arrays. Each has a drive of its own, which is started anew when it fails: all it knows is kept elsewhere.

    Args:
        services: what drives work with.
    """

    def __init__(self, services: ArrayServices) -> None:
        self._services = services
        self._drives: dict[str, ArrayDriver] = {}
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._decisions: dict[str, Decision] = {}
        self._done: Callable[[str], None] = lambda _: None
        self._errors = ConsecutiveErrors("arrays")

    def acknowledge_by(self, done: Callable[[str], None]) -> None:
        """Set once: what acknowledges an event, by its id."""
        self._done = done

    def decided(self, task: Task, decision: Decision) -> None:
        """What is to be done with an open array now."""
        self._decisions[task.uid] = decision
        self._drive(task.uid).decided(decision)

    def take(self, event: Event) -> bool:
        """An event of a chunk; False if its array is not open."""
        known = self._services.tasks.get(event.uid)
        if known is None or known.task.spec.array is None:
            return False
        self._drive(event.uid).take(event)
        return True

    def has(self, event: Event) -> bool:
        """Whether the event is being worked on."""
        drive = self._drives.get(event.uid)
        return drive is not None and event.id in drive.pending

    async def left(self, uid: str) -> None:
        """An array that is not open has left something: an operator died before it took that away."""
        if uid not in self._drives:
            await self._services.broker.forget(uid)

    def forget(self, task: Task) -> None:
        """The Task finished, or its resource is gone."""
        if (drive := self._drives.get(task.uid)) is not None:
            drive.look()

    def data_lost(self, seconds: float) -> None:
        """Redis forgot things: after that time take stock."""
        for drive in self._drives.values():
            drive.data_lost(seconds)

    def waits(self, uid: str, place: ChunkId) -> bool:
        """Whether a chunk is in the ledger, as far as is known."""
        drive = self._drives.get(uid)
        return drive is not None and drive.waits(place)

    async def republish(self, uid: str, places: Sequence[ChunkId] | None = None) -> None:
        """Send chunks again whose messages were lost; all that wait if none are named.

        Raises:
            Unavailable: Redis does not answer.
        """
        if (drive := self._drives.get(uid)) is not None:
            await drive.republish(places)

    def demand(self, namespace: str, queue: str) -> tuple[int, int]:
        """Chunks of a queue that wait for a worker, and that one runs."""
        ready = running = 0
        for uid, drive in self._drives.items():
            known = self._services.tasks.get(uid)
            if known is not None and (known.task.namespace, known.task.spec.queue) == (namespace, queue):
                waits, runs = drive.demand
                ready, running = ready + waits, running + runs
        return ready, running

    async def run(self) -> None:
        """Look after the drives, until cancelled; with it they end."""
        try:
            while True:
                self._errors.check()
                await asyncio.sleep(TURN_SECONDS)
        finally:
            await cancel_all(list(self._jobs.values()))

    def _drive(self, uid: str) -> ArrayDriver:
        drive = self._drives.get(uid)
        if drive is None:
            drive = self._drives[uid] = ArrayDriver(uid, self._services, self._done)
            if (decision := self._decisions.get(uid)) is not None:
                drive.decided(decision)
            self._jobs[uid] = asyncio.create_task(self._safely(uid, drive))
        return drive

    async def _safely(self, uid: str, drive: ArrayDriver) -> None:
        failed = False
        try:
            await drive.run()
        except Exception as error:  # noqa: BLE001 - one array at fault must not stop the others
            failed = True
            self._errors.record(error, uid=uid)
        else:
            self._errors.clear()
        if failed:
            await asyncio.sleep(AGAIN_SECONDS)
        del self._drives[uid], self._jobs[uid]
        if failed and self._services.tasks.get(uid) is not None:
            # Events that it had in its hands are not acknowledged, and come again with the next look at the backlog.
            self._drive(uid)
        else:
            self._decisions.pop(uid, None)
