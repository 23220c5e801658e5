"""Threads that an attempt left behind: which of them could act in the next one."""

from __future__ import annotations

import concurrent.futures.thread
import sys
import sysconfig
import threading
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from types import FrameType

_JOIN_SECONDS = 0.1
"""How long to wait for threads that are about to end."""
_FOLDERS = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_LIBRARIES = tuple({f"{path}/" for path in [*_FOLDERS, *(each.resolve() for each in _FOLDERS)]})
_EXECUTOR = concurrent.futures.thread.__file__


def left_behind(before: Collection[threading.Thread], own: Collection[str]) -> list[str]:
    """Names of the threads that are not of `before` and that may still do something for the attempt.

    Threads of libraries that wait in the background, as of tqdm, Sentry or OpenTelemetry, may stay, and so may idle
    threads of a `ThreadPoolExecutor`: to replace the process for them would cost what it keeps loaded.

    Args:
        before: the threads that were there when the attempt began.
        own: top-level packages of the handlers.
    """
    left = [each for each in threading.enumerate() if each not in before and each is not threading.current_thread()]
    if not left:
        return []
    deadline = time.monotonic() + _JOIN_SECONDS
    for each in left:
        each.join(max(deadline - time.monotonic(), 0))
    frames = sys._current_frames()  # noqa: SLF001 - the documented way, for special purposes as this one
    return [
        each.name
        for each in left
        if each.is_alive() and not harmless(list(_stack(frames.get(each.ident or 0))), each.daemon, _calls(each), own)
    ]


def _stack(frame: FrameType | None) -> Iterable[tuple[str, str, str]]:
    """(module, file, function) of each frame, the innermost first."""
    while frame is not None:
        yield frame.f_globals.get("__name__", ""), frame.f_code.co_filename, frame.f_code.co_name
        frame = frame.f_back


def _calls(thread: threading.Thread) -> str:
    """The module of what the thread runs: a timer that still waits has none of it on its stack."""
    function = getattr(thread, "function", None) or getattr(thread, "_target", None)
    return str(getattr(function, "__module__", "") or "")


def harmless(stack: list[tuple[str, str, str]], daemon: bool, calls: str, own: Collection[str]) -> bool:
    """Whether a thread may stay.

    Args:
        stack: (module, file, function) of its frames, the innermost first.
        daemon: as the thread says.
        calls: the module of the function that it was started with.
        own: top-level packages of the handlers.
    """
    if stack and stack[0][1:] == (_EXECUTOR, "_worker"):
        return True
    modules = {module.partition(".")[0] for module, _, _ in stack} | {calls.partition(".")[0]}
    return daemon and modules.isdisjoint(own) and all(file.startswith(_LIBRARIES) for _, file, _ in stack)
