"""Runs coroutines beside a loop, and reports what fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from taskflow_operator.runtime.supervisor import ConsecutiveErrors


class Background:
    """Keeps asyncio tasks alive until they end. An unexpected error is logged and counted; it stops nobody else.

    Args:
        errors: where errors are counted.
    """

    def __init__(self, errors: ConsecutiveErrors) -> None:
        self._errors = errors
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None], **fields: object) -> None:
        """Run it; `fields` identify it in the log."""
        task = asyncio.create_task(self._run(work, fields))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, work: Coroutine[None, None, None], fields: dict[str, object]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the object at fault is handled again at the next resync
            self._errors.record(error, **fields)
        else:
            self._errors.clear()
