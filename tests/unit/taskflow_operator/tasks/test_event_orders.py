"""Whatever the stream brings, in whatever order and however often: the real group `cr` over fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core.domain.events import ENDS, Event, EventKind
from taskflow_core.domain.phases import Phase, Reason
from taskflow_operator.runtime import dependency_health, status_writer
from taskflow_operator.tasks import dispatcher
from tests.builders import NOW_MS, UID, make_event, make_task
from tests.unit.taskflow_operator.fakes import eventually
from tests.unit.taskflow_operator.parts import Parts

MANY = 3
"""Attempts that a story has."""
FAILURES = [Reason.HANDLER_ERROR, Reason.ATTEMPT_TIMEOUT, Reason.INVALID_ARGUMENTS]
REASONS = {EventKind.LOST: Reason.WORKER_LOST, EventKind.RELEASED: Reason.DRAIN, EventKind.CANCELLED: Reason.CANCELLED}


@contextmanager
def short_waits() -> Iterator[None]:
    # No fixture: Hypothesis runs many examples in one call of a test.
    with pytest.MonkeyPatch.context() as patch:
        for module in (dispatcher, dependency_health, status_writer):
            patch.setattr(module, "RETRY_SECONDS", 0.002)
        patch.setattr(status_writer, "TICK_SECONDS", 0.0005)
        yield


@st.composite
def attempts(draw: st.DrawFn, attempt: int) -> list[dict[str, Any]]:
    """What an attempt says, in its order: start, progress, at most one end, and refusals at any place."""
    said: list[dict[str, Any]] = [{"kind": EventKind.STARTED}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 3))):
        told: list[dict[str, Any]] = [{"progress": {"done": draw(st.integers(0, 9))}}, {"checkpoint": "3"}]
        advance = draw(st.sampled_from(told))
        said.append({"kind": EventKind.PROGRESS, **advance})
    end = draw(st.sampled_from([*sorted(ENDS), None]))
    if end is EventKind.SUCCEEDED:
        said.append({"kind": end, "result": draw(st.integers(0, 9))})
    elif end is EventKind.AGAIN:
        said.append({"kind": end, "seconds": draw(st.integers(0, 9)), "checkpoint": draw(st.sampled_from(["4", None]))})
    elif end is not None:
        reason = draw(st.sampled_from(FAILURES)) if end is EventKind.FAILED else REASONS[end]
        said.append({"kind": end, "reason": reason, "type": "E", "message": "no"})
    for kind in draw(st.lists(st.sampled_from([EventKind.DUPLICATE, EventKind.STALE]), max_size=2)):
        said.insert(draw(st.integers(0, len(said))), {"kind": kind})
    return [each | {"attempt": attempt} for each in said]


@st.composite
def stories(draw: st.DrawFn) -> list[Event]:
    """All events of up to three attempts, in the order of the stream."""
    said = [each for attempt in range(1, draw(st.integers(1, MANY)) + 1) for each in draw(attempts(attempt))]
    times = [NOW_MS + number * 1000 for number in range(len(said))]
    return [make_event(id=f"{ms}-0", time_ms=ms, **each) for ms, each in zip(times, said, strict=True)]


@st.composite
def disorder(draw: st.DrawFn) -> list[Event]:
    """A story in any order, with repetitions."""
    story = draw(stories())
    again = draw(st.lists(st.sampled_from(story), max_size=8)) if story else []
    return draw(st.permutations([*story, *again]))


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Event], list[list[Event]]]:
    """A story, and the batches in which a reader gets it that goes back in its backlog again and again."""
    story = draw(stories())
    batches: list[list[Event]] = []
    reached = 0
    while reached < len(story):
        start, reached = draw(st.integers(0, reached)), draw(st.integers(reached + 1, len(story)))
        batches.append(story[start:reached])
    batches += [story[place:] for place in draw(st.lists(st.integers(0, len(story)), max_size=2))]
    return story, batches


class Watched:
    """One Task in the operator's hands, looked at after every event."""

    def __init__(self, parts: Parts, *, cancel: bool) -> None:
        self.parts = parts
        policy = {"maxAttempts": MANY, "backoffSeconds": 0, "jitterPercent": 0}
        parts.add(make_task(phase=Phase.QUEUED, retryPolicy=policy, cancel=cancel))
        self._order = (1, -1)
        self._ended: Phase | None = None

    def _look(self) -> None:
        known = self.parts.tasks.get(UID)
        if known is None:
            return
        status = known.task.status
        order = status.attempt, known.sequence
        assert order >= self._order, "(attempt, sequence) went down"
        self._order = order
        assert self._ended in (None, status.phase), "a terminal phase changed"
        if status.phase is not None and status.phase.terminal:
            self._ended = status.phase

    async def take(self, events: Sequence[Event]) -> None:
        for event in events:
            await self.parts.take(event)
            self._look()
        await eventually(self._quiet)

    def _quiet(self) -> bool:
        self._look()
        return not self.parts.resources._closing and not self.parts.resources._orphaned

    def end(self) -> dict[str, Any]:
        """The status at last: in memory, or as it was written when the Task was closed."""
        ended, attempt = False, 0
        for _, status in self.parts.api.written:
            assert not ended, "something was written after the end"
            assert status["attempt"] >= attempt
            attempt, ended = status["attempt"], Phase(status["phase"]).terminal
        known = self.parts.tasks.get(UID)
        assert (known is None) is ended
        return self.parts.api.written[-1][1] if known is None else known.task.status.to_object()


async def after(batches: Sequence[Sequence[Event]], *, cancel: bool = False) -> dict[str, Any]:
    with short_waits():
        parts = Parts()
        # The dispatcher does not run: what the events make of the Task is looked at, and nothing else.
        loop = asyncio.create_task(parts.writer.run())
        try:
            watched = Watched(parts, cancel=cancel)
            for batch in batches:
                await watched.take(batch)
            done = set(await parts.done())
            assert done == {event.id for batch in batches for event in batch}, "all is acknowledged"
            return watched.end()
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await parts.writer.drain(1)
            parts.queue.close()


@given(events=disorder(), cancel=st.booleans())
def test_in_any_order_a_terminal_phase_never_changes_and_nothing_goes_back(events: list[Event], cancel: bool) -> None:
    asyncio.run(after([events], cancel=cancel))


@given(delivered=deliveries(), cancel=st.booleans())
def test_however_often_the_backlog_is_read_again_the_status_is_the_same(
    delivered: tuple[list[Event], list[list[Event]]], cancel: bool
) -> None:
    story, batches = delivered
    # One by one: a refusal that comes while an end is being written may or may not be counted in it.
    once = asyncio.run(after([[each] for each in story], cancel=cancel))
    assert asyncio.run(after([[each] for batch in batches for each in batch], cancel=cancel)) == once


@given(data=st.data(), story=stories())
def test_each_event_may_come_many_times_in_its_place(data: st.DataObject, story: list[Event]) -> None:
    repeated = [[event] * data.draw(st.integers(1, 3)) for event in story]
    assert asyncio.run(after(repeated)) == asyncio.run(after([[each] for each in story]))
