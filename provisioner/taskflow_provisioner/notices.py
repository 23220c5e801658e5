"""Kubernetes Events: what a person who looks at a namespace should know of its logins."""

from __future__ import annotations

from datetime import UTC, datetime

from taskflow_core.domain import naming
from taskflow_core.errors import TaskflowError
from taskflow_core.kube.client import Requests, resource_path
from taskflow_core.kube.events import EVENTS, Reporter, event_body
from taskflow_core.telemetry.logs import get_logger

log = get_logger(__name__)


class Notices:
    """Posts Events in the namespace that they are about. The same one is posted again only after another.

    Args:
        kube: the API server.
        identity: of this process.
    """

    def __init__(self, kube: Requests, identity: str) -> None:
        self._kube = kube
        self._reporter = Reporter("provisioner", identity)
        self._latest: dict[str, tuple[str, str]] = {}

    async def post(self, namespace: str, reason: str, note: str, *, warning: bool = False) -> None:
        """Post an Event. One that the API server does not take is dropped: it is a hint, not a record."""
        if self._latest.get(namespace) == (reason, note):
            return
        self._latest[namespace] = reason, note
        body = event_body(
            self._reporter,
            # With its own name as namespace, the Event lies where the people of that namespace may read it.
            {"apiVersion": "v1", "kind": "Namespace", "name": namespace, "namespace": namespace},
            reason,
            note,
            action="Provision",
            now=datetime.now(UTC),
            name=naming.WORKER_SECRET,
            kind="Warning" if warning else "Normal",
        )
        try:
            await self._kube.request("POST", resource_path(EVENTS, "events", namespace), body)
        except TaskflowError as error:
            log.info("kubernetes_event_refused", namespace=namespace, reason=reason, error=str(error))

    def forget(self, namespace: str) -> None:
        """The namespace is not served any more."""
        self._latest.pop(namespace, None)
