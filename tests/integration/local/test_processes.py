"""Detached processes: they outlive their starter, and are reaped by it while it lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taskflow_local import processes
from tests.e2e.product import eventually

pytestmark = pytest.mark.integration


def start(folder: Path, *argv: str) -> processes.Identity:
    return processes.start(argv, env=dict(os.environ), cwd=folder, log=folder / "log", record=folder / "record.json")


def test_an_ended_process_is_reaped_and_not_alive(tmp_path: Path) -> None:
    identity = start(tmp_path, "true")
    eventually(lambda: processes.is_alive(identity), lambda alive: not alive, 10)
    assert not Path(f"/proc/{identity.pid}").exists()


def test_a_stopped_process_is_reaped(tmp_path: Path) -> None:
    identity = start(tmp_path, "sleep", "600")
    assert processes.is_alive(identity)
    processes.stop(identity, signal.SIGTERM, 10)
    assert not Path(f"/proc/{identity.pid}").exists()


def test_a_starter_that_ends_leaves_its_process_running_and_warns_of_nothing(tmp_path: Path) -> None:
    script = f"""
import os, pathlib
from taskflow_local import processes
folder = pathlib.Path({str(tmp_path)!r})
processes.start(["sleep", "600"], env=dict(os.environ), cwd=folder, log=folder / "log", record=folder / "record.json")
"""
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", script], capture_output=True, text=True, check=True
    )
    identity = processes.read_record(tmp_path / "record.json")
    assert identity is not None
    try:
        assert processes.is_alive(identity)
        assert done.stderr == ""
    finally:
        processes.kill_session(identity)
