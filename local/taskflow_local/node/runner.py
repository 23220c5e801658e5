"""Runs one Pod: its containers are processes, each in its own session, restarted and stopped as by a kubelet."""

import asyncio
import contextlib
import datetime as dt
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from taskflow_local import processes
from taskflow_local.kube import Object
from taskflow_local.node.pods import Base, ConfigError, ProcessSpec, Sources, containers, process, references
from taskflow_local.node.probes import follow, readiness, termination_message
from taskflow_local.node.status import (
    Container,
    Kind,
    State,
    next_backoff,
    phase,
    should_restart,
    terminated,
)

_CONFIG_RETRY_SECONDS = 2.0
_DEADLINE_CHECK_SECONDS = 0.2
_START_ERROR = 128
_KILLED = 137
RECORD_SUFFIX = ".pid.json"

log = structlog.get_logger()


def now() -> dt.datetime:
    """The current time, for a status."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class NodeServices:
    """What a Pod's runner needs from its node."""

    base: Base
    read: Callable[[str, Object], Awaitable[Sources]]
    """Read the objects that a container in a namespace refers to."""
    changed: Callable[[str], None]
    """Called with the Pod's uid whenever a container's state changes."""


class PodRunner:
    """One Pod on this node. `run` returns when every container has ended for good, or after `stop`."""

    def __init__(self, pod: Object, folder: Path, services: NodeServices) -> None:
        self.pod = pod
        self.folder = folder
        self._services = services
        # `multiprocessing` makes sockets below it, and the name of the Pod's folder alone would be too long for those.
        self.temporary = folder.parent.parent / "tmp" / pod["metadata"]["uid"][:13]
        self._base = replace(services.base, home=folder / "home", temporary=self.temporary)
        self._stopping = asyncio.Event()
        self._deadline = float("inf")
        self.containers = {each["name"]: _resume(pod, each) for each in containers(pod)}

    @property
    def policy(self) -> str:
        """The Pod's restart policy."""
        return str(self.pod["spec"].get("restartPolicy", "Always"))

    def states(self) -> Sequence[Container]:
        """The current state of the containers, in the order of the spec."""
        return list(self.containers.values())

    def is_finished(self) -> bool:
        """Whether the Pod has ended by itself."""
        return phase(self.policy, self.states()) in ("Succeeded", "Failed")

    def stop(self, grace_seconds: float) -> None:
        """Ask the containers to end. A later call may shorten the grace period, but never extend it."""
        self._deadline = min(self._deadline, asyncio.get_running_loop().time() + grace_seconds)
        self._stopping.set()

    async def run(self) -> None:
        """Run all containers."""
        self._base.home.mkdir(parents=True, exist_ok=True)
        self.temporary.mkdir(parents=True, exist_ok=True)
        async with asyncio.TaskGroup() as group:
            for container in containers(self.pod):
                group.create_task(self._keep(container))

    async def _keep(self, container: Object) -> None:
        """Run a container repeatedly, as the restart policy says."""
        name, backoff = container["name"], None
        before = self.containers[name].state
        if before.kind is Kind.TERMINATED and not should_restart(self.policy, before.exit_code):
            return
        while not self._stopping.is_set():
            spec = await self._specify(container)
            if spec is None:
                await self._pause(_CONFIG_RETRY_SECONDS)
                continue
            began = now()
            ended = await self._execute(container, spec)
            self._set_state(name, ended)
            if self._stopping.is_set() or not should_restart(self.policy, ended.exit_code):
                return
            backoff = next_backoff(backoff, (now() - began).total_seconds())
            if backoff:
                message = (
                    f"back-off {backoff:.0f}s restarting failed container={name} pod={self.pod['metadata']['name']}"
                )
                self._set_state(name, State(Kind.WAITING, "CrashLoopBackOff", message))
                await self._pause(backoff)
            if not self._stopping.is_set():
                self.containers[name] = replace(self.containers[name], restarts=self.containers[name].restarts + 1)

    async def _specify(self, container: Object) -> ProcessSpec | None:
        try:
            sources = (
                await self._services.read(self.pod["metadata"]["namespace"], container) if references(container) else {}
            )
            return process(self.pod, container, sources, self._base)
        except ConfigError as error:
            state = State(Kind.WAITING, error.reason, str(error))
            if self.containers[container["name"]].state != state:
                self._set_state(container["name"], state)
            return None

    async def _execute(self, container: Object, spec: ProcessSpec) -> State:
        """Start the process, wait for its end, and leave nothing of its session behind."""
        name, began = container["name"], now()
        logs = self.folder / f"{name}.log"
        with logs.open("ab") as output:
            began_at = output.tell()
            try:
                child = await asyncio.create_subprocess_exec(
                    *spec.argv,
                    env=dict(spec.env),
                    cwd=spec.cwd,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                message = f"cannot start {spec.argv[0]!r} in {spec.cwd}: {error.strerror}"
                return State(Kind.TERMINATED, "StartError", message, _START_ERROR, began, now())
        record = self.folder / f"{name}{RECORD_SUFFIX}"
        identity = processes.write_record(record, child.pid)
        label = f"process://{child.pid}"
        probe = readiness(container)
        self.containers[name] = replace(self.containers[name], passes=probe is None)
        self._set_state(name, State(Kind.RUNNING, started_at=began, process=label))
        probing = asyncio.create_task(follow(probe, spec, partial(self._show_ready, name))) if probe else None
        try:
            code = await self._follow(child, identity)
        finally:
            if probing is not None:
                probing.cancel()
        record.unlink(missing_ok=True)
        return terminated(code, began, now(), label, termination_message(container, code, logs, began_at))

    def _show_ready(self, name: str, passes: bool, said: str) -> None:
        self.containers[name] = replace(self.containers[name], passes=passes)
        metadata = self.pod["metadata"]
        log.info(
            "container_ready" if passes else "container_not_ready",
            namespace=metadata["namespace"],
            pod=metadata["name"],
            container=name,
            said=said,
        )
        self._services.changed(metadata["uid"])

    async def _follow(self, child: asyncio.subprocess.Process, identity: processes.Identity) -> int:
        ended = asyncio.ensure_future(child.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not ended.done():
            # To the main process only: it decides about its children, as in a container.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
            while not ended.done() and asyncio.get_running_loop().time() < self._deadline:
                await asyncio.wait({ended}, timeout=_DEADLINE_CHECK_SECONDS)
        await asyncio.to_thread(processes.kill_session, identity)
        return await ended

    def _set_state(self, name: str, state: State) -> None:
        self.containers[name] = self.containers[name].becomes(state)
        metadata = self.pod["metadata"]
        log.info(
            "container_changed",
            namespace=metadata["namespace"],
            pod=metadata["name"],
            container=name,
            state=state.kind.value,
            reason=state.reason,
            exit_code=state.exit_code,
        )
        self._services.changed(metadata["uid"])

    async def _pause(self, seconds: float) -> None:
        """Wait for this time, or until the Pod is stopped."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def _resume(pod: Object, container: Object) -> Container:
    """Start from the state in the API server: a container that ran before this node started counts as restarted."""
    fresh = Container(container["name"], container.get("image", ""))
    for before in pod.get("status", {}).get("containerStatuses", []):
        if before["name"] == fresh.name:
            state = before.get("state", {})
            ran = "running" in state or bool(before.get("lastState")) or "terminated" in state
            if (ended := _ended(state)) is not None and not should_restart(
                pod["spec"].get("restartPolicy", "Always"), ended.exit_code
            ):
                return replace(fresh, state=ended, restarts=before.get("restartCount", 0))
            return replace(fresh, restarts=before.get("restartCount", 0) + int(ran))
    return fresh


def _ended(state: Object) -> State | None:
    """How a container's last run ended. One that was running was killed with the earlier node process."""
    if "running" in state:
        began = dt.datetime.fromisoformat(state["running"]["startedAt"])
        return State(Kind.TERMINATED, "Error", "the node was restarted while the container ran", _KILLED, began, now())
    if "terminated" in state:
        found = state["terminated"]
        began, finished = (dt.datetime.fromisoformat(found[when]) for when in ("startedAt", "finishedAt"))
        return State(
            Kind.TERMINATED, found.get("reason", ""), found.get("message", ""), found["exitCode"], began, finished
        )
    return None
