"""The log of one attempt in memory: lines, chunks for the object store, and the size limit."""

from __future__ import annotations

import codecs
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from taskflow_core.domain import naming
from taskflow_core.domain.message import Message

CHUNK_BYTES = 64 * 1024
"""A chunk that reaches this size is closed and a new one starts."""
LOG_CONTENT_TYPE = "text/plain; charset=utf-8"
_MAX_LINE_CHARS = 16 * 1024
"""A line without an end is split after this many characters."""
REDRAW_SECONDS = 0.5
"""Of a line that is drawn again and again, as progress bars are, the last version of each such period is kept."""


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

    Adding takes no lock: a finalizer or a signal handler that prints may interrupt any thread at any place, also in
    here, and the lock could then be held by its own thread, or by one that waits for it.

    A line is `TIME TAG TEXT`. The time is RFC 3339 in UTC with milliseconds. The tag is `stdout`, `stderr`, or the
    level and name of a logger. Text of several lines becomes several complete lines.

    Args:
        limit: maximum size in bytes. The rest is dropped, and the last lines say so.
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
        # Lines that were added and are not in a chunk yet.
        self._added: deque[bytes] = deque()
        self._size = 0
        self._full = False
        self._dropped = 0
        self._number = 1
        self._chunks: dict[int, bytearray] = {}
        self._stored: dict[int, int] = {}

    @property
    def full(self) -> bool:
        """True once the limit is reached: further text is dropped."""
        return self._full

    @property
    def room(self) -> int:
        """Bytes that may still be added."""
        return 0 if self._full else self._limit - self._size

    def add(self, tag: str, text: str) -> None:
        """Append text, line by line."""
        # Not `splitlines`: it also splits at characters that a line may contain.
        for line in text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n"):
            self._append(tag, line)

    def _append(self, tag: str, line: str) -> None:
        if self._full:
            self._drop(line)
            return
        data = self._line(tag, line)
        if self._size + len(data) > self._limit:
            self._full = True
            self._drop(line)
            data = self._line("taskflow", f"the log is cut here: at most {self._limit} bytes are kept")
        size = len(data)
        self._size += size
        self._added.append(data)

    def _drop(self, line: str) -> None:
        size = len(line.encode("utf-8", "backslashreplace")) + 1
        self._dropped += size

    @contextmanager
    def _chunked(self) -> Iterator[None]:
        """While this context lasts, all that was added before is in chunks, and they change only here."""
        with self._lock:
            while self._added:
                self._keep(self._added.popleft())
            yield

    def _keep(self, data: bytes) -> None:
        chunk = self._chunks.setdefault(self._number, bytearray())
        chunk += data
        if len(chunk) >= self._chunk_bytes:
            self._number += 1

    def drop(self, size: int) -> None:
        """Leave out bytes of output that nobody read, because the log had no room for as many."""
        if not self._full:
            self._append("taskflow", f"{size} bytes of output are left out here: at most {self._limit} bytes are kept")
        self._dropped += size

    def finish(self) -> None:
        """Say how much was dropped: the attempt has ended."""
        if self._dropped:
            self._added.append(self._line("taskflow", f"{self._dropped} bytes of output were dropped"))
            self._dropped = 0

    def _line(self, tag: str, line: str) -> bytes:
        time = self._now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"{time} {tag} {line}\n".encode("utf-8", "backslashreplace")

    def pending(self) -> list[Chunk]:
        """The chunks with content that is not stored yet, in order."""
        with self._chunked():
            return [
                Chunk(number, bytes(content))
                for number, content in self._chunks.items()
                if len(content) > self._stored.get(number, 0)
            ]

    def stored(self, chunk: Chunk) -> None:
        """Record that the chunk is stored. A closed chunk is dropped from memory once all of it is stored."""
        with self._chunked():
            self._stored[chunk.number] = len(chunk.content)
            if chunk.number < self._number and len(self._chunks[chunk.number]) == len(chunk.content):
                del self._chunks[chunk.number]

    def text(self) -> str:
        """What is in memory: the whole log if nothing is stored yet."""
        with self._chunked():
            return b"".join(self._chunks.values()).decode()


class LineSplitter:
    """Splits a stream that arrives in pieces into lines. Any thread may call its methods.

    A carriage return begins the line anew, as progress bars do: see `REDRAW_SECONDS`.
    """

    def __init__(self, log: AttemptLog, tag: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._tag = tag
        self._clock = clock
        # Re-entrant: a signal handler or a finalizer that interrupts a thread in here may print too.
        self._lock = threading.RLock()
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        # What is written of the line so far, and the period in which it was. A carriage return at its end may be half
        # of a CRLF.
        self._rest, self._rest_period = "", 0
        # The last version of this line that was drawn over, until its period is over.
        self._redrawn: tuple[int, str] | None = None

    def feed_bytes(self, piece: bytes) -> None:
        """Append bytes. A character may span several pieces."""
        with self._lock:
            self.feed(self._decode(piece))

    def feed(self, piece: str) -> None:
        """Append text and log the complete lines."""
        with self._lock:
            period = int(self._clock() / REDRAW_SECONDS)
            lines: list[str] = []
            *complete, rest = self._joined(piece, lines).split("\n")
            for line in complete:
                self._end_line(line, lines, period)
            half = "\r" if rest.endswith("\r") else ""
            self._rest = self._draw(rest.removesuffix("\r"), lines, period) + half
            self._rest_period = period
            self._settle(lines, period)
            if len(self._rest) > _MAX_LINE_CHARS:
                lines.append(self._rest)
                self._rest = ""
            self._add(lines)

    def _joined(self, piece: str, lines: list[str]) -> str:
        """The unfinished line with what follows it."""
        rest, self._rest = self._rest, ""
        begins_anew = piece.startswith("\r") and piece[1:2] not in ("", "\n")
        if begins_anew or (rest.endswith("\r") and piece[:1] not in ("", "\n")):
            # This version was complete when it was written, not only now.
            self._redraw(rest.removesuffix("\r"), lines, self._rest_period)
            rest = ""
        return (rest + piece).replace("\r\n", "\n")

    def _draw(self, line: str, lines: list[str], period: int) -> str:
        """The last version of a line."""
        if "\r" not in line:
            return line
        *redrawn, last = line.split("\r")
        for version in redrawn:
            self._redraw(version, lines, period)
        return last

    def _redraw(self, version: str, lines: list[str], period: int) -> None:
        self._settle(lines, period)
        # Blanks only wipe the line.
        if version.strip():
            self._redrawn = period, version

    def _settle(self, lines: list[str], period: int) -> None:
        """Log the version that is the last one of an earlier period."""
        if self._redrawn is not None and self._redrawn[0] < period:
            lines.append(self._redrawn[1])
            self._redrawn = None

    def _end_line(self, line: str, lines: list[str], period: int) -> None:
        last = self._draw(line, lines, period)
        self._settle(lines, period)
        redrawn, self._redrawn = self._redrawn, None
        lines.append(redrawn[1] if redrawn is not None and not last.strip() else last)

    def _add(self, lines: list[str]) -> None:
        if lines:
            self._log.add(self._tag, "\n".join(lines) + "\n")

    def finish(self) -> None:
        """Log the rest as the last line: the stream has ended."""
        with self._lock:
            self.feed_bytes(b"")
            rest = self._rest.removesuffix("\r") + self._decode(b"", final=True)
            self._rest = ""
            if rest or self._redrawn is not None:
                lines: list[str] = []
                self._end_line(rest, lines, self._rest_period)
                self._add(lines)
