"""Changes of Tasks, as a watch tells them and as a listener gets them."""

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
    """A live Task, without what is large."""

    labels: dict[str, str]
    worker: str | None = None
    progress: Progress | None = None


class TaskEvent(Model):
    """`data` of an event `task`."""

    type: Literal["added", "changed", "deleted", "current"]
    """`current`: nothing happened; it is the Task as it is at the start of its stream."""
    task: TaskState


@dataclass(frozen=True, slots=True)
class Change:
    """One change. Made once for all listeners, its JSON included."""

    version: int
    """resourceVersion of the Task after it; of a deleted one, of its deletion."""
    deleted: bool
    state: TaskState
    data: str
    """`TaskEvent` as JSON."""

    @property
    def ended(self) -> bool:
        """Nothing more will happen to the Task that a listener waits for."""
        return self.deleted or Phase(self.state.phase).terminal


def change(event: Mapping[str, Any]) -> Change:
    """Read an event of a watch that is no bookmark.

    Raises:
        KeyError, ValueError: it is not one of a Task.
    """
    body = event["object"]
    return _made(body, _KINDS[event["type"]])


def current(body: Mapping[str, Any]) -> Change:
    """A Task as it is."""
    return _made(body, "current")


def _made(body: Mapping[str, Any], kind: Literal["added", "changed", "deleted", "current"]) -> Change:
    view = from_object(dict(body))
    state = TaskState.model_validate({name: getattr(view, name) for name in TaskState.model_fields})
    data = TaskEvent(type=kind, task=state).model_dump_json(by_alias=True)
    return Change(int(body["metadata"]["resourceVersion"]), kind == "deleted", state, data)
