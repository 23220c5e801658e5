"""The handlers of a worker by name: `@handler` registers a function, `discover` imports the modules that do so."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Any, ParamSpec, TypeVar

from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Invalid
from taskflow_worker.sdk.binding import FunctionHandler
from taskflow_worker.sdk.failures import AttemptFailed
from taskflow_worker.sdk.runnable import Runnable

P = ParamSpec("P")
R = TypeVar("R")
ENTRY_POINT_GROUP = "taskflow.handlers"


class Registry:
    """Handlers by name."""

    def __init__(self) -> None:
        self._handlers: dict[str, Runnable] = {}

    def add(self, name: str, function: Callable[..., Any], *, batch: bool = False) -> None:
        """Register a function.

        Raises:
            Invalid: another function has this name.
        """
        self.register(FunctionHandler(name, function, batch=batch))

    def register(self, new: Runnable) -> None:
        """Register a handler of any kind.

        Raises:
            Invalid: another handler has this name.
        """
        existing = self._handlers.setdefault(new.name, new)
        if existing != new:
            raise Invalid(
                f"two handlers are named {new.name!r}: {existing.location} and {new.location}; rename one of them"
            )

    def find(self, name: str) -> Runnable:
        """The handler with this name.

        Raises:
            AttemptFailed: UnknownHandler. The message lists the known handlers.
        """
        try:
            return self._handlers[name]
        except KeyError:
            known = ", ".join(sorted(self._handlers)) or "none"
            raise AttemptFailed(
                Reason.UNKNOWN_HANDLER,
                f"no handler {name!r} in this worker; it has: {known}. Deploy a worker that registers it, or correct "
                "spec.handler.",
            ) from None

    def check(self) -> None:
        """Check that arguments can be bound to each function. Call it when all modules have been imported.

        Raises:
            Invalid: a type hint cannot be evaluated. The message names the handler, the parameter and the cause.
        """
        for each in self._handlers.values():
            if isinstance(each, FunctionHandler):
                each.check()

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._handlers))


REGISTRY = Registry()
"""The handlers of this process, which `@handler` registers."""


def handler(name: str, *, batch: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a function under the name that Tasks use. The function itself is returned unchanged.

    Args:
        name: dots, letters and digits; unique in the worker.
        batch: in an array, pass a list of items. The handler returns None or a list with one result per item.

    Raises:
        Invalid: another function has this name.
    """

    def register(function: Callable[P, R]) -> Callable[P, R]:
        REGISTRY.add(name, function, batch=batch)
        return function

    return register


def discover(modules: Iterable[str]) -> None:
    """Import the modules and all installed entry points of group `taskflow.handlers`, which register their handlers.

    Raises:
        Invalid: a module cannot be imported, or a type hint of a handler cannot be evaluated. The message names it and
            the cause.
    """
    names = {
        entry.value: f"entry point {entry.name} ({entry.value})" for entry in entry_points(group=ENTRY_POINT_GROUP)
    }
    names |= {module: f"module {module}" for module in modules}
    for module, described in names.items():
        try:
            importlib.import_module(module)
        except Exception as error:
            raise Invalid(f"handlers of {described} cannot be imported: {type(error).__name__}: {error}") from error
    REGISTRY.check()
