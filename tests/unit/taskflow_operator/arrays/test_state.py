from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskflow_core.domain import naming
from taskflow_core.domain.event_input import broken
from taskflow_core.domain.events import Event, EventKind
from taskflow_core.domain.items import ItemHistory, ItemRow, ItemState
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.task import RetryPolicy
from taskflow_operator.arrays.chunks import InFlightChunk
from taskflow_operator.arrays.state import MAX_WAITING, ArrayState
from tests.builders import NOW, UID

POLICY = RetryPolicy(max_attempts=3, backoff_seconds=5, jitter_percent=0)
SOON, LATER = NOW + timedelta(seconds=1), NOW + timedelta(hours=1)


def make(
    count: int = 100, *, past: ItemHistory | None = None, notes: dict[str, str] | None = None, **policy: Any
) -> ArrayState:
    chosen = POLICY.model_copy(update=policy)
    return ArrayState(chosen, RangeSet([(0, count - 1)]), past or ItemHistory(), notes or {})


def ended(chunk: InFlightChunk, **payload: Any) -> Event:
    return event(chunk, EventKind.SUCCEEDED, **{"ran": len(chunk.items), "runMs": 250, **payload})


def event(chunk: InFlightChunk, kind: EventKind, **payload: Any) -> Event:
    return Event(id="1-1", kind=kind, uid=UID, attempt=chunk.attempt, chunk=chunk.first, payload=payload)


def lost(chunk: InFlightChunk, reason: Reason = Reason.WORKER_LOST, kind: EventKind = EventKind.LOST) -> Event:
    return event(chunk, kind, reason=reason.value)


def error(index: int, reason: Reason = Reason.HANDLER_ERROR) -> dict[str, Any]:
    return {"index": index, "reason": reason.value, "type": "ValueError", "message": "no"}


def one(run: ArrayState, now: datetime = NOW) -> InFlightChunk:
    (chunk,) = run.hand_out(now, 1)
    return chunk


def whole(run: ArrayState) -> InFlightChunk:
    """Everything in one chunk."""
    run.sizer = run.sizer.after(1000, 0.01, cut=False)
    return one(run)


@pytest.mark.parametrize(
    "payload",
    [
        {"ok": "x"},
        {"ok": "3-1"},
        {"ok": "0-4", "results": [[4, 1]]},
        {"results": [[5, 1], [5, 2]]},
        {"errors": [error(6), error(6)]},
        {"ok": "7", "errors": [error(7)]},
        {"results": [[8, 1]], "errors": [error(8)]},
        {"ok": 5},
    ],
    ids=str,
)
def test_an_end_that_contradicts_itself_changes_nothing_and_as_a_failure_repeats_every_item(
    payload: dict[str, Any],
) -> None:
    run = make(10)
    chunk = whole(run)
    end = ended(chunk, **payload)
    with pytest.raises(ValueError, match=r"twice|expected (indices|a range)|validation error"):
        run.end(end, NOW, 0.0)
    assert list(run.in_flight) == [chunk.id]
    run.end(broken(end, "no"), NOW, 0.0)
    assert (run.in_flight, run.succeeded, run.over) == ({}, 0, False)
    assert [str(each.items) for each in run.waiting] == ["0-9"]


def test_items_go_out_once_in_order_and_no_more_chunks_than_allowed() -> None:
    run = make(100)
    first = run.hand_out(NOW, 3)
    assert [str(chunk.items) for chunk in first] == ["0", "1", "2"]
    assert run.hand_out(NOW, 3) == []
    run.end(ended(first[0], ok="0"), NOW, 0.0)
    (next_one,) = run.hand_out(NOW, 3)
    assert (next_one.first, run.succeeded) == (3, 1)


def test_what_succeeded_without_a_result_is_one_row_and_what_has_one_is_a_row_of_its_own() -> None:
    run = make(10)
    chunk = whole(run)
    outcome = run.end(ended(chunk, ok="0-3,5-9", results=[[4, {"a": 1}]]), NOW, 0.0)
    assert outcome.rows == [
        ItemRow(0, 3, ItemState.SUCCEEDED, 1),
        ItemRow(5, 9, ItemState.SUCCEEDED, 1),
        ItemRow(4, 4, ItemState.SUCCEEDED, 1, result={"a": 1}),
    ]
    assert (run.succeeded, run.failed, run.retried, run.over) == (10, 0, 0, True)


def test_failed_items_wait_for_their_backoff_and_come_back_without_the_others() -> None:
    run = make(10)
    outcome = run.end(ended(whole(run), ok="0-1,4-9", errors=[error(2), error(3)]), NOW, 0.0)
    assert [row.first for row in outcome.rows] == [0, 4]
    assert run.hand_out(NOW + timedelta(seconds=4), 5) == []
    again = one(run, NOW + timedelta(seconds=7))
    assert (again.attempt, again.handbacks, str(again.items)) == (2, 0, "2-3")
    run.end(ended(again, ok="2", errors=[error(3)]), NOW, 0.0)
    last = one(run, LATER)
    assert (last.attempt, str(last.items)) == (3, "3")
    outcome = run.end(ended(last, errors=[error(3)]), NOW, 0.0)
    assert outcome.rows == [
        ItemRow(3, 3, ItemState.FAILED, 3, reason=Reason.HANDLER_ERROR, error_type="ValueError", message="no")
    ]
    assert (run.succeeded, run.failed, run.retried, run.over) == (9, 1, 2, True)


def test_a_final_error_gets_no_other_attempt() -> None:
    run = make(2)
    run.end(ended(whole(run), ok="0", errors=[error(1, Reason.NOT_RETRYABLE)]), NOW, 0.0)
    assert (run.failed, run.over) == (1, True)


def test_what_was_not_begun_is_handed_out_anew_at_no_cost() -> None:
    run = make(10, max_attempts=1)
    run.end(ended(whole(run), ok="0-3", rest="4-9", ran=4), NOW, 0.0)
    rest = one(run)
    assert (rest.attempt, rest.handbacks, rest.first) == (2, 1, 4)
    assert run.sizer.size <= 4
    run.end(lost(rest, Reason.DRAIN, EventKind.RELEASED), NOW, 0.0)
    assert ({each.handbacks for each in run.waiting}, run.failed) == ({1, 2}, 0)


def test_a_lost_chunk_costs_its_items_an_attempt_and_comes_back_in_small_pieces() -> None:
    run = make(100)
    run.end(lost(whole(run)), NOW, 0.0)
    pieces = run.hand_out(LATER, 50)
    assert {len(piece.items) for piece in pieces} == {10}
    assert all((piece.attempt, piece.handbacks) == (2, 0) for piece in pieces)
    run.end(lost(pieces[0]), LATER, 0.0)
    for piece in pieces[1:]:
        run.end(ended(piece, ok=str(piece.items)), LATER, 0.0)
    alone = run.hand_out(LATER + timedelta(hours=1), 50)
    assert [len(piece.items) for piece in alone] == [1] * 10
    run.end(lost(alone[0]), LATER, 0.0)
    assert (run.failed, run.succeeded) == (1, 90)


def test_with_one_attempt_a_lost_chunk_is_lost() -> None:
    run = make(5, max_attempts=1)
    outcome = run.end(lost(whole(run)), NOW, 0.0)
    assert outcome.rows == [ItemRow(0, 4, ItemState.FAILED, 1, reason=Reason.WORKER_LOST)]
    assert (run.failed, run.over, outcome.fatal) == (5, True, None)


def test_an_unknown_handler_says_that_nothing_can_be_run() -> None:
    run = make(5)
    outcome = run.end(lost(one(run), Reason.UNKNOWN_HANDLER, EventKind.FAILED), NOW, 0.0)
    assert outcome.fatal is not None
    assert outcome.fatal.reason is Reason.UNKNOWN_HANDLER


def test_a_chunk_that_was_told_to_stop_has_not_failed() -> None:
    run = make(5)
    assert run.end(lost(one(run), Reason.CANCELLED, EventKind.CANCELLED), NOW, 0.0).rows == []
    assert run.ended == 0


def test_an_end_that_comes_twice_changes_nothing() -> None:
    run = make(3)
    chunk = whole(run)
    told = ended(chunk, ok="0-1", errors=[error(2, Reason.NOT_RETRYABLE)])
    run.end(told, NOW, 0.0)
    assert run.end(told, NOW, 0.0).rows == []
    assert (run.succeeded, run.failed) == (2, 1)


def test_after_lost_data_a_chunk_that_nobody_knows_counts_once() -> None:
    run = make(10)
    other = run.hand_out(NOW, 2)
    stranger = InFlightChunk(1, 5, 0, RangeSet.parse("0-7"))
    outcome = run.end(ended(stranger, ok="0-7"), NOW, 0.0)
    assert [(row.first, row.last) for row in outcome.rows] == [(0, 7)]
    assert [len(chunk.items) for chunk in other] == [0, 0]
    assert run.end(ended(other[0], ok="0"), NOW, 0.0).rows == []
    assert (run.succeeded, str(run.fresh)) == (8, "8-9")


def test_while_very_much_waits_nothing_fresh_goes_out() -> None:
    run = make(10_000)
    chunk = whole(run)
    odd = [error(index) for index in range(1, 2 * MAX_WAITING + 4, 2)]
    run.end(ended(chunk, ok=str(chunk.items - RangeSet.of(each["index"] for each in odd)), errors=odd), NOW, 0.0)
    run.fresh = RangeSet.parse("9000-9999")
    assert run.hand_out(NOW, 5) == []
    assert run.hand_out(LATER, 5) != []


def test_failed_indices_are_kept_up_to_a_bound() -> None:
    run = make(100_000, max_attempts=1)
    chunk = whole(run)
    every_other = [error(index) for index in range(0, 2000, 2)]
    run.end(ended(chunk, ok="", errors=every_other), NOW, 0.0)
    assert run.failed == 1000
    assert run.failed_shown.ranges == 200


@pytest.mark.parametrize("died", ["before settling", "after settling"])
def test_an_operator_that_starts_knows_where_each_item_is(died: str) -> None:
    run = make(10)
    in_flight = run.hand_out(NOW, 3)
    notes = {naming.place(*chunk.id): chunk.note for chunk in in_flight}
    outcome = run.end(ended(in_flight[0], errors=[error(0)]), NOW, 0.0)
    run.end(ended(in_flight[1], ok="1"), NOW, 0.0)
    notes["waiting"] = run.waiting_note
    if died == "after settling":
        del notes["1:0"], notes["1:1"]
    new = make(10, past=ItemHistory(RangeSet.parse("1"), succeeded=1), notes=notes)
    assert outcome.rows == []
    assert [(each.attempt, str(each.items)) for each in new.waiting] == [(2, "0")]
    assert str(new.fresh) == "3-9"
    assert str(new.in_flight[1, 2].items) == "2"
    if died == "before settling":
        # Its events come again, and change nothing.
        assert new.end(ended(in_flight[0], errors=[error(0)]), NOW, 0.0).rows == []
        assert new.end(ended(in_flight[1], ok="1"), NOW, 0.0).rows == []
        assert [(each.attempt, str(each.items)) for each in new.waiting] == [(2, "0")]
    assert (new.succeeded, new.ended) == (1, 1)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_happens_each_item_ends_once_and_runs_once_an_attempt(data: st.DataObject) -> None:
    count, attempts = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 3))
    run = make(count, max_attempts=attempts)
    rows: list[ItemRow] = []
    executed: Counter[tuple[int, int]] = Counter()
    now = NOW
    for _ in range(400):
        if run.over:
            break
        now += timedelta(minutes=20)
        run.hand_out(now, data.draw(st.integers(1, 4)))
        if data.draw(st.integers(0, 9)) == 0:
            run = _restarted(run, rows, count, attempts)
        chunk = data.draw(st.sampled_from(list(run.in_flight.values())))
        rows += run.end(_end(data, chunk, executed), now, 0.5).rows
    assert run.over
    assert sorted(index for row in rows for index in range(row.first, row.last + 1)) == list(range(count))
    assert max(executed.values(), default=1) == 1
    assert run.succeeded + run.failed == count


def _end(data: st.DataObject, chunk: InFlightChunk, executed: Counter[tuple[int, int]]) -> Event:
    kind = data.draw(st.sampled_from(["ran", "ran", "ran", "lost", "released"]))
    if kind != "ran":
        if kind == "lost":
            executed.update((index, chunk.attempt) for index in chunk.items)
            return lost(chunk)
        return lost(chunk, Reason.DRAIN, EventKind.RELEASED)
    items = list(chunk.items)
    ran = data.draw(st.integers(1, max(len(items), 1)))
    executed.update((index, chunk.attempt) for index in items[:ran])
    bad = [index for index in items[:ran] if data.draw(st.booleans())]
    valued = [[index, index] for index in items[:ran] if index not in bad and data.draw(st.booleans())]
    apart = {*bad, *(index for index, _ in valued)}
    return ended(
        chunk,
        ok=str(RangeSet.of(index for index in items[:ran] if index not in apart)),
        results=valued,
        errors=[error(index) for index in bad],
        rest=str(RangeSet.of(items[ran:])),
        ran=ran,
    )


def _restarted(run: ArrayState, rows: list[ItemRow], count: int, attempts: int) -> ArrayState:
    done = RangeSet((row.first, row.last) for row in rows)
    failed = RangeSet((row.first, row.last) for row in rows if row.state is ItemState.FAILED)
    notes = {naming.place(*chunk.id): chunk.note for chunk in run.in_flight.values()}
    past = ItemHistory(done, len(done) - len(failed), len(failed), 0, failed)
    new = make(count, max_attempts=attempts, past=past, notes={**notes, "waiting": run.waiting_note})
    new.sizer = run.sizer
    return new


def test_ends_of_chunks_that_nobody_remembers_cannot_break_what_is_fresh_into_very_many_pieces() -> None:
    run = make(10 * MAX_WAITING)
    forgotten = InFlightChunk(7, 0, 0, RangeSet())

    def said(start: int, pieces: int) -> int:
        before = run.succeeded
        ok = ",".join(str(start + 2 * number) for number in range(pieces))
        assert run.end(ended(forgotten, ok=ok), NOW, 0.5).settle == forgotten.id
        return run.succeeded - before

    assert said(0, MAX_WAITING + 1) == 0
    assert said(0, MAX_WAITING // 2) == MAX_WAITING // 2
    assert said(MAX_WAITING, MAX_WAITING // 2) == MAX_WAITING // 2
    assert said(2 * MAX_WAITING, MAX_WAITING // 2) == 0
    assert len(run.fresh) == 9 * MAX_WAITING
    assert run.fresh.ranges <= MAX_WAITING + 1


@pytest.mark.parametrize(("policy", "failed"), [({"retry_on": ("OSError",)}, 1), ({"no_retry_on": ("OSError",)}, 1)])
def test_items_are_retried_by_the_classes_of_their_errors(policy: dict[str, Any], failed: int) -> None:
    run = make(2, **policy)
    errors = [error(0), error(1) | {"type": "ConnectionRefusedError"}]
    classes = {"ConnectionRefusedError": ["ConnectionRefusedError", "ConnectionError", "OSError", "Exception"]}
    outcome = run.end(ended(whole(run), errors=errors, classes=classes), NOW, 0.0)
    assert run.failed == failed
    assert [row.first for row in outcome.rows] == ([0] if "retry_on" in policy else [1])


def test_an_item_that_kills_its_process_takes_three_of_them_and_no_other_item_with_it() -> None:
    run, rows, now, deaths = make(100, max_attempts=50), [], NOW, 0
    run.sizer = run.sizer.after(1000, 0.01, cut=False)
    while not run.over:
        now += timedelta(hours=1)
        for handed in run.hand_out(now, 4):
            # An operator that starts anew knows as much.
            notes = {naming.place(*handed.id): handed.note}
            chunk = ArrayState(POLICY, RangeSet([(0, 99)]), ItemHistory(), notes).in_flight[handed.id]
            run.in_flight[chunk.id] = chunk
            deaths += 42 in chunk.items
            rows += run.end(lost(chunk) if 42 in chunk.items else ended(chunk, ok=str(chunk.items)), now, 0.0).rows
    (bad,) = [row for row in rows if row.state is ItemState.FAILED]
    assert (bad.first, bad.last, bad.reason, deaths) == (42, 42, Reason.POISON_TASK, 3)
    assert bad.message.startswith("3 processes in a row died while they ran it")
    assert run.succeeded == 99


def test_an_item_that_waits_after_a_death_is_noted_with_it_and_an_older_note_is_read() -> None:
    run = make(1)
    run.end(lost(one(run)), NOW, 0.0)
    again = ArrayState(POLICY, RangeSet([(0, 0)]), ItemHistory(), {"waiting": run.waiting_note})
    assert [each.deaths for each in again.waiting] == [1]
    older = ArrayState(POLICY, RangeSet([(0, 0)]), ItemHistory(), {"waiting": '[[2, 0, 1, 0, "0"]]', "1:0": '[0, "0"]'})
    assert [each.deaths for each in older.waiting] == [0]


def test_deaths_with_an_end_between_them_are_not_in_a_row() -> None:
    run, now = make(1, max_attempts=50), NOW
    for number in range(12):
        now += timedelta(hours=1)
        (chunk,) = run.hand_out(now, 1)
        run.end(ended(chunk, errors=[error(0)]) if number % 3 == 2 else lost(chunk), now, 0.0)
    assert run.failed == 0
