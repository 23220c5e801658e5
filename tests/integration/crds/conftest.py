from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from taskflow_local.stack import Stack


@dataclass(frozen=True)
class Cluster:
    """A real API server with our CRDs, as kubectl reaches it."""

    stack: Stack

    def run(self, *arguments: str, manifest: object = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", *arguments],
            input=None if manifest is None else json.dumps(manifest),
            env=os.environ | self.stack.env(),
            capture_output=True,
            text=True,
            check=False,
        )

    def kubectl(self, *arguments: str, manifest: object = None) -> str:
        done = self.run(*arguments, manifest=manifest)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self, manifest: object) -> Any:
        """The object as the API server keeps it."""
        return json.loads(self.kubectl("create", "--validate=strict", "-f", "-", "-o", "json", manifest=manifest))

    def raw(self, path: str) -> Any:
        return json.loads(self.kubectl("get", "--raw", path))


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    stack = Stack(Path(tmp_path_factory.mktemp("crds")) / "state", components=("etcd", "kube-apiserver"))
    try:
        stack.up(log=lambda _: None)
        stack.apply_crds()
        yield Cluster(stack)
    finally:
        stack.down(log=lambda _: None)
