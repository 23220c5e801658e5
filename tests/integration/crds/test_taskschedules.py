"""TaskSchedules on a real API server: defaults, changes, status, printing, and the Tasks that they become."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from taskflow_core import resources
from taskflow_core.domain.manifests import run_manifest, same_run
from taskflow_core.domain.task import Task
from taskflow_core.domain.taskschedule import CatchUp, ConcurrencyPolicy, TaskSchedule
from taskflow_operator.schedules.rules.plan import plan
from taskflow_operator.schedules.rules.runs import Child
from tests.integration.crds.conftest import Cluster

pytestmark = pytest.mark.integration


def schedule(name: str, **spec: Any) -> dict[str, Any]:
    timing = {} if "every" in spec else {"schedules": ["30 2 * * *"]}
    template = {"spec": {"handler": "reports.summarise"}}
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "TaskSchedule",
        "metadata": {"name": name},
        "spec": timing | {"taskTemplate": template} | spec,
    }


def set_status(cluster: Cluster, name: str, status: dict[str, Any]) -> Any:
    patch = json.dumps({"status": status})
    return json.loads(
        cluster.kubectl("patch", "tfs", name, "--subresource=status", "--type=merge", "-p", patch, "-o", "json")
    )


def test_what_a_schedule_leaves_out_is_filled_in_as_the_model_has_it(cluster: Cluster) -> None:
    made = cluster.create(schedule("plain"))
    template = made["spec"].pop("taskTemplate")
    assert made["spec"] == {
        "schedules": ["30 2 * * *"],
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "catchUp": {"policy": "Last", "limit": 100},
        "jitterSeconds": 0,
        "suspend": False,
        "successfulHistoryLimit": 3,
        "failedHistoryLimit": 3,
    }
    assert template["spec"]["queue"] == "default"
    read = TaskSchedule.from_object(made | {"spec": made["spec"] | {"taskTemplate": template}})
    assert read.unreadable == ""
    assert (read.spec.catch_up, read.spec.concurrency_policy) == (CatchUp(), ConcurrencyPolicy.FORBID)


def test_a_schedule_at_every_limit_is_admitted(cluster: Cluster) -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    backfills = [
        {
            "name": f"b{number}",
            "from": day.isoformat(),
            "to": (day + timedelta(days=number + 1)).isoformat(),
            "parallelism": 100,
        }
        for number in range(8)
    ]
    made = cluster.create(
        schedule(
            "s" * 52,
            schedules=[f"H({number}-59) H/2 L,LW H 5L,1#2" for number in range(15)] + ["@daily"],
            timeZone="America/Argentina/ComodRivadavia",
            startTime="1970-01-01T00:00:00Z",
            endTime="9998-12-31T23:59:59Z",
            catchUp={"policy": "All", "limit": 1000},
            startingDeadlineSeconds=31_536_000,
            jitterSeconds=3600,
            backfills=backfills,
            successfulHistoryLimit=100,
            failedHistoryLimit=100,
            **{"pass": {"scheduledTime": "a" * 63, "previousTime": "b", "nextTime": "_c"}},
        )
    )
    # The status of the worst case fits too.
    found = TaskSchedule.from_object(made)
    decided = plan(found, [], datetime.now(UTC))
    running = tuple(day + timedelta(minutes=minute) for minute in range(100))
    backfilled = tuple(each.model_copy(update={"running": running}) for each in decided.status.backfills)
    names = tuple(f"{'s' * 52}.20260101t0000{second:02d}z" for second in range(10))
    status = decided.status.model_copy(update={"backfills": backfilled, "active": names})
    kept = set_status(cluster, "s" * 52, status.to_object())
    assert TaskSchedule.from_object(kept).status == status


def test_a_backfill_may_change_in_its_parallelism_alone(cluster: Cluster) -> None:
    backfill = {"name": "june", "from": "2026-06-01T00:00:00Z", "to": "2026-07-01T00:00:00Z"}
    cluster.create(schedule("filled", backfills=[backfill]))
    changes: list[tuple[dict[str, Any], bool]] = [
        ({"parallelism": 5}, True),
        ({"to": "2026-08-01T00:00:00Z"}, False),
        ({"order": "NewestFirst"}, False),
    ]
    for change, allowed in changes:
        patch = json.dumps({"spec": {"backfills": [backfill | change]}})
        done = cluster.run("patch", "tfs", "filled", "--type=merge", "-p", patch)
        assert (done.returncode == 0) == allowed, done.stderr
        if not allowed:
            assert "only parallelism of a backfill may change" in done.stderr


def test_kubectl_shows_when_a_schedule_ran_and_when_it_will(cluster: Cluster) -> None:
    made = cluster.create(schedule("shown", timeZone="Europe/Berlin"))
    now = datetime.now(UTC).replace(microsecond=0)
    found = TaskSchedule.from_object(made)
    yesterday = (now - timedelta(days=1)).replace(hour=12)
    update = {"created": yesterday - timedelta(days=1)}
    decided = plan(found.model_copy(update=update), [], now)
    set_status(cluster, "shown", decided.status.to_object())
    header, row = cluster.kubectl("get", "tfs", "shown").splitlines()
    assert header.split() == ["NAME", "SCHEDULE", "ZONE", "SUSPENDED", "ACTIVE", "LAST", "OUTCOME", "NEXT", "AGE"]
    assert "30 2 * * *" in row
    assert "Europe/Berlin" in row
    assert "<invalid>" not in row
    assert decided.status.to_object()["nextScheduleTime"] in row
    assert "Active" in row


def test_a_run_is_a_task_of_its_schedule(cluster: Cluster) -> None:
    made = cluster.create(
        schedule(
            "runs",
            every={"seconds": 60},
            taskTemplate={
                "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
                "spec": {"handler": "reports.summarise", "kwargs": {"at": "-", "deep": {"a": None}}},
            },
            **{"pass": {"scheduledTime": "at", "nextTime": "until"}},
        )
    )
    found = TaskSchedule.from_object(made)
    [run] = plan(found, [], found.created + timedelta(minutes=3)).runs
    manifest = run_manifest(found, run)
    task = cluster.create(manifest)
    assert same_run(task, manifest)
    read = Task.from_object(task)
    assert read.scheduled is not None
    assert (read.name, read.scheduled.tick) == (f"runs.{run.tick:%Y%m%dt%H%M%Sz}", run.tick)
    assert found.created_task(read)
    assert task["metadata"]["labels"] == {"team": "a", "taskflow.dev/schedule": "runs"}
    assert read.spec.kwargs == {
        "at": f"{run.tick:%Y-%m-%dT%H:%M:%SZ}",
        "until": f"{run.tick + timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}",
        "deep": {"a": None},
    }
    assert Child.of(read).tick == run.tick


def test_the_example_is_admitted_and_has_ticks(cluster: Cluster) -> None:
    made = cluster.create(yaml.safe_load(resources.path("examples").joinpath("schedule.yaml").read_text()))
    found = TaskSchedule.from_object(made)
    status = plan(found, [], found.created).status
    assert len(status.next_schedule_times) == 3
    ready = status.condition("Ready")
    assert ready is not None
    assert ready.status == "True"
