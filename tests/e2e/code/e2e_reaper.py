"""A module that takes the exit codes of all children of its process, as badly behaved supervisors of programs do."""

from __future__ import annotations

import os
import signal
from contextlib import suppress


def _reap(*_: object) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


signal.signal(signal.SIGCHLD, _reap)
