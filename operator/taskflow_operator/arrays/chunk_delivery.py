"""Brings the chunks of an array to workers, and asks the ledger about them. Waits while Redis is unavailable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from taskflow_core.broker.publish import Outgoing
from taskflow_core.domain import naming
from taskflow_core.domain.attempts import AttemptKey, Entry, State
from taskflow_core.domain.chunks import Chunk, Counted, Source
from taskflow_core.domain.events import EventKind, Failure
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import Task
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.arrays import SOURCE, WAITING, ArrayKey, ArrayLedger, ChunkEntry
from taskflow_core.ledger.operator import OperatorLedger
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.arrays.chunks import ChunkId, InFlightChunk
from taskflow_operator.arrays.state import ArrayState
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.dependency_health import retry_until_available
from taskflow_operator.runtime.log_fields import log_fields
from taskflow_operator.tasks.message_queue import MessageQueue
from taskflow_operator.tasks.messages import message_of
from taskflow_operator.tasks.snapshots import current_attempt

log = get_logger(__name__)
BATCH = 500


class ChunkDelivery:
    """The I/O of arrays with Redis. What follows from the answers is decided by `ArrayState`.

    Args:
        ledger: the ledger of all attempts.
        arrays: notes of arrays.
        queue: the broker.
        token_key: from which the token of each chunk is derived.
        now: the time.
    """

    def __init__(
        self,
        ledger: OperatorLedger,
        arrays: ArrayLedger,
        queue: MessageQueue,
        *,
        token_key: str,
        now: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._arrays = arrays
        self._queue = queue
        self._token_key = token_key
        self._now = now

    async def notes(self, array: ArrayKey) -> Mapping[str, str]:
        """What Redis has noted of an array."""
        return await retry_until_available(lambda: self._arrays.noted(array))

    async def tell_history(self, task: Task, kind: EventKind) -> None:
        """Tell the history that the array is queued, or held."""
        await retry_until_available(lambda: self._ledger.note(current_attempt(task), kind))

    async def find(self, task: Task, state: ArrayState) -> None:
        """Find out how far the chunks are that an earlier operator handed out."""
        state.found(await self._states(task, state.in_flight.values()))

    async def enter(self, task: Task, state: ArrayState, chunks: Sequence[InFlightChunk]) -> None:
        """Enter chunks in the ledger, then publish their messages. May be repeated, if messages were lost."""
        for start in range(0, len(chunks), BATCH):
            async with self._queue.in_order:
                await self._enter(task, state, chunks[start : start + BATCH])

    async def _enter(self, task: Task, state: ArrayState, chunks: Sequence[InFlightChunk]) -> None:
        entries = [ChunkEntry(chunk.attempt, chunk.first, chunk.note) for chunk in chunks]
        answers = await retry_until_available(
            lambda: self._arrays.enqueue(_key(task), entries, state.waiting_note, again=True)
        )
        state.entered(chunks)
        outgoing: list[Outgoing] = []
        taken: list[InFlightChunk] = []
        for chunk, answer in zip(chunks, answers, strict=True):
            if answer.entry is Entry.TAKEN:
                taken.append(chunk)
            else:
                outgoing.append(Outgoing(self._message(task, state, chunk), answer.time_ms))
        state.taken(await self._states(task, taken), self._now())
        if outgoing:
            try:
                await self._queue.send(outgoing)
            except Unavailable as error:
                # They are in the ledger, and the reconciler finds that their messages are missing.
                dependency_health.failed(error)

    def _message(self, task: Task, state: ArrayState, chunk: InFlightChunk) -> Message:
        items = task.spec.array.items if task.spec.array is not None else None
        values = None if items is None else tuple(items[index] for index in chunk.items)
        return message_of(task, self._token_key).model_copy(
            update={
                "attempt": chunk.attempt,
                "handbacks": chunk.handbacks,
                "token": naming.attempt_token(self._token_key, task.namespace, task.uid, *chunk.id),
                "chunk": Chunk(
                    first=chunk.first,
                    items=str(chunk.items),
                    values=values,
                    source=state.source or _uncounted(task),
                ),
            }
        )

    async def park(self, array: ArrayKey, state: ArrayState) -> None:
        """Take chunks out of the ledger that nobody has claimed."""
        for chunk in list(state.in_flight.values()):
            if not chunk.started and not chunk.parked and await self._withdraw(array, chunk.id):
                state.parked(chunk)

    async def _withdraw(self, array: ArrayKey, chunk: ChunkId) -> bool:
        return await retry_until_available(lambda: self._ledger.withdraw(AttemptKey(*array, *chunk)))

    async def note_count(self, array: ArrayKey, counted: Counted) -> None:
        """Note how many items there are, and where."""
        await retry_until_available(lambda: self._arrays.note(array, {SOURCE: counted.model_dump_json()}))

    async def stop(self, array: ArrayKey, chunks: Iterable[InFlightChunk], reason: Reason) -> None:
        """Ask the workers of chunks to stop."""
        for chunk in list(chunks):
            await self._request_stop(array, chunk.id, reason)

    async def _request_stop(self, array: ArrayKey, chunk: ChunkId, reason: Reason) -> None:
        await retry_until_available(lambda: self._ledger.request_stop(AttemptKey(*array, *chunk), reason))

    async def settle(self, array: ArrayKey, chunks: Sequence[ChunkId], waiting: str) -> None:
        """Close chunks whose results are stored."""
        if chunks:
            await retry_until_available(lambda: self._arrays.settle(array, chunks, waiting))

    async def forget(self, array: ArrayKey) -> None:
        """Remove the notes of an array that has ended."""
        await retry_until_available(lambda: self._arrays.forget(array))

    async def restore(self, task: Task, state: ArrayState) -> None:
        """Redis lost its data: note again what is in flight, and find out what of it somebody still holds."""
        fields = {naming.place(*name): chunk.note for name, chunk in state.in_flight.items()}
        fields |= {} if state.counted is None else {SOURCE: state.counted.model_dump_json()}
        await retry_until_available(lambda: self._arrays.note(_key(task), {**fields, WAITING: state.waiting_note}))
        await self._give_up(task, state.restored(await self._states(task, state.in_flight.values())))

    async def take_stock(self, task: Task, state: ArrayState, before: frozenset[ChunkId]) -> frozenset[ChunkId]:
        """Give up chunks that are lost; see `ArrayState.take_stock`. Returns those that may be."""
        adrift, lost = state.take_stock(await self._states(task, state.in_flight.values()), before)
        await self._give_up(task, lost)
        return adrift

    async def _give_up(self, task: Task, chunks: Sequence[ChunkId]) -> None:
        if not chunks:
            return
        log.warning("chunks_adrift", **log_fields(task), chunks=len(chunks))
        failure = Failure(
            reason=Reason.BROKER_DATA_LOST,
            message=(
                "nobody holds the chunk any more, and how it ended was lost: Redis forgot it, or the event was lost"
            ),
        )
        await retry_until_available(
            lambda: self._ledger.give_up([AttemptKey(*_key(task), *name) for name in chunks], failure)
        )

    async def _states(self, task: Task, chunks: Iterable[InFlightChunk]) -> list[tuple[InFlightChunk, State]]:
        asked = list(chunks)
        if not asked:
            return []
        keys = [AttemptKey(*_key(task), *chunk.id) for chunk in asked]
        return list(zip(asked, await retry_until_available(lambda: self._ledger.states(keys)), strict=True))


def _key(task: Task) -> ArrayKey:
    return ArrayKey(task.namespace, task.uid)


def _uncounted(task: Task) -> Source | None:
    """The object whose items are to be counted."""
    wanted = task.spec.array.items_from if task.spec.array is not None else None
    if wanted is None:
        return None
    return Source(
        key=naming.object_prefix(task.namespace) + wanted.key,
        format=wanted.format,
        delimiter=wanted.delimiter or ",",
    )
