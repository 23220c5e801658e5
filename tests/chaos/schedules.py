"""TaskSchedules that tick while something else happens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.kube.client import tasks_path
from tests.chaos.api_server import MERGE, ApiError, ApiServer
from tests.chaos.ground import eventually
from tests.chaos.load import SOON
from tests.chaos.oracle import Violation, Wanted, Wrong
from tests.chaos.ticks import Ticked, TickRun, lost, strangers, twice

SCHEDULES = f"/apis/{naming.API_VERSION}/namespaces/default/taskschedules"
EVERY_SECONDS = 10
COUNT = 10
"""Of schedules, one tick a second between them: 10 s is the shortest distance that one admits."""
CATCH_UP = 30
"""Ticks of each that are caught up: three hundred seconds."""


class Schedules:
    """Schedules of one round.

    Args:
        api: the API server.
        prefix: their names begin with it.
        record: where the handlers write.
    """

    def __init__(self, api: ApiServer, prefix: str, record: Path) -> None:
        self._api = api
        self._record = record
        self.names = [f"{prefix}-s{number}"[-52:].lstrip("-") for number in range(COUNT)]

    def start(self) -> None:
        """Create them, each with ticks a second after those of the one before."""
        for number, name in enumerate(self.names):
            template = {"handler": "chaos.tick", "kwargs": {"schedule": name}, "retryPolicy": SOON}
            spec = {
                "every": {"seconds": EVERY_SECONDS, "anchor": f"2026-01-01T00:00:{number:02}Z"},
                "concurrencyPolicy": "Allow",
                "catchUp": {"policy": "All", "limit": CATCH_UP},
                "pass": {"scheduledTime": "at"},
                # What ran is looked at in the end.
                "successfulHistoryLimit": 100,
                "failedHistoryLimit": 100,
                "taskTemplate": {"spec": template},
            }
            body = {"apiVersion": naming.API_VERSION, "kind": "TaskSchedule", "metadata": {"name": name}, "spec": spec}
            with suppress(ApiError):
                # It exists, if an answer got lost.
                self._api.insist("POST", SCHEDULES, body)

    def end(self) -> list[Wanted]:
        """No more ticks; the Tasks that there are, when all are known."""
        for name in self.names:
            self._api.insist("PATCH", f"{SCHEDULES}/{name}", {"spec": {"suspend": True}}, content_type=MERGE)
        for name in self.names:
            eventually(lambda name=name: self._suspended(name), bool, 180, f"{name} is suspended")  # type: ignore[misc]
        items = self._api.insist("GET", f"{tasks_path('default')}?labelSelector={self._selector()}")["items"]
        return [Wanted(item["metadata"]["name"], item["metadata"]["uid"], "chaos.tick", "Succeeded") for item in items]

    def judged(self) -> tuple[int, list[Violation]]:
        """How many ticks ran, and what is wrong with them; after all their Tasks ended."""
        schedules = [self._ticked(number, name) for number, name in enumerate(self.names)]
        runs = list(self._runs())
        return len({(run.schedule, run.tick) for run in runs}), list(_violations(schedules, runs, datetime.now(UTC)))

    def delete(self) -> None:
        """Their Tasks are deleted with them."""
        for name in self.names:
            self._api.insist("DELETE", f"{SCHEDULES}/{name}")

    def _selector(self) -> str:
        return f"{naming.LABEL_SCHEDULE}+in+({','.join(self.names)})".replace("/", "%2F").replace(",", "%2C")

    def _suspended(self, name: str) -> bool:
        body = self._api.insist("GET", f"{SCHEDULES}/{name}")
        status = body.get("status", {})
        return status.get("observedGeneration") == body["metadata"]["generation"] and any(
            each["type"] == "Suspended" and each["status"] == "True" for each in status.get("conditions", ())
        )

    def _ticked(self, number: int, name: str) -> Ticked:
        body = self._api.insist("GET", f"{SCHEDULES}/{name}")
        status: dict[str, Any] = body["status"]
        created = datetime.fromisoformat(body["metadata"]["creationTimestamp"])
        cursor, last = (
            datetime.fromisoformat(status[field]) if status.get(field) else None
            for field in ("cursor", "lastScheduleTime")
        )
        return Ticked(name, number, created, cursor, status.get("missed", 0), last)

    def _runs(self) -> Iterator[TickRun]:
        mine = set(self.names)
        for line in self._record.read_text().splitlines():
            if '"tick"' in line and (said := json.loads(line))["schedule"] in mine:
                yield TickRun(said["schedule"], datetime.fromisoformat(said["tick"]), said["uid"])


def _violations(schedules: Sequence[Ticked], runs: Sequence[TickRun], now: datetime) -> Iterator[Violation]:
    for name, tick in twice(runs):
        yield Violation(Wrong.TICK_TWICE, name, f"two Tasks ran for {tick}")
    for name, count in lost(schedules, runs, EVERY_SECONDS):
        yield Violation(Wrong.TICK_LOST, name, f"{count} ticks neither ran nor were missed")
    for name, tick in strangers(schedules, runs, EVERY_SECONDS, now):
        yield Violation(Wrong.TICK_LOST, name, f"{tick} ran, and is no tick that was decided on")
