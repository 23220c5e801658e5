"""One attempt from its message to its outcome: fetch inputs, run the handler, store outputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from taskflow_core.blobs.store import Stored
from taskflow_core.domain import naming
from taskflow_core.domain.chunks import ChunkEnd, Counted
from taskflow_core.domain.events import Advance, Continuation, Failure, Success
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_RESULT_BYTES, Output, StoredOutput
from taskflow_core.errors import NotFound, TaskflowError
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.attempts.results import RESULT_OUTPUT, checked_json, inline
from taskflow_worker.attempts.retrying import retry_while_unavailable
from taskflow_worker.attempts.scratch import Scratch
from taskflow_worker.output.capture import attempt_logger
from taskflow_worker.sdk.again import Again
from taskflow_worker.sdk.context import Context, parse_checkpoint
from taskflow_worker.sdk.failures import AttemptFailed, failure_of, handlers_trace, message_of, type_name
from taskflow_worker.sdk.forks import same_process
from taskflow_worker.sdk.registry import Registry
from taskflow_worker.sdk.stop import FixedStop, Stop

log = get_logger(__name__)
Ended = TypeVar("Ended", Success | Continuation, ChunkEnd, Counted)
_NEVER_STOPPED = FixedStop()


class Objects(Protocol):
    """What an attempt needs from the object store. Methods raise `NotFound` and `Unavailable`."""

    def get_to_file(self, key: str, path: Path) -> Stored:
        """Fetch an object into a file."""

    def put_file(self, key: str, path: Path, content_type: str) -> Stored:
        """Store a file."""


def run_attempt(
    message: Message,
    registry: Registry,
    objects: Objects,
    *,
    patience: float,
    stop: Stop = _NEVER_STOPPED,
    report: Callable[[Advance], None] = lambda _: None,
) -> Success | Continuation | Failure:
    """Fetch the inputs, run the handler and store its outputs. Never raises: every error becomes a `Failure`.

    Args:
        message: the attempt.
        registry: the handlers.
        objects: the store of inputs and outputs.
        patience: seconds to wait for an object store that is unavailable.
        stop: the attempt's stop request.
        report: receives the handler's progress and checkpoints, from any of its threads.
    """
    return run_guarded(message, lambda scratch: _run(message, registry, objects, scratch, patience, stop, report))


def run_guarded(message: Message, work: Callable[[Scratch], Ended]) -> Ended | Failure:
    """Run work with a scratch folder and turn every exception into a `Failure`. The outcome has the time it took."""
    started = time.monotonic()
    ended: Ended | Failure
    try:
        with closing(Scratch()) as scratch:
            ended = work(scratch)
    except AttemptFailed as error:
        ended = error.failure
    except TaskflowError as error:
        ended = AttemptFailed(Reason.STORAGE_UNAVAILABLE, message_of(error), type(error).__name__).failure
    except Exception as error:  # an unusable type hint, a full disk: the end of the attempt must be reported anyway
        log.exception("attempt_broken", uid=message.uid, attempt=message.attempt)
        ended = AttemptFailed(Reason.HANDLER_ERROR, message_of(error), type_name(error), error=error).failure
    return ended.model_copy(update={"run_ms": _milliseconds_since(started)})


def _run(
    message: Message,
    registry: Registry,
    objects: Objects,
    scratch: Scratch,
    patience: float,
    stop: Stop,
    report: Callable[[Advance], None],
) -> Success | Continuation:
    handler = registry.find(message.handler)
    values = handler.bind(message.args, message.kwargs)
    inputs = fetch_inputs(message, objects, scratch, patience)
    outputs = {output.name: scratch.subfolder("outputs") / output.name for output in message.outputs}
    context = Context(
        uid=message.uid,
        namespace=message.namespace,
        name=message.name,
        attempt=message.attempt,
        handbacks=message.handbacks,
        token=message.token,
        inputs=inputs,
        outputs=outputs,
        deadline=_deadline(message, datetime.now(UTC)),
        last_checkpoint=parse_checkpoint(message.checkpoint),
        _stop_requested=stop.requested,
        _report=report,
    )
    try:
        with same_process():
            returned = handler.call(values, context, stop)
    except AttemptFailed:
        raise
    except Again as again:
        return again.continuation
    except BaseException as error:  # a handler's SystemExit or KeyboardInterrupt ends the attempt, not the worker
        attempt_logger.error("handler_raised", handler=message.handler, exception=handlers_trace(error))
        raise failure_of(error, stop.requested(), handler.timeout_error) from error
    result = checked_json(returned, message.handler)
    fits = len(result.encode()) <= MAX_RESULT_BYTES
    value = inline(result, message.handler) if fits else {"artifact": RESULT_OUTPUT}
    stored = [_store(output, outputs[output.name], message, objects, patience) for output in message.outputs]
    if not fits:
        stored.append(_store_result(result, scratch, message, objects, patience))
    return Success(result=value, outputs=tuple(stored))


def _deadline(message: Message, now: datetime) -> datetime | None:
    """When an attempt that starts now is told to stop."""
    ends = [] if message.deadline is None else [message.deadline]
    if message.deadline is None and message.active_deadline_seconds is not None:
        ends.append(now + timedelta(seconds=message.active_deadline_seconds))
    if message.attempt_timeout_seconds is not None:
        ends.append(now + timedelta(seconds=message.attempt_timeout_seconds))
    return min(ends, default=None)


def fetch_inputs(message: Message, objects: Objects, scratch: Scratch, patience: float) -> dict[str, Path]:
    """Fetch the inputs into a folder of the scratch folder.

    Raises:
        AttemptFailed: an object does not exist.
        TaskflowError: the object store is unavailable or refuses.
    """
    found: dict[str, Path] = {}
    for item in message.inputs:
        key = naming.object_prefix(message.namespace) + item.key
        path = scratch.subfolder("inputs") / item.name
        fetch = partial(objects.get_to_file, key, path)
        try:
            retry_while_unavailable(fetch, what=f"input {key}", seconds=patience)
        except NotFound as error:
            raise AttemptFailed(
                Reason.INPUT_MISSING,
                f"input {item.name!r}: there is no object {key!r}; upload it, or correct spec.inputs, and create a "
                "new Task",
            ) from error
        found[item.name] = path
    return found


def _store(output: Output, path: Path, message: Message, objects: Objects, patience: float) -> StoredOutput:
    if not path.is_file():
        raise AttemptFailed(
            Reason.OUTPUT_MISSING,
            f"the handler returned without writing the declared output {output.name!r}; write it to "
            f"context.output({output.name!r})",
        )
    key = naming.attempt_prefix(message.namespace, message.uid, message.attempt) + output.name
    put = partial(objects.put_file, key, path, output.content_type)
    stored = retry_while_unavailable(put, what=f"output {key}", seconds=patience)
    return StoredOutput(
        name=output.name,
        key=key,
        size_bytes=stored.size,
        sha256=stored.sha256,
        content_type=output.content_type,
    )


def _store_result(result: str, scratch: Scratch, message: Message, objects: Objects, patience: float) -> StoredOutput:
    """Store a result that is too large for the status, as an output that the Task does not declare."""
    if any(output.name == RESULT_OUTPUT for output in message.outputs):
        raise AttemptFailed(
            Reason.RESULT_TOO_LARGE,
            f"{message.handler} returned {len(result.encode())} bytes of JSON; at most {MAX_RESULT_BYTES} are kept "
            f"inline, and larger results are stored as {RESULT_OUTPUT}, which the Task declares as an output; rename "
            "that output",
        )
    path = scratch.folder() / RESULT_OUTPUT
    path.write_text(result)
    return _store(Output(name=RESULT_OUTPUT, content_type="application/json"), path, message, objects, patience)


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
