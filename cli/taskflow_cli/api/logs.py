"""The log of a Task, followed over attempts, broken connections and restarts of the API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from http import HTTPStatus

from taskflow_cli.api.client import Rest
from taskflow_cli.errors import CliError
from taskflow_cli.outage import Outage

POLL_SECONDS = 1.0
_ENDED = frozenset({"Succeeded", "Failed", "Cancelled"})


def whole(rest: Rest, name: str, attempt: int | None, tail: int | None) -> bytes:
    """What an attempt has logged until now; at most its last `tail` lines.

    Raises:
        CliError: there is no such Task, attempt or log; or it cannot be read.
    """
    return rest.ask(rest.path("tasks", name, "logs", attempt=attempt, tail=tail), _what(name)).body


def followed(
    rest: Rest, name: str, attempt: int | None, tail: int | None, say: Callable[[str], None]
) -> Iterator[bytes]:
    """What attempts log, as it comes, each byte once: those of `attempt`, else of the current and all later ones.

    It is read by range, at most once a second, as the API itself follows a log. So a connection that dies in silence
    costs nothing and hides nothing.

    Args:
        rest: Where the Task is.
        name: Its name.
        attempt: The number of an attempt, or None.
        tail: Begin with at most so many lines; None is all.
        say: Tells the user of further attempts, and that the API is away.

    Raises:
        CliError: as `whole`; or the API is away for a minute.
    """
    offset, current = 0, attempt or 0
    cut = tail
    outage = Outage(say)
    while True:
        try:
            # Before the log is read: a worker reports the end of an attempt after it has uploaded the whole log.
            task = rest.read(rest.path("tasks", name), _what(name))
            latest = max(int(task["attempt"]), 1)
            # Of a retry that has logged nothing yet, the attempt that failed is more useful, as without --follow.
            current = current or (latest if latest == 1 or _since(rest, name, latest, 0) else latest - 1)
            part = _since(rest, name, current, offset)
            outage.over()
        except CliError as error:
            if not current:
                raise
            outage.failed(error)
            time.sleep(POLL_SECONDS)
            continue
        offset += len(part)
        if cut is not None:
            part, cut = _last(part, cut), None
        if part:
            yield part
        if latest > current and attempt is None:
            current, offset = current + 1, 0
            say(f"attempt {current}")
        elif latest > current or task["phase"] in _ENDED:
            return
        else:
            time.sleep(POLL_SECONDS)


def _since(rest: Rest, name: str, attempt: int, offset: int) -> bytes:
    path = rest.path("tasks", name, "logs", attempt=attempt)
    try:
        answer = rest.ask(path, _what(name), [("Range", f"bytes={offset}-")])
    except CliError as error:
        # Nothing more than before (416), or nothing at all yet (404).
        if error.status in {HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, HTTPStatus.NOT_FOUND}:
            return b""
        raise
    return answer.body


def _last(content: bytes, lines: int) -> bytes:
    return b"".join(content.splitlines(keepends=True)[-lines:]) if lines else b""


def _what(name: str) -> str:
    return f"cannot read the log of Task {name!r}"
