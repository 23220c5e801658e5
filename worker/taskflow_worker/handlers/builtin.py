"""Built-in handlers of every worker, to try an installation and to test TaskFlow itself."""

from __future__ import annotations

import time
from typing import Any

from taskflow_worker.sdk import Context, handler


@handler("taskflow.echo")
def echo(value: Any = None) -> Any:
    """Return the argument."""
    return value


@handler("taskflow.sleep")
def sleep(seconds: float) -> float:
    """Sleep for this many seconds and return them."""
    time.sleep(seconds)
    return seconds


@handler("taskflow.fail")
def fail(message: str = "asked to fail", until_attempt: int | None = None, *, context: Context) -> int:
    """Raise on every attempt, or on every attempt before `until_attempt`; then return the attempt's number."""
    if until_attempt is None or context.attempt < until_attempt:
        raise RuntimeError(message)
    return context.attempt
