"""The composition root of the REST API: connects its components to the real servers and closes them again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from taskflow_api.gcra.counters import TIMEOUT_SECONDS, RedisCounter
from taskflow_api.history import PostgresHistory
from taskflow_api.http.kubernetes_auth import KubernetesAuth
from taskflow_api.http.read_cache import InvalidatingKube, ReadCache
from taskflow_api.http.services import Services
from taskflow_api.identity.wiring import Identity, identity
from taskflow_api.limits.limiter import Limiter
from taskflow_api.live.hub import MAX_CHANNELS, Hub
from taskflow_api.settings import ApiSettings, LimitSettings, OidcSettings, RegisterSettings, WebhookSettings
from taskflow_api.webhooks.wiring import Webhooks, webhooks
from taskflow_core.blobs.store import ObjectStore
from taskflow_core.kube.client import KubeClient
from taskflow_core.ledger.cache_versions import CacheVersions
from taskflow_core.ledger.connect import connect_async
from taskflow_core.ledger.pipelining import PipelinedClient
from taskflow_core.ledger.queue_view import QueueView
from taskflow_core.settings import CacheSettings, DatabaseSettings, RedisSettings, StorageSettings
from taskflow_core.store.engine import create_engine


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the API process."""

    api: ApiSettings
    oidc: OidcSettings
    register: RegisterSettings
    limits: LimitSettings
    caching: CacheSettings
    database: DatabaseSettings
    storage: StorageSettings
    webhooks: WebhookSettings


@dataclass(frozen=True, slots=True)
class Components:
    """What an application is made of: the shared services, and the component behind each feature."""

    services: Services
    identity: Identity
    hub: Hub
    limiter: Limiter
    webhooks: Webhooks | None = None
    """None if webhooks are off."""


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Components]:
    """Components on the real API server, PostgreSQL, Redis and object store; closed at the end of the block.

    Raises:
        Invalid: there are no Kubernetes credentials, or a setting is wrong.
    """
    api, limits = settings.api, settings.limits
    objects = await asyncio.to_thread(ObjectStore, settings.storage)
    kube = await KubeClient.connect()
    # Each watch holds a connection for as long as it has listeners.
    watches = await KubeClient.connect(connections=MAX_CHANNELS + 8)
    hub = Hub(watches, api.streams_per_caller, api.streams)
    broker, limits_redis, cache_redis = (
        connect_async(RedisSettings(url=url)) if url is not None else None
        for url in (api.broker_url, limits.url, settings.caching.url)
    )
    engine = create_engine(settings.database, application_name="taskflow-api", pool_size=10)
    auth = KubernetesAuth(kube, api.audiences, time.monotonic)
    try:
        limits_client, cache_client = (
            PipelinedClient(each, TIMEOUT_SECONDS) if each is not None else None for each in (limits_redis, cache_redis)
        )
        counter = RedisCounter(limits_client) if limits_client is not None else None
        if limits_client is not None and settings.caching.url == limits.url:
            # A request's cache lookup shares the round trip of its rate limit.
            cache_client = limits_client
        async with identity(kube, engine, auth, settings.oidc, settings.register, counter) as identities:
            yield Components(
                Services(
                    kube=InvalidatingKube(kube, CacheVersions(cache_redis)),
                    history=PostgresHistory(engine),
                    objects=objects,
                    auth=auth,
                    authenticate=identities.tokens.authenticate,
                    queues=QueueView(broker) if broker is not None else None,
                    cache=ReadCache(cache_client),
                ),
                identities,
                hub,
                Limiter(
                    counter,
                    caller_per_minute=limits.caller_per_minute,
                    namespace_per_minute=limits.namespace_per_minute,
                    namespaces=limits.namespaces,
                    key_per_minute=limits.key_per_minute,
                    keys=limits.keys,
                ),
                webhooks(engine, settings.webhooks),
            )
    finally:
        await hub.stop()
        await watches.close()
        for each in (broker, limits_redis, cache_redis):
            if each is not None:
                await each.aclose()
        await engine.dispose()
        await kube.close()
