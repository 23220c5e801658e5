"""One attempt, from its message to its outcome. Knows nothing of Celery, Redis or leases."""

from __future__ import annotations

import random
import tempfile
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
from taskflow_core.domain.events import Advance, Failure, Success
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_RESULT_BYTES, Output, StoredOutput
from taskflow_core.errors import NotFound, TaskflowError, Unavailable
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.context import Context, last_checkpoint
from taskflow_worker.failures import AttemptFailed, failure_of, handlers_trace, type_name, words
from taskflow_worker.output import attempt_logger
from taskflow_worker.registry import Registry
from taskflow_worker.results import RESULT_OUTPUT, checked_json, inline
from taskflow_worker.stopping import Fixed, Stop

log = get_logger(__name__)
T = TypeVar("T")
Ended = TypeVar("Ended", Success, ChunkEnd, Counted)
_FIRST_WAIT = 0.2
_LONGEST_WAIT = 5.0
_GO_ON = Fixed()


class Objects(Protocol):
    """What an attempt needs of the object store. Methods raise `NotFound` and `Unavailable`."""

    def get_to_file(self, key: str, path: Path) -> Stored:
        """Fetch an object into a file."""

    def put_file(self, key: str, path: Path, content_type: str) -> Stored:
        """Store a file."""


def patiently(action: Callable[[], T], *, what: str, seconds: float) -> T:
    """Do it; while it raises `Unavailable`, wait and do it again, for at most that long. The work is worth more than the wait.

    Raises:
        Unavailable: it still does after that time.
    """
    deadline = time.monotonic() + seconds
    wait = _FIRST_WAIT
    while True:
        try:
            return action()
        except Unavailable as error:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            log.warning("waiting", what=what, error=str(error), seconds_left=round(left))
        # Jitter, so that workers that lost the same server do not come back in step.
        time.sleep(min(wait * random.uniform(0.5, 1.0), max(left, 0)))  # noqa: S311 - no secret
        wait = min(wait * 2, _LONGEST_WAIT)


def run_attempt(
    message: Message,
    registry: Registry,
    objects: Objects,
    *,
    patience: float,
    stop: Stop = _GO_ON,
    tell: Callable[[Advance], None] = lambda _: None,
) -> Success | Failure:
    """Fetch the inputs, run the handler, store its outputs. Never raises: whatever goes wrong becomes a `Failure`.

    Args:
        message: the attempt.
        registry: the handlers.
        objects: where inputs and outputs lie.
        patience: seconds to wait for objects that cannot be reached.
        stop: whether the attempt is to stop.
        tell: takes what the handler says of its progress; any thread of the handler may call it.
    """
    return guarded(message, lambda scratch: _run(message, registry, objects, scratch, patience, stop, tell))


class Scratch:
    """An attempt's own folder, made when it is first asked for: to make and remove one takes as long as all else of a no-op."""

    def __init__(self) -> None:
        self._made: tempfile.TemporaryDirectory[str] | None = None

    def folder(self) -> Path:
        """The same one each time."""
        if self._made is None:
            self._made = tempfile.TemporaryDirectory(prefix="taskflow-", ignore_cleanup_errors=True)
        return Path(self._made.name)

    def within(self, name: str) -> Path:
        """A folder in it, the same one each time."""
        made = self.folder() / name
        made.mkdir(exist_ok=True)
        return made

    def close(self) -> None:
        """Remove it with all that is in it."""
        if self._made is not None:
            self._made.cleanup()


def guarded(message: Message, work: Callable[[Scratch], Ended]) -> Ended | Failure:
    """What the work, with a folder of its own, comes to; whatever goes wrong becomes a `Failure`. Both with the time it took."""
    started = time.monotonic()
    ended: Ended | Failure
    try:
        with closing(Scratch()) as scratch:
            ended = work(scratch)
    except AttemptFailed as error:
        ended = error.failure
    except TaskflowError as error:
        ended = AttemptFailed(Reason.STORAGE_UNAVAILABLE, words(error), type(error).__name__).failure
    except Exception as error:  # a hint that cannot be used, no room for files: the attempt's end must be told
        log.exception("attempt_broken", uid=message.uid, attempt=message.attempt)
        ended = AttemptFailed(Reason.HANDLER_ERROR, words(error), type_name(error)).failure
    return ended.model_copy(update={"run_ms": _since(started)})


def _run(
    message: Message,
    registry: Registry,
    objects: Objects,
    scratch: Scratch,
    patience: float,
    stop: Stop,
    tell: Callable[[Advance], None],
) -> Success:
    handler = registry.find(message.handler)
    values = handler.bind(message.args, message.kwargs)
    inputs = fetch_inputs(message, objects, scratch, patience)
    outputs = {output.name: scratch.within("outputs") / output.name for output in message.outputs}
    context = Context(
        uid=message.uid,
        namespace=message.namespace,
        name=message.name,
        attempt=message.attempt,
        token=message.token,
        inputs=inputs,
        outputs=outputs,
        deadline=_deadline(message, datetime.now(UTC)),
        last_checkpoint=last_checkpoint(message.checkpoint),
        _asked=stop.asked,
        _tell=tell,
    )
    try:
        returned = handler.call(values, context, stop)
    except AttemptFailed:
        raise
    except BaseException as error:  # a handler's SystemExit or KeyboardInterrupt ends the attempt, not the worker
        attempt_logger.error("handler_raised", handler=message.handler, exception=handlers_trace(error))
        raise failure_of(error, stop.asked(), handler.timeout_error) from error
    result = checked_json(returned, message.handler)
    fits = len(result.encode()) <= MAX_RESULT_BYTES
    value = inline(result, message.handler) if fits else {"artifact": RESULT_OUTPUT}
    stored = [_store(output, outputs[output.name], message, objects, patience) for output in message.outputs]
    if not fits:
        stored.append(_store_result(result, scratch, message, objects, patience))
    return Success(result=value, outputs=tuple(stored))


def _deadline(message: Message, now: datetime) -> datetime | None:
    """When the attempt that begins now will be told to stop."""
    ends = [] if message.deadline is None else [message.deadline]
    if message.deadline is None and message.active_deadline_seconds is not None:
        ends.append(now + timedelta(seconds=message.active_deadline_seconds))
    if message.attempt_timeout_seconds is not None:
        ends.append(now + timedelta(seconds=message.attempt_timeout_seconds))
    return min(ends, default=None)


def fetch_inputs(message: Message, objects: Objects, scratch: Scratch, patience: float) -> dict[str, Path]:
    """Fetch the inputs into a folder of their own.

    Raises:
        AttemptFailed: there is no such object.
        TaskflowError: the object store cannot be reached, or refuses.
    """
    found: dict[str, Path] = {}
    for item in message.inputs:
        key = naming.object_prefix(message.namespace) + item.key
        path = scratch.within("inputs") / item.name
        fetch = partial(objects.get_to_file, key, path)
        try:
            patiently(fetch, what=f"input {key}", seconds=patience)
        except NotFound as error:
            raise AttemptFailed(
                Reason.INPUT_MISSING,
                f"input {item.name!r}: there is no object {key!r}; upload it, or correct spec.inputs, and create the Task anew",
            ) from error
        found[item.name] = path
    return found


def _store(output: Output, path: Path, message: Message, objects: Objects, patience: float) -> StoredOutput:
    if not path.is_file():
        raise AttemptFailed(
            Reason.OUTPUT_MISSING,
            f"the handler returned without writing the declared output {output.name!r}; write it to context.output({output.name!r})",
        )
    key = naming.attempt_prefix(message.namespace, message.uid, message.attempt) + output.name
    put = partial(objects.put_file, key, path, output.content_type)
    stored = patiently(put, what=f"output {key}", seconds=patience)
    return StoredOutput(
        name=output.name,
        key=key,
        size_bytes=stored.size,
        sha256=stored.sha256,
        content_type=output.content_type,
    )


def _store_result(result: str, scratch: Scratch, message: Message, objects: Objects, patience: float) -> StoredOutput:
    """Store a result that is too large for the resource, as an output that the Task did not declare."""
    if any(output.name == RESULT_OUTPUT for output in message.outputs):
        raise AttemptFailed(
            Reason.RESULT_TOO_LARGE,
            f"{message.handler} returned {len(result.encode())} bytes of JSON, at most {MAX_RESULT_BYTES} are kept inline, and "
            f"{RESULT_OUTPUT}, where more would be stored, is a declared output; rename that output",
        )
    path = scratch.folder() / RESULT_OUTPUT
    path.write_text(result)
    return _store(Output(name=RESULT_OUTPUT, content_type="application/json"), path, message, objects, patience)


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
