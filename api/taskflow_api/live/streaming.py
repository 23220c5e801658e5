"""What all streaming routes share: counting open streams, ending stalled ones, and checking access again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

from taskflow_api.http.kubernetes_auth import Caller
from taskflow_api.http.services import Services
from taskflow_api.live.hub import Hub
from taskflow_core.errors import Unavailable
from taskflow_core.telemetry.logs import get_logger

STALL_SECONDS = 60.0
"""How long a client may leave sent data unread."""
_log = get_logger(__name__)


class StallLimitedResponse(StreamingResponse):
    """A stream that ends if its client reads nothing for `STALL_SECONDS`."""

    async def stream_response(self, send: Send) -> None:
        """Send like Starlette, but with a timeout for each part."""

        async def bounded(message: Message) -> None:
            async with asyncio.timeout(STALL_SECONDS):
                await send(message)

        try:
            await super().stream_response(bounded)
        except TimeoutError:
            _log.info("stream_stalled", seconds=STALL_SECONDS)


async def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


InHub = Annotated[Hub, Depends(_hub)]


async def open_stream(request: Request, hub: InHub) -> AsyncIterator[AsyncExitStack]:
    """A dependency: counts the stream, and holds its resources until its last byte is sent."""
    caller: Caller = request.state.caller
    async with AsyncExitStack() as stack:
        stack.enter_context(hub.admitted(caller.username))
        yield stack


OpenStream = Annotated[AsyncExitStack, Depends(open_stream)]


def still_allowed(
    request: Request, services: Services, verb: str, namespace: str, name: str = ""
) -> Callable[[], Awaitable[bool]]:
    """A check that the token of an open stream is still valid and that its caller still has the permission."""
    caller: Caller = request.state.caller
    token = request.headers["authorization"].partition(" ")[2].strip()

    async def allowed() -> bool:
        try:
            known = await services.authenticate(token)
            return known == caller and await services.auth.allows(caller, verb, namespace, name)
        except Unavailable:
            # The API server has no changes to send either. The next check follows soon.
            return True

    return allowed
