"""Operators as processes, each with its own way to the API server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from taskflow_local.stack import Stack
from taskflow_local.state import Ports
from tests.integration.taskflow_operator.proxy import Proxy

T = TypeVar("T")
LEASE = ("-n", "taskflow-system", "lease", "taskflow-operator")


@dataclass
class OperatorProcess:
    """One operator."""

    identity: str
    proxy: Proxy
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def get(self, path: str) -> tuple[int, str]:
        """HTTP status and body of its health server; status 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def leads(self) -> bool:
        return "role: ok: leader" in self.get("/readyz?verbose")[1]

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def metric(self, name: str) -> float:
        """Sum of a metric's series."""
        _, text = self.get("/metrics")
        lines = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Log lines of that event."""
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if line["msg"] == event]

    def status_writes(self) -> list[float]:
        """When it wrote a status."""
        return [asked.at for asked in self.proxy.asked if asked.writes_status]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


class Operators:
    """Makes operators on the servers of a stack."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._made: list[OperatorProcess] = []

    def start(self, identity: str, *, token: str = "", **settings: str) -> OperatorProcess:
        """Start one; it may stand by. With a token, as whom that belongs to."""
        kubeconfig = yaml.safe_load((self._stack.folder.conf / "operator.kubeconfig").read_text())
        cluster = kubeconfig["clusters"][0]["cluster"]
        proxy = Proxy(cluster["server"], str(self._stack.folder.pki / "ca.crt"))
        kubeconfig["clusters"][0]["cluster"] = {"server": proxy.url}
        if token:
            kubeconfig["users"][0]["user"] = {"token": token}
        path = self._folder / f"{identity}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(kubeconfig))
        with Ports() as ports:
            port = ports.choose({}, ["health"])["health"]
        environment = self._stack.component_env("operator") | {
            "KUBECONFIG": str(path),
            "TASKFLOW_LEADER_IDENTITY": identity,
            "TASKFLOW_HEALTH_PORT": str(port),
            "TASKFLOW_LOG_FORMAT": "json",
            "TASKFLOW_QUIET_SECONDS": "0.1",
            "TASKFLOW_RESYNC_SECONDS": "5",
            **settings,
        }
        log = self._folder / f"{identity}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "taskflow_operator"], env=environment, stdout=output, stderr=output
            )
        made = OperatorProcess(identity, proxy, process, port, log)
        self._made.append(made)
        return made

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            ["kubectl", *arguments],
            env=os.environ | self._stack.env(),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def holder(self) -> str:
        return self.kubectl("get", *LEASE, "-o", "jsonpath={.spec.holderIdentity}")

    def apply_task(self, name: str, **spec: Any) -> None:
        """A Task; no pool serves its queue, so the operator's work on it is to say so in its status."""
        body = {
            "apiVersion": "taskflow.dev/v1alpha1",
            "kind": "Task",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"handler": "taskflow.echo", "queue": "unserved", **spec},
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def phase(self, name: str) -> str:
        return self.kubectl("get", "tft", name, "-o", "jsonpath={.status.phase}")

    def end(self) -> None:
        for each in self._made:
            if each.process.poll() is None:
                each.signal(signal.SIGCONT)
                each.process.kill()
            each.process.wait()
            each.proxy.close()
        self.kubectl("delete", "tft", "--all")
        self.kubectl("delete", *LEASE, "--ignore-not-found")


def wait_for(read: Callable[[], T], seconds: float = 30) -> T:
    """What `read` returns once it is true-like; fails with the last value."""
    deadline = time.monotonic() + seconds
    while not (value := read()):
        assert time.monotonic() < deadline, f"not after {seconds} s, last {value!r}"
        time.sleep(0.05)
    return value
