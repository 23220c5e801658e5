"""What a container wrote last before it ended, in one short line. Pure.

The text is the container's termination message: what it wrote into its termination log, or the end of its log with
`terminationMessagePolicy: FallbackToLogsOnError`, at most 2048 bytes. Users' code writes it, so it is input.
"""

from __future__ import annotations

import json
import re

from taskflow_core.domain.plain_text import plain

MAX_CHARS = 300
_LINES = 3
"""How many lines of a log without a traceback are shown."""
_JSON_FIELDS = ("event", "error", "exception")
_LOGIN = re.compile(r"(?<=://)[^/@\s]*@")
"""User and password of a URL."""
_STARTS = re.compile(r"^(Traceback \(most recent call last\):|[\w.]*(Error|Exception|Interrupt|Exit)\b)")


def last_words(text: str) -> str:
    """The end of a container's output: the error of a traceback, else the last lines; empty if it wrote nothing.

    At most `MAX_CHARS` characters, of which the last are kept. Control characters and logins in URLs are replaced.
    """
    lines = [line for line in (_readable(each) for each in plain(text).splitlines()) if line.strip()]
    kept = _error(lines) or _distinct(lines)
    words = _LOGIN.sub("***@", " / ".join(line.strip() for line in kept))
    return words if len(words) <= MAX_CHARS else "…" + words[1 - MAX_CHARS :]


def _readable(line: str) -> str:
    """What a JSON record of a log says; any other line as it is."""
    if not line.startswith("{"):
        return line
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict):
        return line
    said = [str(record[name]).strip().rpartition("\n")[2] for name in _JSON_FIELDS if record.get(name)]
    return ": ".join(said) or line


def _distinct(lines: list[str]) -> list[str]:
    """The last lines, without those that a later one repeats."""
    kept: list[str] = []
    for line in lines[: -_LINES - 1 : -1]:
        if not any(line.strip() in later for later in kept):
            kept.insert(0, line)
    return kept


def _error(lines: list[str]) -> list[str]:
    """The lines of the error that ends the last traceback; empty if the output does not end with one."""
    for at in range(len(lines) - 1, -1, -1):
        if lines[at][0] in " \t":
            # The frames of a traceback stand above its error.
            return lines[at + 1 :] if at + 1 < len(lines) and _STARTS.match(lines[at + 1]) else []
    return []
