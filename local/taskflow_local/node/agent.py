"""The node as the API server sees it: registers, renews its Lease, binds Pods, runs them, reports their status."""

import asyncio
import base64
import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from taskflow_local import processes
from taskflow_local.handlers import PODS_PATH
from taskflow_local.kube import STRATEGIC, Kube, KubeError, Object
from taskflow_local.node.pods import Base, Reference, Sources, folder_name, references
from taskflow_local.node.runner import RECORD_SUFFIX, NodeServices, PodRunner, now
from taskflow_local.node.status import is_ready, pod_status, shows_ready, timestamp

NODE_NAME = "local"
_LEASE_SECONDS, _RENEW_SECONDS = 40, 10
_RETRY_SECONDS = 1.0
_SHUTDOWN_SECONDS = 30.0
_KEPT_FOLDERS = 200
_PLURALS = {"Secret": "secrets", "ConfigMap": "configmaps"}
_ERRORS = (KubeError, aiohttp.ClientError, TimeoutError, OSError)

log = structlog.get_logger()


def kill_leftovers(pods: Path) -> int:
    """Kill the processes that an earlier node process left running. Returns the number of sessions."""
    killed = 0
    for record in pods.glob(f"*/*{RECORD_SUFFIX}"):
        identity = processes.read_record(record)
        if identity is not None and processes.session_members(identity):
            processes.kill_session(identity)
            killed += 1
        record.unlink()
    return killed


def base_environment(pods: Path) -> Base:
    """The environment of every container: this Python first on PATH, and local mode's own import path."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    extra = {name: os.environ[name] for name in ("PYTHONPATH", "TZ") if os.environ.get(name)}
    if given := os.environ.get(PODS_PATH):
        extra["PYTHONPATH"] = given
    return Base(path, pods, NODE_NAME, extra)


class Agent:
    """One node. `run` works until `stop` is set, then stops the Pods within a bounded time."""

    def __init__(self, kube: Kube, pods: Path, port: int) -> None:
        self._kube = kube
        self._port = port
        self._pods = pods
        self._services = NodeServices(base_environment(pods), self._read, self._request_report)
        self._runners: dict[str, PodRunner] = {}
        self._changes: dict[str, asyncio.Event] = {}
        self._shutting_down = False
        self._work: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Register, then keep Pods running. `ready` is called once the node is registered."""
        await self._retry(self._register, "node_not_registered")
        await self._retry(self._renew, "lease_not_renewed")
        ready()
        loops = [asyncio.create_task(self._renew_lease()), asyncio.create_task(self._follow_pods())]
        await stop.wait()
        self._shutting_down = True
        loops[1].cancel()
        for runner in self._runners.values():
            runner.stop(min(_grace(runner.pod), _SHUTDOWN_SECONDS))
        if self._work:
            await asyncio.wait(self._work, timeout=_SHUTDOWN_SECONDS + 5)
        loops[0].cancel()
        await asyncio.gather(*loops, return_exceptions=True)

    async def _retry(self, action: Callable[[], Coroutine[Any, Any, None]], event: str) -> None:
        while True:
            try:
                return await action()
            except _ERRORS as error:
                log.warning(event, error=str(error))
                # The API server may be gone for good. The next node process reports what is missing.
                if self._shutting_down:
                    return None
                await asyncio.sleep(_RETRY_SECONDS)

    async def _register(self) -> None:
        labels = {
            "kubernetes.io/hostname": NODE_NAME,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": platform.machine(),
        }
        body: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE_NAME, "labels": labels}}
        await _unless_conflict(self._kube.create("/api/v1/nodes", body))
        await self._report_node_ready()

    async def _report_node_ready(self) -> None:
        # Nothing is measured or limited here. The figures only need to be large enough.
        resources = {"cpu": "1000", "memory": "1Ti", "ephemeral-storage": "1Ti", "pods": "1000"}
        at = timestamp(now())
        condition = {
            "type": "Ready",
            "status": "True",
            "reason": "LocalNodeReady",
            "message": "runs Pods as local processes",
            "lastHeartbeatTime": at,
            "lastTransitionTime": at,
        }
        status = {
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "capacity": resources,
            "allocatable": resources,
            "conditions": [condition],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": NODE_NAME}],
        }
        await self._kube.patch(f"/api/v1/nodes/{NODE_NAME}/status", {"status": status}, STRATEGIC)

    async def _renew(self) -> None:
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        renewed = now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": NODE_NAME, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": renewed}
        try:
            await self._kube.patch(f"{path}/{NODE_NAME}", {"spec": spec})
        except KubeError as error:
            if not error.is_absent:
                raise
            body: Object = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NODE_NAME}}
            await self._kube.create(path, {**body, "spec": spec})

    async def _renew_lease(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            await self._retry(self._renew, "lease_not_renewed")
            # After an outage the node controller may have marked the node as lost, and does not revert that by itself.
            await self._retry(self._report_node_ready, "node_not_reported_ready")

    async def _follow_pods(self) -> None:
        """List, then watch. After any error, including 410, list again."""
        while True:
            try:
                version = await self._list()
                while True:
                    version = await self._watch(version)
            except _ERRORS as error:
                log.warning("pods_listed_again", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _list(self) -> str:
        found = await self._kube.get("/api/v1/pods")
        uids = set()
        for pod in found["items"]:
            uids.add(pod["metadata"]["uid"])
            await self._handle(pod)
        for uid in self._runners.keys() - uids:
            self._runners[uid].stop(0)
        return str(found["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        async for event in self._kube.watch("/api/v1/pods", version):
            version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] == "DELETED":
                runner = self._runners.get(event["object"]["metadata"]["uid"])
                if runner is not None:
                    runner.stop(0)
            elif event["type"] in ("ADDED", "MODIFIED"):
                await self._handle(event["object"])
        return version

    async def _handle(self, pod: Object) -> None:
        """Act on the current state of a Pod: bind, start, stop or remove it."""
        node, uid = pod["spec"].get("nodeName"), pod["metadata"]["uid"]
        deleted = "deletionTimestamp" in pod["metadata"]
        if not node:
            if not deleted and not pod["spec"].get("schedulingGates"):
                await self._bind(pod)
            return
        if node != NODE_NAME:
            return
        runner = self._runners.get(uid)
        if runner is not None:
            runner.pod = pod
            if not deleted and shows_ready(pod) != is_ready(runner.states()):
                # Another writer changed it: the node controller does so for all Pods of a node that it considers lost.
                self._request_report(uid)
            if deleted:
                runner.stop(float(pod["metadata"].get("deletionGracePeriodSeconds", 0)))
        elif deleted:
            await self._remove(pod)
        elif pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            self._start(pod)

    async def _bind(self, pod: Object) -> None:
        metadata = pod["metadata"]
        body: Object = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": NODE_NAME},
        }
        # Deleted or bound in the meantime: the watch will tell.
        await _unless_conflict(self._kube.create(f"{_path(pod)}/binding", body))

    def _start(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        folder = self._pods / folder_name(pod)
        folder.mkdir(parents=True, exist_ok=True)
        runner = PodRunner(pod, folder, self._services)
        self._runners[uid] = runner
        self._changes[uid] = asyncio.Event()
        task = asyncio.create_task(self._run_pod(uid, runner))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _run_pod(self, uid: str, runner: PodRunner) -> None:
        """Run a Pod to its end, report its status, and remove it if it was deleted."""
        reporter = asyncio.create_task(self._report(uid, runner))
        self._request_report(uid)
        try:
            await runner.run()
            reporter.cancel()
            await asyncio.gather(reporter, return_exceptions=True)
            await self._retry(lambda: self._report_once(runner, {}), "status_not_reported")
            # A Pod that ended by itself stays until it is deleted.
            deleted = "deletionTimestamp" in runner.pod["metadata"]
            if deleted:
                await self._retry(lambda: self._remove(runner.pod), "pod_not_removed")
        finally:
            reporter.cancel()
            del self._runners[uid], self._changes[uid]
            shutil.rmtree(runner.folder / "home", ignore_errors=True)
            shutil.rmtree(runner.temporary, ignore_errors=True)
            self._prune()

    def is_running(self, folder: Path) -> bool:
        """Whether the Pod of this folder still runs, so that more output may come."""
        return any(runner.folder == folder for runner in self._runners.values())

    def _request_report(self, uid: str) -> None:
        change = self._changes.get(uid)
        if change is not None:
            change.set()

    async def _report(self, uid: str, runner: PodRunner) -> None:
        conditions: dict[str, Object] = {}
        while True:
            await self._changes[uid].wait()
            self._changes[uid].clear()
            await self._retry(lambda: self._report_once(runner, conditions), "status_not_reported")

    async def _report_once(self, runner: PodRunner, conditions: dict[str, Object]) -> None:
        known = {each["type"]: each for each in runner.pod.get("status", {}).get("conditions", [])} | conditions
        status = pod_status(runner.pod, runner.states(), known, now())
        conditions.update({each["type"]: each for each in status["conditions"]})
        # With the uid, the API server refuses a report for a new Pod of the same name.
        body: Object = {"metadata": {"uid": runner.pod["metadata"]["uid"]}, "status": status}
        with _ignore_gone():
            await self._kube.patch(f"{_path(runner.pod)}/status", body, STRATEGIC)

    async def _remove(self, pod: Object) -> None:
        """Delete the Pod from the API server. Its processes are gone."""
        body: Object = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        with _ignore_gone():
            await self._kube.request("DELETE", _path(pod), body)

    async def _read(self, namespace: str, container: Object) -> Sources:
        found: dict[Reference, dict[str, str] | None] = {}
        for reference in references(container):
            found[reference] = await self._read_one(namespace, reference)
        return found

    async def _read_one(self, namespace: str, reference: Reference) -> dict[str, str] | None:
        path = f"/api/v1/namespaces/{namespace}/{_PLURALS[reference.kind]}/{reference.name}"
        while True:
            try:
                data = (await self._kube.get(path)).get("data") or {}
            except KubeError as error:
                if error.is_absent:
                    return None
                log.warning("reference_not_read", kind=reference.kind, name=reference.name, error=str(error))
            except _ERRORS as error:
                log.warning("reference_not_read", kind=reference.kind, name=reference.name, error=str(error))
            else:
                if reference.kind == "ConfigMap":
                    return dict(data)
                return {name: base64.b64decode(value).decode(errors="replace") for name, value in data.items()}
            await asyncio.sleep(_RETRY_SECONDS)

    def _prune(self) -> None:
        """Keep the logs of the last Pods only; those that run are never touched."""
        running = {runner.folder for runner in self._runners.values()}
        folders = [each for each in self._pods.iterdir() if each.is_dir() and each not in running]
        folders.sort(key=lambda folder: folder.stat().st_mtime)
        for folder in folders[:-_KEPT_FOLDERS]:
            shutil.rmtree(folder, ignore_errors=True)


def _path(pod: Object) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _grace(pod: Object) -> float:
    return float(pod["spec"].get("terminationGracePeriodSeconds", 30))


@contextlib.contextmanager
def _ignore_gone() -> Any:
    try:
        yield
    except KubeError as error:
        if not (error.is_absent or error.is_conflict):
            raise


async def _unless_conflict(request: Coroutine[Any, Any, Object]) -> None:
    with _ignore_gone():
        await request
