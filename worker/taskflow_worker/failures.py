from __future__ import annotations

import asyncio
import traceback
from pathlib import Path

from taskflow_core.domain.events import Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_MESSAGE_CHARS, MAX_TRACE_CHARS

_MAX_TYPE_CHARS = 253
_OURS = Path(__file__).parent
_HANDLERS = _OURS / "builtin.py"
_THEIRS = ("/celery/app/", "/asyncio/")
"""Machinery between us and the handler."""

STOPS = {
    Reason.ATTEMPT_TIMEOUT: "the attempt lasted longer than attemptTimeoutSeconds",
    Reason.CANCELLED: "the Task was cancelled while the attempt ran",
    Reason.DEADLINE_EXCEEDED: "the Task lasted longer than activeDeadlineSeconds",
    Reason.TOO_MANY_FAILURES: "more items of the array failed than maxFailures",
    Reason.WORKER_LOST: "the attempt was taken away: its lease ran out or another worker holds it",
}
"""Why an attempt may be told to stop, in words."""


class NonRetryable(Exception):  # noqa: N818 - read in a `raise` statement
    """A handler raises it, or a class of its own derived from it, when another attempt would end the same way."""


class Stopped(BaseException):
    """The attempt is to end now: it was cancelled, or its time is over.

    Like `asyncio.CancelledError` no `Exception`, so that a handler's `except Exception` does not swallow it.
    """


class AttemptFailed(Exception):  # noqa: N818 - a state of the attempt, not a bug of ours
    """The attempt ends badly for a reason with a name; the message says what was expected, what was found, what to do."""

    def __init__(self, reason: Reason, message: str, error_type: str = "", trace: str = "") -> None:
        super().__init__(message)
        self.failure = Failure(
            reason=reason,
            type=error_type[:_MAX_TYPE_CHARS],
            message=printable(message)[:MAX_MESSAGE_CHARS],
            trace=trace,
        )


def failure_of(error: BaseException, asked: Reason | None, timeout_error: type[BaseException]) -> AttemptFailed:
    """What it means that the handler raised.

    Args:
        error: what it raised.
        asked: why it was told to stop, if it was.
        timeout_error: what is raised in this handler when its time is over.
    """
    trace = trimmed_trace(error)
    if asked is not None and isinstance(error, (Stopped, asyncio.CancelledError, timeout_error)):
        return AttemptFailed(asked, STOPS.get(asked, asked.value), type_name(error), trace)
    reason = Reason.NOT_RETRYABLE if isinstance(error, NonRetryable) else Reason.HANDLER_ERROR
    return AttemptFailed(reason, words(error), type_name(error), trace)


def trimmed_trace(error: BaseException) -> str:
    """The last 2,048 characters of `handlers_trace`, by whole lines."""
    text = handlers_trace(error)
    if len(text) <= MAX_TRACE_CHARS:
        return text
    kept = text[-(MAX_TRACE_CHARS - 4) :]
    return "...\n" + (kept.partition("\n")[2] or kept)


def handlers_trace(error: BaseException) -> str:
    """The traceback as Python prints it, with its causes, without frames of TaskFlow; empty if no other frame is left."""
    told = traceback.TracebackException.from_exception(error)
    chain: traceback.TracebackException | None = told
    while chain is not None:
        chain.stack = traceback.StackSummary.from_list([each for each in chain.stack if not _internal(each.filename)])
        chain = chain.__cause__ or chain.__context__
    if not told.stack and told.__cause__ is None:
        return ""
    return printable("".join(told.format())).rstrip("\n")


def _internal(filename: str) -> bool:
    path = Path(filename)
    return (path.parent == _OURS and path != _HANDLERS) or any(part in filename for part in _THEIRS)


def type_name(value: object) -> str:
    """Qualified name of the value's type; builtins without their module."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def words(error: BaseException) -> str:
    """What the error says."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error that cannot even be printed is still an error
        return "(the error has no printable message)"


def printable(text: str) -> str:
    """The text with a UTF-8 form: a lone surrogate has none, and would stop the report."""
    return text.encode("utf-8", "backslashreplace").decode()
