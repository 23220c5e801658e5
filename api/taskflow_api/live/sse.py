"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): a listener's stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from taskflow_api.live.changes import Change
from taskflow_api.live.channel import Channel, Gone, Listener
from taskflow_api.problems import ProblemError, problem_of

RETRY_MS = 3000
PING_SECONDS = 15.0
RECHECK_SECONDS = 30.0
LIFE_SECONDS = 3600.0
"""After which a stream ends and its client comes back, with the token that it has then."""


@dataclass(frozen=True)
class Following:
    """What one listener gets of a channel."""

    channel: Channel
    listener: Listener
    wanted: Callable[[Change], bool]
    """Filter."""
    allowed: Callable[[], Awaitable[bool]]
    """Whether the caller may still listen."""
    closing: Callable[[], bool]
    """Whether the server ends."""
    until_ended: bool = False
    """The stream ends with its Task."""


def frame(version: int, event: str, data: str) -> str:
    """One event; `data` is one line."""
    return f"id: {version}\nevent: {event}\ndata: {data}\n\n"


def reset(version: int) -> str:
    """What happened in between is lost: read everything, then go on from here."""
    return frame(version, "reset", json.dumps({"reason": "gone", "resourceVersion": str(version)}))


def refusal(version: int) -> str:
    """The stream ends because its caller is let in no longer: a problem (RFC 9457), as which the next request is refused."""
    found = problem_of({}, ProblemError(403, "the token has ended, or its caller lost the right", code="access-ended"))
    data = found.model_dump(mode="json", by_alias=True, include={"type", "title", "status", "code", "detail"})
    return frame(version, "problem", json.dumps(data))


async def events(
    following: Following, place: int, first: str, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[str]:
    """The stream of a listener, from a place on.

    An event carries its resourceVersion as its id, and so does each ping, so that a client which heard nothing for an hour
    still comes back with a place that is known.
    """
    yield f"retry: {RETRY_MS}\n\n{first}"
    channel, listener = following.channel, following.listener
    checked = began = clock()
    while not following.closing() and clock() - began < LIFE_SECONDS:
        listener.woken.clear()
        try:
            changes = [each for each in channel.after(place) if following.wanted(each)]
        except Gone:
            yield reset(channel.position or 0)
            return
        place = max(place, channel.position or 0)
        if changes:
            yield "".join(frame(each.version, "task", each.data) for each in changes)
            if following.until_ended and changes[-1].ended:
                return
        if clock() - checked >= RECHECK_SECONDS:
            checked = clock()
            if not await following.allowed():
                yield refusal(place)
                return
        try:
            async with asyncio.timeout(PING_SECONDS):
                await listener.woken.wait()
        except TimeoutError:
            yield f": ping\nid: {place}\n\n"
