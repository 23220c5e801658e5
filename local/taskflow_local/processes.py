"""Detached processes that outlive their starter: start, identify and stop them.

A pid alone does not identify a process: pids are reused, and a state folder survives reboots. A process is identified
by pid, start time (field 22 of /proc/PID/stat, clock ticks since boot, see proc(5)) and boot id. Linux only.
"""

import contextlib
import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

_POLL_SECONDS = 0.02
_started: set[int] = set()
"""Processes that this process started and has not reaped. Until then an ended one is a zombie and looks alive."""


@dataclass(frozen=True)
class Identity:
    """Identifies one process for ever: a pid is reused, the triple is not."""

    pid: int
    start_ticks: int
    boot_id: str


@dataclass(frozen=True)
class Stat:
    """The fields of /proc/PID/stat that matter here."""

    state: str
    session: int
    start_ticks: int


def parse_stat(text: str) -> Stat:
    """Parse /proc/PID/stat. The command name in parentheses may itself contain spaces and parentheses."""
    fields = text[text.rindex(")") + 1 :].split()
    return Stat(state=fields[0], session=int(fields[3]), start_ticks=int(fields[19]))


def boot_id() -> str:
    """The id of the machine's current boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def stat_of(pid: int) -> Stat | None:
    """Read a process's status. None if there is no such pid."""
    try:
        found = parse_stat(Path(f"/proc/{pid}/stat").read_text())
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return None
    # If only the first thread has ended, files and ports are still open.
    return replace(found, state="D") if found.state == "Z" and threads > 1 else found


def is_same(identity: Identity, found: Stat | None, boot: str) -> bool:
    """Whether the pid still belongs to the recorded process, and the process is alive. A zombie is not."""
    if found is None or boot != identity.boot_id:
        return False
    return found.start_ticks == identity.start_ticks and found.state not in "ZX"


def is_alive(identity: Identity) -> bool:
    """Whether the process still runs. Reaps it if this process started it and it has ended."""
    alive = is_same(identity, stat_of(identity.pid), boot_id())
    # Last: a process that ends meanwhile is reaped too, and whoever learns that it is gone does not ask again.
    return not _reap(identity.pid) and alive


def session_members(identity: Identity) -> list[int]:
    """List the processes in the session that this process leads, including the leader.

    A pid is not reused while a session has its number. So if another process has the pid, the session is gone.
    """
    leader = stat_of(identity.pid)
    if boot_id() != identity.boot_id or (leader is not None and leader.start_ticks != identity.start_ticks):
        return []
    members = []
    for pid in _all_pids():
        found = stat_of(pid)
        if found is not None and found.session == identity.pid and found.state not in "ZX":
            members.append(pid)
    return members


def _all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def read_record(path: Path) -> Identity | None:
    """Read a pid file. None if there is none, or if a crash truncated it."""
    try:
        return Identity(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_record(path: Path, pid: int) -> Identity:
    """Record the identity of a process, atomically. Call it right after the start."""
    found = stat_of(pid)
    identity = Identity(pid, found.start_ticks if found else 0, boot_id())
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(identity)))
    part.replace(path)
    return identity


def start(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, record: Path, user: str | None = None
) -> Identity:
    """Start a process in its own session, append its output to `log`, and record it. `user` requires root."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
            group=_group_of(user),
            extra_groups=None if user is None else [],
        )
    _started.add(child.pid)
    # Detached: it may outlive this process, so Popen must not expect its end. `_reap` waits for it instead.
    child.returncode = 0
    return write_record(record, child.pid)


def _reap(pid: int) -> bool:
    """Whether a process that this process started has ended."""
    if pid not in _started:
        return False
    try:
        ended, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # another thread was faster
        ended = pid
    if ended:
        _started.discard(pid)
    return bool(ended)


def _group_of(user: str | None) -> int | None:
    if user is None:
        return None
    return pwd.getpwnam(user).pw_gid


def stop(identity: Identity, signum: signal.Signals, grace_seconds: float) -> None:
    """Signal the process and wait until its whole session is gone. Kill what is left after the grace period."""
    if is_alive(identity):
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, signum)
        if wait_until_gone(identity, grace_seconds):
            return
    kill_session(identity)


def kill_session(identity: Identity) -> None:
    """Kill all processes of the session and wait until they are gone."""
    while members := session_members(identity):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        is_alive(identity)
        time.sleep(_POLL_SECONDS)
    is_alive(identity)


def wait_until_gone(identity: Identity, seconds: float) -> bool:
    """Wait until the process and its session are gone. False if the time is over first."""
    deadline = time.monotonic() + seconds
    while is_alive(identity) or session_members(identity):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
