"""Run a handler in a test without any server: same argument checks, context, errors and result as in a worker.

`docs/howto/write-a-handler.md` has an example.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from taskflow_core.blobs.store import Stored
from taskflow_core.domain.events import Advance, Continuation, Failure, Success
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import Input, Progress
from taskflow_core.domain.task import Output as DeclaredOutput
from taskflow_core.errors import NotFound
from taskflow_worker.attempts.execution import run_attempt
from taskflow_worker.output.attempt_log import AttemptLog
from taskflow_worker.output.capture import OutputCapture
from taskflow_worker.sdk.context import parse_checkpoint
from taskflow_worker.sdk.json_text import as_json
from taskflow_worker.sdk.registry import REGISTRY, Registry
from taskflow_worker.sdk.stop import FixedStop

_NAMESPACE = "test"
_LOG_BYTES = 10 * 1024 * 1024
_OUTPUT = OutputCapture()


@dataclass(frozen=True)
class Outcome:
    """How the attempt ended and what it produced."""

    succeeded: bool
    result: Any
    """The result in the Task's status. None if the attempt failed."""
    failure: Failure | None
    """Reason, error type, message and trace. None if the attempt did not fail."""
    again: Continuation | None
    """When the handler wants to be run again, and why. None if it did not raise `Again`."""
    outputs: Mapping[str, bytes]
    """Content of the stored outputs by name. Includes `result.json` when the result is too large for the status."""
    progress: tuple[Progress, ...]
    """Every call of `context.progress`. A worker sends at most one a second."""
    checkpoint: Any
    """The checkpoint for the next attempt, if the handler saved one. None if there is none."""
    logs: str
    """What the handler printed and logged: each line with its time and its stream or logger."""


@dataclass
class _Memory:
    """An object store in memory."""

    content: dict[str, bytes] = field(default_factory=dict)

    def get_to_file(self, key: str, path: Path) -> Stored:
        if key not in self.content:
            raise NotFound(key)
        path.write_bytes(self.content[key])
        return _stored(self.content[key])

    def put_file(self, key: str, path: Path, content_type: str) -> Stored:  # noqa: ARG002 - the port's signature
        self.content[key] = path.read_bytes()
        return _stored(self.content[key])


def _stored(content: bytes) -> Stored:
    return Stored(size=len(content), sha256=hashlib.sha256(content).hexdigest())


def run(
    handler: Callable[..., Any] | str,
    *args: Any,
    inputs: Mapping[str, bytes | Path] | None = None,
    outputs: Iterable[str] = (),
    attempt: int = 1,
    checkpoint: Any = None,
    cancelled: bool = False,
    **kwargs: Any,
) -> Outcome:
    """Run one attempt of a handler in this process.

    Args:
        handler: the function, or a registered name.
        args: the Task's `args`. They are converted to JSON first, as in a manifest.
        inputs: content or file of each input, by name.
        outputs: names of the outputs that the Task declares.
        attempt: the attempt's number.
        checkpoint: the checkpoint of an earlier attempt.
        cancelled: request a stop before the handler starts.
        kwargs: the Task's `kwargs`.

    Raises:
        Invalid: a type hint of the function cannot be evaluated: a worker would not start with it.
    """
    registry = REGISTRY
    if not isinstance(handler, str):
        registry = Registry()
        registry.add(handler.__name__, handler)
        registry.check()
    name = handler if isinstance(handler, str) else handler.__name__
    objects = _Memory()
    for key, content in (inputs or {}).items():
        objects.content[f"{_NAMESPACE}/{key}"] = content if isinstance(content, bytes) else content.read_bytes()
    message = Message(
        uid="00000000-0000-4000-8000-000000000000",
        namespace=_NAMESPACE,
        name="test",
        attempt=attempt,
        token="0" * 32,
        handler=name,
        args=to_jsonable_python(args),
        kwargs=to_jsonable_python(kwargs),
        inputs=tuple(Input(name=key, key=key) for key in inputs or {}),
        outputs=tuple(DeclaredOutput(name=key) for key in outputs),
        queue="test",
        checkpoint=None if checkpoint is None else as_json(checkpoint),
    )
    reports: list[Advance] = []
    log = AttemptLog(_LOG_BYTES)
    with _ONE_AT_A_TIME, _OUTPUT.capture(log):
        stop = FixedStop(Reason.CANCELLED if cancelled else None)
        ended = run_attempt(message, registry, objects, patience=0, stop=stop, report=reports.append)
    return _outcome(ended, objects, reports, log)


_ONE_AT_A_TIME = threading.Lock()
"""The process's streams can be captured for one attempt at a time."""


def _outcome(
    ended: Success | Continuation | Failure, objects: _Memory, reports: list[Advance], log: AttemptLog
) -> Outcome:
    stored = (
        {output.name: objects.content[output.key] for output in ended.outputs} if isinstance(ended, Success) else {}
    )
    saved = [advance.checkpoint for advance in reports]
    if isinstance(ended, Continuation):
        saved.append(ended.checkpoint)
    return Outcome(
        succeeded=isinstance(ended, Success),
        result=ended.result if isinstance(ended, Success) else None,
        failure=ended if isinstance(ended, Failure) else None,
        again=ended if isinstance(ended, Continuation) else None,
        outputs=stored,
        progress=tuple(advance.progress for advance in reports if advance.progress is not None),
        checkpoint=parse_checkpoint(next((text for text in reversed(saved) if text is not None), None)),
        logs=log.text(),
    )
