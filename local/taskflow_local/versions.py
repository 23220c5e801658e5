"""Parses the versions that programs print, and compares them with accepted ranges."""

import re
from dataclasses import dataclass

Version = tuple[int, ...]

_RELEASE_DATE = re.compile(r"RELEASE\.(\d{4})-(\d{2})-(\d{2})")
_NUMBERS = re.compile(r"(?<![\d.])v?(\d+(?:\.\d+)+)")


def find_version(output: str) -> Version | None:
    """Find the first version in what `--version` printed: `v1.36.2`, `15.18`, or MinIO's `RELEASE.2025-10-15T...`."""
    date = _RELEASE_DATE.search(output)
    if date:
        return tuple(int(part) for part in date.groups())
    numbers = _NUMBERS.search(output)
    return tuple(int(part) for part in numbers.group(1).split(".")) if numbers else None


def show(version: Version) -> str:
    """The version as text."""
    return ".".join(str(part) for part in version)


@dataclass(frozen=True)
class Accepted:
    """A half-open range of versions. Without an upper end, every newer version is accepted."""

    at_least: Version
    below: Version | None = None

    def __contains__(self, version: Version) -> bool:
        """Compare number by number."""
        return version >= self.at_least and (self.below is None or version < self.below)

    def __str__(self) -> str:
        """The range in words, for messages."""
        if self.below is None:
            return f"{show(self.at_least)} or newer"
        return f"at least {show(self.at_least)} and below {show(self.below)}"
