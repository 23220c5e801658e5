"""TaskSchedules, as a user sees them. One schedule ticks every ten seconds while the others are looked at, and while
the operator is killed again and again.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from taskflow_core.domain import naming
from tests.api_server import EVENTS, TASKS
from tests.e2e.product import Product, eventually, has_condition, records

pytestmark = pytest.mark.e2e

SCHEDULES = f"apis/{naming.API_VERSION}/taskschedules"
TICKS = 12
"""Of the schedule that ticks every ten seconds: two minutes."""


def schedule(name: str, template: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": naming.API_VERSION,
        "kind": "TaskSchedule",
        "metadata": {"name": name},
        "spec": {"taskTemplate": {"spec": template}, **spec},
    }


def status(product: Product, name: str) -> dict[str, Any]:
    return dict(product.api_server.get(SCHEDULES, name).get("status") or {})


def runs(product: Product, name: str) -> list[dict[str, Any]]:
    """Tasks of a schedule, oldest tick first."""
    found = product.api_server.list(TASKS, f"{naming.LABEL_SCHEDULE}={name}")
    return sorted(found, key=lambda each: str(each["metadata"]["annotations"][naming.ANNOTATION_SCHEDULED_TIME]))


def ended(each: dict[str, Any]) -> bool:
    return has_condition(each, "Finished")


def reason(product: Product, name: str, kind: str) -> str:
    """Of a condition that is true; empty if it is not."""
    conditions = status(product, name).get("conditions", [])
    return next((each["reason"] for each in conditions if each["type"] == kind and each["status"] == "True"), "")


def kill_operator(product: Product) -> None:
    product.stack.stop("operator", signal.SIGKILL)
    product.stack.start("operator")


@pytest.fixture(scope="module")
def ticking(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A schedule that ticks every ten seconds; the record of its runs."""
    record = tmp_path_factory.mktemp("ticking") / "record"
    product.apply(
        schedule(
            "ticking",
            {"handler": "e2e.tick", "kwargs": {"record": str(record)}, "priority": 9},
            every={"seconds": 10},
            concurrencyPolicy="Allow",
            catchUp={"policy": "All"},
            successfulHistoryLimit=5,
            **{"pass": {"scheduledTime": "at"}},
        )
    )
    yield record
    product.kubectl("delete", "tfs", "--all")


@pytest.mark.usefixtures("ticking")
def test_replace_waits_for_the_end_of_a_handler_that_ignores_its_stop(product: Product, tmp_path: Path) -> None:
    record = tmp_path / "record"
    handler = {"handler": "e2e.wait_for_file", "kwargs": {"record": str(record), "path": str(tmp_path / "never")}}
    product.apply(schedule("stubborn", handler, every={"seconds": 10}, concurrencyPolicy="Replace"))
    eventually(lambda: records(record, "start"), lambda starts: len(starts) >= 2, 90)
    first, second = runs(product, "stubborn")[:2]
    product.kubectl("delete", "tfs", "stubborn")
    assert first["status"]["phase"] == "Cancelled"
    assert first["status"]["completionTime"] <= second["metadata"]["creationTimestamp"]
    # The handler was killed, ten seconds after it was asked to stop.
    assert records(record, "end") == []
    assert status_of_times(first) >= timedelta(seconds=10)


def status_of_times(each: dict[str, Any]) -> timedelta:
    """How long a Task ran."""
    start, end = (datetime.fromisoformat(each["status"][name]) for name in ("startTime", "completionTime"))
    return end - start


@pytest.mark.usefixtures("ticking")
def test_a_backfill_runs_each_of_its_ticks_once_and_not_more_than_allowed_at_a_time(product: Product) -> None:
    backfill = {"name": "january", "from": "2026-01-01T00:00:00Z", "to": "2026-01-09T08:00:00Z", "parallelism": 5}
    product.apply(
        schedule(
            "hourly",
            {"handler": "taskflow.echo"},
            schedules=["@hourly"],
            backfills=[backfill],
            successfulHistoryLimit=2,
            **{"pass": {"scheduledTime": "value"}},
        )
    )
    most = 0

    def look() -> dict[str, Any]:
        nonlocal most
        most = max(most, sum(not ended(each) for each in runs(product, "hourly")))
        (found,) = status(product, "hourly").get("backfills") or [{}]
        return dict(found)

    eventually(look, lambda found: found.get("created", 0) >= 60, 90)
    kill_operator(product)
    found = eventually(look, lambda found: found.get("complete", False), 180)
    assert (found["created"], found["failed"], most) == (200, 0, 5)
    # What is beyond the history limits goes, once the history has it.
    eventually(lambda: runs(product, "hourly"), lambda left: len(left) == 2, 60)


@pytest.mark.usefixtures("ticking")
def test_a_run_is_asked_for_by_an_annotation_once_a_token(product: Product) -> None:
    product.apply(schedule("by-hand", {"handler": "taskflow.echo", "kwargs": {"value": 1}}, schedules=["@yearly"]))
    for token in ("first", "first", "second"):
        product.kubectl("annotate", "tfs", "by-hand", f"{naming.ANNOTATION_RUN_NOW}={token}", "--overwrite")
        eventually(lambda: status(product, "by-hand").get("lastTaskName", ""), bool)
        eventually(lambda: runs(product, "by-hand"), lambda found: bool(found) and all(map(ended, found)))
    eventually(lambda: runs(product, "by-hand"), lambda found: len(found) == 2)
    assert all(each["metadata"]["name"].startswith("by-hand.run-") for each in runs(product, "by-hand"))


@pytest.mark.usefixtures("ticking")
def test_what_can_never_run_says_so_and_runs_once_it_is_corrected(product: Product) -> None:
    product.apply(schedule("never", {"handler": "taskflow.echo"}, schedules=["0 0 31 2 *"]))
    eventually(lambda: reason(product, "never", "Stalled"), lambda found: found == "InvalidSchedule")

    def told() -> list[str]:
        events = product.api_server.list(EVENTS)
        return [each["reason"] for each in events if each["regarding"]["name"] == "never"]

    eventually(told, lambda found: found == ["InvalidSchedule"])
    product.kubectl("patch", "tfs", "never", "--type=merge", "-p", '{"spec":{"schedules":["0 0 29 2 *"]}}')
    eventually(lambda: reason(product, "never", "Ready"), bool)
    assert status(product, "never")["nextScheduleTime"].endswith("-02-29T00:00:00Z")


@pytest.mark.usefixtures("ticking")
def test_a_suspended_schedule_shows_it_and_resumes_without_catching_up(product: Product) -> None:
    product.apply(schedule("paused", {"handler": "taskflow.echo"}, every={"seconds": 10}, suspend=True))
    eventually(lambda: reason(product, "paused", "Suspended"), bool)
    columns = product.kubectl("get", "tfs", "paused").splitlines()
    assert columns[0].split() == ["NAME", "SCHEDULE", "ZONE", "SUSPENDED", "ACTIVE", "LAST", "OUTCOME", "NEXT", "AGE"]
    product.kubectl("patch", "tfs", "paused", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    eventually(lambda: runs(product, "paused"), bool)
    assert status(product, "paused").get("missed", 0) == 0
    product.kubectl("delete", "tfs", "paused")


def test_each_tick_ran_once_although_the_operator_was_killed_again_and_again(product: Product, ticking: Path) -> None:
    def seen() -> list[str]:
        if not ticking.exists():
            return []
        return [json.loads(line)["what"] for line in ticking.read_text().splitlines()]

    while len(seen()) < TICKS:
        count = len(seen())
        kill_operator(product)
        eventually(seen, lambda ticks, count=count: len(ticks) > count, 60)  # type: ignore[misc]
        # At another moment between two ticks each time.
        time.sleep(len(seen()) % 4)
    product.kubectl("patch", "tfs", "ticking", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    eventually(lambda: reason(product, "ticking", "Suspended"), bool)
    last = status(product, "ticking")["lastScheduleTime"]
    ticks = eventually(seen, lambda found: last in found)
    first = datetime.fromisoformat(min(ticks))
    count = round((datetime.fromisoformat(last) - first) / timedelta(seconds=10)) + 1
    wanted = [(first + timedelta(seconds=10 * number)).strftime("%Y-%m-%dT%H:%M:%SZ") for number in range(count)]
    assert sorted(ticks) == wanted
    assert status(product, "ticking").get("missed", 0) == 0
