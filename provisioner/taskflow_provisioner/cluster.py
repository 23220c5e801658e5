"""What the provisioner reads and writes of the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.errors import Conflict, Forbidden, NotFound, TaskflowError
from taskflow_core.kube.client import APPLY_PATCH, MERGE_PATCH, KubeClient, delete_options, resource_path
from taskflow_core.telemetry.logs import get_logger
from taskflow_provisioner.worker_secret import MANAGER

log = get_logger(__name__)
_CORE = "api/v1"
_POOLS = f"apis/{naming.API_VERSION}"
_OUR_NAME = f"metadata.name={naming.WORKER_SECRET}"
"""RBAC admits a list and a watch of this one name, and shows no other Secret."""
_WATCH_PAUSE_SECONDS = 5.0
_SKEW = timedelta(minutes=1)
"""By which the clocks of the API server and of this process may differ."""


@dataclass(frozen=True)
class Found:
    """Namespaces and Secrets at one moment."""

    wanted: frozenset[str] = frozenset()
    """Namespaces whose workers are to have logins."""
    secrets: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """The workers' Secret of each namespace that has one."""


def is_wanted(namespace: Mapping[str, Any], listed: Collection[str], left_out: Collection[str] = ()) -> bool:
    """Whether the workers of a namespace are to have logins: it is listed or labelled, not left out, and not being
    deleted.
    """
    metadata = namespace["metadata"]
    if metadata.get("deletionTimestamp") or metadata["name"] in left_out:
        return False
    labels = metadata.get("labels") or {}
    return metadata["name"] in listed or labels.get(naming.LABEL_WORKERS) == naming.WORKERS_ENABLED


def pools_to_announce(pools: Collection[Mapping[str, Any]], since: datetime, text: str) -> list[str]:
    """WorkerPools whose pods may hold an older login, and which have not been told."""
    return [
        pool["metadata"]["name"]
        for pool in pools
        if (pool["metadata"].get("annotations") or {}).get(naming.ANNOTATION_LOGIN) != text
        and datetime.fromisoformat(pool["metadata"]["creationTimestamp"]) <= since + _SKEW
    ]


class Cluster:
    """The API server.

    Args:
        kube: the connections.
        listed: namespaces that need no label.
        labelled: whether namespaces with the label count; else only the listed ones are read.
        left_out: namespaces that another installation serves.
    """

    def __init__(
        self, kube: KubeClient, listed: Collection[str], *, labelled: bool, left_out: Collection[str] = ()
    ) -> None:
        self._kube = kube
        self._listed = listed
        self._left_out = left_out
        self.labelled = labelled

    async def look(self) -> Found:
        """Read namespaces and Secrets.

        Raises:
            Unavailable, Conflict, Forbidden: they could not be read.
        """
        return await self._look_everywhere() if self.labelled else await self._look_at_listed()

    async def _look_everywhere(self) -> Found:
        wanted: set[str] = set()
        # Secrets first: one that was made for a namespace meanwhile is then found in the next round.
        secrets: dict[str, dict[str, Any]] = {}
        async for page in self._kube.list_pages(resource_path(_CORE, "secrets"), _OUR_NAME):
            secrets |= {body["metadata"]["namespace"]: body for body in page.items}
        async for page in self._kube.list_pages(resource_path(_CORE, "namespaces")):
            wanted |= {body["metadata"]["name"] for body in page.items if is_wanted(body, self._listed, self._left_out)}
        return Found(frozenset(wanted), secrets)

    async def _look_at_listed(self) -> Found:
        wanted: set[str] = set()
        secrets: dict[str, dict[str, Any]] = {}
        refusal: Forbidden | None = None
        for namespace in sorted(self._listed):
            try:
                body = await self._kube.request("GET", f"{resource_path(_CORE, 'namespaces')}/{namespace}")
                if is_wanted(body, self._listed, self._left_out):
                    wanted.add(namespace)
                secrets[namespace] = await self._kube.request("GET", _secret_path(namespace))
            except NotFound:
                continue
            except Forbidden as error:
                # Where a namespace was deleted, so were the rights in it.
                log.warning("namespace_left_out", namespace=namespace, error=str(error))
                refusal = error
        if refusal is not None and not wanted:
            raise refusal
        return Found(frozenset(wanted), secrets)

    async def apply_secret(self, body: Mapping[str, Any], former: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Apply the workers' Secret of a namespace; returns it as it is now.

        Args:
            body: what it is to be.
            former: the Secret as it was read, if it is ours. What others changed in it is set back.

        Raises:
            Conflict: it has changed since it was read, or somebody else made one where there was none. Nothing was
                overwritten.
            Unavailable, Forbidden, Invalid, NotFound: as the API server says.
        """
        params = {"fieldManager": MANAGER, "force": "false" if former is None else "true"}
        metadata = dict(body["metadata"])
        if former is not None:
            # Only over what was read: in between, somebody may have put a Secret of their own there.
            metadata |= {key: former["metadata"][key] for key in ("uid", "resourceVersion")}
        path = _secret_path(metadata["namespace"])
        wanted = {**body, "metadata": metadata}
        return await self._kube.request("PATCH", path, wanted, content_type=APPLY_PATCH, params=params)

    async def delete_secret(self, secret: Mapping[str, Any]) -> None:
        """Delete the workers' Secret of a namespace, unless it changed since it was read."""
        metadata = secret["metadata"]
        body = delete_options(uid=metadata["uid"], resourceVersion=metadata["resourceVersion"])
        try:
            await self._kube.request("DELETE", _secret_path(metadata["namespace"]), body)
        except (NotFound, Conflict):
            # The next round sees what became of it.
            return

    async def announce(self, namespace: str, since: datetime, text: str) -> int:
        """Tell the WorkerPools of a namespace that there is another login, so that the operator replaces their pods.

        Returns how many were told.
        """
        path = resource_path(_POOLS, "workerpools", namespace)
        try:
            pools = [body async for page in self._kube.list_pages(path) for body in page.items]
        except NotFound:
            # The CRD is not installed yet.
            return 0
        names = pools_to_announce(pools, since, text)
        for name in names:
            body = {"metadata": {"annotations": {naming.ANNOTATION_LOGIN: text}}}
            try:
                await self._kube.request("PATCH", f"{path}/{name}", body, content_type=MERGE_PATCH)
            except NotFound:
                continue
        return len(names)

    async def watch(self, changed: asyncio.Event) -> None:
        """Set the event whenever a namespace or a workers' Secret changes, until cancelled."""
        if not self.labelled:
            # Single names cannot be watched without rights in the whole cluster.
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch("namespaces", "", changed))
            group.create_task(self._watch("secrets", _OUR_NAME, changed))

    async def _watch(self, plural: str, selector: str, changed: asyncio.Event) -> None:
        path = resource_path(_CORE, plural)
        while True:
            try:
                # From now on: what was before, a round reads.
                async for events in self._kube.watch(path, "", selector):
                    if not events or any(event["type"] != "BOOKMARK" for event in events):
                        changed.set()
            except TaskflowError as error:
                log.warning("watch_ended", watch=plural, error=str(error))
            await asyncio.sleep(_WATCH_PAUSE_SECONDS)


def _secret_path(namespace: str) -> str:
    return resource_path(_CORE, "secrets", namespace, naming.WORKER_SECRET)
