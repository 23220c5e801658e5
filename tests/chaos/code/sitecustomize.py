"""Fault points. Python imports this module at its start wherever this folder is on PYTHONPATH, which is in chaos runs
only.

A named function of the product is wrapped when its module is imported; nothing in the product knows of it. The file
`PROGRAM.armed` beside this one arms a point of that program: `NAME COUNT NONCE` kills, at the COUNT-th passage from
now, the process that passes. Whoever removes the file is the one that dies, so that one arming is one kill.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).resolve().parent
KILLS = FOLDER / "kills.jsonl"
CLOCK = "TASKFLOW_CHAOS_CLOCK"
"""Seconds by which the clock of this process is wrong."""


@dataclass(frozen=True)
class Point:
    """A place in the product."""

    program: str
    module: str
    function: str
    before: bool = False
    when: Callable[[tuple[Any, ...]], bool] = lambda _: True
    """Whether a passage with these arguments counts."""


POINTS = {
    "operator-lead": Point(
        "taskflow_operator", "taskflow_operator.process.leader_election", "LeaseLeaderElection.acquire"
    ),
    "operator-enter": Point("taskflow_operator", "taskflow_core.ledger.operator", "OperatorLedger.enqueue"),
    "operator-send": Point("taskflow_operator", "taskflow_core.broker.publish", "Publisher._send"),
    "operator-publish": Point("taskflow_operator", "taskflow_core.broker.publish", "Publisher.publish"),
    "operator-write": Point("taskflow_operator", "taskflow_core.kube.client", "KubeClient.patch_status", before=True),
    "operator-written": Point("taskflow_operator", "taskflow_core.kube.client", "KubeClient.patch_status"),
    "operator-settle": Point("taskflow_operator", "taskflow_core.ledger.operator", "OperatorLedger.settle_all"),
    "operator-acknowledge": Point(
        "taskflow_operator",
        "taskflow_core.ledger.stream",
        "StreamReader.acknowledge",
        before=True,
        when=lambda args: bool(args[1]),
    ),
    "operator-acknowledged": Point(
        "taskflow_operator", "taskflow_core.ledger.stream", "StreamReader.acknowledge", when=lambda args: bool(args[1])
    ),
    "operator-history": Point("taskflow_operator", "taskflow_operator.history.database", "Database.apply_events"),
    "operator-tick": Point("taskflow_operator", "taskflow_operator.schedules.creation", "RunCreator._create_one"),
    "operator-tick-recorded": Point(
        "taskflow_operator",
        "taskflow_operator.history.database",
        "Database.record_runs",
        when=lambda args: bool(args[1]),
    ),
    "operator-cursor": Point(
        "taskflow_operator", "taskflow_operator.schedules.controller", "ScheduleController._write", before=True
    ),
    "operator-cursor-written": Point(
        "taskflow_operator", "taskflow_operator.schedules.controller", "ScheduleController._write"
    ),
    "worker-claim": Point("taskflow_worker", "taskflow_core.ledger.worker", "WorkerLedger.claim"),
    "worker-finish": Point("taskflow_worker", "taskflow_core.ledger.worker", "WorkerLedger.finish", before=True),
    "worker-finished": Point("taskflow_worker", "taskflow_core.ledger.worker", "WorkerLedger.finish"),
    "rest-created": Point(
        "taskflow_api",
        "taskflow_core.kube.client",
        "KubeClient.request",
        when=lambda args: args[1] == "POST" and args[2].endswith("/tasks"),
    ),
}
STEPPED = (
    "taskflow_operator.schedules.controller",
    "taskflow_operator.schedules.creation",
    "taskflow_operator.tasks.work_queue",
)
"""Modules whose clock is as much wrong as the file `operator.clock` says (seconds), from one moment to the next."""
_passed: dict[str, int] = {}


def passing(name: str) -> None:
    """Die here, if this point is armed and its time has come."""
    path = FOLDER / f"{POINTS[name].program}.armed"
    try:
        armed, count, nonce = path.read_text().split()
    except (OSError, ValueError):
        return
    if armed != name:
        return
    _passed[nonce] = _passed.get(nonce, 0) + 1
    if _passed[nonce] < int(count):
        return
    try:
        path.unlink()
    except FileNotFoundError:
        return
    with KILLS.open("a") as file:
        file.write(json.dumps({"point": name, "pid": os.getpid()}) + "\n")
    os.kill(os.getpid(), signal.SIGKILL)


def wrapped(name: str, point: Point, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the fault point before or after it."""

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        if point.before and point.when(args):
            passing(name)
        result = function(*args, **kwargs)
        if not point.before and point.when(args):
            passing(name)
        return result

    @functools.wraps(function)
    async def waiting(*args: Any, **kwargs: Any) -> Any:
        if point.before and point.when(args):
            passing(name)
        result = await function(*args, **kwargs)
        if not point.before and point.when(args):
            passing(name)
        return result

    return waiting if inspect.iscoroutinefunction(function) else plain


def patch(module: ModuleType, points: dict[str, Point]) -> None:
    """Wrap the functions of a module that was just imported. A name that is not there is an error: the product
    changed.
    """
    for name, point in points.items():
        if point.module != module.__name__:
            continue
        *owners, last = point.function.split(".")
        owner = functools.reduce(getattr, owners, module)
        setattr(owner, last, wrapped(name, point, getattr(owner, last)))


class Finder(importlib.abc.MetaPathFinder):
    """Sees imports of the modules that have points, and patches each right after it ran."""

    def __init__(self, points: dict[str, Point], seconds: float) -> None:
        self._points = points
        self._seconds = seconds

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        late = self._seconds and fullname == "minio.time"
        if (
            not late
            and fullname not in STEPPED
            and not any(point.module == fullname for point in self._points.values())
        ):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                patch(module, self._points)
                if fullname in STEPPED:
                    step_clock(module)
                if late:
                    shift_signing(module, self._seconds)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def shift_clock(seconds: float) -> None:
    """Make the wall clock of this process wrong, for Python code that asks `time`."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)


def step_clock(module: ModuleType) -> None:
    """Have the clock of a module follow the file."""
    from datetime import datetime, timedelta, tzinfo  # noqa: PLC0415 - as below

    path = FOLDER / "operator.clock"

    class Stepped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            try:
                seconds = float(path.read_text())
            except (OSError, ValueError):
                seconds = 0.0
            return datetime.now(tz) + timedelta(seconds=seconds)

    module.datetime = Stepped  # type: ignore[attr-defined]


def shift_signing(module: ModuleType, seconds: float) -> None:
    """The object store's client asks `datetime`, which is C: shift what it signs requests with."""
    from datetime import timedelta  # noqa: PLC0415 - not in every Python process at its start

    real = module.utcnow
    module.utcnow = lambda: real() + timedelta(seconds=seconds)  # type: ignore[attr-defined]


def program() -> str:
    """What `python -m` runs here; empty for anything else."""
    words = sys.orig_argv
    return words[words.index("-m") + 1] if "-m" in words[:-1] else ""


def install() -> None:
    """Do all that for this process."""
    name, seconds = program(), float(os.environ.get(CLOCK, "0"))
    points = {key: point for key, point in POINTS.items() if point.program == name}
    if seconds:
        shift_clock(seconds)
    if points:
        sys.meta_path.insert(0, Finder(points, seconds))


install()
