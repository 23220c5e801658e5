from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from taskflow_core.domain.manifests import (
    MAX_RETRY_PREFIX,
    retry_manifest,
    retry_prefix,
    run_manifest,
    run_name,
    run_now_name,
    same_run,
    task_manifest,
)
from taskflow_core.domain.scheduled_run import ScheduledRun
from taskflow_core.domain.task import Owner, Task
from taskflow_core.domain.taskschedule import TaskSchedule


@dataclass(frozen=True)
class Old:
    uid: str
    spec: dict[str, Any]
    labels: dict[str, str] | None


def test_a_manifest_has_what_it_was_given_and_no_empty_metadata() -> None:
    assert task_manifest({"handler": "a.b"}, name="one") == {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": "one"},
        "spec": {"handler": "a.b"},
    }
    made = task_manifest({"handler": "a.b"}, generate_name="one-", labels={"team": "a"}, annotations={"x": "y"})
    assert made["metadata"] == {"generateName": "one-", "labels": {"team": "a"}, "annotations": {"x": "y"}}


def test_a_manifest_shares_nothing_with_its_arguments() -> None:
    spec, labels = {"handler": "a.b"}, {"team": "a"}
    made = task_manifest(spec, name="one", labels=labels)
    made["spec"]["queue"] = "other"
    made["metadata"]["labels"]["team"] = "b"
    assert (spec, labels) == ({"handler": "a.b"}, {"team": "a"})


def test_a_retry_repeats_the_spec_but_not_its_cancellation() -> None:
    spec = {"handler": "a.b", "priority": 3, "cancel": True, "suspend": True, "notBefore": None}
    made = retry_manifest(Old("u1", spec, {"team": "a"}), name="one-2")
    assert made["spec"] == {"handler": "a.b", "priority": 3}
    assert made["metadata"] == {
        "name": "one-2",
        "labels": {"team": "a"},
        "annotations": {"taskflow.dev/retried-from": "u1"},
    }


def test_a_retry_of_a_task_with_unknown_labels_has_none() -> None:
    assert "labels" not in retry_manifest(Old("u1", {"handler": "a.b"}, None), generate_name="one-")["metadata"]


def test_the_prefix_of_a_retry_leaves_room_for_a_suffix_and_ends_with_one_dash() -> None:
    assert retry_prefix("one") == "one-"
    assert retry_prefix("x" * 253) == "x" * MAX_RETRY_PREFIX + "-"
    assert retry_prefix("x" * (MAX_RETRY_PREFIX - 1) + ".yy") == "x" * (MAX_RETRY_PREFIX - 1) + "-"


def test_a_task_of_an_owner_is_read_back_as_its_child() -> None:
    owner = Owner(kind="TaskSchedule", name="nightly", uid="s-1")
    manifest = task_manifest({"handler": "h"}, name="nightly.1", owner=owner)
    server = {"uid": "u", "namespace": "team-a", "creationTimestamp": "2030-01-01T00:00:00Z"}
    assert Task.from_object({**manifest, "metadata": {**manifest["metadata"], **server}}).owner == owner
    foreign = {**manifest["metadata"]["ownerReferences"][0], "apiVersion": "apps/v1"}
    metadata = {**manifest["metadata"], **server, "ownerReferences": [foreign]}
    assert Task.from_object({**manifest, "metadata": metadata}).owner is None


@dataclass(frozen=True)
class Run:
    name: str
    tick: datetime
    previous: datetime | None = None
    next: datetime | None = None
    backfill: str = ""
    token: str = ""


TICK = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
SERVER = {"uid": "u", "namespace": "team-a", "creationTimestamp": "2026-10-25T00:30:01Z"}


def schedule(**spec: Any) -> TaskSchedule:
    body = {
        "metadata": {"name": "nightly", **SERVER, "uid": "s-1"},
        "spec": {"schedules": ["30 2 * * *"], "taskTemplate": {"spec": {"handler": "a.b"}}, **spec},
    }
    return TaskSchedule.from_object(body)


def created(manifest: dict[str, Any]) -> dict[str, Any]:
    return {**manifest, "metadata": {**manifest["metadata"], **SERVER}}


def test_a_run_has_the_name_of_its_tick_in_utc_and_tells_what_it_is() -> None:
    berlin = TICK.astimezone(timezone(timedelta(hours=2)))
    assert run_name("nightly", berlin) == run_name("nightly", TICK) == "nightly.20261025t003000z"
    made = run_manifest(schedule(), Run(run_name("nightly", TICK), TICK, backfill="october"))
    assert made["metadata"]["labels"] == {"taskflow.dev/schedule": "nightly"}
    assert made["metadata"]["annotations"] == {
        "taskflow.dev/scheduled-time": "2026-10-25T00:30:00Z",
        "taskflow.dev/backfill": "october",
    }
    task = Task.from_object(created(made))
    assert task.scheduled == ScheduledRun(schedule="nightly", tick=TICK, backfill="october")
    assert schedule().created_task(task)


def test_a_run_that_a_token_asked_for_has_no_tick() -> None:
    name = run_now_name("nightly", "a token")
    assert name.startswith("nightly.run-")
    assert len(name) == len("nightly.run-") + 8
    task = Task.from_object(created(run_manifest(schedule(), Run(name, TICK, token="a token"))))
    assert task.scheduled == ScheduledRun(schedule="nightly", run_now="a token")


def test_a_template_cannot_say_what_a_task_is_a_run_of() -> None:
    own = {"taskflow.dev/scheduled-time": "2020-01-01T00:00:00Z", "taskflow.dev/backfill": "b", "note": "kept"}
    labels = {"taskflow.dev/schedule": "other", "team": "a"}
    template = {"metadata": {"labels": labels, "annotations": own}, "spec": {"handler": "a.b"}}
    made = run_manifest(schedule(taskTemplate=template), Run("nightly.x", TICK))
    assert made["metadata"]["labels"] == {"taskflow.dev/schedule": "nightly", "team": "a"}
    assert made["metadata"]["annotations"] == {"taskflow.dev/scheduled-time": "2026-10-25T00:30:00Z", "note": "kept"}


def test_times_are_passed_as_arguments() -> None:
    spec = {"pass": {"scheduledTime": "at", "previousTime": "since"}}
    template = {"spec": {"handler": "a.b", "kwargs": {"at": "replaced", "kept": 1}}}
    made = run_manifest(schedule(taskTemplate=template, **spec), Run("nightly.x", TICK))
    assert made["spec"]["kwargs"] == {"at": "2026-10-25T00:30:00Z", "since": None, "kept": 1}


def test_a_task_of_the_same_name_is_the_same_run_whichever_schedule_created_it() -> None:
    wanted = run_manifest(schedule(), Run("nightly.x", TICK))
    former = run_manifest(schedule().model_copy(update={"uid": "s-0"}), Run("nightly.x", TICK))
    assert same_run(created(former), wanted)
    assert not same_run(created(run_manifest(schedule(), Run("nightly.x", TICK + timedelta(seconds=1)))), wanted)
    assert not same_run(created(task_manifest({"handler": "a.b"}, name="nightly.x")), wanted)
    asked = run_manifest(schedule(), Run("nightly.x", TICK, token="t"))
    again = run_manifest(schedule(), Run("nightly.x", TICK + timedelta(seconds=9), token="t"))
    assert same_run(created(asked), again)


def test_what_a_user_wrote_into_the_annotations_of_a_run_is_read_as_far_as_it_can_be() -> None:
    made = run_manifest(schedule(), Run("nightly.x", TICK))
    made["metadata"]["annotations"] = {"taskflow.dev/scheduled-time": "soon"}
    assert Task.from_object(created(made)).scheduled == ScheduledRun(schedule="nightly")
