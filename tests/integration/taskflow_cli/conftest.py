from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from taskflow_local.stack import Stack

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Site:
    """A real API server with our CRDs, as a user's shell reaches it."""

    stack: Stack

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, **self.stack.env(), "PATH": f"{BIN}:{self.stack.env()['PATH']}"}

    def shell(self, command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command], input=stdin, env=self.environ, capture_output=True, text=True, check=False
        )

    def out(self, command: str, stdin: str | None = None) -> str:
        """What a command prints that has to succeed."""
        done = self.shell(command, stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ended(self, name: str, phase: str, **status: Any) -> None:
        """What the operator would write."""
        whole = {"phase": phase, "reason": phase, "attempt": 1, **status}
        patch = json.dumps({"status": whole})
        self.out(f"kubectl patch tft {name} --subresource=status --type=merge -p '{patch}'")


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    stack = Stack(Path(tmp_path_factory.mktemp("cli")) / "state", components=("etcd", "kube-apiserver"))
    try:
        stack.up(log=lambda _: None)
        stack.apply_crds()
        yield Site(stack)
    finally:
        stack.down(log=lambda _: None)
