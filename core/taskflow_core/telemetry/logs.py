"""Structured logs, one line an event."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Any, TextIO

import structlog

from taskflow_core.settings import LogSettings


def setup_logging(settings: LogSettings, component: str, stream: TextIO = sys.stdout) -> None:
    """Send structlog and the standard library's logging of this process to `stream`, one line an event.

    Idempotent. Third-party loggers get our format too; those that report each request are raised to WARNING.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=True)
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False)
    )
    rendering: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    rendering.append(structlog.processors.EventRenamer("msg") if settings.format == "json" else _printable)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*rendering, renderer])
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level)
    for noisy in ("kopf.objects", "urllib3", "httpx", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(component=component)


def _printable(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """For a terminal, where what somebody else named must neither begin a line nor move the cursor."""
    return {
        name: _escaped(value, "\n" if name in ("exception", "stack") else "") if isinstance(value, str) else value
        for name, value in event.items()
    }


def _escaped(text: str, kept: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


class _Unlocked(io.FileIO):
    """Writes each line at once, whole. Python's buffered files have a lock, which a fork leaves held if another thread
    was writing.
    """

    def write(self, data: Any, /) -> int:
        rest = memoryview(data)
        # A signal may cut a write short. None: the descriptor does not block, and its reader has no room.
        while rest and (written := super().write(rest)) is not None:
            rest = rest[written:]
        return len(data) - len(rest)


def own_stdout() -> TextIO:
    """The process's stdout on a descriptor of its own, so that it stays when descriptor 1 is led elsewhere.

    May be used after a fork, also when another thread was writing at that moment.
    """
    file = _Unlocked(os.dup(sys.stdout.fileno()), "w")
    return io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", write_through=True)


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a W3C `traceparent` (version-traceid-parentid-flags); None if there is none."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else None  # noqa: PLR2004 - the format's own numbers


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose calls are an event name and fields."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
