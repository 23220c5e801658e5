"""Reports of workers, and requests to stop their intake."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis
import redis.asyncio
from pydantic import Field, ValidationError
from redis.exceptions import RedisError

from taskflow_core.domain.naming import keys_of
from taskflow_core.domain.resource import Count, Model
from taskflow_core.ledger.connect import redis_errors, script
from taskflow_core.ledger.scripting import BatchScript
from taskflow_core.telemetry.logs import get_logger

PRESENCE_SECONDS = 1.0
"""The time between two reports of a worker."""
STOP = "stop"
"""Value of an intake that is stopped."""

MAX_WORKERS = 1000
"""Of a namespace. When there are more reports, all of them are removed: those who live report again within a second."""
MAX_REPORT_BYTES = 16 * 1024
AHEAD_MS = 60_000
_NAME = re.compile("[^|\\s\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,253}")

log = get_logger(__name__)


class WorkerReport(Model):
    """What a worker reports. Times are by Redis' clock."""

    namespace: str
    pool: str = ""
    """The WorkerPool that it belongs to; empty outside of one."""
    queues: tuple[str, ...] = Field(max_length=256)
    slots: int = Field(ge=0, le=100_000)
    """Requests that it can run at a time."""
    busy: int = Field(ge=0, le=100_000)
    """Requests that it took and has not finished, or more."""
    serving: bool
    """False once it was told to stop its intake and nothing more can start: what `busy` counts then is the last it
    runs."""
    claimed_ms: Count | None = None
    """When it last accepted a request; None if it never did."""
    at_ms: Count
    """When it reported."""


class WorkerName(NamedTuple):
    """Names a worker among those of all namespaces."""

    namespace: str
    name: str
    """That of its pod."""


@dataclass(frozen=True)
class WorkerSnapshot:
    """The workers of some namespaces, and some queues, at one moment."""

    now_ms: int
    """Redis' clock."""
    reports: Mapping[WorkerName, WorkerReport]
    """Those of workers that died stay until they are forgotten: look at `at_ms`."""
    intakes: Mapping[WorkerName, str]
    """What was asked of the intake of workers: `stop`."""
    lengths: Mapping[str, int]
    """How many messages wait in each list that was asked for."""


class Presence:
    """Reports of a worker. Synchronous. Both methods raise `Unavailable` and may be repeated.

    Args:
        client: connection of this process.
        name: the pod's.
        namespace: whose queues it serves.
        queues: that it serves.
        slots: requests that it can run at a time.
        pool: the WorkerPool that it belongs to.
    """

    def __init__(
        self, client: redis.Redis, name: str, namespace: str, queues: Sequence[str], slots: int, *, pool: str = ""
    ) -> None:
        self._client = client
        self.name = name
        self._keys = keys_of(namespace)
        self._fixed: dict[str, Any] = {"namespace": namespace, "pool": pool, "queues": tuple(queues), "slots": slots}
        self._report = client.register_script(script("presence"))

    def report(self, *, busy: int, serving: bool, claimed_ago_ms: int | None) -> bool:
        """Report; returns whether the worker is asked to stop its intake.

        Args:
            busy: see `WorkerReport`.
            serving: see `WorkerReport`.
            claimed_ago_ms: how long ago it accepted a request; None if it never did.
        """
        report = WorkerReport(**self._fixed, busy=busy, serving=serving, at_ms=0)
        with redis_errors():
            answer = self._report(
                keys=[self._keys.workers, self._keys.intake],
                args=[
                    self.name,
                    report.model_dump_json(by_alias=True, exclude={"claimed_ms", "at_ms"}),
                    "" if claimed_ago_ms is None else claimed_ago_ms,
                ],
            )
        return bool(answer == STOP)

    def leave(self) -> None:
        """Remove the report: the worker ends."""
        with redis_errors():
            self._client.hdel(self._keys.workers, self.name)


class PoolView:
    """Reports of workers, and requests to them. Every method raises `Unavailable` and may be repeated then."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._workers = BatchScript(client, "workers")

    async def snapshot(self, namespaces: Sequence[str] = (), lists: Sequence[str] = ()) -> WorkerSnapshot:
        """The workers of these namespaces, and the lengths of these Redis lists.

        What workers wrote is input: more than `MAX_WORKERS` of a namespace, and what is too long or no report, is
        removed.
        """
        calls = [
            ([keys_of(name).workers, keys_of(name).intake], [MAX_WORKERS, MAX_REPORT_BYTES]) for name in namespaces
        ]
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.time()
                for name in lists:
                    pipe.llen(name)
                (seconds, micros), *lengths = await pipe.execute()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        reports: dict[WorkerName, WorkerReport] = {}
        intakes: dict[WorkerName, str] = {}
        strange: dict[WorkerName, str] = {}
        for namespace, answer in zip(namespaces, await self._workers.call(calls), strict=True):
            if isinstance(answer, RedisError):
                log.warning("worker_reports_unreadable", namespace=namespace, error=str(answer))
                continue
            removed, found, asked = answer
            if removed:
                log.warning("worker_reports_removed", namespace=namespace, count=removed)
            for name, text in _pairs(found):
                worker = WorkerName(namespace, name)
                report = _read(worker, text, now_ms)
                if isinstance(report, str):
                    strange[worker] = report
                else:
                    reports[worker] = report
            intakes |= {WorkerName(namespace, name): value for name, value in _pairs(asked)}
        _log_strange(strange)
        await self.forget(list(strange))
        return WorkerSnapshot(now_ms, reports, intakes, dict(zip(lists, map(int, lengths), strict=True)))

    async def stop_intake(self, workers: Sequence[WorkerName]) -> None:
        """Ask workers to take nothing more; also those that start under that name later."""
        for namespace, names in _by_namespace(workers).items():
            with redis_errors():
                await self._client.hset(keys_of(namespace).intake, mapping=dict.fromkeys(names, STOP))

    async def resume_intake(self, workers: Sequence[WorkerName]) -> None:
        """Let workers take messages again."""
        for namespace, names in _by_namespace(workers).items():
            with redis_errors():
                await self._client.hdel(keys_of(namespace).intake, *names)

    async def forget(self, workers: Sequence[WorkerName]) -> None:
        """Remove workers that are gone."""
        for namespace, names in _by_namespace(workers).items():
            with redis_errors():
                async with self._client.pipeline(transaction=False) as pipe:
                    pipe.hdel(keys_of(namespace).workers, *names)
                    pipe.hdel(keys_of(namespace).intake, *names)
                    await pipe.execute()


def _by_namespace(workers: Sequence[WorkerName]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for worker in workers:
        found.setdefault(worker.namespace, []).append(worker.name)
    return found


def _pairs(flat: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(flat[0::2], flat[1::2], strict=True)


def _log_strange(strange: Mapping[WorkerName, str]) -> None:
    """One line for each namespace: workers may write as many as they like."""
    first = {worker.namespace: worker for worker in reversed(list(strange))}
    for namespace, worker in first.items():
        log.warning(
            "worker_report_invalid",
            namespace=namespace,
            worker=worker.name[:80],
            error=strange[worker],
            count=sum(each.namespace == namespace for each in strange),
        )


def _read(worker: WorkerName, text: str, now_ms: int) -> WorkerReport | str:
    """The report of a worker; what is wrong, if it is none or not of this namespace. One worker of another version must
    not hide all the others.
    """
    try:
        report = WorkerReport.model_validate_json(text.encode("utf-8", "surrogateescape"))
    except ValidationError as error:
        return str(error.errors(include_url=False, include_input=False)[0]["msg"])
    if not _NAME.fullmatch(worker.name):
        return "the name is none of a pod"
    if report.namespace != worker.namespace:
        return "it is about another namespace"
    if report.at_ms > now_ms + AHEAD_MS:
        return "its time is in the future"
    return report
