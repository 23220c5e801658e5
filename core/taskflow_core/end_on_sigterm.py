"""SIGTERM for short programs."""

from __future__ import annotations

import signal
import sys
from types import FrameType

STOPPED = 128 + signal.SIGTERM
"""Exit code."""


def end_on_sigterm() -> None:
    """End the program at SIGTERM with code 143, by SystemExit in the main thread, also where it is the first process of
    a container: the kernel does nothing for that one.
    """
    signal.signal(signal.SIGTERM, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(STOPPED)
