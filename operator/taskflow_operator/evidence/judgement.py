"""Why a worker died, from what the API server shows of its pod. Pure.

Sources: the states of the container, `status.reason` of an eviction by the kubelet, and the condition
`DisruptionTarget` (KEP-3329).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.domain.phases import MORE_MEMORY, Reason
from taskflow_core.domain.plain_text import plain
from taskflow_operator.runtime.pod import how_it_ended, worker_status
from taskflow_operator.tasks.ports import Death

_DISRUPTIONS = {
    "PreemptionByScheduler": (Reason.PREEMPTED, "was preempted"),
    "DeletionByTaintManager": (Reason.NODE_LOST, "was deleted with its node, which is lost or tainted"),
    "DeletionByPodGC": (Reason.NODE_LOST, "was deleted with its node, which is gone"),
    "EvictionByEvictionAPI": (Reason.EVICTED, "was evicted"),
    "TerminationByKubelet": (Reason.EVICTED, "was ended by its node"),
}
"""Reasons of `DisruptionTarget`."""


@dataclass(frozen=True)
class WorkerPod:
    """The pod of a worker, as far as it tells why the worker died."""

    namespace: str
    name: str
    uid: str
    node: str
    limit: str = ""
    """Memory limit of the worker's container, as it is written; empty if it has none."""
    evicted: str | None = None
    """Set if the kubelet evicted it: its message."""
    disruption: tuple[str, str] | None = None
    """Reason and message of the condition `DisruptionTarget`."""
    running_since: datetime | None = None
    """Set while the worker's container runs."""
    ended: Mapping[str, Any] | None = None
    """How the container last ended, its `terminated` state."""
    cut_off: bool = False
    """The node controller marked it as not ready, since its node does not report."""
    gone: bool = False
    """It is deleted; the rest is what was last seen."""

    @classmethod
    def from_object(cls, body: Mapping[str, Any], *, gone: bool = False) -> WorkerPod:
        """Read a Kubernetes object."""
        meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
        container = worker_status(status)
        state = container.get("state") or {}
        since = (state.get("running") or {}).get("startedAt")
        conditions = {each["type"]: each for each in status.get("conditions") or () if each["status"] != "Unknown"}
        disruption = conditions.get("DisruptionTarget", {})
        ready = conditions.get("Ready", {}).get("status")
        limits = [
            ((each.get("resources") or {}).get("limits") or {}).get("memory")
            for each in spec.get("containers") or ()
            if each.get("name") == naming.WORKER_CONTAINER
        ]
        return cls(
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
            node=spec.get("nodeName") or "",
            limit=str(limits[0]) if limits and limits[0] else "",
            evicted=plain(status.get("message") or "") if status.get("reason") == "Evicted" else None,
            disruption=(disruption.get("reason", ""), plain(disruption.get("message") or ""))
            if disruption.get("status") == "True"
            else None,
            running_since=datetime.fromisoformat(since) if since else None,
            ended=state.get("terminated") or (container.get("lastState") or {}).get("terminated"),
            # A kubelet that reports would set both.
            cut_off=ready == "False" and bool(since) and bool(container.get("ready")),
            gone=gone,
        )

    @property
    def ended_at(self) -> datetime | None:
        """When the container last ended."""
        finished = (self.ended or {}).get("finishedAt")
        return datetime.fromisoformat(finished) if finished else None

    @property
    def where(self) -> str:
        """The pod and its node, for people."""
        return f"pod {self.name}" + (f" on node {self.node}" if self.node else "")


def judge(pod: WorkerPod, now: datetime, recent: timedelta) -> Death:
    """Why the worker of the pod died, or what is known if nothing says that it did.

    Args:
        pod: what was last seen of it.
        now: the time.
        recent: an end of its container that is longer ago explains nothing.
    """
    if (removed := _removal(pod)) is not None:
        return removed
    if pod.ended is not None and pod.ended_at is not None and now - pod.ended_at < recent:
        if pod.ended.get("reason") == "OOMKilled":
            return Death(Reason.OUT_OF_MEMORY, _out_of_memory(pod, pod.ended))
        return Death(Reason.WORKER_LOST, f"container worker of {pod.where} ended with {how_it_ended(pod.ended)}")
    if pod.gone:
        how = "with force, while its container ran" if pod.running_since else "before its worker ended the attempt"
        return Death(Reason.POD_DELETED, f"{pod.where} was deleted {how}")
    return Death(
        Reason.WORKER_LOST,
        f"the worker stopped renewing its lease: it hung or was cut off; its {pod.where} still runs, as far as the API "
        "server knows",
    )


def _removal(pod: WorkerPod) -> Death | None:
    """Why the cluster took the pod away, if it did."""
    if pod.evicted is not None:
        return Death(Reason.EVICTED, f"{pod.where} was evicted: {pod.evicted}")
    if pod.disruption is not None and pod.disruption[0] in _DISRUPTIONS:
        reason, what = _DISRUPTIONS[pod.disruption[0]]
        return Death(reason, f"{pod.where} {what}: {pod.disruption[1]}")
    if pod.cut_off:
        return Death(Reason.NODE_LOST, f"{pod.where} is lost: its node does not report")
    return None


def _out_of_memory(pod: WorkerPod, ended: Mapping[str, Any]) -> str:
    limit = f"used its memory limit of {pod.limit}" if pod.limit else "has no memory limit, and its node had none left"
    return (
        f"container worker of {pod.where} {limit} and was killed (OOMKilled, exit code {ended.get('exitCode')}, at "
        f"{ended.get('finishedAt')}): {MORE_MEMORY}"
    )
