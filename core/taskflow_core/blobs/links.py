"""Links that need no credentials: how long they are valid, and under which name a browser saves an object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import quote

from taskflow_core.blobs.failures import object_errors
from taskflow_core.errors import Invalid

MAX_LINK_SECONDS = 900
UNKNOWN_TYPE = "application/octet-stream"
_INERT = frozenset(
    {
        "application/gzip",
        "application/json",
        "application/pdf",
        "application/x-ndjson",
        "application/zip",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
        "text/csv",
        "text/plain",
    }
)
"""Types by which a browser runs nothing. Whoever uploads chooses the stored type, such as text/html."""


@contextmanager
def signing(key: str, seconds: int) -> Iterator[timedelta]:
    """How long a link lives, once that is allowed. Raises Invalid."""
    if not 1 <= seconds <= MAX_LINK_SECONDS:
        raise Invalid(f"expected a link's life of 1 to {MAX_LINK_SECONDS} seconds, found {seconds}")
    with object_errors(key):
        yield timedelta(seconds=seconds)


def attachment(filename: str) -> str:
    """Content-Disposition by RFC 6266: an ASCII name for old clients, the real one by RFC 8187."""
    if not filename:
        return "attachment"
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def inert(content_type: str) -> str:
    """The content type, or that of unknown bytes when a browser could run what has it."""
    main, semicolon, rest = content_type.partition(";")
    name, equals, value = rest.strip().partition("=")
    if main.strip().lower() not in _INERT:
        return UNKNOWN_TYPE
    charset = name.lower() == "charset" and value.replace("-", "").replace("_", "").isalnum() and value.isascii()
    return f"{main.strip().lower()}; charset={value}" if semicolon and equals and charset else main.strip().lower()
