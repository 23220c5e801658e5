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
from taskflow_operator.arrays.state import ArrayState, ChunkId, InFlightChunk
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.dependency_health import retry_until_available
from taskflow_operator.runtime.log_fields import log_fields
from taskflow_operator.tasks.messages import message_of
from taskflow_operator.tasks.snapshots import current_attempt

log = get_logger(__name__)
BATCH = 500


@dataclass(frozen=True)
class ChunkDelivery:
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
        return await retry_until_available(lambda: self.arrays.noted(uid))

    async def told(self, task: Task, kind: EventKind) -> None:
        """Tell the history that the array is queued, or held."""
        await retry_until_available(lambda: self.ledger.note(current_attempt(task), kind))

    async def find(self, task: Task, run: ArrayState) -> None:
        """For an operator that starts: how far the chunks in chunk are."""
        for chunk, state in await self._states(task, run.in_flight.values()):
            chunk.started = state.leased
            chunk.parked = not (state.leased or state.waiting or state.claim)

    async def enter(self, task: Task, run: ArrayState, in_flight: Sequence[InFlightChunk]) -> None:
        """Chunks into the ledger, then their messages into the queue. May be repeated: then their messages were lost."""
        for start in range(0, len(in_flight), BATCH):
            async with self.in_order():
                await self._enter(task, run, in_flight[start : start + BATCH])

    async def _enter(self, task: Task, run: ArrayState, in_flight: Sequence[InFlightChunk]) -> None:
        handed = [ChunkEntry(chunk.attempt, chunk.first, chunk.note) for chunk in in_flight]
        answers = await retry_until_available(
            lambda: self.arrays.enqueue(task.uid, handed, run.waiting_note, again=True)
        )
        outgoing: list[Outgoing] = []
        taken: list[InFlightChunk] = []
        for chunk, answer in zip(in_flight, answers, strict=True):
            chunk.parked = False
            if answer.entry is Entry.TAKEN:
                taken.append(chunk)
            else:
                outgoing.append(Outgoing(self._message(task, run, chunk), answer.time_ms))
        for chunk, state in await self._states(task, taken):
            # Somebody holds it, or did once: after lost data, names of chunks may come a second time.
            if state.leased:
                chunk.started = True
            elif state.settled:
                run.refused(chunk, self.now())
        if outgoing:
            try:
                await self.send(outgoing)
            except Unavailable as error:
                # They are in the ledger, and the reconciler finds that their messages are not there.
                dependency_health.failed(error)

    def _message(self, task: Task, run: ArrayState, chunk: InFlightChunk) -> Message:
        items = task.spec.array.items if task.spec.array is not None else None
        values = None if items is None else tuple(items[index] for index in chunk.items)
        return message_of(task, self.token_key).model_copy(
            update={
                "attempt": chunk.attempt,
                "token": naming.attempt_token(self.token_key, task.uid, *chunk.place),
                "chunk": Chunk(
                    first=chunk.first,
                    items=str(chunk.items),
                    values=values,
                    source=run.source or _uncounted(task),
                ),
            }
        )

    async def park(self, uid: str, in_flight: Iterable[InFlightChunk]) -> None:
        """Take out of the ledger what nobody has claimed."""
        for chunk in in_flight:
            attempt, first = chunk.place
            if not chunk.started and not chunk.parked:
                chunk.parked = await retry_until_available(lambda: self.ledger.withdraw(uid, attempt, first))  # noqa: B023

    async def counted(self, uid: str, counted: Counted) -> None:
        """Note how many items there are, and where."""
        await retry_until_available(lambda: self.arrays.note(uid, {SOURCE: counted.model_dump_json()}))

    async def stop(self, uid: str, in_flight: Iterable[InFlightChunk], reason: Reason) -> None:
        """Ask whoever runs them to stop."""
        for chunk in in_flight:
            attempt, first = chunk.place
            await retry_until_available(lambda: self.ledger.request_stop(uid, attempt, reason, first))  # noqa: B023

    async def settle(self, uid: str, places: Sequence[ChunkId], waiting: str) -> None:
        """Close chunks, after what they did is stored."""
        if places:
            await retry_until_available(lambda: self.arrays.settle(uid, places, waiting))

    async def forget(self, uid: str) -> None:
        """The array has ended."""
        await retry_until_available(lambda: self.arrays.forget(uid))

    async def restore(self, task: Task, run: ArrayState) -> None:
        """Redis lost its data: note again what is in chunk, and find out what of it somebody still has."""
        fields = {naming.place(*place): chunk.note for place, chunk in run.in_flight.items()}
        fields |= {} if run.counted is None else {SOURCE: run.counted.model_dump_json()}
        await retry_until_available(lambda: self.arrays.note(task.uid, {**fields, WAITING: run.waiting_note}))
        lost: list[ChunkId] = []
        for chunk, state in await self._states(task, run.in_flight.values()):
            if state.leased:
                chunk.started = True
            elif chunk.started and not state.waiting:
                lost.append(chunk.place)
            elif not state.waiting:
                # It was queued, and will be again.
                chunk.parked = True
        await self._give_up(task, lost)

    async def take_stock(self, task: Task, run: ArrayState, before: frozenset[ChunkId]) -> frozenset[ChunkId]:
        """Look for what is in chunk and neither held nor waits: when it was so `before`, its end was lost on the way to us.

        Returns what is so now.
        """
        adrift: dict[ChunkId, State] = {}
        for chunk, state in await self._states(task, run.in_flight.values()):
            if state.leased:
                chunk.started = True
            elif not state.waiting and not chunk.parked:
                adrift[chunk.place] = state
        lost = [place for place in adrift if place in before]
        never_claimed = [place for place in lost if not adrift[place].claim and not run.in_flight[place].started]
        for place in never_claimed:
            run.in_flight[place].parked = True
        await self._give_up(task, [place for place in lost if place not in never_claimed])
        return frozenset(adrift)

    async def _give_up(self, task: Task, places: Sequence[ChunkId]) -> None:
        if not places:
            return
        log.warning("chunks_adrift", **log_fields(task), chunks=len(places))
        failure = Failure(
            reason=Reason.BROKER_DATA_LOST,
            message="nobody holds the chunk any more, and how it ended was lost: Redis forgot it, or the event was lost",
        )
        await retry_until_available(lambda: self.ledger.give_up([(task.uid, *place) for place in places], failure))

    async def _states(self, task: Task, in_flight: Iterable[InFlightChunk]) -> list[tuple[InFlightChunk, State]]:
        asked = list(in_flight)
        if not asked:
            return []
        places = [(task.uid, *chunk.place) for chunk in asked]
        return list(zip(asked, await retry_until_available(lambda: self.ledger.states(places)), strict=True))


def _uncounted(task: Task) -> Source | None:
    """The object whose items are to be counted."""
    wanted = task.spec.array.items_from if task.spec.array is not None else None
    if wanted is None:
        return None
    return Source(key=naming.object_prefix(task.namespace) + wanted.key, format=wanted.format)
