from __future__ import annotations

import codecs
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from taskflow_core.domain import naming
from taskflow_core.domain.message import Message

CHUNK_BYTES = 64 * 1024
"""A chunk that has grown to this size is closed and the next one begins."""
LOG_CONTENT_TYPE = "text/plain; charset=utf-8"
_LONGEST_LINE = 16 * 1024
"""Characters after which a line without an end is taken as one."""


def chunk_key(message: Message, number: int) -> str:
    """Where a part of an attempt's log lies; numbers begin with 1. The log is all parts in the order of their keys."""
    folder = naming.attempt_prefix(message.namespace, message.uid, message.attempt)
    if message.chunk is not None:
        folder = naming.chunk_prefix(message.namespace, message.uid, message.attempt, message.chunk.first)
    return f"{folder}logs/{number:06d}.log"


@dataclass(frozen=True)
class Chunk:
    """A part of the log that has to be stored, whole; a longer one may follow under the same number."""

    number: int
    content: bytes


class AttemptLog:
    """The log of one attempt, in memory until it is stored. Its methods may be called by any thread.

    A line is `TIME TAG TEXT`: RFC 3339 in UTC with milliseconds; `stdout`, `stderr`, or the level and name of a logger.
    A text of several lines becomes as many lines, each complete.

    Args:
        limit: bytes after which the rest is dropped; the last line then says so.
        now: the clock.
        chunk_bytes: size from which on a chunk is closed.
    """

    def __init__(
        self, limit: int, now: Callable[[], datetime] = lambda: datetime.now(UTC), chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        self._limit = limit
        self._chunk_bytes = chunk_bytes
        self._now = now
        self._lock = threading.Lock()
        self._size = 0
        self._full = False
        self._number = 1
        self._chunks: dict[int, bytearray] = {}
        self._stored: dict[int, int] = {}

    @property
    def full(self) -> bool:
        """Whatever comes now is dropped."""
        return self._full

    def add(self, tag: str, text: str) -> None:
        """Append a text, line by line."""
        # Not `splitlines`: it also breaks at characters that a line may hold.
        for line in text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n"):
            self._append(tag, line)

    def _append(self, tag: str, line: str) -> None:
        with self._lock:
            if self._full:
                return
            data = self._line(tag, line)
            if self._size + len(data) > self._limit:
                self._full = True
                data = self._line("taskflow", f"the log is cut here: at most {self._limit} bytes are kept")
            chunk = self._chunks.setdefault(self._number, bytearray())
            chunk += data
            self._size += len(data)
            if len(chunk) >= self._chunk_bytes:
                self._number += 1

    def _line(self, tag: str, line: str) -> bytes:
        time = self._now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"{time} {tag} {line}\n".encode("utf-8", "backslashreplace")

    def pending(self) -> list[Chunk]:
        """The chunks that are longer than what is stored of them, in order."""
        with self._lock:
            return [
                Chunk(number, bytes(content))
                for number, content in self._chunks.items()
                if len(content) > self._stored.get(number, 0)
            ]

    def stored(self, chunk: Chunk) -> None:
        """The chunk was stored; once a closed one is whole in the store, it is forgotten."""
        with self._lock:
            self._stored[chunk.number] = len(chunk.content)
            if chunk.number < self._number and len(self._chunks[chunk.number]) == len(chunk.content):
                del self._chunks[chunk.number]

    def text(self) -> str:
        """What is in memory: all of it when nothing was stored."""
        with self._lock:
            return b"".join(self._chunks.values()).decode()


class Lines:
    """Makes lines of what a stream brings in pieces. Its methods may be called by any thread."""

    def __init__(self, log: AttemptLog, tag: str) -> None:
        self._log = log
        self._tag = tag
        # Re-entrant: what interrupts a thread in here, a signal's handler or the end of an object, may print too.
        self._lock = threading.RLock()
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        self._rest = ""

    def feed_bytes(self, piece: bytes) -> None:
        """Append bytes; a character may be spread over several pieces."""
        self.feed(self._decode(piece))

    def feed(self, piece: str) -> None:
        """Append text; complete lines go to the log. A carriage return ends a line too, as progress bars use it."""
        with self._lock:
            text = self._rest + piece
            cut = max(text.rfind("\n"), text.rfind("\r")) + 1
            complete, self._rest = text[:cut], text[cut:]
            if len(self._rest) > _LONGEST_LINE:
                complete, self._rest = complete + self._rest, ""
            if complete:
                self._log.add(self._tag, complete)

    def finish(self) -> None:
        """The stream ended: what is left is the last line."""
        with self._lock:
            rest, self._rest = self._rest + self._decode(b"", final=True), ""
            if rest:
                self._log.add(self._tag, rest)
