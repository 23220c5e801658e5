"""Keeps the Deployment and the status of each WorkerPool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.domain.resource import Condition
from taskflow_core.domain.workerpool import WorkerPool
from taskflow_core.errors import Conflict, Forbidden, Invalid, NotFound, TaskflowError
from taskflow_core.kube.client import JSON_PATCH, MERGE_PATCH, KubeClient, resource_path, status_patch
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.pools.deployment import NO_ENV, deployment, deployment_name, pod_template
from taskflow_operator.pools.foreign_operator import MARK, explanation, foreign_operator
from taskflow_operator.pools.served_queues import ServedQueues
from taskflow_operator.pools.status import STALLED, PoolFacts, pool_status
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.event_recorder import EventRecorder, Regarding

log = get_logger(__name__)
POOLS = f"apis/{naming.API_VERSION}"
LIST_SECONDS = 60.0
REPEAT = timedelta(minutes=1)
"""Between two warnings that another operator serves a pool too."""


@dataclass
class PoolState:
    """A pool and what exists of it."""

    pool: WorkerPool
    found: PoolFacts = field(default_factory=PoolFacts)
    status: Mapping[str, Any] = field(default_factory=dict)
    """As it was last written or read."""

    @property
    def replicas(self) -> int | None:
        """Pods that its Deployment asks for; None if there is no Deployment."""
        deployment = self.found.deployment
        return None if deployment is None else int(deployment["spec"].get("replicas", 1))


class PoolController:
    """Applies the Deployment of each WorkerPool, and writes the pool's status from its Deployment.

    The number of pods is `spec.replicas`, or decided by the scaler.

    Args:
        kube: the API server.
        queues: the queues that pools serve, for admission.
        image: of workers whose pool sets none.
        lease_seconds: passed to the workers.
        lease_name: names this operator in the status of pools.
        env: variables of workers whose pool does not set them.
        changed: called with a namespace when the queues that are served in it change, or whether their pools get
            workers.
        events: records pools that cannot get their workers.
    """

    def __init__(
        self,
        kube: KubeClient,
        queues: ServedQueues,
        *,
        image: str,
        lease_seconds: int,
        lease_name: str,
        env: Mapping[str, str] = NO_ENV,
        changed: Callable[[str], None],
        events: EventRecorder,
    ) -> None:
        self._kube = kube
        self._queues = queues
        self._image = image
        self._lease_seconds = lease_seconds
        self._lease_name = lease_name
        self._env = env
        self._changed = changed
        self._events = events
        self.pools: dict[tuple[str, str], PoolState] = {}
        """Every pool, by namespace and name."""

    def served(self) -> set[tuple[str, str]]:
        """(namespace, queue) of all pools."""
        return {(namespace, queue) for (namespace, _), kept in self.pools.items() for queue in kept.pool.spec.queues}

    def pod_template(self, namespace: str, queue: str) -> dict[str, Any]:
        """Pod template of a pool that serves the queue, for a Task that runs in a pod of its own.

        Raises:
            Invalid: no pool that serves it takes anything now, or none has a readable template; the message says why.
        """
        refusals: list[str] = []
        for (where, _), kept in sorted(self.pools.items()):
            if where != namespace or queue not in kept.pool.spec.queues:
                continue
            try:
                if (why := _closed(kept.pool)) is None:
                    return pod_template(kept.pool, image=self._image, lease_seconds=self._lease_seconds, env=self._env)
            except Invalid as error:
                why = f"WorkerPool {kept.pool.name!r}: {error}"
            refusals.append(why)
        raise Invalid("; ".join(refusals) or f"no WorkerPool in namespace {namespace!r} serves queue {queue!r}")

    async def list_pools(self) -> None:
        """Read all pools, before the first Task is admitted; forget those that are gone.

        Raises:
            Unavailable, Conflict: the list could not be read.
        """
        before = {kept.pool.uid: where for where, kept in self.pools.items()}
        async for page in self._kube.list_pages(resource_path(POOLS, "workerpools")):
            for body in page.items:
                before.pop(body["metadata"]["uid"], None)
                self.observe(body)
        for uid, (namespace, name) in before.items():
            kept = self.pools.get((namespace, name))
            # Another pool may have the name now.
            if kept is not None and kept.pool.uid == uid:
                self._forget(namespace, name)

    async def run(self) -> None:
        """List the pools periodically, until cancelled: Kopf does not report a deletion that happened while it had no
        watch.
        """
        while True:
            await asyncio.sleep(LIST_SECONDS)
            try:
                await self.list_pools()
                for kept in list(self.pools.values()):
                    if kept.status.get(MARK) != self._lease_name:
                        # Whoever else serves it sees its own mark replaced, and replaces ours.
                        await self.show(kept, mark=True)
            except TaskflowError as error:
                dependency_health.failed(error)

    def _forget(self, namespace: str, name: str) -> None:
        self.pools.pop((namespace, name), None)
        if self._queues.remove(namespace, name):
            self._changed(namespace)

    def observe(self, body: Mapping[str, Any], *, gone: bool = False) -> None:
        """Take in a WorkerPool as the API server shows it."""
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        if gone or body["metadata"].get("deletionTimestamp"):
            self._forget(namespace, name)
            return
        kept = self._keep(body)
        self._note_rollout(kept)
        if self._queues.put(namespace, name, frozenset(kept.pool.spec.queues), _blocked(kept)):
            self._changed(namespace)

    def _keep(self, body: Mapping[str, Any]) -> PoolState:
        pool = WorkerPool.from_object(body)
        former = self.pools.get((pool.namespace, pool.name))
        if former is None or former.pool.uid != pool.uid:
            former = self.pools[pool.namespace, pool.name] = PoolState(pool)
        before, former.pool, former.status = former.status, pool, body.get("status") or {}
        if (other := foreign_operator(self._lease_name, before, former.status)) is not None:
            self._served_twice(former, other)
        return former

    def _served_twice(self, kept: PoolState, other: str) -> None:
        pool, now = kept.pool, datetime.now(UTC)
        if kept.found.served_twice is not None and now - kept.found.served_twice[0] < REPEAT:
            return
        why = explanation(pool.namespace, other)
        kept.found = replace(kept.found, served_twice=(now, why))
        log.error("pool_served_twice", pool=f"{pool.namespace}/{pool.name}", other=other, error=why)
        about = Regarding("WorkerPool", pool.namespace, pool.name, pool.uid)
        self._events.warn(about, "ServedTwice", why, action="WriteStatus")

    def namespace_set_aside(self, namespace: str, why: str) -> None:
        """An event stream of a namespace was broken, and was made anew: its pools say so."""
        for kept in self.pools.values():
            if kept.pool.namespace == namespace:
                kept.found = replace(kept.found, set_aside=(datetime.now(UTC), why))
                self.warn(kept, "StreamReset", why, action="ReadEvents")

    def note(self, kept: PoolState, reason: str, note: str, *, action: str) -> None:
        """Record a Normal Event about the pool."""
        self._events.note(_regarding(kept.pool), reason, note, action=action)

    def warn(self, kept: PoolState, reason: str, note: str, *, action: str) -> None:
        """Record a Warning about the pool."""
        self._events.warn(_regarding(kept.pool), reason, note, action=action)

    def _note_rollout(self, kept: PoolState) -> None:
        self._queues.put_rollout(kept.pool.namespace, kept.pool.name, datetime.now(UTC), going=_rolls_out(kept))

    async def apply(self, body: Mapping[str, Any]) -> None:
        """Apply the pool's Deployment. If the API server refuses it, the pool's Stalled condition says so.

        Raises:
            Unavailable: try again.
        """
        with metrics.RECONCILE.labels(kind="pool").time():
            await self._apply(self._keep(body))

    async def _apply(self, kept: PoolState) -> None:
        pool = kept.pool
        path = _deployment_path(pool)
        try:
            replicas = await self._replicas(kept)
            wanted = deployment(pool, replicas, image=self._image, lease_seconds=self._lease_seconds, env=self._env)
            found = await self._kube.apply(path, wanted)
        except (Invalid, Forbidden, Conflict) as error:
            log.warning("deployment_refused", pool=f"{pool.namespace}/{pool.name}", error=str(error))
            kept.found = replace(kept.found, deployment=None, refusal=str(error))
        else:
            kept.found = replace(kept.found, deployment=found, refusal=None)
        await self.show(kept)

    async def _replicas(self, kept: PoolState) -> int:
        pool = kept.pool
        if pool.fixed_replicas is not None:
            return pool.fixed_replicas
        if kept.replicas is None:
            # After a restart the number of pods stays until the scaler has decided.
            with suppress(NotFound):
                found = await self._kube.request("GET", _deployment_path(pool))
                kept.found = replace(kept.found, deployment=found)
        if kept.replicas is not None:
            return kept.replicas
        return pool.spec.scaling.min_replicas if pool.spec.scaling and not pool.spec.drain else 0

    async def scale(self, kept: PoolState, replicas: int) -> None:
        """Set the number of pods.

        Raises:
            Unavailable, Invalid, NotFound, Forbidden: it could not be set.
        """
        body = {"spec": {"replicas": replicas}}
        found = await self._kube.request("PATCH", _deployment_path(kept.pool), body, content_type=MERGE_PATCH)
        kept.found = replace(kept.found, deployment=found)

    async def deployment_seen(self, found: Mapping[str, Any], *, gone: bool = False) -> None:
        """A pool's Deployment changed: show that in the pool's status; if it was deleted, create it again.

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
        kept = self._keep(body)
        known = (kept.found.deployment or {}).get("metadata") or {}
        if known.get("uid") == found["metadata"]["uid"] and known["generation"] > found["metadata"]["generation"]:
            # Older than the answer to our last write.
            return
        if gone:
            kept.found = replace(kept.found, deployment=None)
            await self._apply(kept)
            return
        kept.found = replace(kept.found, deployment=found)
        await self.show(kept)

    async def show(self, kept: PoolState, *, mark: bool = False) -> None:
        """Write the pool's status, if it changed.

        Args:
            kept: the pool.
            mark: write it also if only the mark of this operator is missing.

        Raises:
            Unavailable: try again.
        """
        pool, former = kept.pool, kept.status
        status = {**pool_status(pool, kept.found, datetime.now(UTC)), MARK: self._lease_name}
        # Another mark alone is rarely a reason to write: two operators would do nothing else.
        if status == (former if mark else {**former, MARK: self._lease_name}):
            self._note_rollout(kept)
            return
        path = resource_path(POOLS, "workerpools", pool.namespace, pool.name) + "/status"
        kept.status = status
        kept.pool = pool.model_copy(update={"conditions": tuple(map(Condition.model_validate, status["conditions"]))})
        try:
            await self._kube.request("PATCH", path, status_patch(pool.uid, status), content_type=JSON_PATCH)
        except (NotFound, Invalid) as error:
            log.info("pool_status_dropped", pool=f"{pool.namespace}/{pool.name}", error=str(error))
            return
        except TaskflowError:
            # It was not written, so it still differs.
            kept.status = former
            raise
        self._note_rollout(kept)
        if self._queues.put(pool.namespace, pool.name, frozenset(pool.spec.queues), _blocked(kept)):
            self._changed(pool.namespace)
        stalled, before = _stalled(status), _stalled(former)
        if stalled and stalled != before:
            self.warn(kept, *stalled, action="Deploy")


def _deployment_path(pool: WorkerPool) -> str:
    return resource_path("apis/apps/v1", "deployments", pool.namespace, deployment_name(pool.name))


def _rolls_out(kept: PoolState) -> bool:
    """Whether the pool still has workers of an earlier specification, or may get others."""
    if kept.pool.generation > kept.status.get("observedGeneration", 0):
        return True
    found = kept.found.deployment or {}
    state = found.get("status") or {}
    behind = (found.get("metadata") or {}).get("generation", 0) > state.get("observedGeneration", 0)
    return bool(behind or state.get("replicas", 0) > state.get("updatedReplicas", 0))


def _regarding(pool: WorkerPool) -> Regarding:
    return Regarding("WorkerPool", pool.namespace, pool.name, pool.uid)


def _blocked(kept: PoolState) -> str | None:
    """Why the pool takes nothing now, for Tasks that wait for it; None if it does, or soon will."""
    if (why := _closed(kept.pool)) is not None:
        return why
    stalled = _stalled(kept.status)
    return f"WorkerPool {kept.pool.name!r} has no workers: {stalled[1]}" if stalled else None


def _closed(pool: WorkerPool) -> str | None:
    """That the user paused or drains it; None otherwise."""
    if not pool.spec.drain and not pool.spec.paused:
        return None
    return f"WorkerPool {pool.name!r} {'drains' if pool.spec.drain else 'is paused'} and takes nothing new"


def _stalled(status: Mapping[str, Any]) -> tuple[str, str] | None:
    """Reason and message of a pool that is stalled."""
    found = next((c for c in status.get("conditions") or () if c["type"] == STALLED and c["status"] == "True"), None)
    return (found["reason"], found["message"]) if found else None
