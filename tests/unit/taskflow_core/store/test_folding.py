import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from taskflow_core.domain.events import Event, EventKind
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.store.fitting import fit_json, fit_text
from taskflow_core.store.folding import fold, mirror, stream_position
from tests.unit.taskflow_core.store.builders import BASE_MS, UID, event, order, snapshot, story

OTHER = "f2c9f6d0-77d5-4a27-9a1b-3a4c6f0d1b02"
STORY = [*story(lost=2), *story(OTHER, first=50, lost=0)]


@given(st.permutations(STORY), st.lists(st.sampled_from(STORY), max_size=20))
def test_the_fold_depends_neither_on_the_order_of_events_nor_on_repeats(
    shuffled: list[Event], again: list[Event]
) -> None:
    assert fold([*shuffled, *again]) == fold(STORY)


@given(st.lists(st.sampled_from(STORY), min_size=1))
def test_of_any_part_of_a_stream_the_greatest_snapshot_of_each_task_is_kept(part: list[Event]) -> None:
    expected: dict[str, tuple[int, int]] = {}
    for one in part:
        if one.kind in (EventKind.PENDING, EventKind.QUEUED, EventKind.SETTLED, EventKind.DELETED):
            expected[one.uid] = max(expected.get(one.uid, (0, 0)), order(one))
    assert {row["uid"]: (row["attempt"], row["seq"]) for row in fold(part).tasks} == expected


def test_a_worker_event_makes_an_attempt_and_a_timeline_row_but_no_task() -> None:
    batch = fold(
        [event(EventKind.STARTED, 1, worker="w-1"), event(EventKind.FAILED, 2, reason="HandlerError", message="no")]
    )
    assert batch.tasks == ()
    (attempt,) = batch.attempts
    assert (attempt["worker"], attempt["outcome"], attempt["message"]) == ("w-1", "failed", "no")
    assert [line["kind"] for line in batch.timeline] == ["started", "failed"]


def test_a_refused_delivery_is_a_line_of_the_timeline_and_nothing_else() -> None:
    batch = fold([event(EventKind.DUPLICATE, 1), event(EventKind.STALE, 2)])
    assert (len(batch.timeline), batch.attempts, batch.tasks) == (2, (), ())


def test_an_attempt_that_is_to_be_continued_says_what_it_waits_for() -> None:
    batch = fold([event(EventKind.AGAIN, 1, seconds=60, message="not ready", runMs=9)])
    (attempt,) = batch.attempts
    assert (attempt["outcome"], attempt["reason"], attempt["message"]) == ("again", "Again", "not ready")
    assert (attempt["error_type"], attempt["run_ms"]) == (None, 9)
    (line,) = batch.timeline
    assert (line["kind"], line["reason"], line["message"]) == ("again", "Again", "not ready")


def test_of_two_ends_of_an_attempt_the_earlier_is_kept_whole() -> None:
    success = event(EventKind.SUCCEEDED, 1, runMs=9)
    lost = event(EventKind.LOST, 2, reason="WorkerLost", message="gone")
    (attempt,) = fold([lost, success]).attempts
    assert (attempt["outcome"], attempt["reason"], attempt["message"], attempt["run_ms"]) == (
        "succeeded",
        None,
        None,
        9,
    )


def test_a_retry_is_ordered_by_the_attempt_that_ended_although_it_speaks_of_the_next() -> None:
    told = story(lost=1)
    settled = next(one for one in told if one.kind is EventKind.SETTLED)
    requeued = next(one for one in told if one.kind is EventKind.QUEUED and one.attempt == 2)
    assert settled.payload["attempt"] == 2
    assert fold([settled]).tasks[0]["attempt"] == 1
    assert fold([requeued, settled]).tasks[0]["phase"] == "Queued"


def test_a_deleted_event_says_when() -> None:
    (row,) = fold([snapshot(EventKind.DELETED, 5)]).tasks
    assert row["deleted_at"] == datetime.fromtimestamp((BASE_MS + 5) / 1000, UTC)


def test_an_unreadable_event_is_named_and_the_others_are_kept() -> None:
    good = snapshot(EventKind.QUEUED, 1)
    bad = [
        event(EventKind.SETTLED, 2, phase="Nonsense"),
        event(EventKind.FAILED, 3, reason="NotInTheList"),
        good.model_copy(update={"id": ""}),
        good.model_copy(update={"id": "9-0", "attempt": 0}),
        good.model_copy(update={"id": "8-0", "time_ms": 10**18}),
        snapshot(EventKind.QUEUED, 4, spec={"handler": "a.b", "priority": 99}),
    ]
    batch = fold([*bad, good])
    assert len(batch.tasks) == 1
    assert {one.event_id for one in batch.rejected} == {one.id for one in bad}


def test_what_postgresql_refuses_is_replaced_wherever_it_stands() -> None:
    assert fit_text("a\x00b\ud800c", 4) == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
    told = {"k\x00": ["\x00", {"x": "\udfff"}], "n": [float("nan"), float("inf"), -float("inf"), 1.5, 7, None, True]}
    fitted = json.dumps(fit_json(told), allow_nan=False)
    assert "\\u0000" not in fitted
    assert "\\udfff" not in fitted
    assert fit_json(told)["n"] == ["NaN", "Infinity", "-Infinity", 1.5, 7, None, True]


def test_stream_ids_sort_as_numbers() -> None:
    assert sorted(["10-10", "10-9", "9-1"], key=stream_position) == ["9-1", "10-9", "10-10"]


def test_a_mirrored_task_has_the_order_of_the_event_that_would_have_said_the_same() -> None:
    told = {row["uid"]: row for row in fold(story(lost=1)).tasks}
    body = {
        "metadata": {"uid": UID, "namespace": "team-a", "name": "x", "creationTimestamp": "2026-09-20T12:00:00Z"},
        "spec": {"handler": "a.b"},
    }
    for phase, expected in ((Phase.PENDING, 0), (Phase.QUEUED, 1), (Phase.RUNNING, 2), (Phase.FAILED, 1_000_001)):
        task = Task.from_object(body | {"status": {"phase": phase, "attempt": 2}})
        (row,) = mirror([task]).tasks
        assert (row["attempt"], row["seq"]) == (2, expected)
    assert told[UID]["seq"] == 1_000_001
