"""Makes what is done for a namespace again and again rarer."""

from __future__ import annotations

import time
from collections.abc import Callable

FREE = 5
"""Times without a pause."""
LONGEST_SECONDS = 60.0
FORGET_SECONDS = 600.0
"""After this time without any, a namespace begins anew."""


class Pauses:
    """Pauses of namespaces, each twice as long as the one before.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._done: dict[str, tuple[int, float]] = {}

    def over(self, namespace: str) -> bool:
        """Whether it may be done again; then it counts as done."""
        now = self._clock()
        times, latest = self._done.get(namespace, (0, now))
        if now - latest > FORGET_SECONDS:
            times = 0
        if times >= FREE and now - latest < min(2.0 ** (times - FREE + 1), LONGEST_SECONDS):
            return False
        self._done[namespace] = times + 1, now
        return True

    def forget(self, namespace: str) -> None:
        """The namespace is not used any more."""
        self._done.pop(namespace, None)
