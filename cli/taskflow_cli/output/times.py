"""Times and durations as people read them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from taskflow_cli.errors import CliError, Exit

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")


def parse(text: str) -> datetime:
    """A time of the API server (RFC 3339)."""
    return datetime.fromisoformat(text)


def local(text: str | None) -> str:
    """A time of the API server in the zone of this machine, to the second; empty if there is none."""
    return parse(text).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") if text else ""


def age(since: str | None, now: datetime) -> str:
    """How long ago, in the words of kubectl: 5s, 3m20s, 2h, 4d."""
    return duration(now - parse(since)) if since else ""


def duration(length: timedelta) -> str:
    """A length of time with at most two units."""
    seconds = max(0, int(length.total_seconds()))
    if seconds < 120:  # noqa: PLR2004 - as kubectl
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:  # noqa: PLR2004
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:  # noqa: PLR2004
        return f"{minutes}m"
    if hours < 8:  # noqa: PLR2004
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{hours}h" if days < 2 else f"{days}d"  # noqa: PLR2004


def seconds_of(text: str) -> float:
    """Seconds of a duration such as 90, 90s, 5m or 1h30m.

    Raises:
        CliError: it is none.
    """
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise CliError(f"expected a duration such as 90s, 5m or 1h30m, found {text!r}", code=Exit.USAGE)
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)([dhms])", text))
