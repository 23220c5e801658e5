from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.errors import Conflict, Forbidden, Invalid, NotFound
from taskflow_core.kube.client import JSON_PATCH, KubeClient, resource_path
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.kube_events import KubeEvents, Regarding
from taskflow_operator.memory import PoolQueues
from taskflow_operator.pools import STALLED, Pool, PoolSize, deployment, deployment_name, pool_status

log = get_logger(__name__)
POOLS = f"apis/{naming.API_VERSION}"


class PoolKeeper:
    """Keeps the Deployment of each WorkerPool as the pool wants it, and the pool's status as the Deployment is.

    Args:
        kube: the API server.
        queues: what the pools serve, for admission.
        image: of workers whose pool names none.
        lease_seconds: handed to the workers.
        changed: called with the namespace when the queues served in it change.
        events: where a pool that cannot get its workers is told of.
    """

    def __init__(
        self,
        kube: KubeClient,
        queues: PoolQueues,
        *,
        image: str,
        lease_seconds: int,
        changed: Callable[[str], None],
        events: KubeEvents,
    ) -> None:
        self._kube = kube
        self._queues = queues
        self._image = image
        self._lease_seconds = lease_seconds
        self._changed = changed
        self._events = events
        self.seen: dict[tuple[str, str], PoolSize] = {}
        """Every pool, by namespace and name, as it was last shown."""

    def served(self) -> set[tuple[str, str]]:
        """(namespace, queue) of all pools."""
        return {(namespace, queue) for (namespace, _), size in self.seen.items() for queue in size.queues}

    async def list_pools(self) -> None:
        """Learn which queues are served, before the first Task is admitted.

        Raises:
            Unavailable, Conflict: the list could not be read.
        """
        async for page in self._kube.list_pages(resource_path(POOLS, "workerpools")):
            for body in page.items:
                self.observe(body)

    def observe(self, body: Mapping[str, Any], *, gone: bool = False) -> None:
        """A WorkerPool as the API server showed it."""
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        if gone or body["metadata"].get("deletionTimestamp"):
            self.seen.pop((namespace, name), None)
            changed = self._queues.remove(namespace, name)
        else:
            size = self.seen[namespace, name] = PoolSize.from_object(body)
            changed = self._queues.put(namespace, name, size.queues)
        if changed:
            self._changed(namespace)

    async def apply(self, body: Mapping[str, Any]) -> None:
        """Bring the Deployment to what the pool wants. What the API server refuses becomes the pool's Stalled condition.

        Raises:
            Unavailable: try again.
        """
        with metrics.RECONCILE.labels(kind="pool").time():
            await self._apply(body)

    async def _apply(self, body: Mapping[str, Any]) -> None:
        pool = Pool.from_object(body)
        path = resource_path("apis/apps/v1", "deployments", pool.namespace, deployment_name(pool.name))
        found: dict[str, Any] | None = None
        refusal: str | None = None
        try:
            wanted = deployment(pool, image=self._image, lease_seconds=self._lease_seconds)
            found = await self._kube.apply(path, wanted)
        except (Invalid, Forbidden, Conflict) as error:
            refusal = str(error)
            log.warning("deployment_refused", pool=f"{pool.namespace}/{pool.name}", error=refusal)
        await self._write_status(pool, found, refusal, body.get("status") or {})

    async def deployment_seen(self, found: Mapping[str, Any], *, gone: bool = False) -> None:
        """A pool's Deployment changed: show that in the pool; if it was deleted under the pool, bring it back.

        Raises:
            Unavailable: try again.
        """
        labels = found["metadata"].get("labels") or {}
        name = labels.get(naming.LABEL_POOL)
        if not name:
            return
        namespace = found["metadata"]["namespace"]
        try:
            body = await self._kube.request("GET", resource_path(POOLS, "workerpools", namespace, name))
        except NotFound:
            return
        if body["metadata"].get("deletionTimestamp"):
            return
        if gone:
            await self.apply(body)
            return
        await self._write_status(Pool.from_object(body), found, None, body.get("status") or {})

    async def _write_status(
        self, pool: Pool, found: Mapping[str, Any] | None, refusal: str | None, former: Mapping[str, Any]
    ) -> None:
        status = pool_status(pool, found, refusal, datetime.now(UTC))
        if status == former:
            return
        path = resource_path(POOLS, "workerpools", pool.namespace, pool.name) + "/status"
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": pool.uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        try:
            await self._kube.request("PATCH", path, patch, content_type=JSON_PATCH)
        except (NotFound, Invalid) as error:
            log.info("pool_status_dropped", pool=f"{pool.namespace}/{pool.name}", error=str(error))
            return
        stalled, before = _stalled(status), _stalled(former)
        if stalled and stalled != before:
            about = Regarding("WorkerPool", pool.namespace, pool.name, pool.uid)
            self._events.warn(about, *stalled, action="Deploy")


def _stalled(status: Mapping[str, Any]) -> tuple[str, str] | None:
    """Reason and message of a pool that is stalled."""
    found = next((c for c in status.get("conditions") or () if c["type"] == STALLED and c["status"] == "True"), None)
    return (found["reason"], found["message"]) if found else None
