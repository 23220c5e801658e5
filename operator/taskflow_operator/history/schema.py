"""Makes the schema of the history again when the database has lost it, such as one without a volume with its pod."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from taskflow_core.errors import TaskflowError
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health

log = get_logger(__name__)
CHECK_SECONDS = 5.0


class SchemaKeeper:
    """Compares the revision of the schema with the one that was there before.

    Args:
        revision: of the schema; None if there is none. Raises `Unavailable`.
        ensure: makes it, unless it is new enough; blocks. Raises as `ensure_schema`.
        made: called when a schema was made where there was none, so that there is no history either.
    """

    def __init__(
        self, revision: Callable[[], Awaitable[str | None]], ensure: Callable[[], object], made: Callable[[], object]
    ) -> None:
        self._revision = revision
        self._ensure = ensure
        self._made = made
        self._usable: str | None = None

    async def run(self) -> None:
        """Check at intervals, until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(CHECK_SECONDS)

    async def check(self) -> None:
        """Make the schema if it is not the one that was usable before."""
        try:
            found = await self._revision()
            if found is not None and found == self._usable:
                return
            await asyncio.to_thread(self._ensure)
            self._usable = await self._revision()
        except TaskflowError as error:
            dependency_health.failed(error)
            return
        if found is None:
            log.warning("schema_made", revision=self._usable)
            self._made()
