from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskflow_worker.process.clean_state import ProcessState, short_of_descriptors


@pytest.fixture(autouse=True)
def _unharmed() -> Iterator[None]:
    """Whatever a test does here, the tests that follow do not see it."""
    state = ProcessState()
    yield
    assert state.restore() == []


def _in_a_removed_folder() -> None:
    path = tempfile.mkdtemp()
    os.chdir(path)
    Path(path).rmdir()


def _lower_the_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))


def _replace_the_environment() -> None:
    os.environ = {"A": "b"}  # type: ignore[assignment]  # noqa: B003 - as people do


def _move_to_tokyo() -> None:
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


CHANGES: dict[str, Callable[[], object]] = {
    "timer": lambda: signal.setitimer(signal.ITIMER_REAL, 600),
    "handler": lambda: signal.signal(signal.SIGUSR2, lambda *_: None),
    "mask": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2}),
    "variable": lambda: os.environ.update(SPOILT="yes"),
    "fewer variables": lambda: os.environ.pop("PATH"),
    "other variables": _replace_the_environment,
    "folder": _in_a_removed_folder,
    "umask": lambda: os.umask(0o123),
    "limit": _lower_the_limit,
    "limit of core dumps": lambda: resource.setrlimit(
        resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1])
    ),
    "time zone": _move_to_tokyo,
    "warnings": lambda: warnings.simplefilter("error"),
    "start method": lambda: multiprocessing.set_start_method("spawn", force=True),
    "recursion": lambda: sys.setrecursionlimit(4321),
    "timeout": lambda: socket.setdefaulttimeout(1.5),
    "collector": gc.disable,
    "threshold of the collector": lambda: gc.set_threshold(5),
    "stdout": lambda: setattr(sys, "stdout", None),
    "path": lambda: sys.path.append("/spoilt"),
    "temporary folder": lambda: setattr(tempfile, "tempdir", "/spoilt"),
}


def seen() -> tuple[object, ...]:
    return (
        signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        signal.getsignal(signal.SIGUSR2),
        signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        dict(os.environ),
        Path.cwd(),
        resource.getrlimit(resource.RLIMIT_NOFILE),
        resource.getrlimit(resource.RLIMIT_CORE),
        time.tzname,
        list(warnings.filters),
        multiprocessing.get_start_method(allow_none=True),
        sys.getrecursionlimit(),
        socket.getdefaulttimeout(),
        gc.isenabled(),
        gc.get_threshold(),
        sys.stdout,
        list(sys.path),
        tempfile.tempdir,
    )


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_undone(change: str) -> None:
    before, state = seen(), ProcessState()
    CHANGES[change]()
    assert state.restore() == []
    assert seen() == before


def test_what_cannot_be_undone_is_named(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    before = Path.cwd()
    os.chdir(inside)
    try:
        state = ProcessState()
        os.chdir("/")
        inside.rmdir()
        assert state.restore() == ["working directory"]
    finally:
        os.chdir(before)


def test_few_free_descriptors_are_noticed() -> None:
    assert not short_of_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(2)
    os.close(lowest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 10, hard))
        assert short_of_descriptors()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        assert short_of_descriptors()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
