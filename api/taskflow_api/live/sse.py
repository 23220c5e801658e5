"""Encodes the changes of a channel as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from taskflow_api.http.problems import ProblemError, problem_of
from taskflow_api.live.changes import Change
from taskflow_api.live.channel import Channel, Gone, Listener

RETRY_MS = 3000
PING_SECONDS = 15.0
RECHECK_SECONDS = 30.0
MAX_SECONDS = 3600.0
"""After this time a stream ends, and its client reconnects with its current token."""


@dataclass(frozen=True)
class Subscription:
    """Which changes of a channel one listener receives, and when its stream ends."""

    channel: Channel
    listener: Listener
    matches: Callable[[Change], bool]
    """Selects the changes to send."""
    allowed: Callable[[], Awaitable[bool]]
    """Whether the caller still has access."""
    closing: Callable[[], bool]
    """Whether the server is shutting down."""
    until_ended: bool = False
    """Whether the stream ends when its Task ends."""


def frame(version: int, event: str, data: str) -> str:
    """One event. `data` must be a single line."""
    return f"id: {version}\nevent: {event}\ndata: {data}\n\n"


def reset(version: int) -> str:
    """The event that tells a client to list again and continue from this version."""
    return frame(version, "reset", json.dumps({"reason": "gone", "resourceVersion": str(version)}))


def access_ended(version: int) -> str:
    """The last event of a stream whose caller has lost access: a problem (RFC 9457)."""
    found = problem_of(
        {}, ProblemError(403, "the token is no longer valid, or the caller lost the permission", code="access-ended")
    )
    data = found.model_dump(mode="json", by_alias=True, include={"type", "title", "status", "code", "detail"})
    return frame(version, "problem", json.dumps(data))


async def events(
    subscription: Subscription, position: int, first: str, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[str]:
    """The events of a subscription after a position.

    The id of each event is its resourceVersion. Pings carry an id too, so a client whose stream was quiet for an hour
    still reconnects from a position that is available.
    """
    yield f"retry: {RETRY_MS}\n\n{first}"
    channel, listener = subscription.channel, subscription.listener
    checked = began = clock()
    while not subscription.closing() and clock() - began < MAX_SECONDS:
        listener.woken.clear()
        try:
            changes = [each for each in channel.after(position) if subscription.matches(each)]
        except Gone:
            yield reset(channel.position or 0)
            return
        position = max(position, channel.position or 0)
        if changes:
            yield "".join(frame(each.version, "task", each.data) for each in changes)
            if subscription.until_ended and changes[-1].ended:
                return
        if clock() - checked >= RECHECK_SECONDS:
            checked = clock()
            if not await subscription.allowed():
                yield access_ended(position)
                return
        try:
            async with asyncio.timeout(PING_SECONDS):
                await listener.woken.wait()
        except TimeoutError:
            yield f": ping\nid: {position}\n\n"
