"""Kubernetes Events as TaskFlow posts them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from taskflow_core.domain import naming

EVENTS = "apis/events.k8s.io/v1"
MAX_NOTE_BYTES = 1024
"""What the API server takes, https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/."""


@dataclass(frozen=True)
class Reporter:
    """Who posts an Event."""

    component: str
    identity: str
    """Of the process."""


def event_body(
    reporter: Reporter,
    regarding: Mapping[str, str],
    reason: str,
    note: str,
    *,
    action: str,
    now: datetime,
    name: str = "",
    kind: Literal["Normal", "Warning"] = "Warning",
) -> dict[str, Any]:
    """The Event as the API server takes it.

    Args:
        reporter: who posts it.
        regarding: reference to the object that it is about; has a namespace, in which the Event lies.
        reason: CamelCase.
        note: for people; cut to what the API server takes.
        action: what was done, or was to be.
        now: the time.
        name: what its name begins with; by default the object's.
        kind: its type.
    """
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        # At most 253 characters, and never the same twice.
        "metadata": {
            "name": f"{(name or regarding['name'])[:230]}.{secrets.token_hex(8)}",
            "namespace": regarding["namespace"],
        },
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": kind,
        "reason": reason,
        "note": note.encode()[:MAX_NOTE_BYTES].decode(errors="ignore"),
        "action": action,
        "regarding": dict(regarding),
        "reportingController": f"{naming.GROUP}/{reporter.component}",
        "reportingInstance": reporter.identity[:128],
    }
