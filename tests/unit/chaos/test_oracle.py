"""The oracle sees each kind of violation, and nothing where nothing is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.items import ItemRun, Stretch, repeated
from tests.chaos.oracle import Evidence, Execution, Resource, Row, Told, Violation, Wanted, Wrong, beyond_one, judge

RUN, OTHER = "a" * 16, "b" * 16
OUTPUT = "default/u1/1/run.txt"
TOLD = (
    Told("1-0", "queued", "u1", 1),
    Told("2-0", "started", "u1", 1),
    Told("3-0", "succeeded", "u1", 1),
    Told("4-0", "settled", "u1", 1),
)


def evidence(**changes: Any) -> Evidence:
    """One Task that ran once and stored an output; all is well."""
    outputs = {"run.txt": OUTPUT}
    return replace(
        Evidence(
            wanted=[Wanted("t1", "u1", "chaos.artifact")],
            resources={"u1": Resource("u1", "Succeeded", 1, RUN, outputs)},
            rows={"u1": Row("u1", "Succeeded", 1, RUN, outputs)},
            executions=[Execution(RUN, "u1", 1, 100, 1.0, 2.0)],
            told=TOLD,
            timeline=frozenset(),
            objects={OUTPUT: RUN.encode()},
            refusals_by_metric={"duplicate": 0, "stale": 0},
        ),
        **changes,
    )


def resource(**changes: Any) -> dict[str, Resource]:
    return {"u1": replace(evidence().resources["u1"], **changes)}


def row(**changes: Any) -> dict[str, Row]:
    return {"u1": replace(evidence().rows["u1"], **changes)}


def execution(**changes: Any) -> Execution:
    return replace(evidence().executions[0], **changes)


def kinds(found: list[Violation]) -> set[Wrong]:
    return {each.kind for each in found}


def test_a_clean_run_has_no_violation() -> None:
    assert judge(evidence()) == []


def test_a_task_that_is_gone_is_lost() -> None:
    assert kinds(judge(evidence(resources={}))) == {Wrong.LOST}


@pytest.mark.parametrize("phase", ["", "Pending", "Queued", "Running"])
def test_a_task_that_never_ended_is_lost(phase: str) -> None:
    assert kinds(judge(evidence(resources=resource(phase=phase)))) == {Wrong.LOST}


def test_a_task_that_ended_otherwise_than_its_handler_does_is_seen() -> None:
    found = judge(evidence(resources=resource(phase="Failed"), rows=row(phase="Failed")))
    assert kinds(found) == {Wrong.OUTCOME}


def test_a_success_without_any_execution_is_unproven() -> None:
    found = judge(evidence(executions=[], objects={}, resources=resource(outputs={}), rows=row(outputs={})))
    assert kinds(found) == {Wrong.UNPROVEN}


def test_a_success_of_an_execution_that_never_returned_is_unproven() -> None:
    assert kinds(judge(evidence(executions=[execution(ended=None)]))) == {Wrong.UNPROVEN}


def test_a_success_of_an_execution_that_raised_is_unproven() -> None:
    assert kinds(judge(evidence(executions=[execution(raised=True)]))) == {Wrong.UNPROVEN}


def test_a_success_with_the_result_of_another_attempt_is_unproven() -> None:
    first = execution(run=OTHER)
    second = execution(attempt=2)
    key = "default/u1/2/run.txt"
    changed = {"attempt": 2, "result": OTHER, "outputs": {"run.txt": key}}
    found = judge(
        evidence(
            executions=[first, second],
            resources=resource(**changed),
            rows=row(**changed),
            objects={key: OTHER.encode()},
        )
    )
    assert kinds(found) == {Wrong.UNPROVEN}


def test_a_large_result_is_looked_up_in_its_object() -> None:
    key = "default/u1/1/result.json"
    changed = {"result": {"artifact": "result.json"}, "outputs": {"result.json": key}}
    content = f'"{RUN}......"'.encode()
    seen = evidence(resources=resource(**changed), rows=row(**changed), objects={key: content})
    assert judge(seen) == []
    wrong = replace(seen, objects={key: f'"{OTHER}......"'.encode()})
    assert kinds(judge(wrong)) == {Wrong.UNPROVEN}


def test_a_failure_needs_an_execution_that_failed() -> None:
    wanted = [Wanted("t1", "u1", "chaos.never", "Failed")]
    failed: dict[str, Any] = {"phase": "Failed", "result": None, "outputs": {}}
    seen = evidence(wanted=wanted, resources=resource(**failed), rows=row(**failed), objects={})
    assert kinds(judge(seen)) == {Wrong.UNPROVEN}
    assert judge(replace(seen, executions=[execution(raised=True)])) == []


@pytest.mark.parametrize("changed", [{"phase": "Running"}, {"attempt": 2}, {"result": OTHER}, {"outputs": {}}])
def test_a_history_that_differs_from_the_resource_is_seen(changed: dict[str, Any]) -> None:
    assert kinds(judge(evidence(rows=row(**changed)))) == {Wrong.HISTORY}


def test_a_history_that_does_not_know_the_task_is_seen() -> None:
    assert kinds(judge(evidence(rows={}))) == {Wrong.HISTORY}


def test_an_attempt_that_was_executed_twice_is_seen() -> None:
    twice = [execution(), execution(run=OTHER)]
    assert kinds(judge(evidence(executions=twice))) == {Wrong.TWICE}
    assert beyond_one(twice) == 1


def test_one_more_execution_is_allowed_for_each_loss_of_data_and_no_more() -> None:
    twice = [execution(), execution(run=OTHER)]
    assert judge(evidence(executions=twice, data_losses=1)) == []
    assert kinds(judge(evidence(executions=[*twice, execution(run="c" * 16)], data_losses=1))) == {Wrong.TWICE}


def test_an_execution_after_the_attempt_that_counts_is_seen() -> None:
    assert kinds(judge(evidence(executions=[execution(), execution(run=OTHER, attempt=2)]))) == {Wrong.BEYOND}


def test_a_missing_output_is_seen() -> None:
    assert kinds(judge(evidence(objects={}))) == {Wrong.OBJECT}


def test_an_output_of_another_execution_is_seen() -> None:
    assert kinds(judge(evidence(objects={OUTPUT: OTHER.encode()}))) == {Wrong.OBJECT}


def test_an_output_below_another_attempt_is_seen() -> None:
    key = "default/u1/2/run.txt"
    outputs = {"outputs": {"run.txt": key}}
    seen = evidence(resources=resource(**outputs), rows=row(**outputs), objects={key: RUN.encode()})
    assert kinds(judge(seen)) == {Wrong.OBJECT}


def test_an_object_of_an_attempt_that_nobody_executed_is_seen() -> None:
    stray = {OUTPUT: RUN.encode(), "default/u1/7/logs/000001.log": b""}
    assert kinds(judge(evidence(objects=stray))) == {Wrong.OBJECT}


@pytest.mark.parametrize(("kind", "field"), [("duplicate", "duplicates"), ("stale", "stale")])
def test_a_refusal_is_counted_in_status_history_and_metric(kind: str, field: str) -> None:
    told = (TOLD[0], TOLD[1], Told("2-1", kind, "u1", 1), *TOLD[2:])
    metric = {"duplicate": 0, "stale": 0, kind: 1}
    seen = evidence(told=told, resources=resource(**{field: 1}), timeline=frozenset({"2-1"}), refusals_by_metric=metric)
    assert judge(seen) == []
    assert kinds(judge(replace(seen, resources=resource(**{field: 0})))) == {Wrong.UNCOUNTED}
    assert kinds(judge(replace(seen, resources=resource(**{field: 2})))) == {Wrong.UNCOUNTED}
    # Of an operator that died, status may have fewer, but never more.
    assert judge(replace(seen, refusals_by_metric=None, resources=resource(**{field: 0}))) == []
    assert kinds(judge(replace(seen, refusals_by_metric=None, resources=resource(**{field: 2})))) == {Wrong.UNCOUNTED}
    assert kinds(judge(replace(seen, timeline=frozenset()))) == {Wrong.UNCOUNTED}
    assert kinds(judge(replace(seen, refusals_by_metric={kind: 0}))) == {Wrong.UNCOUNTED}


def test_a_refusal_after_the_end_is_in_history_and_metric_only() -> None:
    told = (*TOLD, Told("5-0", "duplicate", "u1", 1))
    seen = evidence(told=told, timeline=frozenset({"5-0"}), refusals_by_metric={"duplicate": 1})
    assert judge(seen) == []
    assert kinds(judge(replace(seen, resources=resource(duplicates=1)))) == {Wrong.UNCOUNTED}
    assert kinds(judge(replace(seen, refusals_by_metric={}))) == {Wrong.UNCOUNTED}


def test_a_refusal_while_the_end_is_written_may_or_may_not_be_in_the_status() -> None:
    told = (*TOLD[:3], Told("3-1", "duplicate", "u1", 1), TOLD[3])
    seen = evidence(told=told, timeline=frozenset({"3-1"}), refusals_by_metric={"duplicate": 1})
    assert judge(seen) == []
    assert judge(replace(seen, resources=resource(duplicates=1))) == []


def test_a_restarted_operator_has_no_counters_to_compare() -> None:
    told = (*TOLD, Told("5-0", "duplicate", "u1", 1))
    assert judge(evidence(told=told, timeline=frozenset({"5-0"}), refusals_by_metric=None)) == []


def test_what_was_left_behind_is_seen() -> None:
    assert kinds(judge(evidence(left=["lease u1:1"]))) == {Wrong.LEFT}


def test_a_process_that_ended_by_itself_is_seen() -> None:
    assert kinds(judge(evidence(ended=["operator ended"]))) == {Wrong.ENDED}


def array_evidence(**changes: Any) -> Evidence:
    """An array of three items, of which one took two attempts; all is well."""
    status = {"total": 3, "succeeded": 3, "failed": 0}
    runs = [ItemRun("u2", 0, 1), ItemRun("u2", 1, 1), ItemRun("u2", 2, 1), ItemRun("u2", 2, 2)]
    return replace(
        Evidence(
            wanted=[Wanted("a1", "u2", "chaos.items", items=3)],
            resources={"u2": Resource("u2", "Succeeded", 1, array=status)},
            rows={"u2": Row("u2", "Succeeded", 1)},
            executions=(),
            told=(),
            timeline=frozenset(),
            objects={"default/u2/2/chunks/2/logs/000001.log": b""},
            item_runs=runs,
            item_rows={"u2": [Stretch(0, 1, "succeeded"), Stretch(2, 2, "succeeded")]},
        ),
        **changes,
    )


def test_an_array_whose_items_all_ended_once_has_no_violation() -> None:
    assert judge(array_evidence()) == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([Stretch(0, 1, "succeeded")], "1 items have no end"),
        ([Stretch(0, 2, "succeeded"), Stretch(2, 2, "succeeded")], "ended more than once"),
        ([Stretch(0, 1, "succeeded"), Stretch(2, 2, "failed")], "counts 3 succeeded, PostgreSQL has 2"),
        ([Stretch(0, 3, "succeeded")], "ended and were never run"),
        ([], "3 items have no end"),
    ],
)
def test_an_item_that_is_not_accounted_for_is_seen(rows: list[Stretch], words: str) -> None:
    found = judge(array_evidence(item_rows={"u2": rows}))
    assert {each.kind for each in found} == {Wrong.ITEMS}
    assert words in " ".join(map(str, found))


def test_an_item_that_never_ran_is_unproven() -> None:
    found = judge(array_evidence(item_runs=[ItemRun("u2", 0, 1), ItemRun("u2", 2, 2)]))
    assert [each.detail for each in found] == ["1 items ended and were never run, the first is 1"]


def test_an_item_runs_once_an_attempt_and_once_more_for_each_time_that_redis_lost_its_data() -> None:
    runs = [*array_evidence().item_runs, ItemRun("u2", 1, 1)]
    assert kinds(judge(array_evidence(item_runs=runs))) == {Wrong.TWICE}
    assert judge(array_evidence(item_runs=runs, data_losses=1)) == []
    assert repeated(runs) == 1
