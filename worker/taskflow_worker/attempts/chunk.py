"""A chunk of an array: several items run one after the other in one attempt. Its outcome is compact and bounded."""

from __future__ import annotations

import os
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
    MAX_ERROR_TYPES,
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
from taskflow_worker.attempts.execution import Objects, fetch_inputs, run_guarded
from taskflow_worker.attempts.items import ItemObjects, ItemReader, Unreadable, count_items
from taskflow_worker.attempts.results import checked_json, inline
from taskflow_worker.attempts.retrying import retry_while_unavailable
from taskflow_worker.attempts.scratch import Scratch
from taskflow_worker.output.capture import attempt_logger
from taskflow_worker.sdk.again import Again, refused_in_array
from taskflow_worker.sdk.context import Context
from taskflow_worker.sdk.failures import AttemptFailed, failure_of, handlers_trace
from taskflow_worker.sdk.forks import end_if_forked, same_process
from taskflow_worker.sdk.registry import Registry
from taskflow_worker.sdk.runnable import ItemCall, Runnable
from taskflow_worker.sdk.stop import Stop

_STOP_CHECK_SECONDS = 0.05
"""Time between two checks of the stop request."""
_MAX_TRACES = 10
"""How many failed items of a chunk get a traceback in its log. All of them are in the history."""
_INT64 = 2**63
_ENTRY_CHARS = 16
"""Characters around a result in the outcome."""
_ERROR_ENTRY_CHARS = 64
_EARLY_TIMEOUT = 0.9
"""A timeout that reaches an item before this fraction of its time was meant for the item before."""


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
    """Run the items of a chunk. Never raises: an error of an item is reported with the item, any other as a `Failure`.

    Args:
        message: the attempt.
        chunk: its part of the array.
        registry: the handlers.
        objects: the store of inputs, items and large results.
        reader: reads items that come from an object.
        patience: seconds to wait for an object store that is unavailable.
        stop: the chunk's stop request.
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
            handbacks=message.handbacks,
            token=message.token,
            inputs=inputs,
            outputs={},
            deadline=message.deadline,
            _stop_requested=stop.requested,
        )
        run = _ChunkRun(message, chunk, handler, context, objects, scratch, patience, stop)
        if handler.batch:
            return run.run_batch(indices, list(items))
        return run.run_each(indices, items)

    return run_guarded(message, work)


class _ChunkRun:
    """One run of a chunk, and the results and errors that it collects."""

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
        self._timeout = message.attempt_timeout_seconds
        self._pid = os.getpid()
        self._results: list[tuple[int, Any]] = []
        self._errors: list[ItemError] = []
        self._classes: dict[str, tuple[str, ...]] = {}
        self._size = 0

    def run_each(self, indices: RangeSet, items: Iterable[Any]) -> ChunkEnd:
        """Run one item after the other until all have run or the chunk must end."""
        call = self._handler.for_items(self._message.args, self._message.kwargs, self._stop)
        started = time.monotonic()
        check_at, end_at = started, started + LONGEST_SECONDS
        ran = 0
        interrupts = self._stop.interrupts(self._handler.timeout_error) if self._timeout else nullcontext()
        error: BaseException | None = None
        with interrupts:
            try:
                for index, item in zip(indices, items, strict=True):
                    now = time.monotonic()
                    if self._size > MAX_END_BYTES:
                        break
                    if now >= check_at:
                        check_at = now + _STOP_CHECK_SECONDS
                        if (ran and now >= end_at) or self._stop.requested() is not None:
                            break
                    if self._timeout:
                        self._stop.restart_timeout(self._timeout)
                        started = now
                    if not self._run_item(call, index, item, started):
                        break
                    ran += 1
                    if self._timeout and self._stop.requested() is not None:
                        break
            except self._handler.timeout_error as raised:
                # Raised between two items: neither of them timed out.
                error = raised
        if error is not None and self._stop.requested() is None:
            raise error
        return self._end(indices, ran)

    def _run_item(self, call: ItemCall, index: int, item: Any, started: float) -> bool:
        """Run one item. False if the item did not end because the chunk must stop."""
        if isinstance(item, Unreadable):
            self._fail(index, AttemptFailed(Reason.ITEMS_INVALID, item.problem), None)
            return True
        try:
            returned = call(item, lambda: self._context.for_item(index, item))
            # Not `same_process`, which would cost more than the rest of an item that does nothing.
            end_if_forked(self._pid)
            if returned is not None:
                self._keep(index, returned)
        except AttemptFailed as error:
            end_if_forked(self._pid, error)
            self._fail(index, error, None)
        except Again as error:
            end_if_forked(self._pid, error)
            self._fail(index, refused_in_array(), error)
        except BaseException as error:  # noqa: BLE001 - a handler's SystemExit or KeyboardInterrupt ends the item only
            end_if_forked(self._pid, error)
            requested = self._stop.requested()
            failed = failure_of(error, requested, self._handler.timeout_error)
            if requested is not None and failed.failure.reason is requested:
                elapsed = time.monotonic() - started
                timed_out = self._timeout is not None and elapsed >= self._timeout * _EARLY_TIMEOUT
                if requested is not Reason.ATTEMPT_TIMEOUT or not timed_out:
                    return False
            self._fail(index, failed, error)
        return True

    def _keep(self, index: int, returned: Any) -> None:
        if returned is True or returned is False or (type(returned) is int and -_INT64 <= returned < _INT64):
            # A short cut for the usual results. The code below accepts any value.
            self._size += _ENTRY_CHARS
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
            retry_while_unavailable(put, what=f"result {key}", seconds=self._patience)
            value: Any = {"artifact": key}
            size = len(key)
        else:
            value = inline(text, self._message.handler)
        self._size += size + _ENTRY_CHARS
        self._results.append((index, value))

    def _fail(self, index: int, failed: AttemptFailed, error: BaseException | None) -> None:
        failure = failed.failure
        if len(self._errors) < _MAX_TRACES:
            trace = handlers_trace(error) if error is not None else None
            attempt_logger.error("item_failed", index=index, error=failure.message[:MAX_ERROR_CHARS], exception=trace)
        item_error = ItemError(
            index=index, reason=failure.reason, type=failure.type, message=failure.message[:MAX_ERROR_CHARS]
        )
        self._size += len(item_error.message) + len(item_error.type) + _ERROR_ENTRY_CHARS
        self._errors.append(item_error)
        if failure.classes and failure.type not in self._classes and len(self._classes) < MAX_ERROR_TYPES:
            self._classes[failure.type] = failure.classes
            self._size += sum(map(len, failure.classes))

    def _end(self, indices: RangeSet, ran: int) -> ChunkEnd:
        started, rest = indices.take(ran)
        listed = RangeSet.of([*(index for index, _ in self._results), *(error.index for error in self._errors)])
        return ChunkEnd(
            ok=str(started - listed),
            results=tuple(self._results),
            errors=tuple(self._errors),
            classes=self._classes,
            rest=str(rest),
            ran=ran,
        )

    def run_batch(self, indices: RangeSet, items: list[Any]) -> ChunkEnd:
        """Run a batch handler once for all items. If it raises, the chunk fails: the state of its items is unknown."""
        call = self._handler.for_items(self._message.args, self._message.kwargs, self._stop)
        readable = [
            (index, item) for index, item in zip(indices, items, strict=True) if not isinstance(item, Unreadable)
        ]
        for index, item in zip(indices, items, strict=True):
            if isinstance(item, Unreadable):
                self._fail(index, AttemptFailed(Reason.ITEMS_INVALID, item.problem), None)
        items = [item for _, item in readable]
        try:
            with same_process(), self._stop.interrupts(self._handler.timeout_error):
                returned = call(items, lambda: replace(self._context, item=items))
        except AttemptFailed:
            raise
        except Again as error:
            raise refused_in_array() from error
        except BaseException as error:
            attempt_logger.error("handler_raised", handler=self._message.handler, exception=handlers_trace(error))
            raise failure_of(error, self._stop.requested(), self._handler.timeout_error) from error
        if returned is not None:
            if not isinstance(returned, list | tuple) or len(returned) != len(items):
                found = f"{len(returned)} of them" if isinstance(returned, list | tuple) else type(returned).__name__
                raise AttemptFailed(
                    Reason.RESULT_NOT_SERIALISABLE,
                    f"{self._message.handler} got {len(items)} items and must return None or a list of as many "
                    f"results, found {found}",
                )
            for (index, _), value in zip(readable, returned, strict=True):
                if value is not None:
                    self._keep(index, value)
        return self._end(indices, len(indices))
