"""A process that a handler forks ends where the handler returns: only the process that claimed an attempt goes on."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

R = TypeVar("R")
_MAX_EXIT_CODE = 0xFF


@contextmanager
def same_process() -> Iterator[None]:
    """Around the code of a handler: a process that is forked inside ends when it leaves this context.

    Otherwise it would go on as a second worker with the same connections: tell an end, take messages.
    """
    pid = os.getpid()
    try:
        yield
    except BaseException as error:
        end_if_forked(pid, error)
        raise
    end_if_forked(pid)


async def in_same_process(work: Coroutine[Any, Any, R]) -> R:
    """`same_process` for a coroutine. A forked process must not even close the event loop, whose poller it shares."""
    with same_process():
        return await work


def end_if_forked(pid: int, error: BaseException | None = None) -> None:
    """End the calling process at once if it is not this one. Nothing of the worker's runs in it, `finally` included.

    Args:
        pid: the process that called the handler.
        error: what the handler raised in the calling process. `SystemExit` gives the exit code. Any other error is
            printed on stderr and gives 1.
    """
    if os.getpid() == pid:
        return
    with suppress(BaseException):
        sys.stderr.write(_last_words(error))
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(exit_code(error))


def _last_words(error: BaseException | None) -> str:
    if error is None:
        return (
            f"process {os.getpid()}, which the handler forked, returned from the handler and ends here; "
            "end it with os._exit()\n"
        )
    if isinstance(error, SystemExit):
        return "" if isinstance(error.code, int | None) else f"{error.code}\n"
    return "".join(traceback.format_exception(error))


def exit_code(error: BaseException | None) -> int:
    """The exit code that Python gives a program which ends with this error."""
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        return 1
    if error.code is None:
        return 0
    return error.code & _MAX_EXIT_CODE if isinstance(error.code, int) else 1
