"""Run a handler without any server, as a worker would: same arguments, checks, context, errors and result.

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
from taskflow_core.domain.events import Advance, Failure, Success
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import Input, Progress
from taskflow_core.domain.task import Output as DeclaredOutput
from taskflow_core.errors import NotFound
from taskflow_worker.attempt_log import AttemptLog
from taskflow_worker.context import last_checkpoint
from taskflow_worker.execution import run_attempt
from taskflow_worker.output import Output
from taskflow_worker.registry import REGISTRY, Registry
from taskflow_worker.results import as_json
from taskflow_worker.stopping import Fixed

_NAMESPACE = "test"
_LOG_BYTES = 10 * 1024 * 1024
_OUTPUT = Output()


@dataclass(frozen=True)
class Outcome:
    """How the attempt ended, and what it left."""

    succeeded: bool
    result: Any
    """What the Task's status would show; None if it failed."""
    failure: Failure | None
    """Reason, error type, message and trace; None if it succeeded."""
    outputs: Mapping[str, bytes]
    """Content of the stored outputs by name; `result.json` among them when the result was too large for the status."""
    progress: tuple[Progress, ...]
    """Every call of `context.progress`; a worker sends at most one a second."""
    checkpoint: Any
    """The last one; None if there was none."""
    logs: str
    """What it printed and logged: each line with its time and its stream or logger."""


@dataclass
class _Memory:
    """Objects in memory."""

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
        args: of the Task; turned into JSON first, as a manifest would have them.
        inputs: content or file of each input by name.
        outputs: names of the outputs that the Task declares.
        attempt: its number.
        checkpoint: what the former attempt left.
        cancelled: the attempt is told to stop from the start.
        kwargs: of the Task.
    """
    registry = REGISTRY
    if not isinstance(handler, str):
        registry = Registry()
        registry.add(handler.__name__, handler)
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
    told: list[Advance] = []
    log = AttemptLog(_LOG_BYTES)
    with _ONE_AT_A_TIME, _OUTPUT.into(log):
        stop = Fixed(Reason.CANCELLED if cancelled else None)
        ended = run_attempt(message, registry, objects, patience=0, stop=stop, tell=told.append)
    return _outcome(ended, objects, told, log)


_ONE_AT_A_TIME = threading.Lock()
"""The streams of the process can be led to one log only."""


def _outcome(ended: Success | Failure, objects: _Memory, told: list[Advance], log: AttemptLog) -> Outcome:
    stored = (
        {output.name: objects.content[output.key] for output in ended.outputs} if isinstance(ended, Success) else {}
    )
    return Outcome(
        succeeded=isinstance(ended, Success),
        result=ended.result if isinstance(ended, Success) else None,
        failure=ended if isinstance(ended, Failure) else None,
        outputs=stored,
        progress=tuple(advance.progress for advance in told if advance.progress is not None),
        checkpoint=last_checkpoint(next((a.checkpoint for a in reversed(told) if a.checkpoint is not None), None)),
        logs=log.text(),
    )
