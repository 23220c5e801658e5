"""Commands that follow something outlive a restart of the server."""

from __future__ import annotations

import time
from collections.abc import Callable

from taskflow_cli.errors import CliError, Exit

AWAY_SECONDS = 60
"""A server may be away for this long; after that whoever waits is told."""


class Outage:
    """Whether a server is away, and since when.

    Args:
        say: Tells the user once that it is away.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._since: float | None = None

    def over(self) -> None:
        """The server answered."""
        self._since = None

    def failed(self, error: CliError) -> None:
        """A request failed.

        Raises:
            CliError: the error, unless it means that the server has not been away for long.
        """
        if error.code is not Exit.UNREACHABLE:
            raise error
        if self._since is None:
            self._since = time.monotonic()
            self._say(f"{error}; waiting for it")
        elif time.monotonic() - self._since > AWAY_SECONDS:
            raise error
