"""Connections of the process, and what all features share."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from taskflow_core.broker.publish import Publisher
from taskflow_core.errors import Dependency
from taskflow_core.kube.client import Hooks, KubeClient
from taskflow_core.ledger.cache_versions import CacheVersions
from taskflow_core.ledger.connect import connect_async
from taskflow_core.ledger.namespaces import Namespaces
from taskflow_core.ledger.operator import OperatorLedger
from taskflow_core.settings import CacheSettings, DatabaseSettings, LogSettings, RedisSettings
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.tracing import Tracing
from taskflow_operator.assembly.part import Part
from taskflow_operator.history.database import Database
from taskflow_operator.process.leader_election import AlwaysLeader, LeaderElection, LeaseLeaderElection
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.event_recorder import EventRecorder
from taskflow_operator.runtime.status_writer import StatusWriter
from taskflow_operator.settings import OperatorSettings

CLOSE_SECONDS = 3.0
WATCHES = 4
"""Each is a `KindWatch`: of open Tasks, of finished ones, of the pods of workers, and of TaskSchedules."""


@dataclass(frozen=True)
class Foundation:
    """Connections, and services without a feature of their own."""

    settings: OperatorSettings
    leadership: LeaderElection
    lease_kube: KubeClient
    """For the Lease only: a renewal must not wait for a connection that lists or writes."""
    kube: KubeClient
    redis: Redis
    cache: Redis | None
    namespaces: Namespaces
    ledger: OperatorLedger
    publisher: Publisher
    database: Database
    events: EventRecorder
    writer: StatusWriter
    tracing: Tracing
    logs: LogSettings
    """Of the operator, and of workers whose pool says nothing else."""
    database_settings: DatabaseSettings

    @classmethod
    async def connect(
        cls,
        settings: OperatorSettings,
        redis_settings: RedisSettings,
        caching: CacheSettings,
        database: DatabaseSettings,
        tracing: Tracing,
        logs: LogSettings,
    ) -> Self:
        """Open the connections.

        Raises:
            Invalid: there are no usable credentials for the API server.
        """
        lease_kube = await KubeClient.connect(connections=2, hooks=Hooks(answered=_answered))
        leadership: LeaderElection = AlwaysLeader()
        if settings.leader_election:
            leadership = LeaseLeaderElection(lease_kube, settings.leader_namespace, settings.leader_identity)
        hooks = Hooks(
            may_write=leadership.is_confirmed,
            cares_for=settings.cares_for,
            namespaces=sorted(settings.namespaces),
            answered=_answered,
        )
        # Each watch keeps a connection, for each namespace of a shard.
        watches = WATCHES * max(1, len(settings.namespaces))
        kube = await KubeClient.connect(connections=32 + watches, hooks=hooks)
        client = connect_async(redis_settings)
        namespaces = Namespaces(client)
        cache = connect_async(RedisSettings(url=caching.url)) if caching.url is not None else None
        return cls(
            settings=settings,
            leadership=leadership,
            lease_kube=lease_kube,
            kube=kube,
            redis=client,
            cache=cache,
            namespaces=namespaces,
            ledger=OperatorLedger(client, namespaces, settings.token_key.get_secret_value()),
            publisher=Publisher(redis_settings),
            database=Database(database, CacheVersions(cache)),
            events=EventRecorder(kube, settings.leader_identity),
            writer=StatusWriter(kube, settings.status_writes_per_second, weight=settings.weight),
            tracing=tracing,
            logs=logs,
            database_settings=database,
        )

    @property
    def part(self) -> Part:
        """Its loops."""
        return Part({"status": self.writer.run, "events": self.events.run})

    @property
    def token_key(self) -> str:
        """From which the token of each attempt is derived."""
        return self.settings.token_key.get_secret_value()

    @property
    def api_server_age(self) -> float:
        """Seconds since the API server last answered a request."""
        return time.monotonic() - max(self.kube.answered_at, self.lease_kube.answered_at)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.wait([asyncio.create_task(asyncio.to_thread(self.tracing.close))], timeout=CLOSE_SECONDS)
        self.publisher.close()
        await self.redis.aclose()
        if self.cache is not None:
            await self.cache.aclose()
        await self.database.close()
        await self.kube.close()
        await self.lease_kube.close()


def _answered(verb: str, code: int) -> None:
    metrics.K8S_REQUESTS.labels(verb=verb, code=str(code)).inc()
    if 0 < code < 500:  # noqa: PLR2004 - HTTP's own border
        dependency_health.succeeded(Dependency.API_SERVER)
    if 0 < code < 400:  # noqa: PLR2004 - likewise
        dependency_health.succeeded(dependency_health.PERMISSIONS)
