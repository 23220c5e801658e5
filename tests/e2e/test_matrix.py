"""What becomes of a Task in each phase at each thing that a user or the clock may do to it, as DESIGN and the manual
promise.

All cells run at once: one Task each, brought into its state, acted upon, and looked at when nothing is under way any
more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from taskflow_core.domain.naming import keys_of
from tests.api_server import TASKS
from tests.e2e.product import Product, eventually, records, task
from tests.e2e.test_faults import connect

KEYS = keys_of("default")
pytestmark = pytest.mark.e2e

LABEL = "matrix"
GRACE_SECONDS = 2
FAR = {"backoffSeconds": 3600, "maxBackoffSeconds": 3600}
GONE = None


@dataclass(frozen=True)
class Cell:
    """One state, one action, and the outcome that is promised."""

    state: str
    action: str
    phase: str | None
    """None: the resource is gone."""
    reason: str = ""
    attempt: int = 1
    """`status.attempt`, the one that counts."""
    starts: int = 0
    """How often the handler began, by its own record."""
    stopped: int = 0
    """How often it saw that it was to stop."""

    @property
    def name(self) -> str:
        return f"matrix-{self.state}-{self.action}".replace("_", "-")


CELLS = (
    # Held by notBefore. A deadline counts from the start of the first attempt, so it never passes here.
    Cell("before", "suspend", "Suspended", "Suspended"),
    Cell("before", "resume", "Pending", "NotBefore"),
    Cell("before", "cancel", "Cancelled", "Cancelled"),
    Cell("before", "delete", GONE),
    Cell("before", "deadline", "Pending", "NotBefore"),
    Cell("before", "queue_timeout", "Pending", "NotBefore"),
    # Held by suspend.
    Cell("suspended", "resume", "Succeeded", "Succeeded", starts=1),
    Cell("suspended", "cancel", "Cancelled", "Cancelled"),
    Cell("suspended", "delete", GONE),
    Cell("suspended", "deadline", "Suspended", "Suspended"),
    Cell("suspended", "queue_timeout", "Suspended", "Suspended"),
    # In its queue, no worker is free.
    Cell("queued", "suspend", "Suspended", "Suspended"),
    Cell("queued", "resume", "Queued", "WaitingForWorker"),
    Cell("queued", "cancel", "Cancelled", "Cancelled"),
    Cell("queued", "delete", GONE),
    Cell("queued", "deadline", "Queued", "WaitingForWorker"),
    Cell("queued", "queue_timeout", "Failed", "QueueTimeout"),
    Cell("queued", "recreate", "Queued", "WaitingForWorker"),
    # No pool serves its queue, so it is in none.
    Cell("unserved", "suspend", "Suspended", "Suspended"),
    Cell("unserved", "resume", "Pending", "NoWorkerPool"),
    Cell("unserved", "cancel", "Cancelled", "Cancelled"),
    Cell("unserved", "delete", GONE),
    Cell("unserved", "deadline", "Pending", "NoWorkerPool"),
    Cell("unserved", "queue_timeout", "Pending", "NoWorkerPool"),
    # Runs, and looks whether it is to stop. An attempt that runs goes on when its Task is suspended; the next one is
    # held.
    Cell("running", "suspend_and_end", "Succeeded", "Succeeded", starts=1),
    Cell("running", "cancel", "Cancelled", "Cancelled", starts=1, stopped=1),
    Cell("running", "delete", GONE, starts=1, stopped=1),
    Cell("running", "deadline", "Failed", "DeadlineExceeded", starts=1, stopped=1),
    Cell("running", "queue_timeout", "Running", "Started", starts=1),
    Cell("running", "recreate", "Running", "Started", starts=2, stopped=1),
    # Runs, and fails when the gate opens.
    Cell("failing", "end", "Pending", "BackingOff", attempt=2, starts=1),
    Cell("failing", "suspend_and_end", "Suspended", "Suspended", attempt=2, starts=1),
    Cell("failing_last", "end", "Failed", "HandlerError", starts=1),
    Cell("failing_last", "suspend_and_end", "Failed", "HandlerError", starts=1),
    # Runs, and never looks: killed after the grace.
    Cell("deaf", "cancel", "Cancelled", "Cancelled", starts=1),
    Cell("deaf", "delete", GONE, starts=1),
    Cell("deaf", "deadline", "Failed", "DeadlineExceeded", starts=1),
    Cell("deaf_timeout", "attempt_timeout", "Pending", "BackingOff", attempt=2, starts=1),
    Cell("deaf_timeout_last", "attempt_timeout", "Failed", "AttemptTimeout", starts=1),
    # Waits an hour for its second attempt.
    Cell("waiting", "suspend", "Suspended", "Suspended", attempt=2, starts=1),
    Cell("waiting", "resume", "Pending", "BackingOff", attempt=2, starts=1),
    Cell("waiting", "cancel", "Cancelled", "Cancelled", attempt=2, starts=1),
    Cell("waiting", "delete", GONE, starts=1),
    Cell("waiting", "deadline", "Failed", "DeadlineExceeded", attempt=2, starts=1),
    Cell("waiting", "queue_timeout", "Pending", "BackingOff", attempt=2, starts=1),
    Cell("waiting", "recreate", "Pending", "BackingOff", attempt=2, starts=2),
    # Terminal is final; to have it again, create it again.
    *(
        Cell(state, action, phase, reason, starts=1)
        for state, phase, reason in (("succeeded", "Succeeded", "Succeeded"), ("failed", "Failed", "HandlerError"))
        for action in ("suspend", "resume", "cancel", "deadline", "queue_timeout")
    ),
    Cell("succeeded", "delete", GONE, starts=1),
    Cell("failed", "delete", GONE, starts=1),
    Cell("succeeded", "recreate", "Succeeded", "Succeeded", starts=2),
    Cell("failed", "recreate", "Failed", "HandlerError", starts=2),
)


@dataclass
class Matrix:
    """All cells, as they run."""

    product: Product
    folder: Path
    uids: dict[str, list[str]] = field(default_factory=dict)
    """Of each cell's Tasks, the latest last."""
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    entered: set[str] = field(default_factory=set)
    """Uids in the ledger of attempts that may be claimed, when all is done."""
    left: dict[str, list[str]] = field(default_factory=dict)
    """What is in Redis of a uid, once its resource is gone or finished."""

    def record(self, cell: Cell) -> Path:
        return self.folder / f"{cell.name}.record"

    def gate(self, cell: Cell) -> Path:
        return self.folder / f"{cell.name}.gate"

    def count(self, cell: Cell, what: str) -> int:
        return len(records(self.record(cell), what))

    def patch(self, cell: Cell, **spec: Any) -> None:
        self.product.kubectl("patch", "tft", cell.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def listed(self) -> dict[str, dict[str, Any]]:
        items = self.product.api_server.list(TASKS, LABEL)
        return {item["metadata"]["name"]: item for item in items}


def body(matrix: Matrix, cell: Cell) -> dict[str, Any]:
    """The cell's Task."""
    gated = {"record": str(matrix.record(cell)), "gate": str(matrix.gate(cell))}
    fails = gated | {"fails": True}
    deaf = {"kwargs": {"record": str(matrix.record(cell))}}
    states: dict[str, dict[str, Any]] = {
        "before": {"notBefore": (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")},
        "suspended": {"suspend": True},
        "queued": {"queue": "matrix-busy"},
        "unserved": {"queue": "matrix-nobody"},
        "failing": {"kwargs": fails, "retryPolicy": {"maxAttempts": 2, **FAR}},
        "failing_last": {"kwargs": fails, "retryPolicy": {"maxAttempts": 1}},
        "deaf": deaf,
        "deaf_timeout": {**deaf, "attemptTimeoutSeconds": 1, "retryPolicy": {"maxAttempts": 2, **FAR}},
        "deaf_timeout_last": {**deaf, "attemptTimeoutSeconds": 1, "retryPolicy": {"maxAttempts": 1}},
        "waiting": {"kwargs": fails, "retryPolicy": {"maxAttempts": 2, **FAR}},
        "failed": {"kwargs": fails, "retryPolicy": {"maxAttempts": 1}},
    }
    handler = "sdk.deaf" if cell.state.startswith("deaf") else "sdk.gated"
    made = task(cell.name, handler, **{"queue": "matrix", "kwargs": gated, **states.get(cell.state, {})})
    made["metadata"]["labels"] = {LABEL: "cell"}
    return made


REACHED = {
    "before": "NotBefore",
    "suspended": "Suspended",
    "queued": "WaitingForWorker",
    "unserved": "NoWorkerPool",
    "waiting": "BackingOff",
    "succeeded": "Succeeded",
    "failed": "HandlerError",
}
"""Reason of the states that are seen in the resource; the others are seen in the handler's record."""


def reached(matrix: Matrix, cell: Cell, listed: dict[str, dict[str, Any]]) -> bool:
    if cell.state not in REACHED:
        return matrix.count(cell, "start") == 1
    return bool(listed.get(cell.name, {}).get("status", {}).get("reason") == REACHED[cell.state])


def act(matrix: Matrix, cell: Cell) -> None:
    actions: dict[str, Callable[[], None]] = {
        "suspend": lambda: matrix.patch(cell, suspend=True),
        "resume": lambda: resume(matrix, cell),
        "cancel": lambda: matrix.patch(cell, cancel=True),
        "delete": lambda: delete(matrix, cell),
        "deadline": lambda: matrix.patch(cell, activeDeadlineSeconds=1),
        "queue_timeout": lambda: matrix.patch(cell, queueTimeoutSeconds=1),
        "attempt_timeout": lambda: None,
        "end": lambda: matrix.gate(cell).touch(),
        "suspend_and_end": lambda: suspend_and_end(matrix, cell),
        "recreate": lambda: recreate(matrix, cell),
    }
    actions[cell.action]()


def resume(matrix: Matrix, cell: Cell) -> None:
    if cell.state != "suspended":
        matrix.patch(cell, suspend=True)
        if cell.state not in ("succeeded", "failed"):
            matrix.product.in_phase(cell.name, "Suspended")
    matrix.patch(cell, suspend=False)


def delete(matrix: Matrix, cell: Cell) -> None:
    matrix.product.kubectl("delete", "tft", cell.name)


def suspend_and_end(matrix: Matrix, cell: Cell) -> None:
    matrix.patch(cell, suspend=True)
    matrix.gate(cell).touch()


def recreate(matrix: Matrix, cell: Cell) -> None:
    delete(matrix, cell)
    matrix.product.apply(body(matrix, cell))
    matrix.uids[cell.name].append(matrix.product.task(cell.name)["metadata"]["uid"])


def arrived(matrix: Matrix, cell: Cell, listed: dict[str, dict[str, Any]]) -> bool:
    found = listed.get(cell.name)
    if matrix.count(cell, "start") < cell.starts or matrix.count(cell, "stopped") < cell.stopped:
        return False
    if cell.phase is GONE or found is None:
        return cell.phase is GONE and found is None
    status = found.get("status", {})
    return (status.get("phase"), status.get("reason")) == (cell.phase, cell.reason)


def later(matrix: Matrix, seconds: float, cells: tuple[Cell, ...], holds: Callable[..., bool]) -> None:
    """Wait until it holds of all cells, or until the time is over: what is missing is told by the test of its cell."""

    def missing() -> list[str]:
        listed = matrix.listed()
        return [cell.name for cell in cells if not holds(matrix, cell, listed)]

    try:
        eventually(missing, lambda names: not names, seconds)
    except AssertionError as error:
        print(error)  # noqa: T201 - shown with the failures


def traces(matrix: Matrix, uid: str) -> list[str]:
    """What Redis still has of a Task, but for the tombstones that keep an ended attempt from being entered again."""
    redis = connect(matrix.product)
    found = [f"{key}: {each}" for key in (KEYS.ledger, KEYS.leases) for each in redis.zrange(key, 0, -1) if uid in each]
    found += [f"{KEYS.stops}: {each}" for each in redis.hkeys(KEYS.stops) if uid in each]
    claims = {key: redis.get(key) for key in redis.scan_iter(f"{KEYS.claim_prefix}{uid}*", count=1000)}
    return found + [f"{key}: {held}" for key, held in claims.items() if held not in ("settled", "deleted", None)]


def pool(name: str, concurrency: int) -> dict[str, Any]:
    env = [
        {"name": "TASKFLOW_WORKER_HANDLERS", "value": "e2e_sdk"},
        {"name": "TASKFLOW_WORKER_STOP_GRACE_SECONDS", "value": str(GRACE_SECONDS)},
    ]
    spec = {
        "queues": [name],
        "concurrency": concurrency,
        "template": {"spec": {"terminationGracePeriodSeconds": 12, "containers": [{"name": "worker", "env": env}]}},
    }
    return {"apiVersion": "taskflow.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def matrix(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    matrix = Matrix(product, tmp_path_factory.mktemp("matrix"))
    busy = sum(cell.state not in REACHED for cell in CELLS)
    product.apply(pool("matrix", busy + 2), pool("matrix-busy", 1))
    product.kubectl("wait", "tfp/matrix", "tfp/matrix-busy", "--for=condition=Ready", "--timeout=60s")
    blocker = Cell("blocker", "end", "Succeeded", starts=1)
    product.apply(body(matrix, blocker) | {"spec": body(matrix, blocker)["spec"] | {"queue": "matrix-busy"}})
    eventually(lambda: matrix.count(blocker, "start"), lambda count: count == 1)
    for cell in CELLS:
        if cell.state in ("waiting", "succeeded", "failed", "suspended"):
            matrix.gate(cell).touch()
    product.apply(*(body(matrix, cell) for cell in CELLS))
    later(matrix, 60, CELLS, reached)
    matrix.uids = {name: [found["metadata"]["uid"]] for name, found in matrix.listed().items()}
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda cell: act(matrix, cell), CELLS))
    # Everything before it has been seen when it ends, and each limit of a second has passed, also where nothing may
    # come of it.
    after = (datetime.now(UTC) + timedelta(seconds=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    product.run("matrix-after", "taskflow.echo", queue="matrix", notBefore=after)
    later(matrix, 40, CELLS, arrived)
    matrix.found = matrix.listed()
    matrix.entered = {each.rpartition(":")[0] for each in connect(product).zrange(KEYS.ledger, 0, -1)}
    open_phases = ("Queued", "Running")
    uids = [uid for cell in CELLS for uid in matrix.uids[cell.name][: -1 if cell.phase in open_phases else None]]

    def left() -> dict[str, list[str]]:
        return {uid: found for uid in uids if (found := traces(matrix, uid))}

    # A status stands a moment before its attempt is settled.
    with suppress(AssertionError):
        eventually(left, lambda found: not found, 10)
    matrix.left = left()
    yield matrix
    matrix.gate(blocker).touch()
    product.kubectl("delete", "tft", "-l", LABEL)
    product.kubectl("delete", "tfp", "matrix", "matrix-busy")


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.state}-{cell.action}")
def test_each_phase_at_each_action(matrix: Matrix, cell: Cell) -> None:
    found = matrix.found.get(cell.name)
    if cell.phase is GONE:
        assert found is None
    else:
        assert found is not None
        status = found["status"]
        assert (status["phase"], status["reason"], status["attempt"]) == (cell.phase, cell.reason, cell.attempt)
        assert found["metadata"]["uid"] == matrix.uids[cell.name][-1]
        finished = [each["status"] for each in status["conditions"] if each["type"] == "Finished"]
        assert finished == (["True"] if cell.phase in ("Succeeded", "Failed", "Cancelled") else [])
    assert (matrix.count(cell, "start"), matrix.count(cell, "stopped")) == (cell.starts, cell.stopped)
    # What nobody may run any more is nowhere: not in the ledger, nor leased, nor claimed, nor asked to stop.
    assert {uid: matrix.left[uid] for uid in matrix.uids[cell.name] if matrix.left.get(uid)} == {}
    in_ledger = [uid for uid in matrix.uids[cell.name] if uid in matrix.entered]
    assert in_ledger == (matrix.uids[cell.name][-1:] if cell.phase == "Queued" else [])


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.phase is GONE], ids=lambda cell: cell.state)
def test_a_deleted_task_is_told_as_deleted_in_the_history(matrix: Matrix, cell: Cell) -> None:
    told = matrix.product.get(f"/v1/namespaces/default/tasks/{cell.name}")
    assert told["live"] is False
