"""The logs of all Tasks of a namespace, as they come: each line behind the name of its Task."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus

from taskflow_cli.api.client import Rest
from taskflow_cli.api.logs import followed
from taskflow_cli.cluster.client import TASKS, Kube, WatchExpiredError
from taskflow_cli.errors import CliError
from taskflow_cli.output.text import safe
from taskflow_cli.tasks import columns

WATCH_SECONDS = 300
MOST = 20
"""Logs that are followed at the same time. Others wait for their turn, and lose nothing."""


class LogStream:
    """Follows the Tasks that are created or change while it runs.

    Args:
        kube: Says which Tasks there are.
        rest: Makes a client of the REST API; called once for each Task, in a thread of its own.
        show: Prints a line; called by one thread at a time.
    """

    def __init__(self, kube: Kube, rest: Callable[[], Rest], show: Callable[[str], None]) -> None:
        self._kube = kube
        self._rest = rest
        self._show = show
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(MOST)
        self._seen: set[str] = set()

    def run(self) -> None:
        """Follow until the watch is refused, or for ever.

        Raises:
            CliError: the API server refused, or is away.
        """
        version = self._kube.version(TASKS)
        while True:
            try:
                for kind, task in self._kube.watch(TASKS, "", version, WATCH_SECONDS):
                    version = task["metadata"]["resourceVersion"]
                    if kind != "DELETED" and task["metadata"]["uid"] not in self._seen:
                        self._seen.add(task["metadata"]["uid"])
                        # They end with the program: what is left of a log can be read again.
                        threading.Thread(target=self._follow, args=(task["metadata"]["name"],), daemon=True).start()
            except WatchExpiredError:
                version = self._kube.version(TASKS)

    def _follow(self, name: str) -> None:
        with self._turns:
            rest = self._rest()
            rest_of_line = b""
            try:
                for part in followed(rest, name, None, None, lambda _: None):
                    *lines, rest_of_line = (rest_of_line + part).split(b"\n")
                    self._say(name, *(line.decode(errors="replace") for line in lines))
                if rest_of_line:
                    self._say(name, rest_of_line.decode(errors="replace"))
                view = rest.read(rest.path("tasks", name), f"cannot read Task {name!r}")
            except CliError as error:
                # A Task may be deleted at any time.
                if error.status != HTTPStatus.NOT_FOUND:
                    self._say(name, f"error: {error}")
                return
            self._say(name, columns.outcome_of(view))

    def _say(self, name: str, *lines: str) -> None:
        with self._lock:
            for line in lines:
                self._show(f"{safe(name)} | {safe(line)}")
