"""The temporary folder of an attempt, with its input and output files."""

from __future__ import annotations

import tempfile
from pathlib import Path


class Scratch:
    """A temporary folder, created on first use: creating and removing it costs as much as the rest of a no-op."""

    def __init__(self) -> None:
        self._created: tempfile.TemporaryDirectory[str] | None = None

    def folder(self) -> Path:
        """The folder; the same one each time."""
        if self._created is None:
            self._created = tempfile.TemporaryDirectory(prefix="taskflow-", ignore_cleanup_errors=True)
        return Path(self._created.name)

    def subfolder(self, name: str) -> Path:
        """A folder in it; the same one each time."""
        path = self.folder() / name
        path.mkdir(exist_ok=True)
        return path

    def close(self) -> None:
        """Remove the folder and everything in it."""
        if self._created is not None:
            self._created.cleanup()
