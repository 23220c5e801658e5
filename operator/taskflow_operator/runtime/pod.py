"""What is read of a Pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.domain.resource import Model
from taskflow_operator.runtime.last_words import last_words

CRASH_LOOP = "CrashLoopBackOff"
_WAITING_REASONS = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)
"""Reasons of a waiting container that do not pass by themselves, besides `CRASH_LOOP`."""
START_SECONDS = 180.0
"""A container that failed within this time failed to start."""


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
    """Why it cannot start, with the last words of the container that failed."""
    fell_mute: datetime | None = None
    """Since when its worker, which was ready before in the same container, is not ready any more."""

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
            fell_mute=_fell_mute(status),
        )


def worker_status(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status of the worker's container; empty if there is none yet."""
    found = (each for each in status.get("containerStatuses") or () if each.get("name") == naming.WORKER_CONTAINER)
    return next(found, {})


def how_it_ended(ended: Mapping[str, Any]) -> str:
    """How a container ended, from its `terminated` state: the exit code and its last words."""
    code, reason = ended.get("exitCode"), ended.get("reason") or ""
    how = f"exit code {code}" + (f" ({reason})" if reason not in ("", "Error", "Completed") else "")
    words = last_words(ended.get("message") or "")
    return f"{how}: {words}" if words else how


def _problem(status: Mapping[str, Any]) -> str | None:
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") == CRASH_LOOP or _failed_to_start(container):
            # Without the kubelet's message, whose back-off grows: a text that changes is written to each waiting Task.
            ended = _last_end(container)
            why = f": container {container.get('name')} ended with {how_it_ended(ended)}" if ended else ""
            return f"{CRASH_LOOP}{why}"
        if waiting.get("reason") in _WAITING_REASONS:
            message = f": {waiting['message']}" if waiting.get("message") else ""
            return f"{waiting['reason']}{message}"
    return None


def _last_end(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How the container last ended, by its present state or the one before."""
    for name in ("state", "lastState"):
        if ended := (container.get(name) or {}).get("terminated"):
            found: Mapping[str, Any] = ended
            return found
    return None


def _failed_to_start(container: Mapping[str, Any]) -> bool:
    """Whether the container was restarted, failed soon after its last start, and is not ready again.

    Between two restarts it is in no back-off; this keeps the problem from coming and going.
    """
    ended = _last_end(container)
    if container.get("ready") or not container.get("restartCount") or not ended or not ended.get("exitCode"):
        return False
    began, over = (ended.get(name) for name in ("startedAt", "finishedAt"))
    if not began or not over:
        return False
    return (datetime.fromisoformat(over) - datetime.fromisoformat(began)).total_seconds() < START_SECONDS


def _fell_mute(status: Mapping[str, Any]) -> datetime | None:
    running = (worker_status(status).get("state") or {}).get("running") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready" and condition.get("status") == "False" and running.get("startedAt"):
            since = datetime.fromisoformat(condition["lastTransitionTime"])
            # It is not ready from its start on, too; then the condition is older than the container.
            return since if since > datetime.fromisoformat(running["startedAt"]) else None
    return None
