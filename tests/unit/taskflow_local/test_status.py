import datetime as dt

import pytest

from taskflow_local.kube import Object
from taskflow_local.node.status import (
    CREATING,
    Container,
    Kind,
    State,
    next_backoff,
    phase,
    pod_status,
    should_restart,
    terminated,
)

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
RUNNING = State(Kind.RUNNING, started_at=NOW, process="process://7")
OK, BAD = terminated(0, NOW, NOW), terminated(1, NOW, NOW)
CRASHING = Container("main").becomes(BAD).becomes(State(Kind.WAITING, "CrashLoopBackOff", "back-off 10s"))


def make_pod(policy: str = "Always") -> Object:
    return {"metadata": {"name": "p", "generation": 3}, "spec": {"restartPolicy": policy}}


@pytest.mark.parametrize(
    ("policy", "states", "expected"),
    [
        ("Always", [CREATING], "Pending"),
        ("Always", [RUNNING, CREATING], "Pending"),
        ("Always", [RUNNING, RUNNING], "Running"),
        ("Always", [OK], "Running"),
        ("OnFailure", [BAD], "Running"),
        ("OnFailure", [OK], "Succeeded"),
        ("Never", [OK, OK], "Succeeded"),
        ("Never", [OK, BAD], "Failed"),
        ("Never", [OK, RUNNING], "Running"),
    ],
)
def test_the_phase_sums_up_the_containers(policy: str, states: list[State], expected: str) -> None:
    assert phase(policy, [Container(str(number), state=state) for number, state in enumerate(states)]) == expected


def test_a_crashing_pod_is_running_but_not_ready_and_shows_its_last_end() -> None:
    status = pod_status(make_pod(), [CRASHING], {}, NOW)
    assert status["phase"] == "Running"
    (container,) = status["containerStatuses"]
    assert container["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    assert container["lastState"]["terminated"]["exitCode"] == 1
    assert container["ready"] is False
    conditions = {each["type"]: each for each in status["conditions"]}
    assert conditions["Ready"]["status"] == "False"
    assert conditions["Ready"]["reason"] == "ContainersNotReady"
    assert conditions["Ready"]["observedGeneration"] == 3


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    later = NOW + dt.timedelta(minutes=1)
    first = pod_status(make_pod(), [Container("main", state=RUNNING)], {}, NOW)
    known = {each["type"]: each for each in first["conditions"]}
    same = pod_status(make_pod(), [Container("main", state=RUNNING)], known, later)
    assert {each["lastTransitionTime"] for each in same["conditions"]} == {"2026-01-02T03:04:05Z"}
    changed = {each["type"]: each for each in pod_status(make_pod(), [CRASHING], known, later)["conditions"]}
    assert changed["Ready"]["lastTransitionTime"] == "2026-01-02T03:05:05Z"
    assert changed["PodScheduled"]["lastTransitionTime"] == "2026-01-02T03:04:05Z"


def test_a_finished_pod_says_completed() -> None:
    status = pod_status(make_pod("Never"), [Container("main", state=OK)], {}, NOW)
    assert status["phase"] == "Succeeded"
    assert {each["type"]: each["reason"] for each in status["conditions"]}["Ready"] == "PodCompleted"


def test_a_signal_is_reported_as_128_plus_its_number() -> None:
    assert terminated(-9, NOW, NOW).exit_code == 137
    assert terminated(0, NOW, NOW).reason == "Completed"
    assert terminated(3, NOW, NOW).reason == "Error"


@pytest.mark.parametrize(
    ("policy", "code", "expected"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_the_restart_policy_decides(policy: str, code: int, expected: bool) -> None:
    assert should_restart(policy, code) is expected


def test_the_back_off_doubles_from_ten_to_three_hundred_seconds_and_starts_over_after_a_long_run() -> None:
    waits, backoff = [], None
    for _ in range(8):
        backoff = next_backoff(backoff, 0.1)
        waits.append(backoff)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    assert next_backoff(300, 600) == 0
