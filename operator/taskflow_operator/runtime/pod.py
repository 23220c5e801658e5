"""What is read of a Pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from taskflow_core.domain.resource import Model

_WAITING_REASONS = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)
"""Reasons of a waiting container that do not pass by themselves."""


class _Metadata(Model):
    name: str
    uid: str
    creation_timestamp: datetime
    deletion_timestamp: datetime | None = None


@dataclass(frozen=True)
class Pod:
    """A Pod that runs a worker."""

    name: str
    uid: str
    created: datetime
    terminating: bool = False
    """It was deleted and is ending."""
    started: bool = False
    """Its containers run."""
    problem: str | None = None
    """Why it cannot start."""

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> Pod:
        """Read a Kubernetes object.

        Raises:
            pydantic.ValidationError: it is no Pod.
        """
        meta = _Metadata.model_validate(body["metadata"])
        status = body.get("status") or {}
        return cls(
            name=meta.name,
            uid=meta.uid,
            created=meta.creation_timestamp,
            terminating=meta.deletion_timestamp is not None,
            started=status.get("phase") == "Running",
            problem=_problem(status),
        )


def _problem(status: Mapping[str, Any]) -> str | None:
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _WAITING_REASONS:
            message = f": {waiting['message']}" if waiting.get("message") else ""
            return f"{waiting['reason']}{message}"
    return None
