"""Assembles the mirror of events and Tasks in PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from taskflow_core.kube.client import tasks_path
from taskflow_core.ledger.stream import StreamReader
from taskflow_operator.assembly.foundation import Foundation
from taskflow_operator.assembly.part import Part
from taskflow_operator.history.mirror import HistoryMirror
from taskflow_operator.runtime.supervisor import run_all


@dataclass(frozen=True)
class HistoryFeature:
    """The history."""

    part: Part
    mirror: HistoryMirror

    @classmethod
    def build(cls, base: Foundation) -> Self:
        """Build it."""
        mirror = HistoryMirror(
            base.database,
            StreamReader(base.redis, "pg"),
            lambda: base.kube.list_pages(tasks_path()),
            base.leadership.until_confirmed,
        )
        return cls(Part({"history": lambda: run_all(mirror.loops())}), mirror)
