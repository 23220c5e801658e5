"""Follows the attempt and the end of one Task through the channel of its namespace."""

from __future__ import annotations

from dataclasses import dataclass

from taskflow_api.http.services import Services
from taskflow_api.live.channel import Channel, Gone
from taskflow_api.tasks.views import TaskView, from_object
from taskflow_core.domain.phases import Phase
from taskflow_core.errors import NotFound
from taskflow_core.kube.client import tasks_path


@dataclass(frozen=True)
class State:
    """The attempt of a Task, and whether the Task has ended."""

    attempt: int
    ended: bool


class TaskProgress:
    """The state of a Task from the channel, or from the API server if the channel has dropped changes.

    Args:
        services: For the API server.
        channel: The channel of the namespace, in use and started.
        view: The Task as it was read.
    """

    def __init__(self, services: Services, channel: Channel, view: TaskView) -> None:
        self._services = services
        self._channel = channel
        self._view = view
        self._seen: int | None = None
        self._state = State(view.attempt, ended=False)

    async def current(self) -> State:
        """The current state.

        Raises:
            Unavailable: the API server does not answer.
        """
        seen, position = self._seen, self._channel.position or 0
        if seen is None:
            return await self._read(position)
        try:
            changes = self._channel.after(seen)
        except Gone:
            return await self._read(position)
        self._seen = max(seen, position)
        for change in changes:
            if change.state.uid == self._view.uid:
                self._state = State(change.state.attempt, change.ended)
        return self._state

    async def _read(self, position: int) -> State:
        path = tasks_path(self._view.namespace, self._view.name)
        try:
            view = from_object(await self._services.kube.request("GET", path))
        except NotFound:
            self._state = State(self._state.attempt, ended=True)
        else:
            same = view.uid == self._view.uid
            self._state = State(view.attempt if same else self._state.attempt, not same or Phase(view.phase).terminal)
        self._seen = position
        return self._state
