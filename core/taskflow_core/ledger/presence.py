"""Reports of workers, and requests to stop their intake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
from pydantic import ValidationError

from taskflow_core.domain import naming
from taskflow_core.domain.resource import Model
from taskflow_core.ledger.connect import redis_errors, script
from taskflow_core.telemetry.logs import get_logger

PRESENCE_SECONDS = 1.0
"""The time between two reports of a worker."""
STOP = "stop"
"""Value of an intake that is stopped."""

log = get_logger(__name__)


class WorkerReport(Model):
    """What a worker reports. Times are by Redis' clock."""

    namespace: str
    pool: str = ""
    """The WorkerPool that it belongs to; empty outside of one."""
    queues: tuple[str, ...]
    slots: int
    """Requests that it can run at a time."""
    busy: int
    """Requests that it took and has not finished, or more."""
    serving: bool
    """False once it was told to stop its intake and nothing more can start: what `busy` counts then is the last it
    runs."""
    claimed_ms: int | None = None
    """When it last accepted a request; None if it never did."""
    at_ms: int
    """When it reported."""


@dataclass(frozen=True)
class WorkerSnapshot:
    """All workers and some queues at one moment."""

    now_ms: int
    """Redis' clock."""
    reports: Mapping[str, WorkerReport]
    """By the worker's name. Those of workers that died stay until they are forgotten: look at `at_ms`."""
    intakes: Mapping[str, str]
    """What was asked of the intake of workers, by their names: `stop`."""
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
        self._name = name
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
                keys=[naming.KEY_WORKERS, naming.KEY_INTAKE],
                args=[
                    self._name,
                    report.model_dump_json(by_alias=True, exclude={"claimed_ms", "at_ms"}),
                    "" if claimed_ago_ms is None else claimed_ago_ms,
                ],
            )
        return bool(answer == STOP)

    def leave(self) -> None:
        """Remove the report: the worker ends."""
        with redis_errors():
            self._client.hdel(naming.KEY_WORKERS, self._name)


class PoolView:
    """Reports of all workers, and requests to them. Every method raises `Unavailable` and may be repeated
    then.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def snapshot(self, lists: Sequence[str] = ()) -> WorkerSnapshot:
        """All workers, and the lengths of these Redis lists, in one round trip."""
        with redis_errors():
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.time()
                pipe.hgetall(naming.KEY_WORKERS)
                pipe.hgetall(naming.KEY_INTAKE)
                for name in lists:
                    pipe.llen(name)
                (seconds, micros), reports, intakes, *lengths = await pipe.execute()
        return WorkerSnapshot(
            now_ms=int(seconds) * 1000 + int(micros) // 1000,
            reports=_read(reports),
            intakes=intakes,
            lengths=dict(zip(lists, map(int, lengths), strict=True)),
        )

    async def stop_intake(self, names: Sequence[str]) -> None:
        """Ask workers to take nothing more; also those that start under that name later."""
        if names:
            with redis_errors():
                await self._client.hset(naming.KEY_INTAKE, mapping=dict.fromkeys(names, STOP))

    async def resume_intake(self, names: Sequence[str]) -> None:
        """Let workers take messages again."""
        if names:
            with redis_errors():
                await self._client.hdel(naming.KEY_INTAKE, *names)

    async def forget(self, names: Sequence[str]) -> None:
        """Remove workers that are gone."""
        if names:
            with redis_errors():
                async with self._client.pipeline(transaction=True) as pipe:
                    pipe.hdel(naming.KEY_WORKERS, *names)
                    pipe.hdel(naming.KEY_INTAKE, *names)
                    await pipe.execute()


def _read(raw: Mapping[str, str]) -> dict[str, WorkerReport]:
    found: dict[str, WorkerReport] = {}
    for name, text in raw.items():
        try:
            found[name] = WorkerReport.model_validate_json(text)
        except ValidationError as error:
            # One worker of another version must not hide all the others.
            log.warning("worker_report_invalid", worker=name, error=str(error))
    return found
