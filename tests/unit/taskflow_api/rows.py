"""Rows of the history."""

from typing import Any

from taskflow_core.store.rows import TaskRow
from tests.unit.taskflow_api.fake_history import CREATED


def row(number: int = 0, **fields: Any) -> TaskRow:
    values: dict[str, Any] = {
        "uid": f"uid-{number:04d}",
        "namespace": "team-a",
        "name": f"task-{number}",
        "handler": "a.b",
        "queue": "default",
        "priority": 0,
        "spec": {"handler": "a.b"},
        "phase": "Succeeded",
        "reason": "Succeeded",
        "message": "",
        "attempt": 1,
        "seq": 1,
        "created_at": CREATED,
        "started_at": None,
        "finished_at": None,
        "deleted_at": None,
        "result": None,
        "outputs": [],
        "labels": None,
    }
    return TaskRow(**(values | fields))
