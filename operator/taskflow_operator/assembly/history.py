"""Assembles the mirror of events and Tasks in PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from taskflow_core.kube.client import tasks_path
from taskflow_core.ledger.stream import StreamReader
from taskflow_core.store.migrate import connect, ensure_schema
from taskflow_operator.assembly.foundation import Foundation
from taskflow_operator.assembly.part import Loop, Part
from taskflow_operator.history.mirror import HistoryMirror
from taskflow_operator.history.run_once import RunPruner
from taskflow_operator.history.schema import SchemaKeeper
from taskflow_operator.runtime.stream_group import StreamGroup

GATHER_SECONDS = 0.25
"""How much later than the resource the history may be."""


@dataclass(frozen=True)
class HistoryFeature:
    """The history."""

    part: Part
    mirror: HistoryMirror
    group: StreamGroup

    @classmethod
    def build(cls, base: Foundation) -> Self:
        """Build it."""
        reader = StreamReader(base.redis, "pg", base.token_key)
        mirror = HistoryMirror(
            base.database,
            reader.acknowledge,
            lambda namespace: base.kube.list_pages(tasks_path(namespace)),
            base.namespaces,
        )
        base.namespaces.unmirrored.append(mirror.mirror_again)
        group = StreamGroup(reader, mirror.take, base.leadership.until_confirmed, gather_seconds=GATHER_SECONDS)
        loops: dict[str, Loop] = {"history": mirror.run}
        if base.settings.run_once_days is not None:
            loops["run-once"] = RunPruner(base.database, base.settings.run_once_days).run
        if base.database_settings.ensure_schema:
            engine = connect(base.database_settings)
            keeper = SchemaKeeper(
                base.database.revision,
                lambda: ensure_schema(engine),
                lambda: mirror.mirror_again(base.namespaces.known),
            )
            loops["schema"] = keeper.run
        return cls(Part(loops), mirror, group)
