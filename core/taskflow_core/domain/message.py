"""The message that a worker gets."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from taskflow_core.domain import naming
from taskflow_core.domain.chunks import Chunk
from taskflow_core.domain.resource import Model, Time
from taskflow_core.domain.task import Input, Output

HEADER_ENTERED = "taskflow_entered_ms"
"""When the attempt was entered in the ledger, by Redis' clock."""


class Message(Model):
    """One attempt of one Task: the only argument of the Celery task."""

    uid: str
    namespace: str
    name: str
    attempt: int
    handbacks: int = 0
    """Attempts before it that do not count."""
    token: str
    handler: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    queue: str
    priority: int = 0
    attempt_timeout_seconds: int | None = None
    deadline: Time | None = None
    """When the operator stops the Task, if it has a deadline and has started before."""
    active_deadline_seconds: int | None = None
    """The deadline of a Task that has not started before, counted from its start."""
    checkpoint: str | None = None
    """Checkpoint of the former attempt, as JSON."""
    traceparent: str | None = None
    """W3C trace context of the Task."""

    chunk: Chunk | None = None
    """Which items of an array it is for."""

    @property
    def place(self) -> str:
        """Its attempt, and its chunk if it is for one."""
        return naming.place(self.attempt, None if self.chunk is None else self.chunk.first)

    @property
    def member(self) -> str:
        """Id of the Celery message: the same for every delivery of this attempt."""
        return f"{self.uid}:{self.place}"


def entered_ms(raw: str | None) -> int | None:
    """When the message in a Redis list was entered in the ledger; None for no message, or one that is not ours."""
    if raw is None:
        return None
    try:
        return int(json.loads(raw)["headers"][HEADER_ENTERED])
    # RecursionError: it is nested too deeply. OverflowError: 1e999 is no integer.
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
