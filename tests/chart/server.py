"""A real API server, by kubectl."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

import yaml

from taskflow_local.stack import Stack
from tests.chart.rendering import Object

NOT_SERVED = {"HTTPRoute", "PodMonitor", "ServiceMonitor", "PrometheusRule"}
"""Kinds of other projects, whose definitions this API server has not."""


@dataclass(frozen=True)
class Server:
    stack: Stack

    def kubectl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = os.environ | self.stack.env()
        command = ["kubectl", *arguments]
        return subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, check=False)

    def apply(self, objects: list[Object], *arguments: str) -> str:
        """Server-side apply with strict validation; AssertionError with what the server said."""
        stdin = yaml.safe_dump_all(objects)
        done = self.kubectl("apply", "--server-side", "--validate=strict", "-f", "-", *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def namespace(self, name: str) -> None:
        namespace: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        namespace["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply([namespace])
        # A controller makes it a moment later, and no pod is admitted before.
        made = self.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")
        assert made.returncode == 0, made.stderr
