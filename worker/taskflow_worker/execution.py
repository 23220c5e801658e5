"""One attempt, from its message to its outcome. Knows nothing of Celery, Redis or leases."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from taskflow_core.blobs.store import Stored
from taskflow_core.domain import naming
from taskflow_core.domain.events import Failure, Success
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import (
    MAX_JSON_LEVELS,
    MAX_MESSAGE_CHARS,
    MAX_RESULT_BYTES,
    Output,
    StoredOutput,
    nested_deeper,
)
from taskflow_core.errors import NotFound, TaskflowError, Unavailable
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.context import Context
from taskflow_worker.failures import AttemptFailed
from taskflow_worker.registry import Registry

log = get_logger(__name__)
T = TypeVar("T")
_FIRST_WAIT = 0.2
_LONGEST_WAIT = 5.0


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


def run_attempt(message: Message, registry: Registry, objects: Objects, *, patience: float) -> Success | Failure:
    """Fetch the inputs, run the handler, store its outputs. Never raises: whatever goes wrong becomes a `Failure`."""
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="taskflow-", ignore_cleanup_errors=True) as folder:
            success = _run(message, registry, objects, Path(folder), patience)
    except AttemptFailed as error:
        return error.failure.model_copy(update={"run_ms": _since(started)})
    except TaskflowError as error:
        failure = Failure(reason=Reason.STORAGE_UNAVAILABLE, type=type(error).__name__, message=_text(error))
        return failure.model_copy(update={"run_ms": _since(started)})
    except Exception as error:  # a hint that cannot be used, no room for files: the attempt's end must be told
        log.exception("attempt_broken", uid=message.uid, attempt=message.attempt)
        failure = Failure(reason=Reason.HANDLER_ERROR, type=_type_name(error), message=_text(error))
        return failure.model_copy(update={"run_ms": _since(started)})
    return success.model_copy(update={"run_ms": _since(started)})


def _run(message: Message, registry: Registry, objects: Objects, folder: Path, patience: float) -> Success:
    handler = registry.find(message.handler)
    values = handler.bind(message.args, message.kwargs)
    inputs = _fetch(message, objects, folder / "inputs", patience)
    outputs = {output.name: folder / "outputs" / output.name for output in message.outputs}
    (folder / "outputs").mkdir()
    context = Context(
        uid=message.uid,
        namespace=message.namespace,
        name=message.name,
        attempt=message.attempt,
        token=message.token,
        inputs=inputs,
        outputs=outputs,
    )
    try:
        returned = handler.call(values, context)
    except AttemptFailed:
        raise
    except BaseException as error:  # a handler's SystemExit or KeyboardInterrupt ends the attempt, not the worker
        log.info("handler_raised", handler=message.handler, exc_info=True)
        raise AttemptFailed(Reason.HANDLER_ERROR, _text(error), _type_name(error)) from error
    result = _checked_result(returned, message.handler)
    stored = tuple(_store(output, outputs[output.name], message, objects, patience) for output in message.outputs)
    return Success(result=result, outputs=stored)


def _fetch(message: Message, objects: Objects, folder: Path, patience: float) -> dict[str, Path]:
    folder.mkdir()
    found: dict[str, Path] = {}
    for item in message.inputs:
        key = naming.object_prefix(message.namespace) + item.key
        path = folder / item.name
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


def _checked_result(returned: Any, handler: str) -> Any:
    try:
        text = json.dumps(returned, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise AttemptFailed(
            Reason.RESULT_NOT_SERIALISABLE,
            f"{handler} returned {_type_name(returned)}, which has no JSON form: {error}; return JSON or write an output",
            type(error).__name__,
        ) from error
    if nested_deeper(returned, MAX_JSON_LEVELS):
        raise AttemptFailed(
            Reason.RESULT_NOT_SERIALISABLE,
            f"{handler} returned JSON nested deeper than {MAX_JSON_LEVELS} levels; return less or write an output",
        )
    if size > MAX_RESULT_BYTES:
        raise AttemptFailed(
            Reason.RESULT_TOO_LARGE,
            f"{handler} returned {size} bytes of JSON, at most {MAX_RESULT_BYTES} are kept inline; write an output",
        )
    if _beyond_64_bits(returned):
        raise AttemptFailed(
            Reason.RESULT_NOT_SERIALISABLE,
            f"{handler} returned an integer beyond 64 bits, which Kubernetes cannot keep; return it as a string",
        )
    # What was measured is what travels: tuples as lists, keys as strings.
    return json.loads(text)


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _beyond_64_bits(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        return any(_beyond_64_bits(child) for child in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _text(error: BaseException) -> str:
    try:
        return _short(str(error))
    except Exception:  # noqa: BLE001 - an error that cannot even be printed is still an error
        return "(the error has no printable message)"


def _short(text: str) -> str:
    # A lone surrogate has no UTF-8 form and would stop the report.
    return text.encode("utf-8", "backslashreplace").decode()[:MAX_MESSAGE_CHARS]


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
