"""Detached processes that outlive their starter: start, recognise, stop.

A pid alone says little: it is reused, and a state folder survives reboots. A process is therefore known by pid, start
time (field 22 of /proc/PID/stat, clock ticks since boot, see proc(5)) and boot id. Linux only.
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
# A Popen must be kept and polled, else a process that ends while its starter lives stays a zombie and looks alive.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Identity:
    """One process for all time: a pid is reused, the triple is not."""

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
    """Read /proc/PID/stat; the command name in parentheses may itself hold blanks and parentheses."""
    fields = text[text.rindex(")") + 1 :].split()
    return Stat(state=fields[0], session=int(fields[3]), start_ticks=int(fields[19]))


def boot_id() -> str:
    """Say which boot of the machine this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def stat_of(pid: int) -> Stat | None:
    """Look a process up; None when there is no such pid."""
    try:
        found = parse_stat(Path(f"/proc/{pid}/stat").read_text())
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return None
    # When the first thread has ended before the others, files and ports are still open.
    return replace(found, state="D") if found.state == "Z" and threads > 1 else found


def is_same(identity: Identity, found: Stat | None, boot: str) -> bool:
    """Decide whether what runs under the recorded pid now is the recorded process, and alive (a zombie is not)."""
    if found is None or boot != identity.boot_id:
        return False
    return found.start_ticks == identity.start_ticks and found.state not in "ZX"


def is_alive(identity: Identity) -> bool:
    """Tell whether the process still runs; reaps it when it was started here and has ended."""
    alive = is_same(identity, stat_of(identity.pid), boot_id())
    child = _children.get(identity.pid)
    # Asked last: one that ends meanwhile is reaped too, and whoever hears that it is gone does not ask again.
    if child is None or child.poll() is None:
        return alive
    _children.pop(identity.pid, None)
    return False


def session_members(identity: Identity) -> list[int]:
    """List what lives in the session that this process leads, the leader included.

    A pid is not reused while a session carries its number; so when another process has the pid, the session is gone.
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
    """Read a pid file; None when there is none or it was cut short by a crash."""
    try:
        return Identity(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_record(path: Path, pid: int) -> Identity:
    """Write down who runs under this pid, atomically; call it right after the start."""
    found = stat_of(pid)
    identity = Identity(pid, found.start_ticks if found else 0, boot_id())
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(identity)))
    part.replace(path)
    return identity


def start(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, record: Path, user: str | None = None
) -> Identity:
    """Start a process in a session of its own, output appended to `log`, and record it; `user` only as root."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, user=user, group=_group_of(user), extra_groups=None if user is None else [],
        )  # fmt: skip
    _children[child.pid] = child
    return write_record(record, child.pid)


def _group_of(user: str | None) -> int | None:
    if user is None:
        return None
    return pwd.getpwnam(user).pw_gid


def stop(identity: Identity, signum: signal.Signals, grace_seconds: float) -> None:
    """Signal the process, wait until its whole session is gone, kill what is left after the grace period."""
    if is_alive(identity):
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, signum)
        if wait_until_gone(identity, grace_seconds):
            return
    kill_session(identity)


def kill_session(identity: Identity) -> None:
    """Kill every member of the session and wait until none is left."""
    while members := session_members(identity):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        is_alive(identity)
        time.sleep(_POLL_SECONDS)
    is_alive(identity)


def wait_until_gone(identity: Identity, seconds: float) -> bool:
    """Wait for the end of the process and of its session; False when the time is over first."""
    deadline = time.monotonic() + seconds
    while is_alive(identity) or session_members(identity):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
