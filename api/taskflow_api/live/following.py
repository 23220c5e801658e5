from __future__ import annotations

from dataclasses import dataclass

from taskflow_api.live.channel import Channel, Gone
from taskflow_api.services import Services
from taskflow_api.tasks.views import TaskView, from_object
from taskflow_core.domain.phases import Phase
from taskflow_core.errors import NotFound
from taskflow_core.kube.client import tasks_path


@dataclass(frozen=True)
class State:
    """How far a Task is."""

    attempt: int
    ended: bool


class Progressing:
    """How far a Task is, by the channel of its namespace; asked for again when that has forgotten something.

    Args:
        services: the API server.
        channel: of the namespace, which somebody holds and which has begun.
        view: the Task as it was read.
    """

    def __init__(self, services: Services, channel: Channel, view: TaskView) -> None:
        self._services = services
        self._channel = channel
        self._view = view
        self._place: int | None = None
        self._state = State(view.attempt, ended=False)

    async def look(self) -> State:
        """How far it is now.

        Raises:
            Unavailable: the API server does not answer.
        """
        place, position = self._place, self._channel.position or 0
        if place is None:
            return await self._read(position)
        try:
            changes = self._channel.after(place)
        except Gone:
            return await self._read(position)
        self._place = max(place, position)
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
        self._place = position
        return self._state
