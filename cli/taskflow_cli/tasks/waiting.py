"""Waits for the end of Tasks by watching them, over broken connections and restarts of the API server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from taskflow_cli.cluster.client import TASKS, Kube, Object, WatchExpiredError
from taskflow_cli.errors import CliError, Exit
from taskflow_cli.outage import Outage
from taskflow_cli.output.text import safe
from taskflow_cli.tasks import columns

WATCH_SECONDS = 300
_PAUSE_SECONDS = 1


def changes(kube: Kube, name: str, deadline: float | None, say: Callable[[str], None]) -> Iterator[Object]:
    """A Task as it is, and again whenever it changed, until it ended.

    Args:
        kube: Where it is.
        name: Its name.
        deadline: In the seconds of time.monotonic, or None.
        say: Tells the user that the API server is away.

    Raises:
        CliError: it does not exist or was deleted before its end; the time is over; the API server is away for long.
    """
    outage = Outage(say)
    last: Object = {}
    while True:
        try:
            for task in _watched(kube, name, last, deadline):
                outage.over()
                last = task
                yield task
                if columns.ended(task):
                    return
        except CliError as error:
            if not last:
                raise
            outage.failed(error)
        _check_deadline(name, deadline)
        # A watch lasts for minutes. Whatever ended it sooner is not asked again and again.
        time.sleep(_PAUSE_SECONDS)


def _watched(kube: Kube, name: str, last: Object, deadline: float | None) -> Iterator[Object]:
    """The Task now if it is another than `last`, then its changes, until the watch ends."""
    task = kube.find(TASKS, name) if last else kube.get(TASKS, name)
    if task is None:
        raise _gone(kube, name)
    if last and task["metadata"]["uid"] != last["metadata"]["uid"]:
        raise _gone(kube, name)
    if task["metadata"]["resourceVersion"] != last.get("metadata", {}).get("resourceVersion"):
        yield task
    left = WATCH_SECONDS if deadline is None else min(WATCH_SECONDS, deadline - time.monotonic())
    if left <= 0:
        return
    try:
        for kind, found in kube.watch(TASKS, name, task["metadata"]["resourceVersion"], left):
            if kind == "DELETED" and not columns.ended(found):
                raise _gone(kube, name)
            yield found
    except WatchExpiredError:
        return


def _gone(kube: Kube, name: str) -> CliError:
    return CliError(f"Task {name!r} was deleted from namespace {kube.namespace} before its end", code=Exit.NOT_FOUND)


def _check_deadline(name: str, deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise CliError(
            f"Task {name!r} has not ended in time",
            hint=f"it goes on; see why with: taskflow why {name}",
            code=Exit.TIMEOUT,
        )


def wait_for(
    kube: Kube,
    names: Sequence[str],
    *,
    timeout: float | None,
    say: Callable[[str], None],
    show: Callable[[Object], None] | None = None,
) -> list[Object]:
    """The Tasks after their end, in the order of their names.

    Args:
        kube: Where they are.
        names: Their names.
        timeout: Seconds for all of them together, or None.
        say: Prints a line for the user.
        show: Called with each change.

    Raises:
        CliError: as `changes`; with Ctrl-C, that they go on and how they are stopped.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    found: list[Object] = []
    try:
        for name in names:
            task: Object = {}
            for task in changes(kube, name, deadline, say):
                if show is not None:
                    show(task)
            found.append(task)
    except KeyboardInterrupt:
        left = " ".join(names[len(found) :])
        raise CliError(
            "interrupted",
            f"{left} goes on" if len(names) - len(found) == 1 else "the Tasks go on",
            hint=f"stop with: taskflow cancel {left} -n {kube.namespace}",
            code=Exit.INTERRUPTED,
        ) from None
    return found


def outcome(tasks: Sequence[Object]) -> CliError | None:
    """What is to be said of Tasks that ended, or None if all succeeded: the first failed one, else a cancelled one."""
    for phase, code in (("Failed", Exit.FAILED), ("Cancelled", Exit.CANCELLED)):
        for task in tasks:
            if columns.phase(task) == phase:
                meta = task["metadata"]
                hint = f"see: taskflow describe {meta['name']} -n {meta['namespace']}"
                return CliError(f"Task {meta['name']!r} {phase.lower()}", _why(task), hint=hint, code=code)
    return None


def _why(task: Object) -> str:
    status = columns.status_of(task)
    error: dict[str, Any] = status.get("lastError") or {}
    if columns.phase(task) == "Failed" and error.get("type"):
        return safe(f"{status.get('reason')}: {error['type']}: {error.get('message', '')}")
    return safe(": ".join(str(status[field]) for field in ("reason", "message") if status.get(field)))


def line(task: Object) -> str:
    """A Task in one line, for `--watch`."""
    status = columns.status_of(task)
    parts = [columns.phase(task)]
    if attempt := status.get("attempt"):
        parts.append(f"attempt {attempt}")
    parts += [text for text in (columns.progress(task), (status.get("progress") or {}).get("message", "")) if text]
    if columns.phase(task) in {"Pending", "Queued", "Suspended"}:
        parts += [str(status[field]) for field in ("reason", "message") if status.get(field)]
    return safe(f"{task['metadata']['name']}: {', '.join(parts)}")
