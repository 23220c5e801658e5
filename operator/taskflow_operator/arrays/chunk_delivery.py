from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from taskflow_core.broker.publish import Outgoing
from taskflow_core.domain import naming
from taskflow_core.domain.chunks import Chunk, Counted, Source
from taskflow_core.domain.events import EventKind, Failure
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import Task
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.arrays import SOURCE, WAITING, ArrayLedger, ChunkEntry
from taskflow_core.ledger.operator import Entry, OperatorLedger, State
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.arrays.state import ArrayRun, Flight, Place
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.dependency_health import insist
from taskflow_operator.runtime.log_fields import trace_fields
from taskflow_operator.tasks.messages import message_of
from taskflow_operator.tasks.snapshots import current_attempt

log = get_logger(__name__)
BATCH = 500


@dataclass(frozen=True)
class Broker:
    """Where chunks go. All of it waits as long as Redis is away."""

    ledger: OperatorLedger
    arrays: ArrayLedger
    send: Callable[[Sequence[Outgoing]], Awaitable[None]]
    """Publishes messages; raises `Unavailable`."""
    in_order: Callable[[], asyncio.Lock]
    """Held from the ledger to the queue."""
    token_key: str
    now: Callable[[], datetime]

    async def noted(self, uid: str) -> Mapping[str, str]:
        """What Redis has of an array."""
        return await insist(lambda: self.arrays.noted(uid))

    async def told(self, task: Task, kind: EventKind) -> None:
        """Tell the history that the array is queued, or held."""
        await insist(lambda: self.ledger.note(current_attempt(task), kind))

    async def find(self, task: Task, run: ArrayRun) -> None:
        """For an operator that starts: how far the chunks in flight are."""
        for flight, state in await self._states(task, run.flights.values()):
            flight.started = state.leased
            flight.parked = not (state.leased or state.waiting or state.claim)

    async def enter(self, task: Task, run: ArrayRun, flights: Sequence[Flight]) -> None:
        """Chunks into the ledger, then their messages into the queue. May be repeated: then their messages were lost."""
        for start in range(0, len(flights), BATCH):
            async with self.in_order():
                await self._enter(task, run, flights[start : start + BATCH])

    async def _enter(self, task: Task, run: ArrayRun, flights: Sequence[Flight]) -> None:
        handed = [ChunkEntry(flight.attempt, flight.first, flight.note) for flight in flights]
        answers = await insist(lambda: self.arrays.enqueue(task.uid, handed, run.waiting_note, again=True))
        outgoing: list[Outgoing] = []
        taken: list[Flight] = []
        for flight, answer in zip(flights, answers, strict=True):
            flight.parked = False
            if answer.entry is Entry.TAKEN:
                taken.append(flight)
            else:
                outgoing.append(Outgoing(self._message(task, run, flight), answer.time_ms))
        for flight, state in await self._states(task, taken):
            # Somebody holds it, or did once: after lost data, names of chunks may come a second time.
            if state.leased:
                flight.started = True
            elif state.settled:
                run.refused(flight, self.now())
        if outgoing:
            try:
                await self.send(outgoing)
            except Unavailable as error:
                # They are in the ledger, and the reconciler finds that their messages are not there.
                dependency_health.away(error)

    def _message(self, task: Task, run: ArrayRun, flight: Flight) -> Message:
        items = task.spec.array.items if task.spec.array is not None else None
        values = None if items is None else tuple(items[index] for index in flight.items)
        return message_of(task, self.token_key).model_copy(
            update={
                "attempt": flight.attempt,
                "token": naming.attempt_token(self.token_key, task.uid, *flight.place),
                "chunk": Chunk(
                    first=flight.first,
                    items=str(flight.items),
                    values=values,
                    source=run.source or _uncounted(task),
                ),
            }
        )

    async def park(self, uid: str, flights: Iterable[Flight]) -> None:
        """Take out of the ledger what nobody has claimed."""
        for flight in flights:
            attempt, first = flight.place
            if not flight.started and not flight.parked:
                flight.parked = await insist(lambda: self.ledger.withdraw(uid, attempt, first))  # noqa: B023

    async def counted(self, uid: str, counted: Counted) -> None:
        """Note how many items there are, and where."""
        await insist(lambda: self.arrays.note(uid, {SOURCE: counted.model_dump_json()}))

    async def stop(self, uid: str, flights: Iterable[Flight], reason: Reason) -> None:
        """Ask whoever runs them to stop."""
        for flight in flights:
            attempt, first = flight.place
            await insist(lambda: self.ledger.request_stop(uid, attempt, reason, first))  # noqa: B023

    async def settle(self, uid: str, places: Sequence[Place], waiting: str) -> None:
        """Close chunks, after what they did is stored."""
        if places:
            await insist(lambda: self.arrays.settle(uid, places, waiting))

    async def forget(self, uid: str) -> None:
        """The array has ended."""
        await insist(lambda: self.arrays.forget(uid))

    async def restore(self, task: Task, run: ArrayRun) -> None:
        """Redis lost its data: note again what is in flight, and find out what of it somebody still has."""
        fields = {naming.place(*place): flight.note for place, flight in run.flights.items()}
        fields |= {} if run.counted is None else {SOURCE: run.counted.model_dump_json()}
        await insist(lambda: self.arrays.note(task.uid, {**fields, WAITING: run.waiting_note}))
        lost: list[Place] = []
        for flight, state in await self._states(task, run.flights.values()):
            if state.leased:
                flight.started = True
            elif flight.started and not state.waiting:
                lost.append(flight.place)
            elif not state.waiting:
                # It was queued, and will be again.
                flight.parked = True
        await self._give_up(task, lost)

    async def take_stock(self, task: Task, run: ArrayRun, before: frozenset[Place]) -> frozenset[Place]:
        """Look for what is in flight and neither held nor waits: when it was so `before`, its end was lost on the way to us.

        Returns what is so now.
        """
        adrift: dict[Place, State] = {}
        for flight, state in await self._states(task, run.flights.values()):
            if state.leased:
                flight.started = True
            elif not state.waiting and not flight.parked:
                adrift[flight.place] = state
        lost = [place for place in adrift if place in before]
        never_claimed = [place for place in lost if not adrift[place].claim and not run.flights[place].started]
        for place in never_claimed:
            run.flights[place].parked = True
        await self._give_up(task, [place for place in lost if place not in never_claimed])
        return frozenset(adrift)

    async def _give_up(self, task: Task, places: Sequence[Place]) -> None:
        if not places:
            return
        log.warning("chunks_adrift", **trace_fields(task), chunks=len(places))
        failure = Failure(
            reason=Reason.BROKER_DATA_LOST,
            message="nobody holds the chunk any more, and how it ended was lost: Redis forgot it, or the event was lost",
        )
        await insist(lambda: self.ledger.give_up([(task.uid, *place) for place in places], failure))

    async def _states(self, task: Task, flights: Iterable[Flight]) -> list[tuple[Flight, State]]:
        asked = list(flights)
        if not asked:
            return []
        places = [(task.uid, *flight.place) for flight in asked]
        return list(zip(asked, await insist(lambda: self.ledger.states(places)), strict=True))


def _uncounted(task: Task) -> Source | None:
    """The object whose items are to be counted."""
    wanted = task.spec.array.items_from if task.spec.array is not None else None
    if wanted is None:
        return None
    return Source(key=naming.object_prefix(task.namespace) + wanted.key, format=wanted.format)
