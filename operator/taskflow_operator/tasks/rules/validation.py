"""What is wrong with a specification, beyond what the API server refuses. Pure."""

from __future__ import annotations

from taskflow_core.domain.array import MAX_ARRAY_ITEMS, ArraySpec
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.task import (
    MAX_JSON_LEVELS,
    MAX_PAYLOAD_BYTES,
    MAX_TASK_BYTES,
    Isolation,
    Task,
    TaskSpec,
    payload_bytes,
)

Problem = tuple[Reason, str]


def invalid(task: Task) -> Problem | None:
    """Why the Task can never run, with what was expected and what to do; None if it can."""
    if task.unreadable:
        return Reason.INVALID_SPEC, f"spec cannot be read: {task.unreadable}"
    if task.payload_too_deep:
        return Reason.PAYLOAD_TOO_DEEP, (
            f"args, kwargs or array.items are nested deeper than {MAX_JSON_LEVELS} levels; "
            "store the data as an object and name it in spec.inputs"
        )
    size = payload_bytes(task.spec.args, task.spec.kwargs)
    if size > MAX_PAYLOAD_BYTES:
        return Reason.PAYLOAD_TOO_LARGE, (
            f"args and kwargs are {size} bytes of JSON, at most {MAX_PAYLOAD_BYTES} are allowed; "
            "store the data as an object and name it in spec.inputs"
        )
    return None if task.spec.array is None else _array(task.spec, task.spec.array)


def _array(spec: TaskSpec, array: ArraySpec) -> Problem | None:
    """The CRD refuses most of it too."""
    said = [array.count is not None, array.items is not None, array.items_from is not None]
    if sum(said) != 1:
        return Reason.INVALID_SPEC, "array: exactly one of count, items and itemsFrom has to be set"
    if spec.isolation is not Isolation.WORKER or spec.outputs:
        return Reason.INVALID_SPEC, "an array takes neither isolation: Pod nor outputs; leave both out"
    size = payload_bytes(spec.args, spec.kwargs) + payload_bytes(array.items or (), {})
    if size > MAX_TASK_BYTES:
        return Reason.PAYLOAD_TOO_LARGE, (
            f"args, kwargs and array.items are {size} bytes of JSON, at most {MAX_TASK_BYTES} are allowed; "
            "store the items as an object and name it in spec.array.itemsFrom"
        )
    return _indexes(array)


def _indexes(array: ArraySpec) -> Problem | None:
    if array.indexes is None:
        return None
    if array.failed_of is not None:
        return Reason.INVALID_SPEC, "array: at most one of indexes and failedOf can be set"
    try:
        wanted = RangeSet.parse(array.indexes)
    except ValueError as error:
        return Reason.INVALID_SPEC, f"array.indexes: {error}"
    total = array.count if array.items is None else len(array.items)
    if total is not None and wanted and (problem := beyond(array, total)):
        return Reason.INVALID_SPEC, problem
    return None


def beyond(array: ArraySpec, total: int) -> str:
    """What is wrong with this number of items, or with readable `indexes` for it; empty if nothing is."""
    if total > MAX_ARRAY_ITEMS:
        return f"array: expected at most {MAX_ARRAY_ITEMS} items, found {total}"
    last = RangeSet.parse(array.indexes).last if array.indexes else -1
    return f"array.indexes: expected indices below {total}, found {last}" if last >= total else ""
