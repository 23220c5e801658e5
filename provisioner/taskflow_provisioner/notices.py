"""Kubernetes Events: what a person who looks at a namespace should know of its logins."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.errors import TaskflowError
from taskflow_core.kube.client import Requests, resource_path
from taskflow_core.telemetry.logs import get_logger

log = get_logger(__name__)
_EVENTS = "apis/events.k8s.io/v1"
_MAX_NOTE_BYTES = 1024
"""What the API server takes."""


class Notices:
    """Posts Events in the namespace that they are about. The same one is posted again only after another.

    Args:
        kube: the API server.
        identity: of this process.
    """

    def __init__(self, kube: Requests, identity: str) -> None:
        self._kube = kube
        self._identity = identity
        self._latest: dict[str, tuple[str, str]] = {}

    async def post(self, namespace: str, reason: str, note: str, *, warning: bool = False) -> None:
        """Post an Event. One that the API server does not take is dropped: it is a hint, not a record."""
        if self._latest.get(namespace) == (reason, note):
            return
        self._latest[namespace] = reason, note
        body = _event(namespace, reason, note, "Warning" if warning else "Normal", self._identity)
        try:
            await self._kube.request("POST", resource_path(_EVENTS, "events", namespace), body)
        except TaskflowError as error:
            log.info("kubernetes_event_refused", namespace=namespace, reason=reason, error=str(error))

    def forget(self, namespace: str) -> None:
        """The namespace is not served any more."""
        self._latest.pop(namespace, None)


def _event(namespace: str, reason: str, note: str, kind: str, identity: str) -> dict[str, Any]:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{naming.WORKER_SECRET}.{secrets.token_hex(8)}", "namespace": namespace},
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": kind,
        "reason": reason,
        "note": note.encode()[:_MAX_NOTE_BYTES].decode(errors="ignore"),
        "action": "Provision",
        # With its own name as namespace, the Event lies where the people of that namespace may read it.
        "regarding": {"apiVersion": "v1", "kind": "Namespace", "name": namespace, "namespace": namespace},
        "reportingController": f"{naming.GROUP}/provisioner",
        "reportingInstance": identity[:128],
    }
