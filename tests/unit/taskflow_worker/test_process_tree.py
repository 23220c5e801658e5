from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from taskflow_worker.process.process_tree import (
    Entry,
    below,
    end_below,
    end_orphans,
    end_started_by,
    kill_with_descendants,
    outlives,
    own_children,
    parse_stat,
    read_table,
)
from tests.e2e.product import eventually


def table(*entries: tuple[int, int]) -> dict[int, Entry]:
    return {pid: Entry(pid, parent, pid, zombie=False) for pid, parent in entries}


@pytest.mark.parametrize(
    ("stat", "expected"),
    [
        (b"7 (sh) S 3 5 1 0 -1", Entry(7, 3, 5, zombie=False)),
        (b"7 (a) b (c)) Z 3 5 1 0 -1", Entry(7, 3, 5, zombie=True)),
    ],
)
def test_a_line_of_the_kernel_is_read_whatever_the_programs_name(stat: bytes, expected: Entry) -> None:
    assert parse_stat(7, stat) == expected


def test_descendants_are_found_at_any_depth_and_nobody_else() -> None:
    found = below(10, table((10, 1), (11, 10), (12, 11), (13, 12), (20, 1), (21, 20)))
    assert [entry.pid for entry in found] == [11, 12, 13]


def test_what_is_skipped_takes_its_descendants_along() -> None:
    found = below(10, table((11, 10), (12, 11), (13, 10)), lambda pid: pid == 11)
    assert [entry.pid for entry in found] == [13]


def test_the_table_has_this_process_and_its_parent() -> None:
    assert read_table()[os.getpid()].parent == os.getppid()


@pytest.fixture
def root() -> Iterator[subprocess.Popen[str]]:
    """A process with a child in a session of its own. It prints the child's id."""
    script = (
        "import subprocess, time; "
        "print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    entry = read_table().get(pid)
    return entry is None or entry.zombie


def first_line(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_a_process_is_killed_with_what_is_below_it(root: subprocess.Popen[str]) -> None:
    child = first_line(root)
    kill_with_descendants(root.pid)
    assert root.wait(10) == -signal.SIGKILL
    assert gone(child)


def test_what_is_below_a_process_gets_a_chance_to_end_by_itself(root: subprocess.Popen[str]) -> None:
    child = first_line(root)
    started = time.monotonic()
    assert end_below(root.pid, grace=600) == [child]
    assert gone(child)
    assert time.monotonic() - started < 600
    assert root.poll() is None


def test_what_does_not_end_by_itself_is_killed() -> None:
    deaf = subprocess.Popen(["sh", "-c", "trap '' TERM; echo; sleep 600"], stdout=subprocess.PIPE)
    assert deaf.stdout is not None
    deaf.stdout.readline()
    with deaf.stdout:
        assert deaf.pid in end_started_by(os.getpid(), grace=0)
    assert gone(deaf.pid)
    deaf.wait()


def test_a_program_with_the_variable_outlives_its_attempt() -> None:
    environment = os.environ | {"TASKFLOW_OUTLIVES_ATTEMPT": "1"}
    kept = subprocess.Popen(["sleep", "600"], env=environment)
    other = subprocess.Popen(["sleep", "600"])
    try:
        eventually(lambda: outlives(kept.pid), lambda found: found)
        assert not outlives(other.pid)
        assert end_started_by(os.getpid(), grace=600) == [other.pid]
        assert kept.poll() is None
    finally:
        for each in (kept, other):
            each.kill()
            each.wait()


def test_orphans_are_told_from_runners_and_from_own_children_by_their_group() -> None:
    own = subprocess.Popen(["sleep", "600"])
    known = subprocess.Popen(["sleep", "600"], start_new_session=True)
    runner = subprocess.Popen(["sleep", "600"], start_new_session=True)
    orphan = subprocess.Popen(["sleep", "600"], start_new_session=True)
    others = own_children() - {runner.pid, orphan.pid}
    try:
        assert end_orphans(lambda: {runner.pid}, others) == [orphan.pid]
        assert [each.poll() for each in (own, known, runner)] == [None] * 3
    finally:
        for each in (own, known, runner, orphan):
            with suppress(ProcessLookupError):
                each.kill()
            each.wait()


def test_a_process_without_children_is_told_so_by_one_call() -> None:
    script = "from taskflow_worker.process.process_tree import has_children; print(has_children())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_attempt_after_one_that_let_go_of_orphans_keeps_its_own() -> None:
    script = """
import ctypes
from taskflow_worker.process.housekeeping import ProcessHousekeeping
libc, found = ctypes.CDLL(None), ctypes.c_int()
housekeeping = ProcessHousekeeping(print)
with housekeeping.around(""):
    libc.prctl(36, 0, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
with housekeeping.around(""):
    libc.prctl(37, ctypes.byref(found), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
print(found.value)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
