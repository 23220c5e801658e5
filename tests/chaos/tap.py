"""An independent reader of the event stream: it belongs to no consumer group and keeps what it saw, whatever Redis
forgets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from taskflow_core.domain import naming
from tests.chaos.oracle import Told


class Tap:
    """Reads every entry as soon as it is added, by Redis' own port."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._last = "0-0"
        self._told: list[Told] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def told(self) -> list[Told]:
        """What was read so far."""
        return list(self._told)

    def caught_up(self, seconds: float = 10) -> None:
        """Wait until it has read what the stream has now."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            entries = self._connect().xrevrange(naming.KEY_STREAM, count=1)
            if not entries or _position(entries[0][0]) <= _position(self._last):
                return
            time.sleep(0.05)
        raise TimeoutError(f"the tap is at {self._last} after {seconds} s")

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join(10)

    def _read(self) -> None:
        client = self._connect()
        while not self._stop.is_set():
            try:
                answer = client.xread({naming.KEY_STREAM: self._last}, count=1000, block=500)
            except (RedisError, OSError):
                time.sleep(0.05)
                continue
            batches = answer.values() if isinstance(answer, dict) else [entries for _, entries in answer or []]
            for entries in batches:
                flat = entries[0] if entries and isinstance(entries[0], list) else entries
                for stream_id, fields in flat:
                    self._told.append(Told(stream_id, fields["k"], fields["uid"], naming.split_place(fields["att"])[0]))
                    self._last = stream_id


def _position(stream_id: str) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number)
