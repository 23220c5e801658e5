from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskflow_cli.conversion import beat
from taskflow_cli.conversion.schedule import NoCounterpart, name_of, timing_of
from tests.unit.taskflow_cli.fake import Console

CRONJOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "nightly-report", "namespace": "team", "labels": {"a": "b"}, "uid": "gone"},
    "spec": {
        "schedule": "30 2 * * MON-FRI",
        "timeZone": "Europe/Berlin",
        "startingDeadlineSeconds": 200,
        "jobTemplate": {
            "metadata": {"labels": {"x": "y"}},
            "spec": {"backoffLimit": 2, "activeDeadlineSeconds": 3600, "template": {"spec": {"containers": [{}]}}},
        },
    },
    "status": {"lastScheduleTime": "2026-01-01T00:00:00Z"},
}


def cronjob(**spec: Any) -> dict[str, Any]:
    return {**CRONJOB, "spec": {**CRONJOB["spec"], **spec}}


def job(**spec: Any) -> dict[str, Any]:
    return cronjob(jobTemplate={"spec": spec})


def converted(run: Console, tmp_path: Path, content: object, *arguments: str) -> tuple[list[Any], list[str], int]:
    """The specifications, what was said, and the exit code."""
    path = tmp_path / "cronjob.json"
    path.write_text(json.dumps(content))
    ran = run("schedule", "convert", str(path), *arguments)
    said = [line.replace(str(path), "FILE") for line in ran.err.splitlines()]
    return [each["spec"] for each in yaml.safe_load_all(ran.out) if each], said, ran.code


def test_a_cronjob_as_a_taskschedule(run: Console, tmp_path: Path) -> None:
    path = tmp_path / "cronjob.yaml"
    path.write_text(yaml.safe_dump(CRONJOB))
    ran = run("schedule", "convert", str(path), "--handler", "reports.nightly")
    assert (ran.code, ran.err) == (0, "")
    assert yaml.safe_load(ran.out) == {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "TaskSchedule",
        "metadata": {"name": "nightly-report", "namespace": "team", "labels": {"a": "b"}},
        "spec": {
            "schedules": ["30 2 * * MON-FRI"],
            "timeZone": "Europe/Berlin",
            "concurrencyPolicy": "Allow",
            "startingDeadlineSeconds": 200,
            "successfulHistoryLimit": 3,
            "failedHistoryLimit": 1,
            "taskTemplate": {
                "metadata": {"labels": {"x": "y"}},
                "spec": {
                    "handler": "reports.nightly",
                    "activeDeadlineSeconds": 3600,
                    "retryPolicy": {"maxAttempts": 3},
                },
            },
        },
    }


def test_a_list_of_cronjobs(run: Console, tmp_path: Path) -> None:
    specs, said, code = converted(run, tmp_path, {"kind": "List", "items": [CRONJOB, CRONJOB]}, "--handler", "a")
    assert (len(specs), said, code) == (2, [], 0)


@pytest.mark.parametrize(
    ("changes", "expected", "said"),
    [
        (cronjob(concurrencyPolicy="Replace", suspend=True), {"concurrencyPolicy": "Replace", "suspend": True}, ""),
        (cronjob(startingDeadlineSeconds=0), {"startingDeadlineSeconds": 1}, "spec.startingDeadlineSeconds: 0 never"),
        (cronjob(successfulJobsHistoryLimit=0, failedJobsHistoryLimit=500),
         {"successfulHistoryLimit": 0, "failedHistoryLimit": 100}, ""),
        (cronjob(timeZone=None), {"timeZone": None}, "spec.timeZone: the zone was that of the kube-controller-manager"),
        (cronjob(timeZone=None, schedule="TZ=Asia/Tokyo 0 5 ? * *"),
         {"timeZone": "Asia/Tokyo", "schedules": ["0 5 * * *"]}, ""),
        (cronjob(timeZone=None, schedule="@every 1h30m"), {"every": {"seconds": 5400}, "schedules": None}, ""),
        (cronjob(schedule="@midnight"), {"schedules": ["@daily"]}, ""),
        (cronjob(surprise=1), {}, "spec.surprise: no counterpart"),
        (job(template={}), {"taskTemplate": {"spec": {"handler": "a", "retryPolicy": {"maxAttempts": 7}}}}, ""),
        (job(parallelism=3), {}, "spec.jobTemplate.spec.parallelism: a Task runs once"),
        (job(backoffLimit=200), {}, "spec.jobTemplate.spec.backoffLimit: at most 100 attempts"),
        (job(podFailurePolicy={}), {}, "spec.jobTemplate.spec.podFailurePolicy: no counterpart"),
        (job(template={"spec": {"serviceAccountName": "x", "containers": [{"env": [1]}, {}]}}), {},
         "spec.jobTemplate.spec.template.spec: set in the WorkerPool whose workers run the handler: env, service"),
    ],
)  # fmt: skip
def test_what_a_cronjob_has(run: Console, tmp_path: Path, changes: Any, expected: dict[str, Any], said: str) -> None:
    (spec,), lines, code = converted(run, tmp_path, changes, "--handler", "a")
    assert {field: spec.get(field) for field in expected} == expected
    assert code == 0
    assert not lines if not said else lines[0].startswith(f"warning: CronJob nightly-report: {said}")


def test_without_a_handler_one_is_named_and_said(run: Console, tmp_path: Path) -> None:
    (spec,), lines, code = converted(run, tmp_path, CRONJOB)
    assert (spec["taskTemplate"]["spec"]["handler"], code) == ("nightly_report", 0)
    assert "write the handler 'nightly_report', or name another one with --handler" in lines[0]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (cronjob(schedule="61 minutes"), "CronJob nightly-report: spec.schedule: expected five fields of cron"),
        (cronjob(schedule="@reboot"), "there is no schedule '@reboot'"),
        (cronjob(schedule="@every 5s"), "an interval has 10 to 31536000 seconds, found 5"),
        (cronjob(schedule="0 0 */2 * MON"), "a CronJob runs when one of the two fits, a TaskSchedule when both do"),
        (cronjob(schedule="TZ=Local 0 0 * * *"), "the time zone 'Local' has no name"),
        ({**CRONJOB, "metadata": {"name": "x" * 53}}, "its name has to have 1 to 52 characters"),
        ({"kind": "Job"}, "FILE: expected a CronJob, found Job"),
        ([], "FILE: expected a CronJob, found list"),
        ({"kind": "List", "items": []}, "FILE has no CronJob"),
    ],
)
def test_a_cronjob_that_would_become_something_else(run: Console, tmp_path: Path, content: Any, error: str) -> None:
    specs, said, code = converted(run, tmp_path, content, "--handler", "a")
    assert (specs, code) == ([], 6)
    assert error in said[-1]


def beaten(entry: str, head: str = "") -> Any:
    return beat.convert(f"{head}\napp.conf.beat_schedule = {{'An Entry': {entry}}}\n", "app.py")


def entry(schedule: str, rest: str = "") -> str:
    return f"{{'task': 'shop.tick', 'schedule': {schedule}, {rest}}}"


@pytest.mark.parametrize(
    ("schedule", "timing"),
    [
        ("30", {"every": {"seconds": 30}}),
        ("30.0", {"every": {"seconds": 30}}),
        ("60 * 60 + 5", {"every": {"seconds": 3605}}),
        ("timedelta(minutes=5)", {"every": {"seconds": 300}}),
        ("datetime.timedelta(1, 30)", {"every": {"seconds": 86430}}),
        ("schedule(run_every=timedelta(seconds=90))", {"every": {"seconds": 90}}),
        ("crontab()", {"schedules": ["* * * * *"]}),
        ("crontab(minute=0, hour='*/3')", {"schedules": ["0 */3 * * *"]}),
        ("celery.schedules.crontab(0, 0, 'monday,fri')", {"schedules": ["0 0 * * mon,fri"]}),
        ("crontab(minute='0', hour=[8, '10-12'], day_of_month='1-7,15', month_of_year='january')",
         {"schedules": ["0 8,10-12 1-7,15 jan *"]}),
        ("crontab(minute='*/15', hour='22-2', day_of_week='fri-mon')", {"schedules": ["*/15 22-23,0-2 * * 5-6,0-1"]}),
        # Both have to fit, as in Celery, if one begins with a star.
        ("crontab(0, 0, day_of_month='*/2', day_of_week=1)", {"schedules": ["0 0 */2 * 1"]}),
    ],
)  # fmt: skip
def test_schedules_of_celery(schedule: str, timing: dict[str, Any]) -> None:
    done = beaten(entry(schedule))
    assert (done.errors, done.warnings) == ([], [])
    (made,) = done.schedules
    assert made["metadata"]["name"] == "an-entry"
    assert made["spec"] == {
        **timing,
        "concurrencyPolicy": "Allow",
        "taskTemplate": {"spec": {"handler": "shop.tick"}},
    }


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (entry("0.5"), "a whole number of seconds, found 0.5"),
        (entry("5"), "an interval has 10 to 31536000 seconds, found 5"),
        (entry("True"), "expected seconds, timedelta or crontab, found True"),
        (entry("timedelta(fortnights=1)"), "cannot read timedelta(fortnights=1)"),
        (entry("solar('sunset', 1, 2)"), "solar has no counterpart"),
        (entry("make()"), "make has no counterpart"),
        (entry("SECONDS"), "SECONDS is no constant"),
        (entry("60 / 0"), "division by zero"),
        (entry("crontab(nowfun=now)"), "nowfun of crontab has no counterpart"),
        (entry("crontab(minute=1.5)"), "minute of crontab: expected a number or text of cron, found 1.5"),
        (entry("crontab(hour='22-2/2')"), "hour of crontab: 22-2/2 goes over the end with steps"),
        (
            entry("crontab(0, 0, day_of_month=1, day_of_week=1)"),
            "Celery runs when day_of_month and day_of_week both fit",
        ),
        (entry("60", "'args': (object(),)"), "object() is no constant"),
        (entry("60", "'args': 5"), "args: expected a list, found int"),
        (entry("60", "'kwargs': {1: 2}"), "kwargs has a key that is no text"),
        (entry("60", "'kwargs': {'x': b'y'}"), "kwargs is no JSON"),
        (entry("60", "**more"), "the entry has another dict within"),
        ("{'task': 'shop.tick'}", "'schedule' is missing"),
        ("{'task': 'no handler', 'schedule': 60}", "'no handler' cannot be the name of a handler"),
        ("{'task': os.environ['X'], 'schedule': 60}", "os.environ['X'] is no constant"),
        ("make()", "expected an entry 'name': {...}, found make()"),
    ],
)
def test_an_entry_that_would_become_something_else(text: str, error: str) -> None:
    done = beaten(text)
    assert done.schedules == []
    assert len(done.errors) == 1
    assert done.errors[0].startswith("app.py:2: An Entry: ")
    assert error in done.errors[0]


def test_args_options_and_zone() -> None:
    head = "HOUR = 60 * 60\nQUEUE = 'Fast_Lane'\napp = Celery('shop', timezone='Europe/Berlin')"
    rest = (
        "'args': (1, [2]), 'kwargs': {'a': {'b': None}}, 'relative': True, 'enabled': True, "
        "'options': {'queue': QUEUE, 'expires': HOUR, 'time_limit': 9.5, 'priority': 1, 'headers': {}}"
    )
    done = beaten(entry("crontab(hour=7)", rest), head)
    assert done.errors == []
    (made,) = done.schedules
    assert made["spec"]["timeZone"] == "Europe/Berlin"
    assert made["spec"]["taskTemplate"]["spec"] == {
        "handler": "shop.tick",
        "queue": "fast-lane",
        "queueTimeoutSeconds": 3600,
        "attemptTimeoutSeconds": 9,
        "args": [1, [2]],
        "kwargs": {"a": {"b": None}},
    }
    assert [each.removeprefix("app.py:4: An Entry: ").partition(":")[0] for each in done.warnings] == [
        "enabled",
        "options.queue",
        "options.priority",
        "options.headers",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "beat_schedule = {'a': {'task': 'b', 'schedule': 60}}",
        "beat_schedule: dict = {'a': {'task': 'b', 'schedule': 60}}",
        "CELERY_BEAT_SCHEDULE = {'a': {'task': 'b', 'schedule': 60}}",
        "app.conf['beat_schedule'] = {'a': {'task': 'b', 'schedule': 60}}",
        "app.conf.update(beat_schedule={'a': {'task': 'b', 'schedule': 60}})",
        "def make():\n    return Celery(beat_schedule={'a': {'task': 'b', 'schedule': 60}})",
    ],
)
def test_where_a_beat_schedule_may_stand(text: str) -> None:
    assert [each["metadata"]["name"] for each in beat.convert(text, "app.py").schedules] == ["a"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("x = 1", "app.py has no beat_schedule"),
        ("beat_schedule = make()", "app.py:1: expected a dict, found make()"),
        ("def f(:", "app.py is no Python: "),
        ("sender.add_periodic_task(10, a.s())", "app.py:1: add_periodic_task is not read"),
    ],
)
def test_a_file_without_one(text: str, error: str) -> None:
    done = beat.convert(text, "app.py")
    assert done.schedules == []
    assert done.errors[0].startswith(error)


def test_a_zone_that_is_not_constant_is_said() -> None:
    done = beaten(entry("crontab()"), "app.conf.timezone = os.environ['TZ']")
    assert done.warnings == ["app.py:1: timezone: os.environ['TZ'] is no constant; times are in Etc/UTC"]


def test_the_source_is_never_run(run: Console, tmp_path: Path) -> None:
    path = tmp_path / "app.py"
    path.write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        f"beat_schedule = {{'a': {{'task': 'b', 'schedule': open({str(tmp_path / 'ran')!r}, 'w')}}}}\n"
    )
    assert run("schedule", "convert", str(path)).code == 6
    assert not (tmp_path / "ran").exists()
    assert run("schedule", "convert", str(path), "--handler", "x").code == 2
    assert run("schedule", "convert", str(tmp_path / "nowhere.py")).code == 3


def test_names_are_free_and_fit() -> None:
    taken: set[str] = set()
    assert [name_of(text, taken) for text in ("A b", "a_b", "ü", "x" * 60, "x" * 60)] == [
        "a-b",
        "a-b-2",
        "schedule",
        "x" * 52,
        "x" * 50 + "-2",
    ]


@pytest.mark.parametrize("line", ["", "* * * *", "* * * * * *", "@daily 5", "@every", "@every 1x"])
def test_lines_that_are_none(line: str) -> None:
    with pytest.raises(NoCounterpart):
        timing_of(line)
