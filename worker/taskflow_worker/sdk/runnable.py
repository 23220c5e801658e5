"""The port between an attempt and whatever it runs: a function, or a task of a Celery application."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from taskflow_worker.sdk.context import Context
from taskflow_worker.sdk.stop import Stop

ItemCall = Callable[[Any, Callable[[], Context]], Any]
"""Run a handler for one item. The context is built only when the handler takes one.

Raises AttemptFailed and whatever the handler raises.
"""


class Runnable(Protocol):
    """A handler that a Task may name."""

    name: str
    timeout_error: type[BaseException]
    """Raised inside the handler when the attempt times out."""
    batch: bool
    """In an array the handler takes a list of items instead of one item."""

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check the arguments of a Task, which are JSON. Raises AttemptFailed."""

    def call(self, values: Mapping[str, Any], context: Context, stop: Stop) -> Any:
        """Run the handler with the values that `bind` returned."""

    def for_items(self, args: Sequence[Any], kwargs: Mapping[str, Any], stop: Stop) -> ItemCall:
        """Prepare calls with these arguments and an item after the positional ones, as in `map`."""

    @property
    def location(self) -> str:
        """Where the handler is defined, for error messages."""
