"""An independent reader of the event streams: it belongs to no consumer group and keeps what it saw, whatever Redis
forgets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from taskflow_core.domain import naming
from taskflow_core.domain.events import EntryId, Origin, Stream
from taskflow_core.ledger.stream import stream_key
from tests.chaos.oracle import Told

STREAMS = {stream_key(stream): stream for stream in (Stream("default", origin) for origin in Origin)}


class Tap:
    """Reads every entry as soon as it is added, by Redis' own port."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._last = dict.fromkeys(STREAMS, "0-0")
        self._told: list[Told] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def told(self) -> list[Told]:
        """What was read so far."""
        return list(self._told)

    def caught_up(self, seconds: float = 10) -> None:
        """Wait until it has read what the streams have now."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if all(self._has_all(key) for key in STREAMS):
                return
            time.sleep(0.05)
        raise TimeoutError(f"the tap is at {self._last} after {seconds} s")

    def _has_all(self, key: str) -> bool:
        entries = self._connect().xrevrange(key, count=1)
        return not entries or _position(entries[0][0]) <= _position(self._last[key])

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join(10)

    def _read(self) -> None:
        client = self._connect()
        while not self._stop.is_set():
            try:
                answer = client.xread(dict(self._last), count=1000, block=500)
            except (RedisError, OSError):
                time.sleep(0.05)
                continue
            for key, entries in answer.items() if isinstance(answer, dict) else answer or []:
                flat = entries[0] if entries and isinstance(entries[0], list) else entries
                for stream_id, fields in flat:
                    name = str(EntryId(STREAMS[key], stream_id))
                    attempt, _ = naming.split_place(fields["att"])
                    self._told.append(Told(name, fields["k"], fields["uid"], attempt))
                    self._last[key] = stream_id


def _position(stream_id: str) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number)
