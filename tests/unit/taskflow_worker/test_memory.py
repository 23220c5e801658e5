from __future__ import annotations

from pathlib import Path

import pytest

from taskflow_core.domain.phases import Reason
from taskflow_worker.process.memory import MemoryKills

DIED = "the process that ran the handler died: Worker exited prematurely: signal 9 (SIGKILL) Job: 0."


class Group:
    """A control group of either version."""

    def __init__(self, root: Path, version: int) -> None:
        self.root, self.version = root, version
        (root / "memory").mkdir()
        self.kills(0)
        limits = ("memory.max", "memory.peak")
        if version == 1:
            limits = ("memory/memory.limit_in_bytes", "memory/memory.max_usage_in_bytes")
        for name, mib in zip(limits, (256, 255), strict=True):
            (root / name).write_text(f"{mib * 1024 * 1024}\n")

    def kills(self, count: int) -> None:
        if self.version == 1:
            text = f"oom_kill_disable 0\nunder_oom 0\noom_kill {count}\n"
            (self.root / "memory" / "memory.oom_control").write_text(text)
        else:
            (self.root / "memory.events").write_text(f"low 0\nmax 7\noom {count}\noom_kill {count}\noom_group_kill 0\n")


@pytest.mark.parametrize("version", [1, 2])
def test_a_process_that_was_killed_for_want_of_memory_is_told_with_the_limit(tmp_path: Path, version: int) -> None:
    group = Group(tmp_path, version)
    kills = MemoryKills(tmp_path)
    assert kills.failure(DIED).reason is Reason.WORKER_LOST
    group.kills(1)
    failure = kills.failure(DIED)
    assert failure.reason is Reason.OUT_OF_MEMORY
    assert failure.message.startswith(
        f"{DIED}: its container reached its memory limit of 256 MiB (255 MiB used at most)"
    )
    assert "isolation: Pod" in failure.message


def test_a_kill_long_ago_explains_nothing(tmp_path: Path) -> None:
    group = Group(tmp_path, 2)
    kills = MemoryKills(tmp_path)
    group.kills(1)
    kills.look()
    assert kills.failure(DIED).reason is Reason.OUT_OF_MEMORY, "the look may come between the kill and its news"
    kills.look()
    assert kills.failure(DIED).reason is Reason.WORKER_LOST


def test_a_process_that_ended_otherwise_was_not_killed(tmp_path: Path) -> None:
    group = Group(tmp_path, 2)
    kills = MemoryKills(tmp_path)
    group.kills(1)
    assert kills.failure("the process that ran the handler died: exit code 1").reason is Reason.WORKER_LOST


def test_without_a_control_group_nothing_is_claimed(tmp_path: Path) -> None:
    assert MemoryKills(tmp_path / "none").failure(DIED).reason is Reason.WORKER_LOST


def test_without_a_limit_the_node_had_no_memory(tmp_path: Path) -> None:
    group = Group(tmp_path, 2)
    (tmp_path / "memory.max").write_text("max\n")
    kills = MemoryKills(tmp_path)
    group.kills(1)
    assert f"{DIED}: no memory was left (255 MiB" in kills.failure(DIED).message
