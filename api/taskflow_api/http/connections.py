"""Connections of the server: how many there may be, and how long a client may take to send a request or to read.

uvicorn limits none of this. A request of which half has arrived would be kept for ever.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from taskflow_api.http.addresses import network
from taskflow_api.http.problems import CODES, MEDIA_TYPE, Problem
from taskflow_api.metrics import CONNECTIONS_CLOSED

TRAILING_SECONDS = 10.0
"""How long a client may go on sending a body, or not read the end of an answer, when its request was answered."""
BODY_BYTES = 16 * 1024
"""A body has to get on by as much in `body_seconds`, or end."""
MAX_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of one server."""

    total: int
    per_address: int
    head_seconds: float
    body_seconds: float
    write_seconds: float = 60.0
    trusted: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] = ()
    """Proxies, whose connections are those of many clients: only `total` limits them."""


@dataclass
class Connections:
    """The open connections of one server."""

    limits: ConnectionLimits
    by_address: Counter[str] = field(default_factory=Counter)
    waiting: dict[BoundedProtocol, None] = field(default_factory=dict)
    """Those without a request that has arrived, the oldest first."""

    def admit(self, address: str) -> str:
        """Count a new connection; or why it may not be, as the reason of the metric."""
        if self.by_address[address] >= self.limits.per_address and not self._is_trusted(address):
            return "address"
        if self.by_address.total() >= self.limits.total:
            if not self.waiting:
                return "total"
            # Who only waits gives way, so that half requests keep out neither callers nor the probes of the kubelet.
            next(iter(self.waiting)).end("displaced")
        self.by_address[address] += 1
        return ""

    def release(self, address: str) -> None:
        """The connection is gone."""
        self.by_address[address] -= 1
        if self.by_address[address] <= 0:
            del self.by_address[address]

    def _is_trusted(self, address: str) -> bool:
        try:
            found = ipaddress.ip_network(address)
        except ValueError:
            return False
        return any(each.overlaps(found) for each in self.limits.trusted)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits."""

    shared: Connections
    """Set by `bounded`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._address: str | None = None
        """None before it is counted and after."""
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._head_bytes = self._body_bytes = 0
        self._in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Count it, or refuse it."""
        super().connection_made(transport)
        address = network(self.client[0]) if self.client else ""
        if reason := self.shared.admit(address):
            self.end(reason, HTTPStatus.SERVICE_UNAVAILABLE)
            return
        self._address = address
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if self._address is not None:
            self.shared.release(self._address)
            self._address = None
        self.shared.waiting.pop(self, None)
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, and see to it that more arrives in time."""
        if self.transport.is_closing():
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self._in_body:
            return
        if not self._answering() and self._timer is None:
            # Not only when a message begins: the parser skips empty lines, which would keep the connection for ever.
            self._wait_for_head()
        if self._head_bytes > MAX_HEAD_BYTES:
            self.end("large_head", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The request begins, and its body if it has one."""
        self.shared.waiting.pop(self, None)
        self._disarm()
        self._in_body = True
        self._head_bytes = self._body_bytes = 0
        super().on_headers_complete()
        self._timer = self.loop.call_later(self.shared.limits.body_seconds, self._look_at_body)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has arrived as a whole."""
        self._in_body = False
        # What is left of this read belongs to the next request, and is counted by the next read.
        self._head_bytes = 0
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer was written."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()
        elif not self._answering() and not self._in_body:
            self.shared.waiting[self] = None

    def timeout_keep_alive_handler(self) -> None:
        """No further request came."""
        super().timeout_keep_alive_handler()
        self._abort_later()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.shared.limits.write_seconds, self.end, "slow_reader")

    def resume_writing(self) -> None:
        """It has read."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def end(self, reason: str, status: HTTPStatus | None = None) -> None:
        """Close the connection, at once unless there is something to say."""
        CONNECTIONS_CLOSED.labels(reason).inc()
        self.shared.waiting.pop(self, None)
        self._disarm()
        if status is None or (self._answering() and self.cycle.response_started):
            self.transport.abort()
            return
        self.transport.write(_answer(status))
        self.transport.close()
        self._abort_later()

    def _wait_for_head(self) -> None:
        self.shared.waiting[self] = None
        self._disarm()
        self._timer = self.loop.call_later(self.shared.limits.head_seconds, self._late_head)

    def _late_head(self) -> None:
        self._timer = None
        if self._answering():
            # A further request in advance; it waits for the end of this one.
            return
        self.end("slow_head", HTTPStatus.REQUEST_TIMEOUT if self._head_bytes else None)

    def _look_at_body(self) -> None:
        self._timer = None
        if not self._in_body:
            return
        if self.cycle.response_complete:
            self.end("slow_body")
        elif self._body_bytes >= BODY_BYTES or self.flow.read_paused or self.cycle.waiting_for_100_continue:
            # It gets on, or it is the application that has not asked for it yet.
            self._body_bytes = 0
            self._timer = self.loop.call_later(self.shared.limits.body_seconds, self._look_at_body)
        else:
            self.end("slow_body", HTTPStatus.REQUEST_TIMEOUT)

    def _answering(self) -> bool:
        # None before the first request, which uvicorn's annotation does not say.
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]

    def _abort_later(self) -> None:
        # `close` waits until what was written has been read.
        self.loop.call_later(TRAILING_SECONDS, self.transport.abort)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def bounded(limits: ConnectionLimits) -> type[BoundedProtocol]:
    """The protocol class of one server, whose connections share these limits."""
    return type("LimitedProtocol", (BoundedProtocol,), {"shared": Connections(limits)})


def _answer(status: HTTPStatus) -> bytes:
    """A problem, before there is a request that an application could answer."""
    code = CODES[status]
    problem = Problem(type=f"https://taskflow.dev/problems/{code}", title=status.phrase, status=status, code=code)
    body = problem.model_dump_json(by_alias=True, include={"type", "title", "status", "code"}).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\nRetry-After: 5\r\n\r\n"
    )
    return head.encode() + body
