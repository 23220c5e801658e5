"""Retries single operations while Redis or the object store is unavailable. The operator retries attempts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from taskflow_core.errors import Unavailable
from taskflow_core.telemetry.logs import get_logger

log = get_logger(__name__)
T = TypeVar("T")
_FIRST_BACKOFF_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 5.0


def retry_while_unavailable(action: Callable[[], T], *, what: str, seconds: float) -> T:
    """Run an action. While it raises `Unavailable`, back off and run it again: the work is worth more than the wait.

    Args:
        action: what to run; it must be safe to repeat.
        what: its name in the log.
        seconds: how long to retry.

    Raises:
        Unavailable: the last attempt still failed after that time.
    """
    deadline = time.monotonic() + seconds
    backoff = _FIRST_BACKOFF_SECONDS
    while True:
        try:
            return action()
        except Unavailable as error:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            log.warning("waiting", what=what, error=str(error), seconds_left=round(left))
        # Jitter, so that workers that lost the same server do not come back in step.
        time.sleep(min(backoff * random.uniform(0.5, 1.0), max(left, 0)))  # noqa: S311 - no secret
        backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)
