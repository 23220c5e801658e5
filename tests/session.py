"""What a run of the tests may leave behind: nothing that runs.

All temporary folders of a run are below one, and so is each state folder: a process of the run names it in its
environment, in its arguments or by its working folder, however it was started and whoever is its parent by now.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

WORKER = "PYTEST_XDIST_WORKER"


def begin() -> Path:
    """The folder of this run; the processes that share its tests get it from the one that started them."""
    if WORKER not in os.environ:
        folder = Path(tempfile.mkdtemp(prefix="tests-"))
        # When the tests run as root, the user of PostgreSQL has to be able to enter it.
        folder.chmod(0o711)
        os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None
    return Path(tempfile.gettempdir())


def left_running(folder: Path, seconds: float = 10) -> dict[int, str]:
    """Processes of the run that are still there, and their arguments; those that are ending are waited for."""
    deadline = time.monotonic() + seconds
    while (found := _running(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _running(folder: Path) -> dict[int, str]:
    name, found = os.fsencode(folder), dict[int, str]()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes()
            known = (arguments, (entry / "environ").read_bytes(), os.fsencode((entry / "cwd").readlink()))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if any(name in text for text in known):
            said = arguments.replace(b"\0", b" ").decode(errors="replace")
            found[int(entry.name)] = said[:200].strip()
    return found


def kill(pids: Iterable[int]) -> None:
    """Kill processes."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end(folder: Path) -> None:
    """Remove the folder."""
    shutil.rmtree(folder, ignore_errors=True)
