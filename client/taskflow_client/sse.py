"""Parses server-sent events (WHATWG HTML, 9.2.6) line by line. Pure."""

from __future__ import annotations

import json

from taskflow_client.errors import ResetError
from taskflow_client.models import Event


class Reader:
    """A parser that also keeps the id of the last event, for reconnects."""

    def __init__(self) -> None:
        self.last_event_id = ""
        self._event = ""
        self._data: list[str] = []

    def line(self, text: str) -> Event | None:
        """The event that this line completes, if it is a change of a Task.

        Raises:
            ResetError: the stream reports that changes are no longer available.
        """
        if text:
            name, _, value = text.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                self.last_event_id = value
            elif name == "event":
                self._event = value
            elif name == "data":
                self._data.append(value)
            return None
        event, data = self._event, "\n".join(self._data)
        self._event = ""
        self._data.clear()
        if event == "reset":
            raise ResetError(self.last_event_id)
        return Event(id=self.last_event_id, **json.loads(data)) if event == "task" else None
