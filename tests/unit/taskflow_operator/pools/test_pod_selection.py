from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskflow_core.ledger.presence import WorkerReport
from taskflow_operator.pools.pod_selection import Fault, ScaleDown, Workers, find_faulty, plan_scale_down
from taskflow_operator.runtime.pod import Pod
from tests.builders import NOW, NOW_MS


def pod(name: str, **fields: Any) -> Pod:
    return replace(Pod(name, name, NOW, started=True), **fields)


def report(
    *, busy: int = 0, slots: int = 2, serving: bool = True, age: float = 0, claimed: float | None = None
) -> WorkerReport:
    return WorkerReport(
        namespace="team-a",
        queues=("default",),
        slots=slots,
        busy=busy,
        serving=serving,
        claimed_ms=None if claimed is None else NOW_MS - int(claimed * 1000),
        at_ms=NOW_MS - int(age * 1000),
    )


def workers(*asked: str, **reports: WorkerReport) -> Workers:
    return Workers(NOW_MS, reports, frozenset(asked))


TWO = [pod("old", created=NOW - timedelta(hours=1)), pod("new")]


def test_the_youngest_idle_pod_is_asked_first_and_goes_when_it_says_that_it_takes_nothing() -> None:
    assert plan_scale_down(TWO, workers(old=report(), new=report()), 1) == ScaleDown(stop=("new",))
    assert plan_scale_down(TWO, workers("new", old=report(), new=report()), 1) == ScaleDown()
    assert plan_scale_down(TWO, workers("new", old=report(), new=report(serving=False)), 1) == ScaleDown(
        remove=("new",)
    )


def test_a_pod_that_took_something_before_it_heard_ends_that_first() -> None:
    assert plan_scale_down(TWO, workers("new", old=report(), new=report(serving=False, busy=1)), 1) == ScaleDown()


def test_busy_pods_stay_however_few_are_wanted() -> None:
    assert plan_scale_down(TWO, workers(old=report(busy=1), new=report(busy=2)), 2) == ScaleDown()
    assert plan_scale_down(TWO, workers(old=report(), new=report(busy=2)), 2) == ScaleDown(stop=("old",))


def test_a_pool_that_drains_asks_busy_pods_too() -> None:
    assert plan_scale_down(TWO, workers(old=report(busy=1), new=report(busy=2)), 2, busy_too=True) == ScaleDown(
        stop=("new", "old")
    )


def test_those_that_were_asked_resume_when_they_are_wanted_again() -> None:
    stopped = workers("old", "new", old=report(serving=False), new=report(serving=False))
    assert plan_scale_down(TWO, stopped, 0) == ScaleDown(resume=("new", "old"))
    assert plan_scale_down(TWO, stopped, 1) == ScaleDown(remove=("old",), resume=("new",))


def test_what_cannot_start_goes_first() -> None:
    pods = [*TWO, pod("stuck", started=False, problem="ImagePullBackOff")]
    assert plan_scale_down(pods, workers(old=report(), new=report()), 1) == ScaleDown(remove=("stuck",))


@pytest.mark.parametrize("says", [{}, {"new": report(age=11)}], ids=["nothing yet", "nothing any more"])
def test_a_silent_pod_stays_since_nobody_knows_what_it_holds(says: dict[str, WorkerReport]) -> None:
    assert plan_scale_down([pod("new")], Workers(NOW_MS, says), 1) == ScaleDown()


def test_a_pod_that_is_leaving_counts_no_more() -> None:
    pods = [pod("old"), pod("new", terminating=True)]
    assert plan_scale_down(pods, workers("new", old=report(), new=report(serving=False)), 1) == ScaleDown(stop=("old",))


def test_a_worker_that_takes_nothing_while_something_waits_is_found() -> None:
    old = [pod("w", created=NOW - timedelta(hours=1))]
    assert find_faulty(old, workers(w=report(claimed=300)), 61, NOW) == {"w": Fault.DEAF}
    assert find_faulty(old, workers(w=report()), 61, NOW) == {"w": Fault.DEAF}
    assert find_faulty(old, workers(w=report(claimed=300)), 59, NOW) == {}
    assert find_faulty(old, workers(w=report(claimed=30)), 300, NOW) == {}
    assert find_faulty(old, workers(w=report(claimed=300, busy=2)), 300, NOW) == {}
    assert find_faulty(old, workers("w", w=report(claimed=300)), 300, NOW) == {}
    assert find_faulty([pod("w")], workers(w=report()), 300, NOW) == {}


def test_a_worker_that_fell_silent_is_found_and_one_that_starts_is_not() -> None:
    old = [pod("w", created=NOW - timedelta(hours=1))]
    assert find_faulty(old, workers(w=report(age=61)), 0, NOW) == {"w": Fault.SILENT}
    assert find_faulty(old, workers(), 300, NOW) == {}


def test_a_worker_that_was_ready_and_is_not_any_more_is_found_though_nobody_has_its_report() -> None:
    mute = [pod("w", created=NOW - timedelta(hours=1), fell_mute=NOW - timedelta(seconds=61))]
    assert find_faulty(mute, workers(), 0, NOW) == {"w": Fault.SILENT}
    assert find_faulty(mute, workers(), 0, NOW - timedelta(seconds=2)) == {}
    assert find_faulty(mute, workers(w=report()), 0, NOW) == {}, "it reports: its probe is at fault"


META = {"name": "w", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {}}
TRACEBACK = """Traceback (most recent call last):
  File "/app/main.py", line 3, in <module>
    import weather_handlers
ModuleNotFoundError: No module named 'weather_handlers'
"""


def crashed(*, words: str = TRACEBACK, seconds: int = 2, restarts: int = 3, **fields: Any) -> dict[str, Any]:
    """The status of a worker's container that ended that many seconds after it started."""
    ended = {
        "exitCode": 1,
        "reason": "Error",
        "message": words,
        "startedAt": "2026-01-01T01:00:00Z",
        "finishedAt": f"2026-01-01T01:{seconds // 60:02}:{seconds % 60:02}Z",
    }
    running = {"running": {"startedAt": "2026-01-01T02:00:00Z"}}
    fields = {"ready": False, "state": running, "lastState": {"terminated": ended}} | fields
    return {"name": "worker", "restartCount": restarts, **fields}


def problem_of(*containers: dict[str, Any]) -> str | None:
    return Pod.from_object(
        {"metadata": META, "status": {"phase": "Running", "containerStatuses": [*containers]}}
    ).problem


def test_a_crash_loop_is_told_with_the_last_words_of_the_container() -> None:
    words = "container worker ended with exit code 1: ModuleNotFoundError: No module named 'weather_handlers'"
    backing_off = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting"}}
    assert problem_of(crashed(state=backing_off)) == f"CrashLoopBackOff: {words}"


def test_the_problem_stays_the_same_while_the_container_is_started_again() -> None:
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting"}}
    ended = crashed()["lastState"]
    found = {problem_of(crashed(state=state)) for state in (waiting, crashed()["state"], ended)}
    assert len(found) == 1
    assert found != {None}


def test_a_container_that_is_ready_or_had_run_well_is_no_problem() -> None:
    assert problem_of(crashed(ready=True)) is None
    assert problem_of(crashed(seconds=600)) is None, "it did not fail to start"
    assert problem_of(crashed(restarts=0, lastState={})) is None
    assert problem_of(crashed(lastState={})) is None


def test_a_crash_without_words_has_its_exit_code() -> None:
    assert problem_of(crashed(words="")) == "CrashLoopBackOff: container worker ended with exit code 1"
    assert problem_of({"name": "worker", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}) == "CrashLoopBackOff"


def test_a_worker_fell_mute_when_it_was_ready_in_the_same_container() -> None:
    def mute(since: str, started: str = "2026-01-01T01:00:00Z") -> datetime | None:
        condition = {"type": "Ready", "status": "False", "lastTransitionTime": since}
        worker = {"name": "worker", "ready": False, "state": {"running": {"startedAt": started}}}
        status = {"phase": "Running", "conditions": [condition], "containerStatuses": [worker]}
        return Pod.from_object({"metadata": META, "status": status}).fell_mute

    assert mute("2026-01-01T01:05:00Z") == datetime(2026, 1, 1, 1, 5, tzinfo=UTC)
    assert mute("2026-01-01T00:59:59Z") is None, "it was never ready since its start"


def test_why_a_pod_cannot_start_is_read_from_its_containers() -> None:
    body: dict[str, Any] = {
        "metadata": META,
        "status": {
            "phase": "Pending",
            "containerStatuses": [
                {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image x"}}}
            ],
        },
    }
    found = Pod.from_object(body)
    assert (found.started, found.terminating) == (False, False)
    assert found.problem == "ImagePullBackOff: Back-off pulling image x"
    body["status"] = {
        "phase": "Running",
        "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}],
    }
    assert Pod.from_object(body).problem is None
