from __future__ import annotations

from taskflow_core.domain.events import Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_MESSAGE_CHARS


class AttemptFailed(Exception):  # noqa: N818 - a state of the attempt, not a bug of ours
    """The attempt ends badly for a reason with a name; the message says what was expected, what was found, what to do."""

    def __init__(self, reason: Reason, message: str, error_type: str = "") -> None:
        super().__init__(message)
        self.failure = Failure(reason=reason, type=error_type[:253], message=message[:MAX_MESSAGE_CHARS])
