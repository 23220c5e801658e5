"""The worker's own log, apart from the logging that handlers configure: `dictConfig` disables what it does not name."""

from __future__ import annotations

import logging
from collections.abc import Collection

OWN = ("taskflow_worker", "taskflow_core", "celery.app.trace", "celery.worker")
"""Loggers of the worker itself, with all below them. Their records are not in the logs of attempts."""

ATTEMPTS = logging.Manager(logging.RootLogger(logging.DEBUG))
"""Has the loggers of TaskFlow's own entries in the logs of attempts. The process's configuration does not reach what
belongs to another manager than its own."""


def set_apart() -> None:
    """Give the worker's own loggers the handlers that the root logger has now. Call it before handlers are imported."""
    root = logging.getLogger()
    for name in OWN:
        own = logging.getLogger(name)
        own.handlers[:] = root.handlers
        own.propagate = False
        own.setLevel(root.level)
    ATTEMPTS.root.handlers[:] = root.handlers


def disabled() -> set[str]:
    """Names of the loggers that are disabled."""
    return {name for name, logger in _loggers() if logger.disabled}


def enable(stay_disabled: Collection[str] | None = None) -> None:
    """Enable loggers again, after code that may have disabled all loggers of the process.

    Args:
        stay_disabled: which others remain disabled; None leaves all others as they are.
    """
    for name, logger in _loggers():
        if is_own(name) or (stay_disabled is not None and name not in stay_disabled):
            logger.disabled = False


def _loggers() -> list[tuple[str, logging.Logger]]:
    found = list(logging.root.manager.loggerDict.items())
    return [(name, logger) for name, logger in found if isinstance(logger, logging.Logger)]


def is_own(name: str) -> bool:
    """Whether a logger is one of the worker itself."""
    return any(name == own or name.startswith(f"{own}.") for own in OWN)
