"""How far the consumer groups of the event streams are behind. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from taskflow_core.ledger.stream import Standing

LATE_MS = 60_000
"""A namespace is late when it waits for longer."""
ACTIVE_MS = 600_000
"""So long after its last entry a namespace counts among those that could be late."""


@dataclass(frozen=True)
class Lag:
    """How far a consumer group is behind, over all namespaces."""

    group: str
    entries: int
    """Entries that it has not acknowledged, read or not."""
    seconds: float
    """Age of the oldest of them; 0 when there is none."""
    late: int = 0
    """Namespaces that are late."""
    others: int = 0
    """Namespaces that had entries lately and are not."""

    @property
    def general(self) -> bool:
        """The group itself is late. Of some namespaces only, it is their own flood."""
        return self.late > self.others


def lag_of(group: str, standings: Iterable[Standing]) -> Lag:
    """What a group's standings come to."""
    entries, oldest = 0, 0
    late, active = set[str](), set[str]()
    for each in standings:
        behind, namespace = each.pending + each.unread, each.stream.namespace
        entries += behind
        oldest = max(oldest, each.age_ms if behind else 0)
        if behind and each.age_ms > LATE_MS:
            late.add(namespace)
        if each.idle_ms < ACTIVE_MS:
            active.add(namespace)
    return Lag(group, entries, oldest / 1000, len(late), len(active - late))
