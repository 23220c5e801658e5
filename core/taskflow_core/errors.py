"""The error tree, split by what the caller does next.

TaskflowError
├── Unavailable          a dependency does not answer now; wait and try again
├── NotFound             the thing asked for does not exist
├── Conflict             it exists already, or changed meanwhile
├── Forbidden            the caller may not do this
└── Invalid              the request can never succeed as it is
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is wrong with a request."""

    field: str
    """Path as Kubernetes writes it, e.g. `spec.inputs[0].key`; empty for the whole."""
    message: str


class TaskflowError(Exception):
    """Something went wrong that TaskFlow has a name for."""


class Dependency(StrEnum):
    """A server that TaskFlow needs."""

    REDIS = "redis"
    API_SERVER = "api-server"
    POSTGRES = "postgres"
    OBJECT_STORE = "object-store"
    CACHE = "cache"


class Unavailable(TaskflowError):  # noqa: N818 - named for the state, as its siblings are
    """Something does not answer now; the same call may succeed later.

    Args:
        message: what was asked and what happened.
        dependency: which server did not answer; None if it is none of ours, or a limit of this process.
    """

    def __init__(self, message: str = "", dependency: Dependency | None = None) -> None:
        super().__init__(message)
        self.dependency = dependency


class NotFound(TaskflowError):  # noqa: N818
    """The thing asked for does not exist."""


class Conflict(TaskflowError):  # noqa: N818
    """It exists already, or it changed since it was read."""


class Forbidden(TaskflowError):  # noqa: N818
    """The caller may not do this."""


class Invalid(TaskflowError):  # noqa: N818
    """The request can never succeed as it is."""

    def __init__(self, message: str = "", causes: Sequence[Cause] = ()) -> None:
        super().__init__(message)
        self.causes = tuple(causes)
        """What is wrong field by field, where the refusing side said so."""
