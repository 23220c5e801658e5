from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest
from celery import Celery

from taskflow_core.domain.chunks import MAX_END_BYTES, Chunk, ChunkEnd, Source
from taskflow_core.domain.events import Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_worker.attempts import chunk as chunks
from taskflow_worker.attempts.chunk import run_chunk
from taskflow_worker.attempts.items import ItemReader
from taskflow_worker.handlers.celery_tasks import register
from taskflow_worker.sdk.context import Context
from taskflow_worker.sdk.failures import NonRetryable, Stopped
from taskflow_worker.sdk.registry import Registry
from taskflow_worker.sdk.stop import FixedStop, Stop
from tests.builders import UID, make_message
from tests.objects import Objects


@dataclass
class StopAfter(FixedStop):
    """Requests a stop after this many checks."""

    after: int = 0
    reason: Reason = Reason.CANCELLED
    restarts: list[float] = field(default_factory=list)

    def requested(self) -> Reason | None:
        self.after -= 1
        return self.reason if self.after < 0 else None

    def restart_timeout(self, seconds: float) -> None:
        self.restarts.append(seconds)


def run(
    function: Any,
    items: str,
    *,
    values: Sequence[Any] | None = None,
    batch: bool = False,
    stop: Stop | None = None,
    objects: Objects | None = None,
    **message: Any,
) -> ChunkEnd | Failure:
    registry = Registry()
    registry.add("h", function, batch=batch)
    return run_in(registry, items, values=values, stop=stop, objects=objects, **message)


def run_in(
    registry: Registry,
    items: str,
    *,
    values: Sequence[Any] | None = None,
    stop: Stop | None = None,
    objects: Objects | None = None,
    handler: str = "h",
    **message: Any,
) -> ChunkEnd | Failure:
    part = Chunk(first=RangeSet.parse(items).first, items=items, values=None if values is None else tuple(values))
    sent = make_message(handler=handler, chunk=part, **message)
    ended = run_chunk(sent, part, registry, objects or Objects(), ItemReader(), patience=0, stop=stop or FixedStop())
    assert isinstance(ended, ChunkEnd | Failure)
    return ended


def ran(ended: ChunkEnd | Failure) -> ChunkEnd:
    assert isinstance(ended, ChunkEnd), ended
    return ended


def test_each_item_is_given_after_the_positional_arguments_as_map_would() -> None:
    got: list[Any] = []

    def handle(prefix: str, item: int, *, factor: int) -> None:
        got.append((prefix, item, factor))

    ended = ran(run(handle, "3-5,9", args=["p"], kwargs={"factor": 2}))
    assert got == [("p", 3, 2), ("p", 4, 2), ("p", 5, 2), ("p", 9, 2)]
    assert (ended.ok, ended.results, ended.errors, ended.rest, ended.ran) == ("3-5,9", (), (), "", 4)


def test_items_come_from_the_message_and_the_context_names_them() -> None:
    got: list[Any] = []

    def handle(item: str, context: Context) -> None:
        got.append((item, context.item, context.index, context.attempt, context.uid))

    ran(run(handle, "7,9", values=["a", "b"], attempt=2))
    assert got == [("a", "a", 7, 2, UID), ("b", "b", 9, 2, UID)]


def test_a_handler_may_take_its_item_among_any_others() -> None:
    got: list[Any] = []

    def handle(*values: Any) -> None:
        got.append(values)

    ran(run(handle, "1-2", args=["a", "b"]))
    assert got == [("a", "b", 1), ("a", "b", 2)]


def test_an_item_is_converted_to_the_hinted_type_and_an_invalid_item_fails_alone() -> None:
    got: list[Any] = []

    def handle(day: date) -> None:
        got.append(day)

    ended = ran(run(handle, "0-2", values=["2026-01-02", "no day", "2026-03-04"]))
    assert got == [date(2026, 1, 2), date(2026, 3, 4)]
    (error,) = ended.errors
    assert (error.index, error.reason, ended.ok) == (1, Reason.INVALID_ARGUMENTS, "0,2")
    assert "day" in error.message


def test_results_and_errors_are_reported_by_index() -> None:
    def handle(item: int) -> Any:
        if item == 2:
            raise NonRetryable("never")
        if item == 3:
            raise ValueError("x" * 5000)
        return {"square": item * item} if item == 1 else None

    ended = ran(run(handle, "0-4"))
    assert (ended.ok, ended.results) == ("0,4", ((1, {"square": 1}),))
    assert [(each.index, each.reason, each.type, len(each.message)) for each in ended.errors] == [
        (2, Reason.NOT_RETRYABLE, "taskflow_worker.sdk.failures.NonRetryable", 5),
        (3, Reason.HANDLER_ERROR, "ValueError", 512),
    ]


def test_a_large_result_is_stored_as_an_object() -> None:
    objects = Objects()
    ended = ran(run(lambda item: "x" * 2000, "5", objects=objects))
    key = f"team-a/{UID}/1/chunks/5/5.json"
    assert ended.results == ((5, {"artifact": key}),)
    assert objects.content[key] == b'"' + b"x" * 2000 + b'"'


def test_a_result_without_a_json_form_fails_its_item() -> None:
    ended = ran(run(lambda item: object() if item else 1, "0-1"))
    assert [(each.index, each.reason) for each in ended.errors] == [(1, Reason.RESULT_NOT_SERIALISABLE)]


def test_the_outcome_of_a_chunk_is_bounded_and_the_rest_of_its_items_is_left() -> None:
    ended = ran(run(lambda item: "x" * 1000, "0-9999"))
    assert ended.ran < 200
    assert ended.rest == f"{ended.ran}-9999"
    assert len(ended.model_dump_json()) < MAX_END_BYTES * 1.5

    def fail(item: int) -> None:
        raise ValueError("x" * 500)

    ended = ran(run(fail, "0-9999"))
    assert ended.ran == len(ended.errors) < 200


def test_a_chunk_starts_no_item_after_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LONGEST_SECONDS", 0.05)
    monkeypatch.setattr(chunks, "_STOP_CHECK_SECONDS", 0.0)
    ended = ran(run(lambda item: time.sleep(0.02), "0-99"))
    assert 1 <= ended.ran < 10
    assert ended.ok == str(RangeSet([(0, ended.ran - 1)]))
    assert ended.rest == f"{ended.ran}-99"


def test_a_stop_request_leaves_the_items_that_have_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_STOP_CHECK_SECONDS", 0.0)
    ended = ran(run(lambda item: None, "0-99", stop=StopAfter(after=10)))
    assert (ended.ok, ended.rest) == ("0-9", "10-99")


def test_an_item_that_was_interrupted_has_not_failed() -> None:
    def handle(item: int, context: Context) -> None:
        if item == 3:
            context.check()

    ended = ran(run(handle, "0-9", stop=StopAfter(after=1)))
    assert (ended.ok, ended.errors, ended.rest, ended.ran) == ("0-2", (), "3-9", 3)


def test_an_item_that_times_out_fails_and_ends_its_chunk() -> None:
    stop = StopAfter(after=1000, reason=Reason.ATTEMPT_TIMEOUT)

    def handle(item: int) -> None:
        if item == 2:
            time.sleep(0.95)
            stop.after = 0
            raise Stopped("time is over")

    ended = ran(run(handle, "0-9", stop=stop, attempt_timeout_seconds=1))
    assert [(each.index, each.reason) for each in ended.errors] == [(2, Reason.ATTEMPT_TIMEOUT)]
    assert (ended.ok, ended.rest) == ("0-1", "3-9")
    assert stop.restarts == [1, 1, 1]


def test_a_timeout_meant_for_the_item_before_fails_no_item() -> None:
    stop = StopAfter(after=1000, reason=Reason.ATTEMPT_TIMEOUT)

    def handle(item: int) -> None:
        if item == 2:
            stop.after = 0
            raise Stopped("too late")

    ended = ran(run(handle, "0-9", stop=stop, attempt_timeout_seconds=60))
    assert (ended.ok, ended.errors, ended.rest) == ("0-1", (), "2-9")


def test_a_batch_is_called_once_with_all_items() -> None:
    got: list[Any] = []

    def handle(items: list[int], context: Context) -> list[Any]:
        got.append((items, context.index, context.item))
        return [item * 2 if item % 2 else None for item in items]

    ended = ran(run(handle, "3-6", batch=True))
    assert got == [([3, 4, 5, 6], None, [3, 4, 5, 6])]
    assert (ended.ok, ended.results) == ("4,6", ((3, 6), (5, 10)))


@pytest.mark.parametrize("returned", [[1], "abcd", 5])
def test_a_batch_that_returns_something_else_fails(returned: Any) -> None:
    ended = run(lambda items: returned, "0-3", batch=True)
    assert isinstance(ended, Failure)
    assert "a list of as many results" in ended.message


def test_a_batch_that_raises_fails_as_a_whole() -> None:
    def handle(items: list[int]) -> None:
        raise ValueError("one of them")

    ended = run(handle, "0-3", batch=True)
    assert isinstance(ended, Failure)
    assert (ended.reason, ended.type) == (Reason.HANDLER_ERROR, "ValueError")


def test_an_unknown_handler_fails_the_chunk() -> None:
    ended = run_in(Registry(), "0-3", handler="nobody")
    assert isinstance(ended, Failure)
    assert ended.reason is Reason.UNKNOWN_HANDLER


def test_async_handlers_run_for_each_item() -> None:
    got: list[int] = []

    async def handle(item: int) -> int:
        await asyncio.sleep(0)
        got.append(item)
        return item

    assert ran(run(handle, "0-2")).results == ((0, 0), (1, 1), (2, 2))
    assert got == [0, 1, 2]


def test_a_task_of_a_celery_application_takes_items_too() -> None:
    app = Celery("apart", set_as_current=False)

    @app.task(name="shop.resize")  # type: ignore[untyped-decorator]
    def resize(width: int, url: str) -> str:
        return f"{url}@{width}"

    registry = Registry()
    register([resize], registry)
    ended = ran(run_in(registry, "4-5", values=["a", "b"], handler="shop.resize", args=[100]))
    assert ended.results == ((4, "a@100"), (5, "b@100"))


def test_unreadable_items_of_an_object_fail_alone() -> None:
    objects = Objects()
    objects.content["team-a/in"] = b'1\nno json\n{"a": 2}\n'
    registry = Registry()
    registry.add("h", lambda item: item)
    source = Source.model_validate({"key": "team-a/in", "format": "JSONLines"})
    message = make_message(handler="h", chunk={"first": -1, "items": "", "source": source})
    assert message.chunk is not None
    reader = ItemReader()
    counted = run_chunk(message, message.chunk, registry, objects, reader, patience=0, stop=FixedStop())
    assert counted.model_dump()["total"] == 3
    part = Chunk(first=0, items="0-2", source=counted.model_dump()["source"])
    ended = run_chunk(message, part, registry, objects, reader, patience=0, stop=FixedStop())
    assert isinstance(ended, ChunkEnd)
    assert ended.results == ((0, 1), (2, {"a": 2}))
    assert [(each.index, each.reason) for each in ended.errors] == [(1, Reason.ITEMS_INVALID)]


def test_the_classes_of_each_type_of_error_are_told_once() -> None:
    def handle(item: int) -> None:
        raise ConnectionRefusedError("no") if item % 2 else ValueError("no")

    ended = ran(run(handle, "0-9"))
    assert set(ended.classes) == {"ConnectionRefusedError", "ValueError"}
    assert "OSError" in ended.classes["ConnectionRefusedError"]
    assert ended.failure(ended.errors[1]).classes == ended.classes["ConnectionRefusedError"]
