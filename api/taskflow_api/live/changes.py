"""Changes of Tasks: read from watch events, and encoded once for all listeners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from taskflow_api.tasks.views import TaskSummary, from_object
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.resource import Model
from taskflow_core.domain.task import Progress

_KINDS: Mapping[str, Literal["added", "changed", "deleted"]] = {
    "ADDED": "added",
    "MODIFIED": "changed",
    "DELETED": "deleted",
}


class TaskState(TaskSummary):
    """A live Task without its large fields."""

    labels: dict[str, str]
    worker: str | None = None
    progress: Progress | None = None


class TaskEvent(Model):
    """The `data` of a `task` event."""

    type: Literal["added", "changed", "deleted", "current"]
    """`current` is the state at the start of a stream, not a change."""
    task: TaskState


@dataclass(frozen=True, slots=True)
class Change:
    """One change with its JSON, shared by all listeners."""

    version: int
    """resourceVersion after the change; for a deletion, that of the deletion."""
    deleted: bool
    state: TaskState
    data: str
    """`TaskEvent` as JSON."""

    @property
    def ended(self) -> bool:
        """Whether this is the last change that listeners wait for: the Task has finished or was deleted."""
        return self.deleted or Phase(self.state.phase).terminal


def change_from(event: Mapping[str, Any]) -> Change:
    """The change in a watch event other than a bookmark.

    Raises:
        KeyError, ValueError: the object is not a valid Task.
    """
    body = event["object"]
    return _change(body, _KINDS[event["type"]])


def current(body: Mapping[str, Any]) -> Change:
    """The current state of a Task."""
    return _change(body, "current")


def _change(body: Mapping[str, Any], kind: Literal["added", "changed", "deleted", "current"]) -> Change:
    view = from_object(dict(body))
    state = TaskState.model_validate({name: getattr(view, name) for name in TaskState.model_fields})
    data = TaskEvent(type=kind, task=state).model_dump_json(by_alias=True)
    return Change(int(body["metadata"]["resourceVersion"]), kind == "deleted", state, data)
