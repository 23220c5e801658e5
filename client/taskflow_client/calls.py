"""Requests to the REST API as values: how to send one, how to decode its answer, and when to retry it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from taskflow_client.errors import error_of

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
SAFE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
RETRY_STATUSES = frozenset({429, 503})
MIN_BACKOFF, MAX_BACKOFF = 0.2, 30.0


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    """Headers by lower-case name."""
    body: bytes


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request. The functions of `taskflow_client.tasks` and similar modules build it, `Client.send` sends it."""

    method: str
    path: str
    decode: Callable[[Answer], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    following: Callable[[T], Call[T] | None] = lambda _: None
    """Returns the call for the next page, given a page."""

    @property
    def repeatable(self) -> bool:
        """Whether the request is idempotent."""
        return self.method in SAFE or "Idempotency-Key" in self.headers


def path(*parts: str) -> str:
    """The path of a namespace's resource. Each part is quoted."""
    namespace, *rest = (quote(part, safe="") for part in parts)
    return "/".join(("/v1/namespaces", namespace, *rest))


def query(**values: object) -> dict[str, str]:
    """Query parameters without None, with their names in camelCase: `label_selector` becomes `labelSelector`."""
    found = {}
    for name, value in values.items():
        if value is not None:
            first, *others = name.split("_")
            found[first + "".join(map(str.capitalize, others))] = _text(value)
    return found


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def as_model(model: type[Model]) -> Callable[[Answer], Model]:
    """A decoder for answers with a JSON body."""
    return lambda answer: model.model_validate_json(answer.body)


def nothing(_: Answer) -> None:
    """The decoder for answers without a body."""


def result_of(call: Call[T], answer: Answer) -> T:
    """The result of the call.

    Raises:
        TaskflowError: the answer is a problem; the class depends on its status.
    """
    if answer.status >= 400:  # noqa: PLR2004 - 4xx and 5xx are errors
        raise error_of(answer.status, answer.headers, answer.body)
    return call.decode(answer)


def retry_delay(call: Call[Any], answer: Answer | None, attempt: int, retries: int) -> float | None:
    """Seconds until the call is sent again; None if it is not retried.

    Args:
        call: Must be idempotent, except after 429, when the server has done nothing.
        answer: None if there was no answer.
        attempt: The number of this attempt, from 1.
        retries: The maximum number of retries.
    """
    if attempt > retries or (answer is not None and answer.status not in RETRY_STATUSES):
        return None
    if not call.repeatable and (answer is None or answer.status != 429):  # noqa: PLR2004 - Too Many Requests
        return None
    retry_after = answer.headers.get("retry-after", "") if answer is not None else ""
    return min(float(retry_after), MAX_BACKOFF) if retry_after.isdecimal() else backoff(attempt)


def backoff(attempt: int) -> float:
    """Seconds to wait after this number of consecutive failures, from 1, if the server does not say."""
    return min(MIN_BACKOFF * 2.0 ** (attempt - 1), MAX_BACKOFF)
