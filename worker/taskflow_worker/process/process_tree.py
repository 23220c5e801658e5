"""The processes that attempts started, as /proc shows them, and their end.

A runner process is a *subreaper* (prctl(2)): whatever its attempt starts stays below it, in a new session and after a
double fork too. The worker's main process is one as well, so that it gets what a runner leaves when it dies.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from taskflow_core.telemetry.logs import get_logger

log = get_logger(__name__)
OUTLIVES_VARIABLE = "TASKFLOW_OUTLIVES_ATTEMPT"
"""A program that is started with this variable, and what it starts, is left alone."""
GRACE_SECONDS = 2.0
"""Time between SIGTERM and SIGKILL for what an attempt left running."""
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.02
_MAX_ROUNDS = 100
"""How often the tree is looked at while it is killed: its processes may be forking."""
_HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver", b"loky.backend.resource_tracker")
"""Processes of Python's own that run none of a handler's code and end with the process that started them. If they are
killed, `multiprocessing` fails in that process from then on."""
_PROC = Path("/proc")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Entry:
    """One process of the table of the kernel."""

    pid: int
    parent: int
    group: int
    zombie: bool


def adopt_orphans() -> None:
    """Let what the calling process starts stay below it when the processes in between end."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def read_table() -> dict[int, Entry]:
    """All processes that the calling one can see."""
    found = (_read_entry(int(each.name)) for each in _PROC.iterdir() if each.name.isdigit())
    return {entry.pid: entry for entry in found if entry is not None}


def _read_entry(pid: int) -> Entry | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    return parse_stat(pid, stat)


def parse_stat(pid: int, stat: bytes) -> Entry:
    """An entry from /proc/PID/stat (proc(5)). The program's name may have spaces and parentheses."""
    state, parent, group = stat[stat.rindex(b")") + 2 :].split()[:3]
    return Entry(pid, int(parent), int(group), zombie=state in (b"Z", b"X"))


def below(root: int, table: Mapping[int, Entry], skip: Callable[[int], bool] = lambda _: False) -> list[Entry]:
    """The descendants of a process, parents first, without those that `skip` names and what is below them."""
    children: dict[int, list[Entry]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry)
    found: list[Entry] = []
    roots = [root]
    while roots:
        for entry in children.get(roots.pop(0), []):
            if not entry.zombie and skip(entry.pid):
                continue
            found.append(entry)
            roots.append(entry.pid)
    return found


def outlives(pid: int) -> bool:
    """Whether the program was started with the variable that lets it outlive its attempt."""
    return any(each.startswith(f"{OUTLIVES_VARIABLE}=".encode()) for each in _read(pid, "environ").split(b"\0"))


def _helper(pid: int) -> bool:
    line = _read(pid, "cmdline")
    return any(name in line for name in _HELPERS)


def _read(pid: int, name: str) -> bytes:
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""


def has_children() -> bool:
    """Whether the calling process has children, ended ones included. One system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_below(root: int, grace: float = GRACE_SECONDS) -> list[int]:
    """End what runs below a process: SIGTERM, after the grace period SIGKILL. Returns what was still running.

    Children of the calling process are waited for, so that none of them stays as a zombie.
    """
    return _end(lambda: _left_below([root]), grace)


def end_started_by(thread: int, grace: float = GRACE_SECONDS) -> list[int]:
    """The same for the children that one thread of the calling process started, and for what is below them."""
    return _end(lambda: _left_of_thread(thread), grace)


def _end(find: Callable[[], list[Entry]], grace: float) -> list[int]:
    # Whoever started a process and keeps an object for it shall learn its exit code.
    multiprocessing.active_children()
    subprocess._cleanup()  # type: ignore[attr-defined]  # noqa: SLF001 - what `Popen` itself calls
    left = _running(find())
    ended = [entry.pid for entry in left]
    deadline = time.monotonic() + grace
    asked: set[int] = set()
    while left:
        _signal_each(left, signal.SIGTERM, asked)
        if time.monotonic() >= deadline:
            _kill(find)
            break
        time.sleep(_POLL_SECONDS)
        left = _running(find())
    if ended:
        log.info("processes_ended", pids=ended)
    return ended


def _signal_each(entries: Iterable[Entry], number: signal.Signals, done: set[int]) -> None:
    for entry in entries:
        if entry.pid not in done:
            done.add(entry.pid)
            send(entry.pid, number)
            # A stopped process gets it only now.
            send(entry.pid, signal.SIGCONT)


def _kill(find: Callable[[], list[Entry]]) -> None:
    for _ in range(_MAX_ROUNDS):
        left = _running(find())
        if not left:
            return
        for entry in left:
            send(entry.pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    log.error("processes_left", pids=[entry.pid for entry in left])


def _running(entries: Iterable[Entry]) -> list[Entry]:
    """Those that run. Ended children of the calling process are waited for."""
    me = os.getpid()
    running = []
    for entry in entries:
        if not entry.zombie:
            running.append(entry)
        elif entry.parent == me:
            with suppress(ChildProcessError):
                os.waitpid(entry.pid, os.WNOHANG)
    return running


def _left_below(roots: Iterable[int]) -> list[Entry]:
    table = read_table()
    found = [entry for root in roots for entry in below(root, table, outlives)]
    return [entry for entry in found if entry.zombie or not _helper(entry.pid)]


def _left_of_thread(thread: int) -> list[Entry]:
    try:
        children = (_PROC / "self" / "task" / str(thread) / "children").read_text()
    except OSError:
        # A kernel without CONFIG_PROC_CHILDREN does not say which thread started what.
        return []
    own = [entry for entry in map(_read_entry, map(int, children.split())) if entry is not None]
    mine = [entry for entry in own if entry.zombie or not (outlives(entry.pid) or _helper(entry.pid))]
    return mine + (_left_below([entry.pid for entry in mine]) if mine else [])


def kill_with_descendants(pid: int) -> None:
    """Kill a runner process at once, and before it all that runs below it.

    It is stopped first: while it lives, no process can leave it.
    """
    if not send(pid, signal.SIGSTOP):
        return
    _kill(lambda: below(pid, read_table(), outlives))
    send(pid, signal.SIGKILL)


def own_children() -> set[int]:
    """The children of the calling process that run."""
    me = os.getpid()
    return {entry.pid for entry in read_table().values() if entry.parent == me and not entry.zombie}


def end_orphans(runners: Callable[[], Collection[int]], known: Collection[int] = ()) -> list[int]:
    """Main process: kill what runners left behind when they died. Returns what was still running.

    Orphans become children of the main process. They are told from its own children, of imported modules for example,
    by their process group: a runner leads one, and none of its descendants is in the main process's.

    Args:
        runners: the runner processes, which are children too. A runner is one of them before it leads a group.
        known: children that the main process had before there was a runner.
    """
    me, group = os.getpid(), os.getpgrp()

    def orphans() -> list[Entry]:
        table = read_table()
        # After the table: a new runner that is in it is known by now.
        alive = runners()
        adopted = [
            entry
            for entry in table.values()
            if entry.parent == me
            and entry.group != group
            and entry.pid not in alive
            and entry.pid not in known
            and (entry.zombie or not (outlives(entry.pid) or _helper(entry.pid)))
        ]
        return adopted + [lower for entry in adopted for lower in below(entry.pid, table, outlives)]

    left = [entry.pid for entry in _running(orphans())]
    if left:
        log.info("orphans_killed", pids=left)
        _kill(orphans)
    return left


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal. False if there is no such process, or if it is not ours."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
