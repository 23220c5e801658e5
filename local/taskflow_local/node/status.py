"""Computes a Pod's status from the states of its containers, with the phases of the Pod lifecycle documentation.

Pure. A container is ready when its process runs and its readiness probe passes, if it has one that runs a command.
There are no other probes.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from taskflow_local.kube import Object
from taskflow_local.node.pods import HOST_ADDRESS

BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS = 10.0, 300.0
# A container that ran this long starts over with a short back-off (pkg/kubelet/kubelet.go: twice the maximum).
BACKOFF_RESET_SECONDS = 600.0


class Kind(StrEnum):
    """The three states of a container in the Pod API."""

    WAITING = "waiting"
    RUNNING = "running"
    TERMINATED = "terminated"


@dataclass(frozen=True)
class State:
    """One state of a container. The kind determines which fields are used."""

    kind: Kind
    reason: str = ""
    message: str = ""
    exit_code: int = 0
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    process: str = ""

    def to_json(self) -> Object:
        """Write it as a ContainerState."""
        if self.kind is Kind.WAITING:
            return {"waiting": _present(reason=self.reason, message=self.message)}
        if self.kind is Kind.RUNNING:
            return {"running": {"startedAt": timestamp(self.started_at)}}
        fields = _present(reason=self.reason, message=self.message, containerID=self.process)
        # A signal n is exit code 128 + n, as in shells and container runtimes.
        times = {"startedAt": timestamp(self.started_at), "finishedAt": timestamp(self.finished_at)}
        return {"terminated": {"exitCode": self.exit_code, **times, **fields}}


CREATING = State(Kind.WAITING, "ContainerCreating")


@dataclass(frozen=True)
class Container:
    """One container of a Pod, as the node knows it."""

    name: str
    image: str = ""
    state: State = CREATING
    last: State | None = None
    restarts: int = 0
    passes: bool = True
    """Its readiness probe, if it has one."""

    @property
    def ready(self) -> bool:
        """It runs, and its readiness probe passes."""
        return self.state.kind is Kind.RUNNING and self.passes

    def becomes(self, state: State) -> "Container":
        """Change the state. The state of an ended run becomes the last state."""
        last = self.state if self.state.kind is Kind.TERMINATED else self.last
        return replace(self, state=state, last=last)

    def to_json(self) -> Object:
        """Write it as a ContainerStatus."""
        running = self.state.kind is Kind.RUNNING
        found: Object = {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "restartCount": self.restarts,
            "ready": self.ready,
            "started": running,
            "state": self.state.to_json(),
            "lastState": self.last.to_json() if self.last else {},
        }
        return found | _present(containerID=self.state.process)


def terminated(
    exit_code: int, started: dt.datetime, finished: dt.datetime, process: str = "", message: str = ""
) -> State:
    """The state of an ended run. In Python a negative code means "killed by that signal"."""
    code = 128 - exit_code if exit_code < 0 else exit_code
    reason = "Completed" if code == 0 else "Error"
    return State(Kind.TERMINATED, reason, message, code, started, finished, process)


def should_restart(policy: str, exit_code: int) -> bool:
    """Whether the restartPolicy restarts a container that ended with this code."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def next_backoff(previous: float | None, ran_seconds: float) -> float:
    """Seconds to wait before the next restart: none for the first, then 10 doubling to 300, as in the kubelet."""
    if previous is None or ran_seconds >= BACKOFF_RESET_SECONDS:
        return 0.0
    return min(max(previous * 2, BACKOFF_FIRST_SECONDS), BACKOFF_MAX_SECONDS)


def phase(policy: str, containers: Sequence[Container]) -> str:
    """The Pod's phase."""
    kinds = [container.state.kind for container in containers]
    if all(kind is Kind.TERMINATED for kind in kinds):
        codes = [container.state.exit_code for container in containers]
        if not any(should_restart(policy, code) for code in codes):
            return "Succeeded" if all(code == 0 for code in codes) else "Failed"
        return "Running"
    ran = [
        kind is not Kind.WAITING or container.last is not None
        for kind, container in zip(kinds, containers, strict=True)
    ]
    return "Running" if all(ran) else "Pending"


def is_ready(containers: Sequence[Container]) -> bool:
    """Whether all containers are ready."""
    return all(container.ready for container in containers)


def shows_ready(pod: Object) -> bool:
    """Whether the Pod is ready according to the API server."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def pod_status(
    pod: Object, containers: Sequence[Container], conditions: Mapping[str, Object], now: dt.datetime
) -> Object:
    """Build the status to report. `conditions` are those of the last report, by type, with their transition times."""
    policy = pod["spec"].get("restartPolicy", "Always")
    what = phase(policy, containers)
    ready = is_ready(containers)
    done = what in ("Succeeded", "Failed")
    reason = "" if ready else ("PodCompleted" if what == "Succeeded" else "ContainersNotReady")
    waiting = [container.name for container in containers if not container.ready]
    message = "" if ready or done else f"containers with unready status: [{' '.join(waiting)}]"
    wanted = [
        ("PodScheduled", True, "", ""),
        ("Initialized", True, "", ""),
        ("ContainersReady", ready, reason, message),
        ("Ready", ready, reason, message),
    ]
    generation = pod["metadata"].get("generation", 1)
    return {
        "phase": what,
        "observedGeneration": generation,
        "hostIP": HOST_ADDRESS,
        "hostIPs": [{"ip": HOST_ADDRESS}],
        "podIP": HOST_ADDRESS,
        "podIPs": [{"ip": HOST_ADDRESS}],
        "startTime": pod.get("status", {}).get("startTime") or timestamp(now),
        "conditions": [_condition(conditions.get(each[0]), *each, generation, now) for each in wanted],
        "containerStatuses": [container.to_json() for container in containers],
    }


def _condition(
    before: Object | None, kind: str, value: bool, reason: str, message: str, generation: int, now: dt.datetime
) -> Object:
    status = str(value)
    moved = before is None or before["status"] != status
    return {
        "type": kind,
        "status": status,
        "reason": reason or None,
        "message": message or None,
        "observedGeneration": generation,
        "lastTransitionTime": timestamp(now) if moved or before is None else before["lastTransitionTime"],
    }


def timestamp(moment: dt.datetime | None) -> str | None:
    """Write a time as metav1.Time."""
    return None if moment is None else moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _present(**fields: str) -> Object:
    return {name: value for name, value in fields.items() if value}
