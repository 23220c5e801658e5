"""A chunk of an array: its items, one after the other, in one claim. What it tells of them is compact and bounded."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.domain.chunks import (
    COUNT,
    LONGEST_SECONDS,
    MAX_END_BYTES,
    MAX_ERROR_CHARS,
    MAX_ITEM_RESULT_BYTES,
    Chunk,
    ChunkEnd,
    Counted,
    ItemError,
)
from taskflow_core.domain.events import Failure
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_worker.context import Context
from taskflow_worker.execution import Objects, Scratch, fetch_inputs, guarded, patiently
from taskflow_worker.failures import AttemptFailed, failure_of, handlers_trace
from taskflow_worker.items import ItemObjects, ItemReader, Unreadable, count_items
from taskflow_worker.output import attempt_logger
from taskflow_worker.registry import ItemCall, Registry, Runnable
from taskflow_worker.results import checked_json, inline
from taskflow_worker.stopping import Stop

_LOOK_SECONDS = 0.05
"""Between two looks whether the chunk is to stop."""
_TRACES = 10
"""So many of a chunk's failed items leave a traceback in its log; all of them are in the history."""
_INT64 = 2**63
_MARGIN = 16
"""Characters around a result in what is told."""
_EARLY = 0.9
"""A timeout that comes to an item before this part of its time was meant for the one before."""


def run_chunk(
    message: Message,
    chunk: Chunk,
    registry: Registry,
    objects: ItemObjects,
    reader: ItemReader,
    *,
    patience: float,
    stop: Stop,
) -> ChunkEnd | Counted | Failure:
    """Run the items of a chunk. Never raises: what goes wrong with an item is told of the item, the rest becomes a `Failure`.

    Args:
        message: the attempt.
        chunk: its part of the array.
        registry: the handlers.
        objects: where inputs, items and large results lie.
        reader: of items that come from an object.
        patience: seconds to wait for objects that cannot be reached.
        stop: whether the chunk is to stop.
    """
    if chunk.first == COUNT and chunk.source is not None:
        return count_items(message, chunk.source, objects, patience=patience)

    def work(scratch: Scratch) -> ChunkEnd:
        handler = registry.find(message.handler)
        indices = RangeSet.parse(chunk.items)
        items: Iterable[Any] = indices if chunk.values is None else chunk.values
        if chunk.source is not None:
            items = reader.read(chunk.source, indices, objects, patience=patience)
        inputs = fetch_inputs(message, objects, scratch, patience)
        context = Context(
            uid=message.uid,
            namespace=message.namespace,
            name=message.name,
            attempt=message.attempt,
            token=message.token,
            inputs=inputs,
            outputs={},
            deadline=message.deadline,
            _asked=stop.asked,
        )
        run = _Run(message, chunk, handler, context, objects, scratch, patience, stop)
        if handler.batch:
            return run.together(indices, list(items))
        return run.one_by_one(indices, items)

    return guarded(message, work)


class _Run:
    """One chunk while it runs, and what there is to tell of it."""

    def __init__(
        self,
        message: Message,
        chunk: Chunk,
        handler: Runnable,
        context: Context,
        objects: Objects,
        scratch: Scratch,
        patience: float,
        stop: Stop,
    ) -> None:
        self._message = message
        self._chunk = chunk
        self._handler = handler
        self._context = context
        self._objects = objects
        self._scratch = scratch
        self._patience = patience
        self._stop = stop
        self._seconds = message.attempt_timeout_seconds
        self._results: list[tuple[int, Any]] = []
        self._errors: list[ItemError] = []
        self._told = 0

    def one_by_one(self, indices: RangeSet, items: Iterable[Any]) -> ChunkEnd:
        """Run each item until all have run, or the chunk has to end."""
        call = self._handler.each(self._message.args, self._message.kwargs, self._stop)
        began = time.monotonic()
        look_at, end_at = began, began + LONGEST_SECONDS
        ran = 0
        interrupts = self._stop.interrupts(self._handler.timeout_error) if self._seconds else nullcontext()
        error: BaseException | None = None
        with interrupts:
            try:
                for index, item in zip(indices, items, strict=True):
                    now = time.monotonic()
                    if self._told > MAX_END_BYTES:
                        break
                    if now >= look_at:
                        look_at = now + _LOOK_SECONDS
                        if (ran and now >= end_at) or self._stop.asked() is not None:
                            break
                    if self._seconds:
                        self._stop.restart(self._seconds)
                        began = now
                    if not self._one(call, index, item, began):
                        break
                    ran += 1
                    if self._seconds and self._stop.asked() is not None:
                        break
            except self._handler.timeout_error as raised:
                # It came between two items: neither of them is at fault.
                error = raised
        if error is not None and self._stop.asked() is None:
            raise error
        return self._end(indices, ran)

    def _one(self, call: ItemCall, index: int, item: Any, began: float) -> bool:
        """Run one item; False if it did not come to an end, because the chunk is to stop."""
        if isinstance(item, Unreadable):
            self._failed(index, AttemptFailed(Reason.ITEMS_INVALID, item.problem), None)
            return True
        try:
            returned = call(item, lambda: self._context.for_item(index, item))
            if returned is not None:
                self._keep(index, returned)
        except AttemptFailed as error:
            self._failed(index, error, None)
        except BaseException as error:  # noqa: BLE001 - a handler's SystemExit or KeyboardInterrupt ends the item, not the worker
            asked = self._stop.asked()
            judged = failure_of(error, asked, self._handler.timeout_error)
            if asked is not None and judged.failure.reason is asked:
                late = self._seconds is not None and time.monotonic() - began >= self._seconds * _EARLY
                if asked is not Reason.ATTEMPT_TIMEOUT or not late:
                    return False
            self._failed(index, judged, error)
        return True

    def _keep(self, index: int, returned: Any) -> None:
        if returned is True or returned is False or (type(returned) is int and -_INT64 <= returned < _INT64):
            # What most handlers that return anything return; the way below checks any value.
            self._told += _MARGIN
            self._results.append((index, returned))
            return
        text = checked_json(returned, self._message.handler)
        size = len(text.encode())
        if size > MAX_ITEM_RESULT_BYTES:
            folder = naming.chunk_prefix(
                self._message.namespace, self._message.uid, self._message.attempt, self._chunk.first
            )
            key = f"{folder}{index}.json"
            path = self._scratch.folder() / "result.json"
            path.write_text(text)
            put = lambda: self._objects.put_file(key, path, "application/json")  # noqa: E731 - one call, tried again
            patiently(put, what=f"result {key}", seconds=self._patience)
            value: Any = {"artifact": key}
            size = len(key)
        else:
            value = inline(text, self._message.handler)
        self._told += size + _MARGIN
        self._results.append((index, value))

    def _failed(self, index: int, judged: AttemptFailed, error: BaseException | None) -> None:
        failure = judged.failure
        if len(self._errors) < _TRACES:
            trace = handlers_trace(error) if error is not None else None
            attempt_logger.error("item_failed", index=index, error=failure.message[:MAX_ERROR_CHARS], exception=trace)
        told = ItemError(
            index=index, reason=failure.reason, type=failure.type, message=failure.message[:MAX_ERROR_CHARS]
        )
        self._told += len(told.message) + len(told.type) + 64
        self._errors.append(told)

    def _end(self, indices: RangeSet, ran: int) -> ChunkEnd:
        begun, rest = indices.take(ran)
        apart = RangeSet.of([*(index for index, _ in self._results), *(error.index for error in self._errors)])
        return ChunkEnd(
            ok=str(begun - apart),
            results=tuple(self._results),
            errors=tuple(self._errors),
            rest=str(rest),
            ran=ran,
        )

    def together(self, indices: RangeSet, items: list[Any]) -> ChunkEnd:
        """Run a handler of batches. If it raises, nothing is known of its items: the chunk as a whole has failed."""
        call = self._handler.each(self._message.args, self._message.kwargs, self._stop)
        readable = [
            (index, item) for index, item in zip(indices, items, strict=True) if not isinstance(item, Unreadable)
        ]
        for index, item in zip(indices, items, strict=True):
            if isinstance(item, Unreadable):
                self._failed(index, AttemptFailed(Reason.ITEMS_INVALID, item.problem), None)
        items = [item for _, item in readable]
        try:
            with self._stop.interrupts(self._handler.timeout_error):
                returned = call(items, lambda: replace(self._context, item=items))
        except AttemptFailed:
            raise
        except BaseException as error:
            attempt_logger.error("handler_raised", handler=self._message.handler, exception=handlers_trace(error))
            raise failure_of(error, self._stop.asked(), self._handler.timeout_error) from error
        if returned is not None:
            if not isinstance(returned, list | tuple) or len(returned) != len(items):
                found = f"{len(returned)} of them" if isinstance(returned, list | tuple) else type(returned).__name__
                raise AttemptFailed(
                    Reason.RESULT_NOT_SERIALISABLE,
                    f"{self._message.handler} got {len(items)} items and has to return None or a list of as many results, found {found}",
                )
            for (index, _), value in zip(readable, returned, strict=True):
                if value is not None:
                    self._keep(index, value)
        return self._end(indices, len(indices))
