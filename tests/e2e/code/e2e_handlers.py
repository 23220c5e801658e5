"""Handlers of the end-to-end tests. They keep a record of their own, outside TaskFlow, of what really ran."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from taskflow_worker.sdk import Context, handler


def _record(path: str, what: str, context: Context) -> None:
    line = json.dumps({"what": what, "uid": context.uid, "attempt": context.attempt, "pid": os.getpid()})
    with Path(path).open("a") as file:
        file.write(line + "\n")


@handler("e2e.recorded_sleep")
def recorded_sleep(record: str, seconds: float, *, context: Context) -> int:
    _record(record, "start", context)
    time.sleep(seconds)
    _record(record, "end", context)
    return context.attempt


@handler("e2e.kill_the_worker")
def kill_the_worker() -> None:
    """Takes the whole container down, as running out of memory does on cgroup v2."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


@handler("e2e.wait_for_file")
def wait_for_file(record: str, path: str, *, context: Context) -> int:
    """Runs until the test lets it go or is over, so that a test can act in the middle for sure."""
    _record(record, "start", context)
    while not Path(path).exists() and not Path(path).with_name("over").exists():
        time.sleep(0.05)
    _record(record, "end", context)
    return context.attempt


@handler("e2e.table")
def table(*, context: Context) -> str:
    print("writing a table")  # noqa: T201 - for its log
    context.output("table.csv").write_text("a,b\n1,2\n")
    return "hello"


@handler("e2e.talk_until")
def talk_until(path: str) -> int:
    """Says a line every tenth of a second until the file appears."""
    said = 0
    while not Path(path).exists():
        print(f"line {said}")  # noqa: T201 - what it is for
        said += 1
        time.sleep(0.1)
    print("the end")  # noqa: T201 - likewise
    return said


@handler("e2e.not_json")
def not_json() -> object:
    return object()


@handler("e2e.big_result")
def big_result(size: int) -> str:
    return "x" * size


@handler("e2e.upper")
def upper(*, context: Context) -> int:
    text = context.input("text.txt").read_text()
    context.output("upper.txt").write_text(text.upper())
    return len(text)


@handler("e2e.tick")
def tick(record: str, at: str, *, context: Context) -> str:
    """Records the tick that it is a run of."""
    _record(record, at, context)
    return at
