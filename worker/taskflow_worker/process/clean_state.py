"""What a handler may change of its process for good: read before an attempt, restored after it."""

from __future__ import annotations

import gc
import locale
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import warnings
from _signal import getsignal  # type: ignore[import-not-found]  # `signal.getsignal` makes enums, 20 times as slow
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MIN_FREE_DESCRIPTORS = 64
"""With fewer a process is replaced: the next attempt, or what the worker does around it, could fail for the lack."""
_SIGNALS = tuple(number for number in range(1, 32) if number not in (signal.SIGKILL, signal.SIGSTOP))
"""Without the real-time signals."""
_LIMITS = (
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_AS,
    resource.RLIMIT_DATA,
    resource.RLIMIT_STACK,
    resource.RLIMIT_CPU,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_CORE,
    resource.RLIMIT_NPROC,
)
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_ENVIRONMENT = os.environ


@dataclass(frozen=True)
class _Part:
    """One thing that belongs to a process."""

    name: str
    read: Callable[[], Any]
    """Must be cheap: it runs twice in each attempt."""
    write: Callable[[Any], object]


def _read_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - `Path.cwd` costs much more
    except OSError:
        return None


def _write_folder(path: str | None) -> None:
    if path is not None:
        os.chdir(path)


def _read_umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _read_environment() -> tuple[object, dict[bytes, bytes]]:
    # `os.environ.copy()` decodes each value.
    return os.environ, dict(_ENVIRONMENT._data)  # type: ignore[attr-defined]  # noqa: SLF001


def _write_environment(before: tuple[Any, Mapping[bytes, bytes]]) -> None:
    os.environ, variables = before
    for name in [name for name in os.environb if name not in variables]:
        del os.environb[name]
    for name, value in variables.items():
        if os.environb.get(name) != value:
            os.environb[name] = value


def _read_zone() -> tuple[object, ...]:
    return time.tzname, time.timezone, time.altzone


def _write_zone(_: object) -> None:
    # The environment is restored by now. The C library keeps the zone that it read.
    time.tzset()


def _write_warnings(filters: Sequence[Any]) -> None:
    warnings.resetwarnings()  # Forgets also what the filters said of earlier warnings.
    warnings.filters[:] = filters  # type: ignore[index]


def _write_timers(running: Sequence[bool]) -> None:
    for which, was_running in zip(_TIMERS, running, strict=True):
        if not was_running:
            signal.setitimer(which, 0)


def _write_handlers(handlers: Sequence[Any]) -> None:
    for number, handler in zip(_SIGNALS, handlers, strict=True):
        if getsignal(number) != handler:
            signal.signal(number, handler)


def _write_limits(limits: Sequence[tuple[int, int]]) -> None:
    for which, values in zip(_LIMITS, limits, strict=True):
        if resource.getrlimit(which) != values:
            resource.setrlimit(which, values)


def _write_streams(streams: Sequence[Any]) -> None:
    sys.stdin, sys.stdout, sys.stderr = streams


def _write_path(path: Sequence[str]) -> None:
    sys.path[:] = path


def _write_temporary_folder(path: str | None) -> None:
    tempfile.tempdir = path


def _read_start_method() -> str | None:
    return multiprocessing.get_start_method(allow_none=True)


def _write_start_method(method: str | None) -> None:
    # `multiprocessing` allows to choose it once only, and using the default chooses it too.
    multiprocessing.set_start_method(method, force=True)  # None takes the choice back


def _read_collecting() -> tuple[bool, tuple[int, int, int], int]:
    return gc.isenabled(), gc.get_threshold(), gc.get_debug()


def _write_collecting(before: tuple[bool, tuple[int, int, int], int]) -> None:
    enabled, threshold, debug = before
    gc.set_debug(debug)
    gc.set_threshold(*threshold)
    gc.enable() if enabled else gc.disable()


def _read_identity() -> tuple[object, ...]:
    return os.getresuid(), os.getresgid(), os.getgroups(), os.getpgrp()


def _write_identity(_: object) -> None:
    """Rights that were given up do not come back."""


_PARTS = (
    # Timers first: they end in signals. Then what blocks and handles those.
    _Part("timers", lambda: tuple(signal.getitimer(which)[0] > 0 for which in _TIMERS), _write_timers),
    _Part(
        "signal mask",
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda mask: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
    ),
    _Part("signal handlers", lambda: tuple(map(getsignal, _SIGNALS)), _write_handlers),
    _Part("user and process group", _read_identity, _write_identity),
    _Part("environment", _read_environment, _write_environment),
    _Part("time zone", _read_zone, _write_zone),
    _Part("working directory", _read_folder, _write_folder),
    _Part("umask", _read_umask, os.umask),
    _Part("limits", lambda: tuple(map(resource.getrlimit, _LIMITS)), _write_limits),
    _Part("priority", lambda: os.getpriority(os.PRIO_PROCESS, 0), lambda n: os.setpriority(os.PRIO_PROCESS, 0, n)),
    _Part("CPU affinity", lambda: os.sched_getaffinity(0), lambda cores: os.sched_setaffinity(0, cores)),
    _Part("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    _Part("socket timeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
    _Part("locale", lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    _Part("garbage collector", _read_collecting, _write_collecting),
    _Part("trace function", sys.gettrace, sys.settrace),
    _Part("warnings", lambda: tuple(warnings.filters), _write_warnings),
    _Part("start method", _read_start_method, _write_start_method),
    _Part("standard streams", lambda: (sys.stdin, sys.stdout, sys.stderr), _write_streams),
    _Part("module path", lambda: tuple(sys.path), _write_path),
    _Part("temporary folder", lambda: tempfile.tempdir, _write_temporary_folder),
)


class ProcessState:
    """What the calling process is like now. For a process that runs one attempt at a time, in its main thread."""

    def __init__(self) -> None:
        self._before = tuple(part.read() for part in _PARTS)

    def restore(self) -> list[str]:
        """Undo every change since then. Returns the names of what could not be restored."""
        return [
            part.name
            for part, before in zip(_PARTS, self._before, strict=True)
            if part.read() != before and not _restored(part, before)
        ]


def _restored(part: _Part, before: Any) -> bool:
    try:
        part.write(before)
    except (OSError, ValueError, TypeError, locale.Error):
        return False
    return bool(part.read() == before)


def short_of_descriptors() -> bool:
    """Whether hardly any file descriptor is free. A handler that leaks them would break the attempts that follow."""
    try:
        lowest_free = os.dup(2)
    except OSError:
        return True
    os.close(lowest_free)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit != resource.RLIM_INFINITY and lowest_free >= limit - _MIN_FREE_DESCRIPTORS
