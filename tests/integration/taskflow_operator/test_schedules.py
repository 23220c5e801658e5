"""TaskSchedules on a real API server and a real history: what dies, is refused or is taken between a tick and its
cursor. Numbers in names are those of the hard cases in docs/decisions/0018.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from taskflow_core.domain import naming
from taskflow_local.stack import Stack
from tests.api_server import EVENTS, TASKS, ApiServer
from tests.integration.taskflow_operator.process import OperatorProcess, Operators, wait_for

pytestmark = pytest.mark.integration

SCHEDULES = f"apis/{naming.API_VERSION}/taskschedules"
CURSOR = "/taskschedules/"


class Site:
    """An operator, and what it makes of schedules. Nothing runs their Tasks: they end by being cancelled."""

    def __init__(self, operators: Operators, servers: Stack) -> None:
        self.operators = operators
        self.servers = servers
        self.api = ApiServer(servers.kubeconfig)
        self.operator = self.start("first")

    def start(self, identity: str) -> OperatorProcess:
        self.operator = operator = self.operators.start(identity)
        wait_for(lambda: operator.ready() and operator.leads(), 60)
        return operator

    def kill(self) -> None:
        self.operator.signal(signal.SIGKILL)
        self.operator.process.wait()
        # Nobody waits until it runs out.
        self.operators.kubectl("delete", "-n", "taskflow-system", "lease", "taskflow-operator")

    def apply(self, name: str, *, annotations: dict[str, str] | None = None, soon: float = 2, **spec: Any) -> None:
        """A schedule that ticks in so many seconds, and then every ten; unless it has lines."""
        anchor = datetime.now(UTC) + timedelta(seconds=soon)
        every = {"seconds": 10, "anchor": anchor.strftime("%Y-%m-%dT%H:%M:%SZ")}
        timing = {} if "schedules" in spec else {"every": every}
        template = {"spec": {"handler": "taskflow.echo", "queue": "unserved"}}
        body = {
            "apiVersion": naming.API_VERSION,
            "kind": "TaskSchedule",
            "metadata": {"name": name, "namespace": "default", "annotations": annotations or {}},
            "spec": {**timing, "taskTemplate": template, **spec},
        }
        self.operators.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.api.get(SCHEDULES, name).get("status") or {})

    def is_true(self, name: str, kind: str) -> str:
        """Reason of a condition that is true; empty if it is not."""
        conditions = self.status(name).get("conditions", [])
        return next((each["reason"] for each in conditions if each["type"] == kind and each["status"] == "True"), "")

    def children(self, name: str) -> list[str]:
        """Names, oldest tick first."""
        found = self.api.list(TASKS, f"{naming.LABEL_SCHEDULE}={name}")
        return sorted(each["metadata"]["name"] for each in found)

    def rows(self, name: str) -> list[tuple[str, str, str]]:
        """What the history has of its ticks: outcome, reason, Task; oldest first."""
        url = self.servers.env()["TASKFLOW_DATABASE_URL"].replace("postgresql+psycopg://", "postgresql://")
        with psycopg.connect(url) as connection:
            query = (
                "SELECT outcome, reason, coalesce(task_name, '') FROM schedule_runs WHERE schedule = %s ORDER BY tick"
            )
            return list(connection.execute(query, [name]).fetchall())

    def without_cursor(self, name: str) -> str:
        """Have it create a Task and not move the cursor; the Task's name."""
        self.operator.proxy.refuse = lambda method, path: 503 if method == "PATCH" and CURSOR in path else None
        self.apply(name)
        (child,) = wait_for(lambda: self.children(name))
        return child


@pytest.fixture
def site(operators: Operators, servers: Stack) -> Iterator[Site]:
    made = Site(operators, servers)
    yield made
    operators.kubectl("delete", "tfs", "--all")
    made.api.close()


def test_6_an_operator_that_dies_between_the_task_and_the_cursor_is_followed_by_one_that_makes_no_second(
    site: Site,
) -> None:
    child = site.without_cursor("dies")
    assert "cursor" not in site.status("dies")
    site.kill()
    site.start("second")
    wait_for(lambda: site.status("dies").get("lastTaskName"))
    assert site.children("dies") == [child]
    assert site.status("dies")["active"] == [child]
    wait_for(lambda: ("Created", "", child) in site.rows("dies"))


def test_7_a_task_that_was_deleted_before_the_cursor_moved_does_not_run_again(site: Site, servers: Stack) -> None:
    child = site.without_cursor("deleted")
    uid = site.api.get(TASKS, child)["metadata"]["uid"]

    def in_history() -> bool:
        url = servers.env()["TASKFLOW_DATABASE_URL"].replace("postgresql+psycopg://", "postgresql://")
        with psycopg.connect(url) as connection:
            return connection.execute("SELECT 1 FROM tasks WHERE uid = %s", [uid]).fetchone() is not None

    wait_for(in_history)
    site.kill()
    site.operators.kubectl("delete", "tft", child)
    servers.stop("postgres")
    try:
        site.start("second")
        # Nobody else knows whether it ran.
        wait_for(lambda: site.operator.lines("dependency_unavailable"))
        wait_for(lambda: site.operator.lines("operator_started"))
        assert child not in site.children("deleted")
    finally:
        servers.start("postgres")
    wait_for(lambda: site.status("deleted").get("cursor"), 60)
    assert child not in site.children("deleted")


def test_13_a_task_of_a_schedule_of_the_same_name_is_the_run_and_another_task_is_in_its_way(site: Site) -> None:
    # While nobody decides, so that there is time to make what is found.
    site.kill()

    def first_tick(name: str) -> datetime:
        site.apply(name, every={"seconds": 10}, concurrencyPolicy="Allow", catchUp={"policy": "All"})
        created = datetime.fromisoformat(site.api.get(SCHEDULES, name)["metadata"]["creationTimestamp"])
        return datetime.fromtimestamp(created.timestamp() // 10 * 10 + 10, UTC)

    def task(schedule: str, tick: datetime, **metadata: Any) -> str:
        name = f"{schedule}.{tick:%Y%m%dt%H%M%Sz}"
        body = {
            "apiVersion": naming.API_VERSION,
            "kind": "Task",
            "metadata": {"name": name, "namespace": "default", **metadata},
            "spec": {"handler": "taskflow.echo", "queue": "unserved"},
        }
        site.operators.kubectl("apply", "-f", "-", stdin=json.dumps(body))
        return name

    tick = first_tick("again")
    annotations = {naming.ANNOTATION_SCHEDULED_TIME: tick.strftime("%Y-%m-%dT%H:%M:%SZ")}
    again = task("again", tick, labels={naming.LABEL_SCHEDULE: "again"}, annotations=annotations)
    uid = site.api.get(TASKS, again)["metadata"]["uid"]
    taken = task("taken", first_tick("taken"))
    site.start("second")
    wait_for(lambda: ("Created", "", again) in site.rows("again"))
    assert site.api.get(TASKS, again)["metadata"]["uid"] == uid
    assert not site.is_true("again", "NameTaken")
    wait_for(lambda: site.is_true("taken", "NameTaken"))
    assert taken not in site.children("taken")
    site.operators.kubectl("delete", "tft", taken)
    wait_for(lambda: taken in site.children("taken"))
    wait_for(lambda: not site.is_true("taken", "NameTaken"))


def test_15_a_task_that_is_refused_is_tried_again_until_its_deadline_and_then_missed(site: Site) -> None:
    site.operator.proxy.refuse = lambda method, path: 403 if method == "POST" and path.endswith("/tasks") else None
    site.apply("refused", startingDeadlineSeconds=5)
    site.apply("patient")

    def why(name: str) -> str:
        conditions = site.status(name).get("conditions", [])
        return next((each["message"] for each in conditions if each["reason"] == "CreateRefused"), "")

    for name in ("refused", "patient"):
        assert "on purpose" in wait_for(lambda name=name: why(name))  # type: ignore[misc]
    wait_for(lambda: site.status("refused").get("missed"), 20)
    wait_for(lambda: ("Missed", "DeadlineExceeded", "") in site.rows("refused"))
    site.operator.proxy.refuse = lambda _method, _path: None
    wait_for(lambda: site.children("patient"))
    wait_for(lambda: not why("patient"))


def test_10_and_11_and_the_other_policies(site: Site) -> None:
    for policy in ("Forbid", "Allow", "Replace", "Queue"):
        site.apply(policy.lower(), concurrencyPolicy=policy)
    first = {name: wait_for(lambda name=name: site.children(name))[0] for name in ("forbid", "queue", "replace")}  # type: ignore[misc]
    wait_for(lambda: site.status("forbid").get("skipped"))
    wait_for(lambda: ("Skipped", "StillRunning", "") in site.rows("forbid"))
    assert site.children("forbid") == [first["forbid"]]
    wait_for(lambda: len(site.children("allow")) >= 2)
    # The first was cancelled, which ends it at once, and only then the second was made.
    replaced = wait_for(lambda: site.api.get(TASKS, first["replace"])["status"].get("completionTime"))
    wait_for(lambda: len(site.children("replace")) >= 2)
    second = site.children("replace")[1]
    assert replaced <= site.api.get(TASKS, second)["metadata"]["creationTimestamp"]
    waiting = wait_for(lambda: site.status("queue").get("waiting"))
    assert site.children("queue") == [first["queue"]]
    site.operators.kubectl("patch", "tft", first["queue"], "--type=merge", "-p", '{"spec":{"cancel":true}}')
    wait_for(lambda: len(site.children("queue")) == 2)
    queued = site.children("queue")[1]
    assert site.api.get(TASKS, queued)["metadata"]["annotations"][naming.ANNOTATION_SCHEDULED_TIME] == waiting

    def told() -> set[str]:
        return {each["reason"] for each in site.api.list(EVENTS) if each["regarding"]["name"] == "forbid"}

    wait_for(lambda: "RunSkipped" in told())


def test_a_run_now_is_made_once_and_a_status_costs_no_more_than_its_ticks(site: Site) -> None:
    site.apply("idle", suspend=True)
    site.apply("by-hand", schedules=["@yearly"], annotations={naming.ANNOTATION_RUN_NOW: "now"})
    (child,) = wait_for(lambda: site.children("by-hand"))
    assert child.startswith("by-hand.run-")
    wait_for(lambda: site.is_true("idle", "Suspended") and site.status("by-hand").get("lastTaskName") == child)
    site.operators.kubectl("patch", "tft", child, "--type=merge", "-p", '{"spec":{"cancel":true}}')
    wait_for(lambda: site.status("by-hand").get("lastOutcome") == "Cancelled")
    site.kill()
    site.start("second")
    # What it listed is what it knows; a schedule without anything due is not written, not even at the start.
    wait_for(lambda: site.operator.lines("operator_started"))
    site.apply("later", soon=1)
    wait_for(lambda: site.children("later"))
    wrote = [asked.path for asked in site.operator.proxy.asked if asked.method == "PATCH" and CURSOR in asked.path]
    assert {path.split("/")[-2] for path in wrote} <= {"later"}
    assert site.children("by-hand") == [child]


def test_finished_runs_beyond_the_limits_of_their_schedule_go_once_the_history_has_them(site: Site) -> None:
    site.apply("limited", concurrencyPolicy="Replace", failedHistoryLimit=0, successfulHistoryLimit=0)
    (first,) = wait_for(lambda: site.children("limited"))
    wait_for(lambda: first not in site.children("limited"), 60)
    wait_for(lambda: ("Created", "", first) in site.rows("limited"))


def test_ticks_while_the_api_server_is_away_are_caught_up_as_the_policy_says(site: Site) -> None:
    for policy in ("All", "Last", "None"):
        site.apply(policy.lower(), concurrencyPolicy="Allow", catchUp={"policy": policy})
    for name in ("all", "last", "none"):
        wait_for(lambda name=name: site.status(name).get("lastTaskName"))  # type: ignore[misc]
    site.kill()
    before = {name: site.children(name) for name in ("all", "last", "none")}
    # Of the ticks meanwhile the newest is young enough for all policies.
    wait_for(_after(22), 40)
    site.start("second")
    wait_for(lambda: len(site.children("all")) >= len(before["all"]) + 2)
    for name in ("last", "none"):
        wait_for(lambda name=name: site.status(name).get("missed"))  # type: ignore[misc]
    assert site.status("all").get("missed", 0) == 0


def _after(seconds: float) -> Callable[[], bool]:
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    return lambda: datetime.now(UTC) > end
