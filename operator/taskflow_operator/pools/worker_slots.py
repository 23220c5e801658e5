"""How many slots the workers of each queue have, as they reported a moment ago."""

from __future__ import annotations

from collections.abc import Mapping


class WorkerSlots:
    """Written by the scaler, read by whoever hands out work."""

    def __init__(self) -> None:
        self._slots: Mapping[tuple[str, str], int] = {}

    def publish(self, slots: Mapping[tuple[str, str], int]) -> None:
        """Replace all of them, by namespace and queue."""
        self._slots = slots

    def of(self, namespace: str, queue: str) -> int:
        """Slots of the workers that serve a queue."""
        return self._slots.get((namespace, queue), 0)
