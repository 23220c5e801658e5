"""Runs workers as processes on a real Redis. The test plays the operator."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import redis

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.broker.publish import Outgoing, Publisher
from taskflow_core.domain.attempts import Attempt, AttemptKey
from taskflow_core.domain.event_input import read_event
from taskflow_core.domain.events import Event, EventKind, Failure, Origin, Stream
from taskflow_core.domain.message import Message
from taskflow_core.domain.naming import keys_of, queue_lists
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.ledger.connect import connect_async
from taskflow_core.ledger.namespaces import Namespaces
from taskflow_core.ledger.operator import OperatorLedger
from taskflow_core.ledger.presence import PoolView, WorkerName, WorkerReport, WorkerSnapshot
from taskflow_core.settings import RedisSettings, StorageSettings
from taskflow_local.stack import Stack
from taskflow_operator.tasks.snapshots import current_attempt
from tests.builders import TOKEN_KEY, make_message, make_task
from tests.e2e.product import eventually

T = TypeVar("T")
CODE = Path(__file__).parents[2] / "e2e" / "code"
PROCESS_HANDLERS = {
    "TASKFLOW_WORKER_HANDLERS": "e2e_handlers,e2e_processes",
    "TASKFLOW_WORKER_LEASE_SECONDS": "6",
    "TASKFLOW_WORKER_STOP_GRACE_SECONDS": "1",
}
"""Variables of a worker whose handlers do things to their process."""
LISTS = queue_lists("team-a", ["default"])
KEYS = keys_of("team-a")


def _named(names: Sequence[str]) -> list[WorkerName]:
    return [WorkerName("team-a", name) for name in names]


async def _expire(ledger: OperatorLedger) -> list[str]:
    (found,) = await ledger.survey({"team-a": 0}, grace_ms=0, limit=1)
    return [each.member for each in await ledger.expire(found.expired)]


def log_of(store: ObjectStore, uid: str) -> list[str]:
    """Lines of the log of a first attempt, without their times."""
    text = "".join(store.get_bytes(each.key).decode() for each in store.list(f"team-a/{uid}/1/logs/"))
    return [line.split(" ", 1)[1] for line in text.splitlines()]


def alive(pid: int) -> bool:
    """Whether a process runs. One that ended and is not waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def left(pids: Path) -> list[int]:
    """Those of the processes in a file that run."""
    return [int(pid) for pid in pids.read_text().split() if alive(int(pid))] if pids.exists() else []


@dataclass
class Workers:
    """The workers of a test: starts and controls them, and reads what they did."""

    settings: RedisSettings
    """Settings of the operator."""
    own_settings: RedisSettings
    """Settings of the workers."""
    raw: redis.Redis
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of all workers that are started from now on."""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self, name: str, concurrency: int = 2, drain_seconds: int = 10, **settings: object
    ) -> subprocess.Popen[bytes]:
        """Start a worker with these settings. Returns its process after its first report."""
        before = self.seen().now_ms
        settings |= {"concurrency": concurrency, "drain_seconds": drain_seconds}
        process = self._spawn(
            name, {f"TASKFLOW_WORKER_{setting.upper()}": str(value) for setting, value in settings.items()}
        )
        # A cold start takes seconds of CPU time: much longer on a machine that runs other tests.
        self.until(name, lambda report: report.at_ms >= before, seconds=120)
        return process

    def once(self, name: str, uid: str) -> subprocess.Popen[bytes]:
        """Start a worker that runs the first attempt of one Task and ends."""
        return self._spawn(name, {"TASKFLOW_WORKER_ONCE": KEYS.once(uid, 1)}, "--once")

    def _spawn(self, name: str, variables: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PYTHONPATH": str(CODE),
            "TASKFLOW_REDIS_URL": self.own_settings.url.get_secret_value(),
            "TASKFLOW_S3_ENDPOINT": "http://127.0.0.1:9",
            "TASKFLOW_S3_BUCKET": "unused",
            "TASKFLOW_S3_ACCESS_KEY": "unused",
            "TASKFLOW_S3_SECRET_KEY": "unused",
            "TASKFLOW_WORKER_NAMESPACE": "team-a",
            "TASKFLOW_WORKER_QUEUES": "default",
            "TASKFLOW_WORKER_NAME": name,
            "TASKFLOW_WORKER_HANDLERS": "e2e_handlers",
            "TASKFLOW_WORKER_DRAIN_SECONDS": "5",
            **self.environment,
            **variables,
        }
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "taskflow_worker", *arguments],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def keep_logs(self, minio: Stack) -> ObjectStore:
        """Let workers that are started from now on store the logs of attempts there."""
        found = {name: value for name, value in minio.env().items() if name.startswith("TASKFLOW_S3_")}
        self.environment |= found
        settings = {name.removeprefix("TASKFLOW_S3_").lower(): value for name, value in found.items()}
        return ObjectStore(StorageSettings.model_validate(settings))

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def end_all(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def seen(self) -> WorkerSnapshot:
        return self._ask(lambda view: view.snapshot(["team-a"], LISTS))

    def stop(self, *names: str) -> None:
        self._ask(lambda view: view.stop_intake(_named(names)))

    def resume(self, *names: str) -> None:
        self._ask(lambda view: view.resume_intake(_named(names)))

    def until(self, name: str, holds: Callable[[WorkerReport], bool], seconds: float = 30) -> WorkerReport:
        """Wait for a report of that worker that satisfies the condition."""
        worker = WorkerName("team-a", name)
        found = eventually(
            lambda: self.seen().reports.get(worker), lambda report: report is not None and holds(report), seconds
        )
        assert found is not None
        return found

    def quiet(self, name: str) -> WorkerReport:
        """Wait until it runs nothing and takes nothing. Returns that report."""
        return self.until(name, lambda report: not report.serving and report.busy == 0)

    def goes_on(self, name: str, seconds: int = 3) -> None:
        """Wait for reports of some more seconds."""
        since = self.seen().now_ms
        self.until(name, lambda report: report.at_ms > since + seconds * 1000)

    def passes(self, seconds: float) -> None:
        """Wait for some seconds of Redis' clock."""
        until = self.seen().now_ms + seconds * 1000
        eventually(lambda: self.seen().now_ms, lambda now: now >= until)

    def waiting(self) -> int:
        """The number of messages in the queues."""
        return sum(self.seen().lengths.values())

    def send(
        self, uids: Sequence[str], handler: str = "taskflow.echo", timeout: int | None = None, **kwargs: Any
    ) -> None:
        """Enter and publish one attempt for each uid, with this timeout in seconds."""
        attempts = [current_attempt(make_task(uid=uid, phase=Phase.QUEUED)) for uid in uids]
        self._enter(attempts)
        messages = [
            make_message(uid=uid, handler=handler, kwargs=kwargs, attempt_timeout_seconds=timeout) for uid in uids
        ]
        self._publish(messages)

    def cancel(self, uid: str) -> None:
        """Request a stop of the first attempt."""
        self._tell(lambda ledger: ledger.request_stop(AttemptKey("team-a", uid, 1), Reason.CANCELLED))

    def expire(self) -> list[str]:
        """Expire leases that were not renewed. Returns the members."""
        return self._tell(_expire)

    def _tell(self, order: Callable[[OperatorLedger], Coroutine[Any, Any, T]]) -> T:
        async def told() -> T:
            client = connect_async(self.settings)
            try:
                return await order(OperatorLedger(client, Namespaces(client), TOKEN_KEY))
            finally:
                await client.aclose()
                await client.connection_pool.disconnect()

        return asyncio.run(told())

    def leave(self, uid: str, handler: str = "taskflow.echo", **kwargs: Any) -> None:
        """Enter one attempt and leave its message for a worker that runs it once."""
        self._enter([current_attempt(make_task(uid=uid, phase=Phase.QUEUED))])
        self._tell(lambda ledger: ledger.leave(make_message(uid=uid, handler=handler, kwargs=kwargs)))

    def _enter(self, attempts: Sequence[Attempt]) -> None:
        self._tell(lambda ledger: ledger.enqueue(attempts))

    def _publish(self, messages: Sequence[Message]) -> None:
        publisher = Publisher(self.settings)
        publisher.publish([Outgoing(message, 1) for message in messages])
        publisher.close()

    def _ask(self, question: Callable[[PoolView], Coroutine[Any, Any, T]]) -> T:
        async def asked() -> T:
            client = connect_async(self.settings)
            try:
                return await question(PoolView(client))
            finally:
                await client.aclose()
                await client.connection_pool.disconnect()

        return asyncio.run(asked())

    def told(self, kind: EventKind, worker: str = "") -> list[Event]:
        """Events of this kind, of all workers or of one."""
        rows: Any = self.raw.xrange(KEYS.events)
        stream = Stream("team-a", Origin.WORKERS)
        events = [read_event(stream, stream_id, fields, TOKEN_KEY) for stream_id, fields in rows]
        return [event for event in events if event.kind is kind and event.worker.startswith(worker)]

    def succeeded(self, *uids: str) -> None:
        """Wait until these attempts succeeded. Others may still run."""
        eventually(
            lambda: set(uids) - {event.uid for event in self.told(EventKind.SUCCEEDED)}, lambda missing: not missing
        )

    def result(self, uid: str) -> Any:
        """Wait until the attempt succeeded. Returns the handler's result."""
        self.succeeded(uid)
        (event,) = [event for event in self.told(EventKind.SUCCEEDED) if event.uid == uid]
        return event.payload.get("result")

    def run(self, uid: str, handler: str, **kwargs: Any) -> Any:
        """Run one attempt. Returns the handler's result."""
        self.send([uid], handler, **kwargs)
        return self.result(uid)

    def failure(self, kind: EventKind, uid: str) -> Failure:
        """Wait for the end of that kind of an attempt."""
        told = eventually(lambda: {event.uid: event for event in self.told(kind)}, lambda found: uid in found)
        return Failure.model_validate(told[uid].payload)

    def finished(self, uids: Sequence[str], seconds: float = 60) -> None:
        """Wait until these succeeded, each in one run, and no message of any attempt is left or unacknowledged."""
        eventually(
            lambda: set(uids) - {event.uid for event in self.told(EventKind.SUCCEEDED)}, lambda rest: not rest, seconds
        )
        starts = Counter(event.uid for event in self.told(EventKind.STARTED))
        assert {uid: starts[uid] for uid in uids} == dict.fromkeys(uids, 1)
        assert self.told(EventKind.DUPLICATE) == []
        eventually(lambda: (self.waiting(), self.raw.hlen(KEYS.unacked.messages)), lambda rest: rest == (0, 0))
