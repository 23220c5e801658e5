"""The log of one attempt in memory: lines, chunks for the object store, and the size limit."""

from __future__ import annotations

import codecs
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from taskflow_core.domain import naming
from taskflow_core.domain.message import Message

CHUNK_BYTES = 64 * 1024
"""A chunk that reaches this size is closed and a new one starts."""
LOG_CONTENT_TYPE = "text/plain; charset=utf-8"
_MAX_LINE_CHARS = 16 * 1024
"""A line without an end is split after this many characters."""


def chunk_key(message: Message, number: int) -> str:
    """Object key of a chunk of an attempt's log. Numbers start at 1. The log is all chunks in key order."""
    folder = naming.attempt_prefix(message.namespace, message.uid, message.attempt)
    if message.chunk is not None:
        folder = naming.chunk_prefix(message.namespace, message.uid, message.attempt, message.chunk.first)
    return f"{folder}logs/{number:06d}.log"


@dataclass(frozen=True)
class Chunk:
    """A part of the log to store as one object. A longer version may follow under the same number."""

    number: int
    content: bytes


class AttemptLog:
    """The log of one attempt, kept in memory until it is stored. Any thread may call its methods.

    A line is `TIME TAG TEXT`. The time is RFC 3339 in UTC with milliseconds. The tag is `stdout`, `stderr`, or the
    level and name of a logger. Text of several lines becomes several complete lines.

    Args:
        limit: maximum size in bytes. The rest is dropped, and the last line says so.
        now: the clock.
        chunk_bytes: size at which a chunk is closed.
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
        """True once the limit is reached: further text is dropped."""
        return self._full

    def add(self, tag: str, text: str) -> None:
        """Append text, line by line."""
        # Not `splitlines`: it also splits at characters that a line may contain.
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
        """The chunks with content that is not stored yet, in order."""
        with self._lock:
            return [
                Chunk(number, bytes(content))
                for number, content in self._chunks.items()
                if len(content) > self._stored.get(number, 0)
            ]

    def stored(self, chunk: Chunk) -> None:
        """Record that the chunk is stored. A closed chunk is dropped from memory once all of it is stored."""
        with self._lock:
            self._stored[chunk.number] = len(chunk.content)
            if chunk.number < self._number and len(self._chunks[chunk.number]) == len(chunk.content):
                del self._chunks[chunk.number]

    def text(self) -> str:
        """What is in memory: the whole log if nothing is stored yet."""
        with self._lock:
            return b"".join(self._chunks.values()).decode()


class LineSplitter:
    """Splits a stream that arrives in pieces into lines. Any thread may call its methods."""

    def __init__(self, log: AttemptLog, tag: str) -> None:
        self._log = log
        self._tag = tag
        # Re-entrant: a signal handler or a finalizer that interrupts a thread in here may print too.
        self._lock = threading.RLock()
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        self._rest = ""

    def feed_bytes(self, piece: bytes) -> None:
        """Append bytes. A character may span several pieces."""
        self.feed(self._decode(piece))

    def feed(self, piece: str) -> None:
        """Append text and log the complete lines. A carriage return ends a line too, as progress bars use it."""
        with self._lock:
            text = self._rest + piece
            cut = max(text.rfind("\n"), text.rfind("\r")) + 1
            complete, self._rest = text[:cut], text[cut:]
            if len(self._rest) > _MAX_LINE_CHARS:
                complete, self._rest = complete + self._rest, ""
            if complete:
                self._log.add(self._tag, complete)

    def finish(self) -> None:
        """Log the rest as the last line: the stream has ended."""
        with self._lock:
            rest, self._rest = self._rest + self._decode(b"", final=True), ""
            if rest:
                self._log.add(self._tag, rest)
