"""`raise Again`: from every kind of handler, and what is refused."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from taskflow_core.domain.chunks import ChunkEnd
from taskflow_core.domain.events import Continuation, EventKind, Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_AGAIN_SECONDS, MAX_CHECKPOINT_BYTES
from taskflow_worker.process.stop_rules import kind_of
from taskflow_worker.sdk import Again, Context
from taskflow_worker.sdk.testing import run
from tests.unit.taskflow_worker import test_celery_tasks as celery_tasks
from tests.unit.taskflow_worker import test_chunk as chunks
from tests.unit.taskflow_worker import test_execution as execution


def asks(context: Context) -> str:
    if context.last_checkpoint == 3:
        return "done"
    raise Again("the export is not ready", seconds=1.2, checkpoint=(context.last_checkpoint or 0) + 1)


def test_a_handler_says_when_it_wants_to_be_run_again_and_with_what() -> None:
    outcome = run(asks)
    assert (outcome.succeeded, outcome.failure, outcome.result, outcome.checkpoint) == (False, None, None, 1)
    asked = outcome.again
    assert asked is not None
    assert (asked.seconds, asked.checkpoint, asked.message) == (2, "1", "the export is not ready")
    last = run(asks, attempt=4, checkpoint=3)
    assert (last.succeeded, last.result, last.again) == (True, "done", None)


def test_it_is_an_end_of_its_own() -> None:
    ended = execution.attempt(asks)
    assert isinstance(ended, Continuation)
    assert kind_of(ended) is EventKind.AGAIN


def test_without_a_checkpoint_the_one_saved_before_is_kept() -> None:
    def saves(context: Context) -> None:
        context.checkpoint({"row": 7})
        raise Again(seconds=timedelta(minutes=1))

    outcome = run(saves)
    assert outcome.again is not None
    assert (outcome.again.seconds, outcome.again.checkpoint, outcome.checkpoint) == (60, None, {"row": 7})


def test_a_coroutine_and_what_it_awaits_may_raise_it() -> None:
    async def poll() -> None:
        await asyncio.sleep(0)
        raise Again(seconds=5)

    async def waits() -> None:
        try:
            await asyncio.wait_for(poll(), timeout=5)
        except Exception as error:
            raise AssertionError("an `except Exception` swallowed it") from error

    outcome = run(waits)
    assert outcome.again is not None
    assert outcome.again.seconds == 5


def test_declared_outputs_need_not_exist_yet() -> None:
    assert run(asks, outputs=["report"]).again is not None


def test_a_celery_task_may_raise_it_and_its_retries_are_counted_without() -> None:
    app = Celery("people", broker="amqp://broker.invalid//", set_as_current=False)

    @app.task(shared=False, name="polls", bind=True, autoretry_for=(Exception,), max_retries=1)
    def polls(self: Any) -> None:
        assert self.request.retries == 0
        raise Again("no answer yet", seconds=30)

    ended = celery_tasks.attempt(polls, attempt=9, handbacks=8)
    assert isinstance(ended, Continuation)
    assert (ended.seconds, ended.message) == (30, "no answer yet")

    flaky = celery_tasks.flaky(app)
    assert celery_tasks.failure(flaky, attempt=9, handbacks=6).reason is Reason.HANDLER_ERROR
    assert celery_tasks.failure(flaky, attempt=9, handbacks=5).reason is Reason.NOT_RETRYABLE


def test_an_item_of_an_array_that_raises_it_fails_and_says_why() -> None:
    def handle(item: int) -> None:
        if item == 2:
            raise Again(seconds=1)

    ended = chunks.run(handle, "1-3")
    assert isinstance(ended, ChunkEnd)
    (error,) = ended.errors
    assert (ended.ok, error.index, error.reason) == ("1,3", 2, Reason.AGAIN_IN_ARRAY)
    assert error.reason.final
    assert error.message.startswith("the handler raised Again for an item of an array; items share an attempt")


def test_a_batch_that_raises_it_fails_as_a_whole() -> None:
    def handle(items: list[int]) -> None:
        raise Again(seconds=1)

    ended = chunks.run(handle, "1-3", batch=True)
    assert isinstance(ended, Failure)
    assert ended.reason is Reason.AGAIN_IN_ARRAY


def test_who_was_told_to_stop_may_still_ask_for_it() -> None:
    # The operator knows whether the Task is cancelled, and ends it then.
    outcome = run(asks, cancelled=True)
    assert outcome.again is not None


@pytest.mark.parametrize("seconds", [-1, -0.001, MAX_AGAIN_SECONDS + 1, math.nan, math.inf, "60", None, True])
def test_a_wait_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match=r"seconds: expected a number from 0 to 31622400 \(366 days\), found"):
        Again(seconds=seconds)


@pytest.mark.parametrize(
    ("checkpoint", "problem"),
    [("x" * MAX_CHECKPOINT_BYTES, "the checkpoint is 4098 bytes of JSON"), (object(), "has no JSON form")],
)
def test_a_checkpoint_that_cannot_be_kept_is_refused_where_it_is_raised(checkpoint: Any, problem: str) -> None:
    def saves() -> None:
        raise Again(seconds=1, checkpoint=checkpoint)

    outcome = run(saves)
    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.failure.type) == (Reason.HANDLER_ERROR, "ValueError")
    assert problem in outcome.failure.message


def test_a_long_message_is_cut() -> None:
    assert len(Again("x" * 5000, seconds=0).continuation.message) == 1024
