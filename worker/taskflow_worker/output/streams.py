"""What replaces `sys.stdout` and `sys.stderr`: text and bytes go to the log of the current attempt."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, TextIO

from taskflow_worker.output.attempt_log import LineSplitter


class RoutedStream(io.TextIOWrapper):
    """Replaces `sys.stdout` or `sys.stderr`: writes to the current attempt's log, or else to the original stream.

    One object serves all attempts, because loggers and libraries keep the stream that they found first. So nothing that
    a handler does to it closes it or changes its encoding.

    Args:
        original: receives what belongs to no attempt.
        name: such as `<stdout>`.
        current: the current attempt's lines of this stream, if there is one.
    """

    mode = "w"

    def __init__(self, original: TextIO, name: str, current: Callable[[], LineSplitter | None]) -> None:
        super().__init__(_RoutedBytes(original, name, current), encoding="utf-8", errors="backslashreplace")
        self._original = original
        self._lines = current

    def write(self, text: str, /) -> int:
        """Write text."""
        lines = self._lines()
        if lines is None:
            return self._original.write(text)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        lines.feed(text)
        return len(text)

    def flush(self) -> None:
        """Flush the original stream. The log needs no flush."""
        self.buffer.flush()

    def reconfigure(self, **_: Any) -> None:
        """Do nothing: a log is UTF-8, and each write is complete."""

    def detach(self) -> Any:
        """The bytes. The stream itself stays usable, since other attempts use it too."""
        return self.buffer

    def close(self) -> None:
        """Do nothing but flush, for the same reason."""
        self.flush()


class _RoutedBytes(io.BufferedIOBase):
    """`sys.stdout.buffer`. A `TextIOWrapper` around it may be closed, which closes nothing here."""

    mode = "wb"

    def __init__(self, original: TextIO, name: str, current: Callable[[], LineSplitter | None]) -> None:
        self._original = original
        self._lines = current
        self.name = name

    @property
    def raw(self) -> Any:
        """Itself: nothing is buffered."""
        return self

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Descriptor of the original stream, for child processes."""
        return self._original.fileno()

    def isatty(self) -> bool:
        return False

    def write(self, piece: Any, /) -> int:
        data = memoryview(piece).tobytes()
        lines = self._lines()
        if lines is not None:
            lines.feed_bytes(data)
        elif (buffer := getattr(self._original, "buffer", None)) is not None:
            self._original.flush()
            buffer.write(data)
        else:
            self._original.write(data.decode("utf-8", "backslashreplace"))
        return len(data)

    def flush(self) -> None:
        if self._lines() is None and not self._original.closed:
            self._original.flush()

    def detach(self) -> Any:
        return self

    def close(self) -> None:
        self.flush()
