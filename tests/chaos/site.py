"""The product while it is being hurt: a stack behind proxies, somebody who starts again what died, and handles for
faults.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import urllib3

from taskflow_core.domain import naming
from taskflow_local import processes
from taskflow_local.errors import LocalError
from tests.chaos.api_server import ABSENT, PODS, POOLS, ApiError, ApiServer
from tests.chaos.ground import Ground, eventually
from tests.chaos.oracle import Wanted
from tests.chaos.tap import Tap

LEASE_SECONDS = 4
REPLICAS = 3
CONCURRENCY = 2
SERVERS = ("redis", "postgres", "minio", "kube-apiserver")
SUPERVISED = ("operator", "api")


def pool(name: str, replicas: int, values: dict[str, str]) -> dict[str, Any]:
    """A WorkerPool for the queue of all Tasks."""
    container = {"name": "worker", "env": [{"name": key, "value": value} for key, value in values.items()]}
    return {
        "apiVersion": naming.API_VERSION,
        "kind": "WorkerPool",
        "metadata": {"name": name},
        "spec": {
            "queues": ["default"],
            "concurrency": CONCURRENCY,
            "replicas": replicas,
            "template": {"spec": {"terminationGracePeriodSeconds": 12, "containers": [container]}},
        },
    }


class Site(Ground):
    """The whole product."""

    def __init__(self, folder: Path, *, away_seconds: float) -> None:
        environ = {
            "TASKFLOW_LEASE_SECONDS": str(LEASE_SECONDS),
            "TASKFLOW_RESYNC_SECONDS": "5",
            # Here workers die so often that an innocent Task may lose several in a row.
            "TASKFLOW_MAX_LOST_WORKERS": "10",
        }
        super().__init__(folder, SERVERS, away_seconds=away_seconds, environ=environ)
        self.http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(10, connect=2))
        self.created_over_rest: list[str] = []
        self._stop = threading.Event()
        self._held: dict[str, threading.RLock] = {name: threading.RLock() for name in SUPERVISED}
        self._expected: dict[str, int] = dict.fromkeys(SUPERVISED, 0)
        self.starts: dict[str, int] = dict.fromkeys(SUPERVISED, 0)
        self._lock = threading.Lock()

    def up(self, say: Callable[[str], None]) -> None:
        """Start everything, with warm workers."""
        self.stack.up(log=say)
        self.api = ApiServer(self.stack)
        self.redis = self.connect()
        self.tap = Tap(self.connect)
        self._supervisors = [threading.Thread(target=self._supervise, args=(name,), daemon=True) for name in SUPERVISED]
        for each in self._supervisors:
            each.start()
        self.api.insist("POST", POOLS, self.pool("main", REPLICAS))
        self.ready_workers()

    def pool(self, name: str, replicas: int, **env: str) -> dict[str, Any]:
        """A WorkerPool whose workers take their own way to Redis."""
        values = {
            "TASKFLOW_WORKER_HANDLERS": "chaos_handlers",
            "TASKFLOW_CHAOS_RECORD": str(self.record),
            "TASKFLOW_REDIS_URL": self.workers_redis(),
        }
        return pool(name, replicas, values | env)

    def down(self) -> None:
        """Stop everything."""
        self._stop.set()
        for each in getattr(self, "_supervisors", []):
            each.join(70)
        if hasattr(self, "tap"):
            self.tap.close()
        super().down()

    def _supervise(self, name: str) -> None:
        """As a kubelet does: what ended is started again."""
        while not self._stop.wait(0.1):
            if self.stack.pid(name) is None and self._held[name].acquire(timeout=0.1):
                try:
                    if self.stack.pid(name) is None and not self._stop.is_set():
                        self.starts[name] += 1
                        self.stack.start(name)
                except LocalError:
                    # It ended once more, or what it needs is away: the next look starts it again.
                    continue
                finally:
                    self._held[name].release()

    @contextmanager
    def unsupervised(self, name: str) -> Iterator[None]:
        """Nobody starts it meanwhile."""
        with self._held[name]:
            yield

    def wanted_over_rest(self) -> list[Wanted]:
        """Tasks that a fault created by REST."""
        uids = {item["metadata"]["name"]: item["metadata"]["uid"] for item in self.api.tasks()}
        return [Wanted(name, uids.get(name, ""), "chaos.quick") for name in self.created_over_rest]

    def expect_end(self, name: str) -> None:
        """Somebody is about to kill it."""
        with self._lock:
            self._expected[name] += 1

    def unexpected_ends(self) -> list[str]:
        """Ends that were nobody's doing, since the last call."""
        with self._lock:
            found = [
                f"{name} ended {self.starts[name] - self._expected[name]} times by itself, see {self.stack.log(name)}"
                for name in SUPERVISED
                if self.starts[name] > self._expected[name]
            ]
            self._expected = dict(self.starts)
        return found

    def kill(self, name: str) -> None:
        """SIGKILL a supervised process; it is started again."""
        pid = eventually(lambda: self.stack.pid(name), bool, 120, f"{name} runs")
        self.expect_end(name)
        # Not by the stack: that would forget what the supervisor may have started meanwhile.
        with suppress(ProcessLookupError):
            os.kill(pid or 0, signal.SIGKILL)
        eventually(lambda: self.stack.pid(name), lambda now: now != pid, 30, f"{name} is gone")

    def ready(self, name: str, seconds: float = 120) -> None:
        """Wait until a supervised process is there and ready."""

        def look() -> bool:
            return next(each.ready for each in self.stack.status() if each.name == name)

        eventually(look, bool, seconds, f"{name} ready")

    def pods(self) -> dict[str, list[int]]:
        """Processes of each worker pod that runs, its main process first, by the pod's name."""
        found = {}
        for record in sorted(self.stack.folder.pods.glob("*/worker.pid.json")):
            identity = processes.read_record(record)
            if identity is not None and processes.is_alive(identity):
                children = [pid for pid in processes.session_members(identity) if pid != identity.pid]
                found[record.parent.name] = [identity.pid, *sorted(children)]
        return found

    def ready_workers(self, seconds: float = 120) -> None:
        """Wait until as many worker pods are ready as should be, each with all its pool processes."""

        def look() -> tuple[int, int]:
            items = self.api.insist("GET", PODS)["items"]
            states = [{c["type"]: c["status"] for c in item.get("status", {}).get("conditions", [])} for item in items]
            return sum(state.get("Ready") == "True" for state in states), sum(
                len(pids) > CONCURRENCY for pids in self.pods().values()
            )

        eventually(look, lambda counts: min(counts) >= REPLICAS, seconds, "ready workers")

    def remove_pod(self, folder: str) -> None:
        """Take a pod whose node died out of the API, so that its Deployment makes another at once."""
        for item in self.api.insist("GET", PODS)["items"]:
            if item["metadata"]["name"] in folder:
                with suppress(ApiError):
                    self.api.insist("DELETE", f"{PODS}/{item['metadata']['name']}", {"gracePeriodSeconds": 0})

    def delete_pool(self, name: str) -> None:
        """Delete a WorkerPool and wait until none of its pods runs."""
        with suppress(ApiError):
            self.api.insist("DELETE", f"{POOLS}/{name}")

        def gone() -> bool:
            try:
                self.api.insist("GET", f"{POOLS}/{name}")
            except ApiError as error:
                if error.code != ABSENT:
                    raise
                return not any(folder.find(f"_{name}-workers") >= 0 for folder in self.pods())
            return False

        eventually(gone, bool, 120, f"pool {name} gone")

    def operator_log(self, offset: int = 0) -> str:
        """What the operator wrote since."""
        with self.stack.log("operator").open("rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace")

    def worker_logs(self) -> dict[Path, int]:
        """Sizes of the workers' logs."""
        return {path: path.stat().st_size for path in self.stack.folder.pods.glob("*/worker.log")}

    def counter(self, name: str) -> float:
        """Sum of an operator's counter."""
        url = f"http://127.0.0.1:{self.stack.port('operator')}/metrics"
        lines = self.http.request("GET", url).data.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)
