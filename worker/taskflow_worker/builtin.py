"""Handlers that every worker has: to try an installation, and to test TaskFlow itself."""

from __future__ import annotations

import time
from typing import Any

from taskflow_worker.context import Context
from taskflow_worker.registry import handler


@handler("taskflow.echo")
def echo(value: Any = None) -> Any:
    """Return what it was given."""
    return value


@handler("taskflow.sleep")
def sleep(seconds: float) -> float:
    """Sleep that long and return it."""
    time.sleep(seconds)
    return seconds


@handler("taskflow.fail")
def fail(message: str = "asked to fail", until_attempt: int | None = None, *, context: Context) -> int:
    """Raise, on every attempt or on those before `until_attempt`; else return the attempt."""
    if until_attempt is None or context.attempt < until_attempt:
        raise RuntimeError(message)
    return context.attempt
