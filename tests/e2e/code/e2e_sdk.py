# ruff: noqa: T201 - handlers print
"""Handlers that use what an author of handlers gets: progress, checkpoints, stopping, output, async."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from taskflow_worker.sdk import Again, Context, NonRetryable, Stopped, handler

log = logging.getLogger("e2e.sdk")


def _note(record: str, what: str, context: Context, pid: int = 0) -> None:
    with Path(record).open("a") as file:
        file.write(json.dumps({"what": what, "attempt": context.attempt, "pid": pid or os.getpid()}) + "\n")


@handler("sdk.talk")
def talk(record: str, gate: str, *, context: Context) -> int:
    """Say something in every way, then wait for the test."""
    print("printed")
    print("to stderr", file=sys.stderr)
    log.info("logged %s", context.attempt)
    subprocess.run(["echo", "from a program"], check=True)
    context.progress(3, 10, "half way")
    _note(record, "start", context)
    while not Path(gate).exists():
        time.sleep(0.05)
    print("last words")
    return context.attempt


@handler("sdk.polls")
def polls(times: int, seconds: int, *, context: Context) -> dict[str, int]:
    """Ask so many times to be run again, before it is done."""
    asked = context.last_checkpoint or 0
    if asked < times:
        raise Again(f"asked {asked} times", seconds=seconds, checkpoint=asked + 1)
    return {"asked": asked, "attempt": context.attempt, "handbacks": context.handbacks}


@handler("sdk.polls_async")
async def polls_async(times: int, seconds: int, *, context: Context) -> dict[str, int]:
    """The same in a coroutine."""
    await asyncio.sleep(0)
    return polls(times, seconds, context=context)


@handler("sdk.chatter")
def chatter(lines: int, *, context: Context) -> None:
    """Say in two ways which Task it is, many times, with others in between."""
    for number in range(lines):
        print(context.uid, end="")
        time.sleep(0.002)
        print(f" {number}")
        log.warning("%s %d", context.uid, number)


@handler("sdk.leaves_a_thread")
def leaves_a_thread() -> None:
    """End, and leave a thread behind for which Python would wait."""
    threading.Thread(target=time.sleep, args=(600,), daemon=False).start()


@handler("sdk.resume")
def resume(*, context: Context) -> Any:
    """Leave a checkpoint and die; the next attempt returns it."""
    if context.last_checkpoint is not None:
        return context.last_checkpoint
    context.checkpoint({"row": 17})
    time.sleep(3)
    os.kill(os.getpid(), signal.SIGKILL)
    return None


@handler("sdk.polite")
def polite(record: str, *, context: Context) -> None:
    """Look whether to stop, and clean up."""
    _note(record, "start", context)
    try:
        while True:
            context.check()
            time.sleep(0.05)
    except Stopped:
        _note(record, "stopped", context)
        raise


@handler("sdk.gated")
def gated(record: str, gate: str, *, fails: bool = False, context: Context) -> None:
    """Run until the gate is open, looking whether to stop; then end well or badly."""
    _note(record, "start", context)
    try:
        while not Path(gate).exists():
            context.check()
            time.sleep(0.05)
    except Stopped:
        _note(record, "stopped", context)
        raise
    if fails:
        raise RuntimeError("as it was told")


@handler("sdk.deaf")
def deaf(record: str, *, context: Context) -> None:
    """Start a program, never look, and let no exception through."""
    program = subprocess.Popen(["sleep", "600"])
    _note(record, "program", context, program.pid)
    _note(record, "start", context)
    while True:
        try:
            time.sleep(0.2)
        except BaseException:  # noqa: BLE001 - being deaf is the point
            _note(record, "ignored", context)


@handler("sdk.slow")
def slow(record: str, *, context: Context) -> None:
    """Know nothing of stopping, and clean up as Python does."""
    _note(record, "start", context)
    try:
        time.sleep(600)
    finally:
        _note(record, "cleaned", context)


class Order(BaseModel):
    item: str
    due: date


@handler("sdk.order")
async def order(order: Order) -> Order:
    """Async, with a model on both sides."""
    await asyncio.sleep(0.01)
    return order.model_copy(update={"item": order.item.upper()})


@handler("sdk.nap")
async def nap(record: str, *, context: Context) -> None:
    """Async, waits until it is cancelled."""
    _note(record, "start", context)
    try:
        await asyncio.sleep(600)
    finally:
        _note(record, "cleaned", context)


@handler("sdk.large")
def large(size: int) -> str:
    return "x" * size


@handler("sdk.hopeless")
def hopeless() -> None:
    raise NonRetryable("the customer is gone")
