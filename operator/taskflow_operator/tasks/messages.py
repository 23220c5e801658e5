"""Builds the message that a worker gets."""

from __future__ import annotations

from datetime import timedelta

from taskflow_core.domain.message import Message
from taskflow_core.domain.naming import attempt_token
from taskflow_core.domain.task import Task


def message_of(task: Task, token_key: str) -> Message:
    """The message of the Task's current attempt.

    Args:
        task: as it stands.
        token_key: from which the token of the attempt is derived.
    """
    spec, status = task.spec, task.status
    deadline = None
    if spec.active_deadline_seconds is not None and status.start_time is not None:
        deadline = status.start_time + timedelta(seconds=spec.active_deadline_seconds)
    return Message(
        uid=task.uid,
        namespace=task.namespace,
        name=task.name,
        attempt=status.attempt,
        handbacks=status.handbacks,
        token=attempt_token(token_key, task.namespace, task.uid, status.attempt),
        handler=spec.handler,
        args=spec.args,
        kwargs=spec.kwargs,
        inputs=spec.inputs,
        outputs=spec.outputs,
        queue=spec.queue,
        priority=spec.priority,
        attempt_timeout_seconds=spec.attempt_timeout_seconds,
        active_deadline_seconds=spec.active_deadline_seconds,
        deadline=deadline,
        checkpoint=status.checkpoint,
        traceparent=task.traceparent,
    )
