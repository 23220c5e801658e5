"""Handlers that do to their process what people's handlers do: fork, start programs, change global state."""

from __future__ import annotations

import asyncio
import decimal
import math
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import structlog

from taskflow_worker.sdk import Context, handler

OPEN: list[int] = []
SET_BY_A_TASK: ContextVar[str] = ContextVar("set_by_a_task", default="")


@handler("processes.fork_and_return")
def fork_and_return(how: str, *, context: Context) -> str:
    """The child falls through, in one of the ways that there are. The parent stays a while longer."""
    child = os.fork()
    if child == 0:
        context.progress(99, 100, "by the child")
        if how == "raise":
            raise ValueError("by the child")
        if how == "exit":
            sys.exit(7)
        return "child"
    _, status = os.waitpid(child, 0)
    time.sleep(0.5)
    return f"parent {os.waitstatus_to_exitcode(status)}"


@handler("processes.fork_in_coroutine")
async def fork_in_coroutine() -> str:
    child = os.fork()
    if child == 0:
        return "child"
    os.waitpid(child, 0)  # noqa: ASYNC222 - it ends at once
    # The child must not have broken the loop's own wake-up.
    return await asyncio.to_thread(lambda: "parent")


@handler("processes.parallel")
def parallel(method: str) -> list[int]:
    # A function of Python's own: new interpreters have nothing to import for it.
    with multiprocessing.get_context(method).Pool(2) as pool:
        by_pool = pool.map(math.factorial, range(4))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as executor:
        by_executor = list(executor.map(math.factorial, range(4)))
    return by_pool + by_executor


@handler("processes.interruptible")
def interruptible() -> list[int]:
    """Exit codes of a program, a forked process and one of multiprocessing that get SIGINT and SIGTERM."""
    program = subprocess.Popen(
        [sys.executable, "-c", "import signal; print(signal.getsignal(2)); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert program.stdout is not None
    program.stdout.readline()
    program.send_signal(signal.SIGINT)
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    process.start()
    time.sleep(0.2)
    process.terminate()
    process.join()
    return [program.wait(), process.exitcode or 0]


_DAEMON = """
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
time.sleep(600)
"""


@handler("processes.leave")
def leave(pids: str, wait: bool = False, keep: bool = False, deaf: bool = False) -> None:
    """Leave programs running: a plain one, one in a session of its own, one after a double fork."""
    environment = dict(os.environ) | ({"TASKFLOW_OUTLIVES_ATTEMPT": "1"} if keep else {})
    command = ["sh", "-c", "trap '' TERM; while :; do sleep 600; done"] if deaf else ["sleep", "600"]
    plain = subprocess.Popen(command, env=environment)
    session = subprocess.Popen(command, start_new_session=True, env=environment)
    with Path(pids).open("a") as file:
        file.write(f"{plain.pid}\n{session.pid}\n")
    subprocess.run([sys.executable, "-c", _DAEMON, pids], check=True, env=environment)
    while len(Path(pids).read_text().split()) < 3:
        time.sleep(0.05)
    Path(pids).with_suffix(".ready").touch()
    while wait:
        time.sleep(0.05)


@handler("processes.use_up_descriptors")
def use_up_descriptors() -> int:
    try:
        while True:
            OPEN.append(os.dup(2))
    except OSError:
        return os.getpid()


@handler("processes.break_capture")
def break_capture() -> int:
    """From now on, what the worker does before the next attempt fails in this process."""

    def fail(*_: object, **__: object) -> int:
        raise OSError(24, "Too many open files")

    os.memfd_create = fail
    return os.getpid()


@handler("processes.pid")
def pid() -> int:
    return os.getpid()


@handler("processes.spoil")
def spoil(folder: str) -> int:
    """Change everything of the process that a handler can change."""
    gone = Path(folder) / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    os.umask(0)
    os.environ["SPOILT"] = "yes"
    del os.environ["HOME"]
    SET_BY_A_TASK.set("yes")
    structlog.contextvars.bind_contextvars(spoilt="yes")
    decimal.getcontext().prec = 3
    socket.setdefaulttimeout(0.001)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    signal.alarm(1)
    sys.setrecursionlimit(200)
    sys.path.insert(0, "/spoilt")
    tempfile.tempdir = "/spoilt"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    sys.stdout = None
    return os.getpid()


@handler("processes.look")
def look() -> dict[str, Any]:
    """What another Task could have changed."""
    assert sys.stdout is not None
    time.sleep(1.5)
    return {
        "pid": os.getpid(),
        "folder": str(Path.cwd()),
        "umask": os.umask(0o22),
        "environment": ["SPOILT" in os.environ, "HOME" in os.environ],
        "context": [SET_BY_A_TASK.get(), structlog.contextvars.get_contextvars().get("spoilt", "")],
        "precision": decimal.getcontext().prec,
        "timeout": socket.getdefaulttimeout(),
        "mask": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "terminates": str(signal.getsignal(signal.SIGTERM)),
        "recursion": sys.getrecursionlimit(),
        "path": "/spoilt" in sys.path,
        "temporary": tempfile.tempdir,
        "limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


@handler("processes.leave_a_thread")
def leave_a_thread(daemon: bool) -> int:
    def talk() -> None:
        while True:
            time.sleep(0.05)

    threading.Thread(target=talk, daemon=daemon, name="talker").start()
    return os.getpid()
