"""Sends calls over HTTP: retries, pages, event streams and logs, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2

from taskflow_client import tasks
from taskflow_client.calls import Answer, Call, backoff, result_of, retry_delay
from taskflow_client.errors import NoAnswerError, error_of
from taskflow_client.models import Event, TaskDetail
from taskflow_client.sse import Reader

T = TypeVar("T")
Token = str | Path | Callable[[], str]
"""A token, a file with it (such as a projected ServiceAccount token), or a function. It is read for each request."""
TIMEOUT_SECONDS = 30.0
STREAM_TIMEOUT_SECONDS = 60.0
"""The read timeout of streams, on which the server sends something every 15 s."""
NO_CONTENT = 204


class _Base:
    def __init__(self, url: str, token: Token, retries: int) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._retries = retries

    def _request(self, call: Call[Any], **headers: str) -> dict[str, Any]:
        token = self._token
        if isinstance(token, Path):
            token = token.read_text()
        elif not isinstance(token, str):
            token = token()
        return {
            "method": call.method,
            "url": self._url + call.path,
            "params": dict(call.params),
            "headers": {"Authorization": f"Bearer {token.strip()}", **call.headers, **headers},
            "json": call.body,
        }

    def _delay(self, call: Call[Any], answer: Answer | NoAnswerError, attempt: int) -> float | None:
        return retry_delay(call, answer if isinstance(answer, Answer) else None, attempt, self._retries)


def _answer(response: httpx2.Response) -> Answer:
    return Answer(
        response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content
    )


def _checked(response: httpx2.Response) -> Answer:
    """The answer of a response whose body was read; raises its error."""
    answer = _answer(response)
    if response.is_error:
        raise error_of(answer.status, answer.headers, answer.body)
    return answer


def _no_answer(error: httpx2.TransportError) -> NoAnswerError:
    return NoAnswerError(str(error) or type(error).__name__)


def _result(call: Call[T], answer: Answer | NoAnswerError) -> T:
    if isinstance(answer, NoAnswerError):
        raise answer
    return result_of(call, answer)


class Client(_Base):
    """Sends calls. Safe to share between threads.

    Args:
        url: The URL of the API.
        token: Authenticates the caller.
        retries: How often an idempotent call is retried if the server does not answer or asks for it.
        timeout: Seconds for each phase of a request: to connect, to send, and until the next bytes of the answer.
        verify: False or an `ssl.SSLContext`, as in httpx2.
    """

    def __init__(
        self, url: str, token: Token, *, retries: int = 4, timeout: float = TIMEOUT_SECONDS, verify: Any = True
    ) -> None:
        super().__init__(url, token, retries)
        self._http = httpx2.Client(timeout=timeout, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """The call's result.

        Raises:
            TaskflowError: the server returns an error, or does not answer (`NoAnswerError`).
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                answer: Answer | NoAnswerError = _answer(self._http.request(**self._request(call)))
            except httpx2.TransportError as error:
                answer = _no_answer(error)
            if (delay := self._delay(call, answer, attempt)) is None:
                return _result(call, answer)
            time.sleep(delay)

    def pages(self, call: Call[T]) -> Iterator[T]:
        """The page of this call and all following pages."""
        following: Call[T] | None = call
        while following is not None:
            page = self.send(following)
            yield page
            following = following.following(page)

    def events(self, call: Call[None], last_event_id: str = "") -> Iterator[Event]:
        """Changes as they happen, after that event. Reconnects after a failure. The events of a Task end with it.

        Raises:
            ResetError: some changes are no longer available.
            TaskflowError: the server returns an error.
        """
        reader, attempt = Reader(), 0
        reader.last_event_id = last_event_id
        while True:
            headers = {"Last-Event-ID": reader.last_event_id} if reader.last_event_id else {}
            try:
                with self._streamed(call, **headers) as response:
                    if response.status_code == NO_CONTENT:
                        return
                    for line in response.iter_lines():
                        attempt = 0
                        if (event := reader.line(line)) is not None:
                            yield event
            except httpx2.TransportError as error:
                if attempt >= self._retries:
                    raise _no_answer(error) from error
            attempt += 1
            time.sleep(backoff(attempt))

    def lines(self, call: Call[None]) -> Iterator[str]:
        """The lines of a log as they arrive."""
        with self._streamed(call) as response:
            yield from response.iter_lines()

    @contextmanager
    def _streamed(self, call: Call[Any], **headers: str) -> Iterator[httpx2.Response]:
        with self._http.stream(**self._request(call, **headers), timeout=STREAM_TIMEOUT_SECONDS) as response:
            if response.is_error:
                response.read()
                _checked(response)
            yield response

    def wait(self, namespace: str, name: str) -> TaskDetail:
        """Wait until the Task has finished, without a time limit, and return it."""
        for event in self.events(tasks.events(namespace, name)):
            if event.ended:
                break
        found = self.send(tasks.get(namespace, name))
        assert found is not None  # noqa: S101 - without If-None-Match there is no 304
        return found

    def put(self, url: str, content: bytes, headers: Mapping[str, str] | None = None) -> str:
        """Upload to a link, without the token; returns the ETag."""
        return _checked(self._http.put(url, content=content, headers=dict(headers or {}))).headers.get("etag", "")

    def fetch(self, url: str) -> bytes:
        """Download from a link, without the token."""
        return _checked(self._http.get(url)).body


class AsyncClient(_Base):
    """`Client` for asyncio."""

    def __init__(
        self, url: str, token: Token, *, retries: int = 4, timeout: float = TIMEOUT_SECONDS, verify: Any = True
    ) -> None:
        super().__init__(url, token, retries)
        self._http = httpx2.AsyncClient(timeout=timeout, verify=verify)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """See `Client.send`."""
        attempt = 0
        while True:
            attempt += 1
            try:
                answer: Answer | NoAnswerError = _answer(await self._http.request(**self._request(call)))
            except httpx2.TransportError as error:
                answer = _no_answer(error)
            if (delay := self._delay(call, answer, attempt)) is None:
                return _result(call, answer)
            await asyncio.sleep(delay)

    async def pages(self, call: Call[T]) -> AsyncIterator[T]:
        """See `Client.pages`."""
        following: Call[T] | None = call
        while following is not None:
            page = await self.send(following)
            yield page
            following = following.following(page)

    async def events(self, call: Call[None], last_event_id: str = "") -> AsyncIterator[Event]:
        """See `Client.events`."""
        reader, attempt = Reader(), 0
        reader.last_event_id = last_event_id
        while True:
            headers = {"Last-Event-ID": reader.last_event_id} if reader.last_event_id else {}
            try:
                async with self._streamed(call, **headers) as response:
                    if response.status_code == NO_CONTENT:
                        return
                    async for line in response.aiter_lines():
                        attempt = 0
                        if (event := reader.line(line)) is not None:
                            yield event
            except httpx2.TransportError as error:
                if attempt >= self._retries:
                    raise _no_answer(error) from error
            attempt += 1
            await asyncio.sleep(backoff(attempt))

    async def lines(self, call: Call[None]) -> AsyncIterator[str]:
        """See `Client.lines`."""
        async with self._streamed(call) as response:
            async for line in response.aiter_lines():
                yield line

    @asynccontextmanager
    async def _streamed(self, call: Call[Any], **headers: str) -> AsyncIterator[httpx2.Response]:
        async with self._http.stream(**self._request(call, **headers), timeout=STREAM_TIMEOUT_SECONDS) as response:
            if response.is_error:
                await response.aread()
                _checked(response)
            yield response

    async def wait(self, namespace: str, name: str) -> TaskDetail:
        """See `Client.wait`."""
        async for event in self.events(tasks.events(namespace, name)):
            if event.ended:
                break
        found = await self.send(tasks.get(namespace, name))
        assert found is not None  # noqa: S101 - without If-None-Match there is no 304
        return found

    async def put(self, url: str, content: bytes, headers: Mapping[str, str] | None = None) -> str:
        """See `Client.put`."""
        return _checked(await self._http.put(url, content=content, headers=dict(headers or {}))).headers.get("etag", "")

    async def fetch(self, url: str) -> bytes:
        """See `Client.fetch`."""
        return _checked(await self._http.get(url)).body
