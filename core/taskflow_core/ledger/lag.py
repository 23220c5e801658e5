"""How far the consumer groups of the event streams are behind. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from taskflow_core.ledger.stream import Standing


@dataclass(frozen=True)
class Lag:
    """How far a consumer group is behind, over all namespaces."""

    group: str
    entries: int
    """Entries that it has not acknowledged, read or not."""
    seconds: float
    """Age of the oldest of them; 0 when there is none."""


def lag_of(group: str, standings: Iterable[Standing]) -> Lag:
    """What a group's standings come to."""
    entries, oldest = 0, 0
    for each in standings:
        behind = each.pending + each.unread
        entries += behind
        oldest = max(oldest, each.age_ms if behind else 0)
    return Lag(group, entries, oldest / 1000)
