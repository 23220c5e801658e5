from __future__ import annotations

from typing import Any, cast

from taskflow_operator.schedules.known import KnownSchedule, KnownSchedules
from taskflow_operator.schedules.observer import ScheduleObserver
from tests.unit.taskflow_operator.fakes import FakeKube
from tests.unit.taskflow_operator.schedules.objects import schedule_object


class Site:
    def __init__(self) -> None:
        self.kube = FakeKube()
        self.known = KnownSchedules()
        self.changed: list[str] = []
        self.gone: list[str] = []
        self.observer = ScheduleObserver(
            self.known, cast("Any", self.kube), changed=self.changed.append, gone=self._gone
        )

    def _gone(self, known: KnownSchedule) -> None:
        self.gone.append(known.schedule.uid)

    def observe(self, **fields: Any) -> None:
        self.observer.observe(schedule_object(**fields))


def test_a_schedule_is_looked_at_when_it_is_new_and_when_its_user_or_somebody_else_changed_it() -> None:
    site = Site()
    site.observe(uid="a")
    site.observe(uid="a", version=2)
    assert site.changed == ["a"]
    token = {"taskflow.dev/run-now": "x"}
    changes: list[dict[str, Any]] = [
        {"generation": 2},
        {"generation": 2, "annotations": token},
        {"generation": 2, "annotations": token, "status": {"missed": 1}},
    ]
    for version, fields in enumerate(changes, start=3):
        site.changed.clear()
        site.observe(uid="a", version=version, **fields)
        assert site.changed == ["a"], fields


def test_what_the_watch_shows_late_is_older_than_what_a_write_was_answered() -> None:
    site = Site()
    site.observe(uid="a", version=10, generation=2)
    site.changed.clear()
    site.observe(uid="a", version=9, generation=1)
    site.observe(uid="a", version=10, generation=3)
    known = site.known.get("a")
    assert known is not None
    assert (known.schedule.generation, site.changed) == (2, [])


async def test_a_list_finds_what_the_watch_missed() -> None:
    site = Site()
    for uid in ("stays", "goes"):
        site.observe(uid=uid)
    site.changed.clear()
    site.kube.pages = [[schedule_object(uid="stays")], [schedule_object(uid="new")]]
    assert await site.observer.list() == "9"
    assert (site.changed, site.gone) == (["new"], ["goes"])
    assert site.known.uids() == {"stays", "new"}


def test_a_schedule_that_was_deleted_is_forgotten_once() -> None:
    site = Site()
    site.observe(uid="a")
    for _ in range(2):
        site.observer.observe(schedule_object(uid="a", version=2), gone=True)
    assert site.gone == ["a"]
    assert site.known.namespace_of("a") == ""


def test_what_cannot_be_read_stops_nobody() -> None:
    site = Site()
    body = schedule_object(uid="a")
    body["metadata"]["creationTimestamp"] = "yesterday"
    site.observer.observe(body)
    site.observe(uid="b")
    assert site.known.uids() == {"b"}
