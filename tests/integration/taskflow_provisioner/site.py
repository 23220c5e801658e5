"""A provisioner on real servers, a namespace, and a look at what it made."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
import redis.exceptions
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.domain import naming
from taskflow_core.errors import NotFound
from taskflow_core.kube.client import MERGE_PATCH, KubeClient, resource_path
from taskflow_core.ledger.connect import connect_async
from taskflow_core.settings import StorageSettings
from taskflow_local.environments import administrator_redis, fixed_redis_users, storage_settings
from taskflow_local.stack import Stack
from taskflow_provisioner.cluster import Cluster
from taskflow_provisioner.controller import Place, Provisioner
from taskflow_provisioner.logins import Rotation
from taskflow_provisioner.notices import Notices
from taskflow_provisioner.redis_users import RedisUsers
from taskflow_provisioner.s3_logins import MinioLogins, S3Logins

LABEL = {"metadata": {"labels": {naming.LABEL_WORKERS: naming.WORKERS_ENABLED}}}
GRACE = timedelta(minutes=10)


@dataclass
class Site:
    stack: Stack
    admin: KubeClient
    own: KubeClient
    namespace: str
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def open(self) -> None:
        self.redis = connect_async(administrator_redis(self.stack._state))
        self.storage = storage_settings(self.stack._state)
        await self.add(self.namespace)

    async def close(self) -> None:
        await self.redis.aclose()

    async def add(self, namespace: str) -> None:
        await self.admin.request("POST", resource_path("api/v1", "namespaces"), {"metadata": {"name": namespace}})
        await self.label(namespace, naming.WORKERS_ENABLED)

    async def label(self, namespace: str, value: str | None) -> None:
        body = {"metadata": {"labels": {naming.LABEL_WORKERS: value}}}
        path = f"{resource_path('api/v1', 'namespaces')}/{namespace}"
        await self.admin.request("PATCH", path, body, content_type=MERGE_PATCH)

    def provisioner(
        self, s3: S3Logins | None = None, after: timedelta | None = None, installation: str = "taskflow"
    ) -> Provisioner:
        """A new process, so to say: it remembers nothing."""
        return Provisioner(
            Cluster(self.own, (), labelled=True),
            RedisUsers(self.redis),
            s3 or MinioLogins(self.storage),
            Place(administrator_redis(self.stack._state).url.get_secret_value(), self.storage),
            Rotation(GRACE, after),
            Notices(self.own, "test"),
            installation=installation,
            fixed=fixed_redis_users(self.stack._state),
            now=lambda: self.now,
        )

    def path(self, namespace: str = "") -> str:
        return resource_path("api/v1", "secrets", namespace or self.namespace, naming.WORKER_SECRET)

    async def secret(self, namespace: str = "") -> dict[str, Any]:
        return await self.admin.request("GET", self.path(namespace))

    async def has_secret(self, namespace: str = "") -> bool:
        try:
            await self.secret(namespace)
        except NotFound:
            return False
        return True

    async def values(self, namespace: str = "") -> dict[str, str]:
        """The environment of the workers of a namespace."""
        data = (await self.secret(namespace))["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    async def annotate(self, **notes: str | None) -> None:
        body = {"metadata": {"annotations": {f"taskflow.dev/{key}": value for key, value in notes.items()}}}
        await self.admin.request("PATCH", self.path(), body, content_type=MERGE_PATCH)

    async def events(self) -> list[dict[str, Any]]:
        """The Events in the namespace, the latest last."""
        path = resource_path("apis/events.k8s.io/v1", "events", self.namespace)
        items = (await self.admin.request("GET", path))["items"]
        return sorted(items, key=lambda item: str(item["eventTime"]))

    async def reasons(self) -> list[str]:
        return [event["reason"] for event in await self.events()]


def logs_in(values: dict[str, str]) -> bool:
    """Whether Redis takes the login."""
    with redis.Redis.from_url(values["TASKFLOW_REDIS_URL"], retry=Retry(NoBackoff(), 0)) as client:
        try:
            return bool(client.ping())
        except redis.exceptions.AuthenticationError:
            return False
        except redis.exceptions.ConnectionError as error:
            if "closed by server" not in str(error):
                raise
    # It was taken back just after it was accepted, which ends its connections: what counts is the next one.
    return logs_in(values)


def objects(values: dict[str, str]) -> ObjectStore:
    """The object store as these workers reach it."""
    token = values.get("TASKFLOW_S3_SESSION_TOKEN")
    return ObjectStore(
        StorageSettings(
            endpoint=values["TASKFLOW_S3_ENDPOINT"],
            bucket=values["TASKFLOW_S3_BUCKET"],
            access_key=SecretStr(values["TASKFLOW_S3_ACCESS_KEY"]),
            secret_key=SecretStr(values["TASKFLOW_S3_SECRET_KEY"]),
            session_token=None if token is None else SecretStr(token),
        )
    )
