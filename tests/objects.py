"""An object store in memory, as workers use it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from taskflow_core.blobs.store import ObjectInfo, Stored
from taskflow_core.errors import Conflict, NotFound


@dataclass
class Objects:
    """Contents by key; `parts` are the reads of parts, (key, start, length)."""

    content: dict[str, bytes] = field(default_factory=dict)
    parts: list[tuple[str, int, int]] = field(default_factory=list)
    piece: int = 1000

    def get_to_file(self, key: str, path: Path) -> Stored:
        path.write_bytes(self.get_bytes(key))
        return Stored(size=len(self.content[key]), sha256="in")

    def put_file(self, key: str, path: Path, content_type: str) -> Stored:
        self.content[key] = path.read_bytes()
        return Stored(size=len(self.content[key]), sha256="out")

    def get_bytes(self, key: str) -> bytes:
        if key not in self.content:
            raise NotFound(f"no object {key}")
        return self.content[key]

    def head(self, key: str) -> ObjectInfo:
        content = self.get_bytes(key)
        return ObjectInfo(key, len(content), self._etag(key), datetime.now(UTC), None)

    def stream(self, key: str) -> Iterator[bytes]:
        content = self.get_bytes(key)
        for start in range(0, len(content), self.piece):
            yield content[start : start + self.piece]

    def get_range(self, key: str, start: int, length: int, etag: str) -> bytes:
        content = self.get_bytes(key)
        if etag != self._etag(key):
            raise Conflict(f"object {key!r} is another one than it was")
        self.parts.append((key, start, length))
        return content[start : start + length]

    def _etag(self, key: str) -> str:
        return hashlib.sha256(self.content[key]).hexdigest()
