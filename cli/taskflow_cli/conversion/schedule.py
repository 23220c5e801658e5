"""A TaskSchedule that is being made, and what had no counterpart on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

API_VERSION = "taskflow.dev/v1alpha1"
MAX_NAME = 52
"""Characters of a TaskSchedule's name, so that a time fits behind it in the name of a Task."""
LEAST_SECONDS, MOST_SECONDS = 10, 31_536_000
"""Bounds of `spec.every.seconds`."""
HANDLER = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*")
QUEUE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]*")
_MACROS = {
    "@hourly": "@hourly",
    "@daily": "@daily",
    "@midnight": "@daily",
    "@weekly": "@weekly",
    "@monthly": "@monthly",
    "@yearly": "@yearly",
    "@annually": "@yearly",
}
_LINE = re.compile(r"[0-9A-Za-z*/,-]+( [0-9A-Za-z*/,-]+){4}")
_EVERY = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


class NoCounterpart(ValueError):  # noqa: N818 - says what, not that it is an error
    """It cannot be converted without becoming something else."""


@dataclass
class Conversion:
    """What became of one input.

    Attributes:
        schedules: TaskSchedules, as JSON.
        warnings: What was left out of them, and runs without it.
        errors: What could not be converted, and is in no schedule.
    """

    schedules: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, other: Conversion) -> None:
        """Append what became of another input."""
        self.schedules += other.schedules
        self.warnings += other.warnings
        self.errors += other.errors


def manifest(name: str, spec: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A TaskSchedule; fields that are None or empty are left out."""
    return {
        "apiVersion": API_VERSION,
        "kind": "TaskSchedule",
        "metadata": {"name": name, **present(metadata or {})},
        "spec": present(spec),
    }


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those that are None or empty."""
    return {name: value for name, value in fields.items() if value not in (None, {}, [], "")}


def name_of(text: str, taken: set[str]) -> str:
    """A free name of a TaskSchedule from any text, which is then taken."""
    kept = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:MAX_NAME].strip("-") or "schedule"
    name, number = kept, 2
    while name in taken:
        suffix = f"-{number}"
        name, number = kept[: MAX_NAME - len(suffix)].rstrip("-") + suffix, number + 1
    taken.add(name)
    return name


def timing_of(line: str) -> dict[str, Any]:
    """`schedules` or `every`, and `timeZone` if the line names one, of a line as cron and CronJob have it.

    Raises:
        NoCounterpart: there is none.
    """
    zone = ""
    if prefixed := re.match(r"(?:CRON_TZ|TZ)=(\S+)\s+(.*)", line):
        zone, line = prefixed.groups()
        if not ZONE.fullmatch(zone) or zone == "Local":
            raise NoCounterpart(f"the time zone {zone!r} has no name such as Europe/Berlin")
    words = line.split()
    if not words:
        raise NoCounterpart("the schedule is empty")
    found = {"timeZone": zone} if zone else {}
    if words[0] == "@every":
        return {**found, "every": every(_seconds("".join(words[1:])))}
    if words[0].startswith("@"):
        if words[0] not in _MACROS or len(words) > 1:
            raise NoCounterpart(f"there is no schedule {line!r}")
        return {**found, "schedules": [_MACROS[words[0]]]}
    # In the lines of CronJob a question mark is a star.
    text = " ".join("*" if word == "?" else word for word in words)
    if not _LINE.fullmatch(text):
        raise NoCounterpart(f"expected five fields of cron, found {line!r}")
    return {**found, "schedules": [text]}


def every(seconds: float) -> dict[str, int]:
    """`every` of an interval.

    Raises:
        NoCounterpart: it is too short, too long, or no whole number of seconds.
    """
    if seconds != int(seconds):
        raise NoCounterpart(f"an interval is a whole number of seconds, found {seconds:g}")
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise NoCounterpart(f"an interval has {LEAST_SECONDS} to {MOST_SECONDS} seconds, found {seconds:g}")
    return {"seconds": int(seconds)}


def _seconds(text: str) -> int:
    found = _EVERY.fullmatch(text)
    if not found or not text:
        raise NoCounterpart(f"expected an interval such as 1h30m, found {text!r}")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds
