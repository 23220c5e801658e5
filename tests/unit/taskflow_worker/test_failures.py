from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskflow_core.domain.events import MAX_CLASSES, Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.retries import GiveUp, Retry, after_failure
from taskflow_core.domain.task import MAX_TRACE_CHARS, RetryPolicy
from taskflow_worker.sdk import NonRetryable, Stopped
from taskflow_worker.sdk.failures import failure_of, handlers_trace, trimmed_trace
from taskflow_worker.sdk.testing import run


class Gone(NonRetryable):
    """A user's subclass."""


def raised(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301
    except BaseException as caught:  # noqa: BLE001 - to give it a traceback
        return caught


@pytest.mark.parametrize("error", [NonRetryable("x"), Gone("x")])
def test_a_non_retryable_error_is_final(error: Exception) -> None:
    found = failure_of(raised(error), None, Stopped).failure
    assert (found.reason, found.message) == (Reason.NOT_RETRYABLE, "x")


@pytest.mark.parametrize("reason", [Reason.CANCELLED, Reason.DEADLINE_EXCEEDED, Reason.ATTEMPT_TIMEOUT])
@pytest.mark.parametrize("error", [Stopped(), asyncio.CancelledError(), TimeoutError()])
def test_a_handler_that_stops_on_request_fails_for_the_reason_of_the_request(
    error: BaseException, reason: Reason
) -> None:
    assert failure_of(raised(error), reason, TimeoutError).failure.reason is reason


@pytest.mark.parametrize("error", [Stopped("by myself"), asyncio.CancelledError()])
def test_a_handler_that_stops_without_a_request_has_failed(error: BaseException) -> None:
    assert failure_of(raised(error), None, Stopped).failure.reason is Reason.HANDLER_ERROR


def test_an_error_while_stopping_is_still_an_error() -> None:
    found = failure_of(raised(ValueError("x")), Reason.CANCELLED, Stopped).failure
    assert (found.reason, found.type) == (Reason.HANDLER_ERROR, "ValueError")


def test_the_trace_shows_the_handlers_frames_and_its_causes_alone() -> None:
    def inner() -> None:
        raise KeyError("k")

    def handler() -> None:
        try:
            inner()
        except KeyError as error:
            raise ValueError("no rows") from error

    failure = run(handler).failure
    assert failure is not None
    assert "in inner" in failure.trace
    assert "in handler" in failure.trace
    assert "The above exception was the direct cause" in failure.trace
    assert failure.trace.endswith("ValueError: no rows")
    for ours in ("execution.py", "registry.py", "binding.py", "testing.py"):
        assert ours not in failure.trace


def test_the_trace_of_a_coroutine_has_no_event_loop() -> None:
    async def handler() -> None:
        await asyncio.sleep(0)
        raise ValueError("no rows")

    failure = run(handler).failure
    assert failure is not None
    assert "in handler" in failure.trace
    assert "/asyncio/" not in failure.trace


def test_a_long_trace_keeps_its_end_in_whole_lines() -> None:
    def handler(text: Any = None) -> None:
        raise RuntimeError("\n".join(f"line {index}" for index in range(1000)))

    failure = run(handler).failure
    assert failure is not None
    assert len(failure.trace) <= MAX_TRACE_CHARS
    assert failure.trace.startswith("...\nline ")
    assert failure.trace.endswith("line 999")
    assert len(handlers_trace(raised(RuntimeError("x" * 9000)))) > 9000


def test_a_trace_has_a_utf8_form() -> None:
    assert "\\ud800" in trimmed_trace(raised(ValueError("bad \ud800")))
    trimmed_trace(raised(ValueError("\U0001f40d" * 5000))).encode()


def test_an_error_without_frames_of_the_handler_has_no_trace() -> None:
    assert trimmed_trace(ValueError("never raised")) == ""


def test_an_error_that_cannot_be_printed_is_still_reported() -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError

    found = failure_of(raised(Mute()), None, Stopped).failure
    assert found.message == "(the error has no printable message)"


class RefusedError(ConnectionRefusedError):
    """As a library derives its own."""


@pytest.mark.parametrize(
    ("names", "matches"),
    [
        (["ConnectionRefusedError"], True),
        (["ConnectionError"], True),
        (["OSError"], True),
        (["builtins.OSError"], True),
        (["IOError"], True),
        (["EnvironmentError"], True),
        (["Exception"], True),
        (["RefusedError"], True),
        ([f"{__name__}.RefusedError"], True),
        (["object"], False),
        (["TimeoutError"], False),
        (["Error"], False),
        (["ConnectionResetError"], False),
        (["ValueError", "OSError"], True),
    ],
    ids=str,
)
def test_an_error_is_retried_by_each_of_its_classes(names: list[str], matches: bool) -> None:
    error = raised(RefusedError("no"))
    failure = failure_of(error, None, Stopped).failure
    assert failure.type == f"{__name__}.RefusedError"
    only = after_failure(RetryPolicy(retry_on=tuple(names)), counted=1, failure=failure, draw=0.0)
    never = after_failure(RetryPolicy(no_retry_on=tuple(names)), counted=1, failure=failure, draw=0.0)
    both = after_failure(
        RetryPolicy(retry_on=("RefusedError",), no_retry_on=tuple(names)), counted=1, failure=failure, draw=0.0
    )
    assert (isinstance(only, Retry), isinstance(never, GiveUp), isinstance(both, GiveUp)) == (matches,) * 3


def test_the_other_names_of_a_timeout_are_known() -> None:
    failure = failure_of(raised(TimeoutError()), None, Stopped).failure
    for name in ("socket.timeout", "asyncio.TimeoutError", "concurrent.futures.TimeoutError", "OSError"):
        policy = RetryPolicy(retry_on=(name,))
        assert isinstance(after_failure(policy, counted=1, failure=failure, draw=0.0), Retry)


def test_of_very_many_classes_with_long_names_so_much_is_told_that_the_event_is_read() -> None:
    kind: type[Exception] = Exception
    for number in range(100):
        kind = type(f"E{number}{'x' * 300}", (kind,), {"__module__": "m\x1b"})
    failure = failure_of(raised(kind()), None, Stopped).failure
    assert len(failure.classes) == MAX_CLASSES
    assert failure.classes[0].startswith("m\N{REPLACEMENT CHARACTER}.E99xxx")
    assert Failure.model_validate_json(failure.model_dump_json(by_alias=True)) == failure
