"""`raise Again`: how a handler says that it is not done yet, and when it wants to be run again."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from taskflow_core.domain.events import Continuation
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_AGAIN_SECONDS, MAX_MESSAGE_CHARS
from taskflow_worker.sdk.failures import AttemptFailed, printable
from taskflow_worker.sdk.json_text import checkpoint_text


class Again(BaseException):
    """Raised by a handler to end the attempt and be run again later. The attempt does not count against `maxAttempts`.

    Nothing is held meanwhile: no process, no lease, no place in a queue. A Task may do this 10,000 times.

    Not an `Exception`, like `Stopped`, so that a handler's `except Exception` does not swallow it.

    Args:
        message: what the handler waits for; `status.message` shows it. Cut at 1,024 characters.
        seconds: until the next attempt, at most 366 days. 0 starts it as soon as a worker is free.
        checkpoint: up to 4 KiB of JSON, `context.last_checkpoint` of the next attempt. None keeps the one that
            `context.checkpoint` saved last.

    Raises:
        ValueError: seconds are negative, too many or no number, or the checkpoint is too large or has no JSON form.
    """

    def __init__(self, message: str = "", *, seconds: float | timedelta, checkpoint: Any = None) -> None:
        super().__init__(message)
        wanted: Any = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        # A bool is a number, and here a mistake. NaN is in no range.
        if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 <= wanted <= MAX_AGAIN_SECONDS:
            raise ValueError(f"seconds: expected a number from 0 to {MAX_AGAIN_SECONDS} (366 days), found {seconds!r}")
        self.continuation = Continuation(
            seconds=math.ceil(wanted),
            checkpoint=None if checkpoint is None else checkpoint_text(checkpoint),
            message=printable(str(message))[:MAX_MESSAGE_CHARS],
        )


def refused_in_array() -> AttemptFailed:
    """The failure of an item whose handler raised `Again`."""
    return AttemptFailed(
        Reason.AGAIN_IN_ARRAY,
        "the handler raised Again for an item of an array; items share an attempt, so none can wait alone: give "
        "what has to wait a Task of its own, or raise an error and let retryPolicy.backoffSeconds delay the next try",
        "Again",
    )
