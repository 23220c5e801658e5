"""What an author of handlers gets, seen through the whole product."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.product import Product, condition, eventually, records, task

pytestmark = pytest.mark.e2e

GRACE_SECONDS = 2
READABLE_SECONDS = 2.0
"""How old a line of a log or a progress may be when it can be read; the rest is the test's own looking."""
LOOKING_SECONDS = 1.5
ONE_TRY = {"maxAttempts": 1}
SOON = {"maxAttempts": 2, "backoffSeconds": 0}


@pytest.fixture(scope="module")
def sdk(product: Product) -> Iterator[Product]:
    """A pool whose workers have the handlers of e2e_sdk and little grace."""
    env = [
        {"name": "TASKFLOW_WORKER_HANDLERS", "value": "e2e_sdk"},
        {"name": "TASKFLOW_WORKER_STOP_GRACE_SECONDS", "value": str(GRACE_SECONDS)},
    ]
    spec = {
        "queues": ["sdk"],
        "concurrency": 2,
        "template": {
            "spec": {"terminationGracePeriodSeconds": 12, "containers": [{"name": "worker", "env": env}]},
        },
    }
    product.apply(
        {"apiVersion": "taskflow.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": "sdk"}, "spec": spec}
    )
    product.kubectl("wait", "tfp/sdk", "--for=condition=Ready", "--timeout=60s")
    yield product
    product.kubectl("delete", "tfp", "sdk")


def start(sdk: Product, name: str, handler: str, folder: Path, **spec: Any) -> Path:
    """Apply a Task whose handler keeps a record, wait until it runs, return the record."""
    record = folder / f"{name}.record"
    kwargs = {"record": str(record), **spec.pop("kwargs", {})}
    sdk.apply(task(name, handler, queue="sdk", kwargs=kwargs, **spec))
    eventually(lambda: records(record, "start"), lambda found: len(found) == 1)
    return record


def gone(pid: int) -> bool:
    """No process any more, or one whose parent has yet to hear of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def cancel(sdk: Product, name: str) -> None:
    sdk.kubectl("patch", "tft", name, "--type=merge", "-p", json.dumps({"spec": {"cancel": True}}))


def log_text(sdk: Product, found: dict[str, Any], attempt: int = 1) -> str:
    prefix = f"default/{found['metadata']['uid']}/{attempt}/logs/"
    return "".join(sdk.objects().get_bytes(each.key).decode() for each in sdk.objects().list(prefix))


def last_words(text: str) -> list[str]:
    """The lines without their times."""
    return [line.split(" ", 1)[1] for line in text.splitlines()]


def test_progress_and_log_can_be_read_while_the_handler_runs(sdk: Product, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    start(sdk, "sdk-talk", "sdk.talk", tmp_path, kwargs={"gate": str(gate)})
    said = time.monotonic()
    found = eventually(lambda: sdk.task("sdk-talk"), lambda t: "progress" in t.get("status", {}))
    text = eventually(lambda: log_text(sdk, found), lambda text: "from a program" in text)
    assert time.monotonic() - said < READABLE_SECONDS + LOOKING_SECONDS
    assert found["status"]["progress"] == {"done": 3, "total": 10, "message": "half way"}
    assert sorted(last_words(text)) == [
        "INFO e2e.sdk: logged 1",
        "stderr to stderr",
        "stdout from a program",
        "stdout printed",
    ]
    gate.touch()
    assert sdk.finished("sdk-talk")["status"]["phase"] == "Succeeded"
    # The last chunk is stored before the end is told.
    assert last_words(log_text(sdk, found))[-1] == "stdout last words"


def test_the_log_of_a_killed_worker_stays(sdk: Product, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    record = start(sdk, "sdk-killed", "sdk.talk", tmp_path, kwargs={"gate": str(gate)}, retryPolicy=SOON)
    uid = sdk.task("sdk-killed")
    eventually(lambda: log_text(sdk, uid), lambda text: "from a program" in text)
    os.kill(records(record, "start")[0]["pid"], signal.SIGKILL)
    gate.touch()
    found = sdk.finished("sdk-killed")
    assert found["status"]["attempt"] == 2
    assert "stdout printed" in last_words(log_text(sdk, found, 1))
    assert "stdout last words" in last_words(log_text(sdk, found, 2))


def test_a_timeout_interrupts_a_handler_that_knows_nothing_of_it(sdk: Product, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    start(sdk, "sdk-beside-soft", "sdk.talk", tmp_path, kwargs={"gate": str(gate)})
    record = start(sdk, "sdk-soft", "sdk.slow", tmp_path, attemptTimeoutSeconds=1, retryPolicy=ONE_TRY)
    found = sdk.finished("sdk-soft")
    assert found["status"]["reason"] == "AttemptTimeout"
    assert found["status"]["lastError"]["type"] == "taskflow_worker.sdk.failures.Stopped"
    assert "time.sleep(600)" in found["status"]["lastError"]["trace"]
    assert "taskflow_worker/" not in found["status"]["lastError"]["trace"]
    assert len(records(record, "cleaned")) == 1
    gate.touch()
    assert sdk.finished("sdk-beside-soft")["status"]["attempt"] == 1


def test_a_handler_that_ignores_its_timeout_is_killed_alone(sdk: Product, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    start(sdk, "sdk-beside-hard", "sdk.talk", tmp_path, kwargs={"gate": str(gate)})
    record = start(sdk, "sdk-hard", "sdk.deaf", tmp_path, attemptTimeoutSeconds=1, retryPolicy=ONE_TRY)
    found = sdk.finished("sdk-hard")
    assert found["status"]["reason"] == "AttemptTimeout"
    assert "did not stop within 2 s and was killed" in condition(found, "Failed")["message"]
    assert len(records(record, "ignored")) == 1
    # With its process goes the program that it started.
    for what in ("start", "program"):
        pid = records(record, what)[0]["pid"]
        eventually(partial(gone, pid), bool)
    gate.touch()
    beside = sdk.finished("sdk-beside-hard")
    assert beside["status"]["phase"] == "Succeeded"
    assert beside["status"]["attempt"] == 1
    # The killed one is not told as a lost worker, neither at once nor later.
    told = sdk.history("sdk-hard", "Failed")
    assert [(a["outcome"], a["reason"]) for a in told["attempts"]] == [("failed", "AttemptTimeout")]


def test_a_handler_that_looks_stops_when_it_is_cancelled(sdk: Product, tmp_path: Path) -> None:
    record = start(sdk, "sdk-cancel-polite", "sdk.polite", tmp_path)
    cancel(sdk, "sdk-cancel-polite")
    found = sdk.finished("sdk-cancel-polite")
    assert found["status"]["phase"] == "Cancelled"
    assert condition(found, "Cancelled")["reason"] == "Cancelled"
    assert len(records(record, "stopped")) == 1
    told = sdk.history("sdk-cancel-polite", "Cancelled")
    assert [event["kind"] for event in told["timeline"]] == ["queued", "started", "cancelled", "settled"]


def test_a_handler_that_never_looks_is_killed_when_it_is_cancelled(sdk: Product, tmp_path: Path) -> None:
    record = start(sdk, "sdk-cancel-deaf", "sdk.deaf", tmp_path)
    cancel(sdk, "sdk-cancel-deaf")
    found = sdk.finished("sdk-cancel-deaf")
    assert found["status"]["phase"] == "Cancelled"
    pid = records(record, "start")[0]["pid"]
    eventually(partial(gone, pid), bool)
    # Both places of the pool work again.
    for name in ("sdk-after-1", "sdk-after-2"):
        assert sdk.run(name, "taskflow.echo", queue="sdk")["status"]["phase"] == "Succeeded"


def test_a_coroutine_is_cancelled_where_it_waits(sdk: Product, tmp_path: Path) -> None:
    record = start(sdk, "sdk-cancel-nap", "sdk.nap", tmp_path)
    cancel(sdk, "sdk-cancel-nap")
    assert sdk.finished("sdk-cancel-nap")["status"]["phase"] == "Cancelled"
    assert len(records(record, "cleaned")) == 1


def test_a_deadline_of_the_task_stops_its_attempt(sdk: Product, tmp_path: Path) -> None:
    record = start(sdk, "sdk-deadline", "sdk.polite", tmp_path, activeDeadlineSeconds=1)
    found = sdk.finished("sdk-deadline")
    assert found["status"]["phase"] == "Failed"
    assert found["status"]["reason"] == "DeadlineExceeded"
    assert len(records(record, "stopped")) == 1


def test_a_checkpoint_outlives_the_process_that_left_it(sdk: Product) -> None:
    found = sdk.run("sdk-resume", "sdk.resume", queue="sdk", retryPolicy=SOON)
    assert found["status"]["attempt"] == 2
    assert found["status"]["result"] == {"row": 17}


def test_an_async_handler_takes_and_returns_models(sdk: Product) -> None:
    found = sdk.run("sdk-order", "sdk.order", queue="sdk", kwargs={"order": {"item": "tea", "due": "2026-03-01"}})
    assert found["status"]["result"] == {"item": "TEA", "due": "2026-03-01"}


def test_a_large_result_is_stored_as_an_artifact(sdk: Product) -> None:
    found = sdk.run("sdk-large", "sdk.large", queue="sdk", kwargs={"size": 100_000})
    assert found["status"]["result"] == {"artifact": "result.json"}
    (output,) = found["status"]["outputs"]
    assert (output["name"], output["contentType"]) == ("result.json", "application/json")
    assert sdk.objects().get_bytes(output["key"]) == b'"' + b"x" * 100_000 + b'"'


def test_an_error_that_no_retry_can_mend_ends_the_task(sdk: Product) -> None:
    found = sdk.run("sdk-hopeless", "sdk.hopeless", queue="sdk")
    assert found["status"]["reason"] == "NotRetryable"
    assert found["status"]["attempt"] == 1
    assert found["status"]["lastError"]["message"] == "the customer is gone"


@pytest.mark.parametrize(("handler", "isolation"), [("sdk.polls", "Worker"), ("sdk.polls_async", "Pod")])
def test_a_handler_that_raises_again_is_run_again_and_none_of_it_counts(
    sdk: Product, handler: str, isolation: str
) -> None:
    name = f"again-{isolation.lower()}"
    kwargs = {"times": 2, "seconds": 1}
    found = sdk.run(name, handler, queue="sdk", isolation=isolation, kwargs=kwargs, retryPolicy=ONE_TRY)
    status = found["status"]
    assert (status["phase"], status["result"]) == ("Succeeded", {"asked": 2, "attempt": 3, "handbacks": 2})
    assert (status["attempts"], status["handbacks"], status["continuations"]) == (3, 2, 2)
    assert "lastError" not in status


def test_what_waits_for_its_next_attempt_says_so_and_holds_no_slot(sdk: Product) -> None:
    sdk.apply(task("again-later", "sdk.polls", queue="sdk", kwargs={"times": 1, "seconds": 86400}))
    waiting = eventually(
        lambda: sdk.task("again-later"), lambda found: found.get("status", {}).get("reason") == "Again"
    )
    status = waiting["status"]
    assert (status["phase"], status["attempt"], status["checkpoint"]) == ("Pending", 2, "1")
    assert status["message"] == "attempt 1 asked to be run again: asked 0 times; attempt 2 follows in 86400 s"
    assert condition(waiting, "Queued")["reason"] == "Again"
    why = sdk.get("/v1/namespaces/default/tasks/again-later/why")
    assert (why["waiting"], why["reason"]) == (True, "Again")
    assert why["message"].endswith("; the handler asked to be run again then")
    # No worker has it: another Task runs, and a cancel needs no worker.
    sdk.run("again-other", "taskflow.echo", queue="sdk", kwargs={"value": 1})
    cancel(sdk, "again-later")
    found = sdk.finished("again-later")
    assert (found["status"]["phase"], found["status"]["attempt"]) == ("Cancelled", 2)
