from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Reject
from celery.worker import state
from celery.worker.request import Request
from pydantic import SecretStr

from taskflow_core.domain import naming
from taskflow_core.domain.events import Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.slots import PoolKind
from taskflow_core.errors import Unavailable
from taskflow_core.settings import LogSettings, RedisSettings, StorageSettings
from taskflow_worker.process.app import Worker
from taskflow_worker.process.runner import Unclaimed
from taskflow_worker.settings import WorkerSettings
from tests.builders import make_message


def make(kind: PoolKind) -> Worker:
    """A worker whose servers do not exist."""
    nowhere = StorageSettings(
        endpoint="http://127.0.0.1:9", bucket="none", access_key=SecretStr("none"), secret_key=SecretStr("none")
    )
    settings = WorkerSettings(namespace="team-a", queues=("default",), name="a", pool_kind=kind, concurrency=2)
    return Worker(settings, RedisSettings(url=SecretStr("redis://127.0.0.1:9/0")), nowhere, LogSettings())


def request(worker: Worker) -> Any:
    """A message that the worker received."""
    kind = worker.app.tasks[naming.CELERY_TASK].Request
    made = kind.__new__(kind)
    made.id, made._args, made.name, made._task = "u:1", [{"token": "t"}], "t", worker.app.tasks[naming.CELERY_TASK]
    made._eventer = made._terminate_on_ack = None
    return made


@pytest.mark.parametrize("kind", list(PoolKind))
def test_an_accepted_request_is_leased_at_once(kind: PoolKind, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = make(kind)
    taken = request(worker)
    accept = Request.on_accepted

    def on_accepted(self: Any, *arguments: Any) -> None:
        # A heartbeat just before drops attempts that Celery does not count as running.
        worker.leases.current()
        accept(self, *arguments)

    monkeypatch.setattr(Request, "on_accepted", on_accepted)
    try:
        taken.on_accepted(77, time.monotonic())
        (held,) = worker.leases.current()
        assert (held.member, held.runner, held.token) == ("u:1", 77, "t")
    finally:
        state.active_requests.discard(taken)


@pytest.mark.parametrize(
    ("kind", "pool"),
    [
        (PoolKind.PREFORK, "taskflow_worker.process.pool_process:CeleryPrefork"),
        (PoolKind.THREADS, "taskflow_worker.process.threads:CeleryThreads"),
    ],
)
def test_celery_gets_the_configured_pool(kind: PoolKind, pool: str) -> None:
    assert make(kind).app.conf.worker_pool == pool


@dataclass
class FakePool:
    execute: Callable[[Any], None]
    why: list[str] = field(default_factory=list)

    def runner(self) -> FakePool:
        return self

    def broken(self, why: str) -> None:
        self.why.append(why)


def raising(error: Exception) -> Callable[[Any], None]:
    def execute(_: Any) -> None:
        raise error

    return execute


def unclaimed(cause: Exception) -> Unclaimed:
    error = Unclaimed(str(cause))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("kind", "cause", "ends"),
    [
        (PoolKind.PREFORK, OSError("no descriptor"), True),
        (PoolKind.PREFORK, Unavailable("down"), True),
        (PoolKind.THREADS, OSError("no descriptor"), True),
        # The whole worker would end for an outage of Redis.
        (PoolKind.THREADS, Unavailable("down"), False),
    ],
)
def test_a_delivery_that_was_not_claimed_goes_back_to_the_queue(
    kind: PoolKind, cause: Exception, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, pool = make(kind), FakePool(raising(unclaimed(cause)))
    monkeypatch.setattr(worker, "_pool", pool)
    monkeypatch.setattr("taskflow_worker.process.app._HAND_BACK_SECONDS", 0)
    with pytest.raises(Reject) as raised:
        worker.execute(make_message().model_dump(mode="json", by_alias=True))
    assert raised.value.requeue
    assert bool(pool.why) is ends


def test_a_runner_that_cannot_report_an_end_is_replaced_and_the_main_process_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, pool = make(PoolKind.PREFORK), FakePool(raising(OSError(24, "Too many open files")))
    monkeypatch.setattr(worker, "_pool", pool)
    with pytest.raises(OSError, match="Too many open files"):
        worker.execute(make_message().model_dump(mode="json", by_alias=True))
    assert pool.why == ["the worker failed outside of the handler: OSError: [Errno 24] Too many open files"]
    told: list[Failure] = []
    monkeypatch.setattr(worker.leases, "failed", lambda _, failure: told.append(failure))
    monkeypatch.setattr(Request, "on_failure", lambda *_, **__: None)
    for error in (OSError(24, "Too many open files"), Reject("goes back", requeue=True)):
        request(worker).on_failure(SimpleNamespace(exception=error))
    assert [(failure.reason, failure.type) for failure in told] == [(Reason.WORKER_ERROR, "OSError")]
