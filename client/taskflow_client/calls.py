"""A request of the REST API as a value: how it is sent, what its answer becomes, and whether it may be sent again. Pure."""

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
COME_AGAIN = frozenset({429, 503})
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """By lower-case names."""
    body: bytes


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request. Functions of `taskflow_client.tasks` and its neighbours make them, `Client.send` sends them."""

    method: str
    path: str
    decode: Callable[[Answer], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    following: Callable[[T], Call[T] | None] = lambda _: None
    """The call for the next page, of a page."""

    @property
    def repeatable(self) -> bool:
        """Sending it twice does no more than sending it once."""
        return self.method in SAFE or "Idempotency-Key" in self.headers


def path(*parts: str) -> str:
    """Of a namespace's resources; each part is quoted."""
    namespace, *rest = (quote(part, safe="") for part in parts)
    return "/".join(("/v1/namespaces", namespace, *rest))


def query(**values: object) -> dict[str, str]:
    """Those that are given, by their names on the wire: `label_selector` is `labelSelector`."""
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
    """Reads an answer's JSON."""
    return lambda answer: model.model_validate_json(answer.body)


def nothing(_: Answer) -> None:
    """Of an answer without a body."""


def settle(call: Call[T], answer: Answer) -> T:
    """The result of the call.

    Raises:
        TaskflowError: the answer is a problem, as the class of its code.
    """
    if answer.status >= 400:  # noqa: PLR2004 - HTTP's own border
        raise error_of(answer.status, answer.headers, answer.body)
    return call.decode(answer)


def pause_before(call: Call[Any], answer: Answer | None, attempt: int, retries: int) -> float | None:
    """Seconds until the call is sent again; None if it is not to be.

    Args:
        call: only one that may be repeated is; but who is told 429 has done nothing yet, so anything may.
        answer: None: there was none.
        attempt: how often it was sent, from 1.
        retries: how often it may be sent again.
    """
    if attempt > retries or (answer is not None and answer.status not in COME_AGAIN):
        return None
    if not call.repeatable and (answer is None or answer.status != 429):  # noqa: PLR2004 - Too Many Requests
        return None
    told = answer.headers.get("retry-after", "") if answer is not None else ""
    return min(float(told), LONGEST_PAUSE) if told.isdecimal() else backoff(attempt)


def backoff(attempt: int) -> float:
    """Seconds to wait after that many failures in a row, from 1, when the server does not say."""
    return min(FIRST_PAUSE * 2.0 ** (attempt - 1), LONGEST_PAUSE)
