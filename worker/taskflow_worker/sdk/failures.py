"""How an attempt fails: the exceptions of handlers, and the `Failure` that is reported for each of them."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path

from taskflow_core.domain.events import MAX_CLASSES, Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_MESSAGE_CHARS, MAX_TRACE_CHARS, MAX_TYPE_CHARS

_PACKAGE = Path(__file__).parent.parent
_BUILTIN_HANDLERS = _PACKAGE / "handlers" / "builtin.py"
_FRAMEWORKS = ("/celery/app/", "/asyncio/")
"""Frames between the worker and the handler."""

STOP_MESSAGES = {
    Reason.ATTEMPT_TIMEOUT: "the attempt ran longer than attemptTimeoutSeconds",
    Reason.CANCELLED: "the Task was cancelled while the attempt ran",
    Reason.DEADLINE_EXCEEDED: "the Task took longer than activeDeadlineSeconds",
    Reason.TOO_MANY_FAILURES: "more items of the array failed than maxFailures allows",
    Reason.WORKER_LOST: "the worker lost the attempt: its lease expired or another worker runs it",
}
"""Messages for the reasons why an attempt is told to stop."""


class NonRetryable(Exception):  # noqa: N818 - read in a `raise` statement
    """Raised by a handler, directly or as a subclass, when another attempt would fail in the same way."""


class Stopped(BaseException):
    """The attempt must end now: it was cancelled or timed out.

    Not an `Exception`, like `asyncio.CancelledError`, so that a handler's `except Exception` does not swallow it.
    """


class AttemptFailed(Exception):  # noqa: N818 - a state of the attempt, not a bug of ours
    """The attempt fails for a named reason. The message says what was expected, what was found and what to do.

    Args:
        reason: the reason.
        message: for people.
        error_type: name of the type of error, as `type_name` gives it.
        trace: the handler's part of the traceback.
        error: what was raised, if `retryOn` and `noRetryOn` apply to it.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        error_type: str = "",
        trace: str = "",
        error: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = Failure(
            reason=reason,
            type=error_type[:MAX_TYPE_CHARS],
            message=printable(message)[:MAX_MESSAGE_CHARS],
            trace=trace,
            classes=() if error is None else class_names(error),
        )


def failure_of(error: BaseException, requested: Reason | None, timeout_error: type[BaseException]) -> AttemptFailed:
    """Translate what a handler raised into the failure of its attempt.

    Args:
        error: what the handler raised.
        requested: why the attempt was told to stop, if it was.
        timeout_error: what is raised in this handler when the attempt times out.
    """
    trace = trimmed_trace(error)
    if requested is not None and isinstance(error, (Stopped, asyncio.CancelledError, timeout_error)):
        return AttemptFailed(requested, STOP_MESSAGES.get(requested, requested.value), type_name(error), trace)
    reason = Reason.NOT_RETRYABLE if isinstance(error, NonRetryable) else Reason.HANDLER_ERROR
    return AttemptFailed(reason, message_of(error), type_name(error), trace, error)


def trimmed_trace(error: BaseException) -> str:
    """The last 2,048 characters of `handlers_trace`, cut at a line."""
    text = handlers_trace(error)
    if len(text) <= MAX_TRACE_CHARS:
        return text
    kept = text[-(MAX_TRACE_CHARS - 4) :]
    return "...\n" + (kept.partition("\n")[2] or kept)


def handlers_trace(error: BaseException) -> str:
    """The traceback as Python prints it, with causes, without frames of TaskFlow. Empty if no other frame is left."""
    captured = traceback.TracebackException.from_exception(error)
    chain: traceback.TracebackException | None = captured
    while chain is not None:
        chain.stack = traceback.StackSummary.from_list([each for each in chain.stack if not _internal(each.filename)])
        chain = chain.__cause__ or chain.__context__
    if not captured.stack and captured.__cause__ is None:
        return ""
    return printable("".join(captured.format())).rstrip("\n")


def _internal(filename: str) -> bool:
    path = Path(filename)
    ours = _PACKAGE in path.parents and path != _BUILTIN_HANDLERS
    return ours or any(part in filename for part in _FRAMEWORKS)


def type_name(value: object) -> str:
    """Qualified name of the value's type. Builtins are named without their module."""
    return _class_name(type(value))


def class_names(error: BaseException) -> tuple[str, ...]:
    """Qualified names of the error's class and its bases, most specific first, without `object`."""
    return tuple(_class_name(kind)[:MAX_TYPE_CHARS] for kind in type(error).__mro__[:-1][:MAX_CLASSES])


def _class_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def message_of(error: BaseException) -> str:
    """The error's message, even if it cannot be printed."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error that cannot even be printed is still an error
        return "(the error has no printable message)"


def printable(text: str) -> str:
    """The text with lone surrogates escaped. They have no UTF-8 form and would break the report."""
    return text.encode("utf-8", "backslashreplace").decode()
