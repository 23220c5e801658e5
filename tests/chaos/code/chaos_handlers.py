"""Handlers that keep a record of their own, outside TaskFlow, of what really ran. Each returns the name of its
execution.
"""

from __future__ import annotations

import json
import os
import secrets
import time

from taskflow_worker.sdk import Context, handler

RECORD = os.environ.get("TASKFLOW_CHAOS_RECORD", "")
LARGE = 6000
"""Characters of a result that does not fit into a resource."""


class Planned(Exception):  # noqa: N818 - what the handler is there for
    """The handler fails on purpose."""


def write(**fields: object) -> None:
    """One line, whole or not at all: short appends do not mix (POSIX `O_APPEND`)."""
    line = json.dumps({"at": time.monotonic(), "pid": os.getpid(), **fields}).encode() + b"\n"
    descriptor = os.open(RECORD, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def begin(context: Context) -> str:
    run = secrets.token_hex(8)
    write(what="start", run=run, uid=context.uid, attempt=context.attempt)
    return run


@handler("chaos.quick")
def quick(*, context: Context) -> str:
    run = begin(context)
    write(what="end", run=run)
    return run


@handler("chaos.work")
def work(seconds: float, *, context: Context) -> str:
    run = begin(context)
    time.sleep(seconds)
    write(what="end", run=run)
    return run


@handler("chaos.again")
def again(*, context: Context) -> str:
    """Fails its first attempt."""
    run = begin(context)
    if context.attempt == 1:
        write(what="raise", run=run)
        raise Planned("attempt 1 fails")
    write(what="end", run=run)
    return run


@handler("chaos.never")
def never(*, context: Context) -> str:
    """Fails every attempt."""
    run = begin(context)
    write(what="raise", run=run)
    raise Planned("every attempt fails")


@handler("chaos.artifact")
def artifact(*, context: Context) -> str:
    run = begin(context)
    context.output("run.txt").write_text(run)
    write(what="end", run=run)
    return run


@handler("chaos.large")
def large(*, context: Context) -> str:
    run = begin(context)
    write(what="end", run=run)
    return run + "." * LARGE


@handler("chaos.tick")
def tick(schedule: str, at: str, *, context: Context) -> str:
    """A run of a schedule."""
    run = begin(context)
    write(what="tick", run="", uid=context.uid, schedule=schedule, tick=at)
    write(what="end", run=run)
    return run


@handler("chaos.items")
def items(seconds: float, item: int, *, context: Context) -> None:
    """One item of an array; every fiftieth fails its first attempt."""
    write(what="item", run="", uid=context.uid, attempt=context.attempt, index=item)
    time.sleep(seconds)
    if item % 50 == 7 and context.attempt == 1:
        raise Planned("attempt 1 of the item fails")
