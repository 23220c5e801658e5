"""Whether this worker takes messages: a file that the worker writes, and the probe that reads it.

`python -m taskflow_worker.readiness` exits 0 while the worker is ready, and otherwise 1 with the reason in one line,
which the kubelet puts into the Event `Unhealthy` of the pod. It needs Python and nothing else of the image, and imports
the standard library only, because it runs every few seconds in each pod.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

STALE_SECONDS = 15.0
"""A worker marks itself every second."""
_MAX_CHARS = 500


def path(name: str) -> str:
    """The file of the worker of this name. Probe and worker have the same environment."""
    # Not tempfile.gettempdir, whose import takes longer than all the rest.
    return os.path.join(os.environ.get("TMPDIR") or "/tmp", f"taskflow-{name}.ready")  # noqa: PTH118, S108 - see above


class Mark:
    """Written by the worker's reporter, from one thread. A file that cannot be written is no reason to stop: then the
    worker is not ready.

    Args:
        name: the worker's.
    """

    def __init__(self, name: str) -> None:
        self._path = path(name)
        self._said: str | None = None

    def ready(self) -> None:
        """The worker takes messages."""
        self._write("")

    def not_ready(self, why: str) -> None:
        """The worker takes no messages; `why` is one line."""
        self._write(why[:_MAX_CHARS])

    def remove(self) -> None:
        """The worker starts or ends."""
        self._said = None
        with suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108 - as above

    def _write(self, why: str) -> None:
        with suppress(OSError):
            if why == self._said:
                os.utime(self._path)
                return
        with suppress(OSError):
            # In a directory that others may write, never through a link of theirs.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with open(os.open(self._path, flags, 0o600), "w", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                file.write(why)
            self._said = why


def problem(name: str, now: float) -> str | None:
    """Why the worker of this name is not ready; None if it is.

    Args:
        name: the worker's.
        now: seconds since the epoch, by the clock of its file system.
    """
    try:
        with open(path(name), encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - as above
            why = file.read(_MAX_CHARS)
            age = now - os.fstat(file.fileno()).st_mtime
    except OSError:
        return "the worker has not begun to take messages: it starts, or does not reach Redis"
    if why:
        return why
    return f"the worker has not reported for {age:.0f} s" if age > STALE_SECONDS else None


def main() -> int:
    """Print why the worker of this container is not ready. Returns the exit code."""
    name = os.environ.get("TASKFLOW_WORKER_NAME") or os.uname().nodename
    if (why := problem(name, time.time())) is None:
        return 0
    sys.stdout.write(f"{why}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
