"""Handlers that do to logging and streams what programs do. Importing them configures logging, as Django does."""

from __future__ import annotations

import io
import logging
import logging.config
import os
import subprocess
import sys

from taskflow_worker.sdk import handler

_CONFIG = {
    "version": 1,
    "disable_existing_loggers": True,
    "formatters": {"own": {"format": "own: %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "own"}},
    "root": {"level": "INFO", "handlers": ["out"]},
}
logging.config.dictConfig(_CONFIG)
_log = logging.getLogger(__name__)

_WRITER = """
import os, sys, time
for _ in range(25):
    for _ in range(16):
        os.write(1, (b"x" * 127 + b"\\n") * 8192)
    until = time.monotonic() + 120
    while os.fstat(1).st_blocks * 512 > 2**20:
        if time.monotonic() > until:
            sys.exit("it stays in memory")
        time.sleep(0.01)
"""


@handler("output.fails")
def fails(configure: bool = False) -> None:
    if configure:
        logging.config.dictConfig(_CONFIG)
        logging.disable(logging.CRITICAL)
    _log.info("about to fail")
    raise RuntimeError("on purpose")


@handler("output.wraps")
def wraps() -> None:
    sys.stdout.reconfigure(encoding="latin-1")  # type: ignore[union-attr]
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
    print(f"{sys.stdout.name} é")  # noqa: T201 - what it is for
    # Closes descriptor 1.
    os.fdopen(1, "wb").close()


@handler("output.says")
def says(text: str) -> None:
    for byte in text.encode():
        os.write(1, bytes([byte]))
    os.write(1, b"\n")
    for byte in text.encode():
        sys.stdout.buffer.write(bytes([byte]))
    sys.stdout.buffer.write(b"\n")


@handler("output.floods")
def floods() -> int:
    """A program writes 400 MiB, 16 at a time, each when the memory of those before it is free again."""
    return subprocess.run([sys.executable, "-c", _WRITER], check=True).returncode
