"""What can go wrong, and the exit code of each kind. docs/reference/cli.md lists the codes."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; a stable part of the interface."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    CONFLICT = 5
    INVALID = 6
    UNREACHABLE = 7
    FAILED = 10
    CANCELLED = 11
    TIMEOUT = 124
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "Done. With `--wait` or `--watch`: every Task succeeded.",
    Exit.ERROR: "An error without a code of its own.",
    Exit.USAGE: "Wrong usage: an unknown option, a missing argument.",
    Exit.NOT_FOUND: "What was named does not exist.",
    Exit.NOT_ALLOWED: "The server refused the caller (401 or 403).",
    Exit.CONFLICT: "It exists already, or was changed by someone else, or its state forbids it.",
    Exit.INVALID: "A file or a value is invalid; the message names the field.",
    Exit.UNREACHABLE: "The server cannot be reached, is overloaded, or has no TaskFlow.",
    Exit.FAILED: "A Task that was waited for failed.",
    Exit.CANCELLED: "A Task that was waited for was cancelled.",
    Exit.TIMEOUT: "`--timeout` was over first. The Task goes on.",
    Exit.INTERRUPTED: "Ctrl-C. What was started goes on.",
}


class CliError(Exception):
    """An error for people: what, why, and what to do.

    Args:
        what: What went wrong, without a full stop.
        why: The cause, if it is known.
        hint: What to do, as lines.
        code: The exit code.
        status: The HTTP status of the answer, or 0.
    """

    def __init__(self, what: str, why: str = "", *, hint: str = "", code: Exit = Exit.ERROR, status: int = 0) -> None:
        super().__init__(f"{what}: {why}" if why else what)
        self.hint = hint
        self.code = code
        self.status = status


def lines_of(error: CliError) -> list[str]:
    """The error as lines for stderr."""
    return [f"error: {error}", *(f"hint: {line}" for line in error.hint.splitlines())]
