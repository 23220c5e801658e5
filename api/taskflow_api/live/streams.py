"""Streams of changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

from taskflow_api.access import LABEL, InServices, Namespace, TaskName, may, may_on
from taskflow_api.auth import Caller
from taskflow_api.documented import PROBLEMS, problem
from taskflow_api.live import sse
from taskflow_api.live.changes import Change, current
from taskflow_api.live.channel import Channel, Gone
from taskflow_api.problems import FieldError, ProblemError
from taskflow_api.services import Services
from taskflow_api.tasks.filters import LabelSelector, requirements
from taskflow_api.tasks.routes import ONE
from taskflow_core.domain import selectors
from taskflow_core.domain.phases import Phase
from taskflow_core.errors import NotFound, Unavailable
from taskflow_core.kube.client import tasks_path
from taskflow_core.telemetry.logs import get_logger

STALL_SECONDS = 60.0
"""How long a client may take nothing of what it is sent."""
LATE_SECONDS = 2.0
_EVENT_STREAM: dict[str, Any] = {
    "description": "Server-sent events `ready`, `current`, `task`, `reset` and `problem`.",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'id: 4711\nevent: task\ndata: {"type": "changed", "task": {"name": "report", "phase": "Running"}}\n\n',
        }
    },
}
_log = get_logger(__name__)
router = APIRouter(tags=["live"], responses=PROBLEMS | problem(429))

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        max_length=32,
        description="`id` of the last event that was seen: what happened since comes first.",
    ),
]


class Live(StreamingResponse):
    """A stream that ends when its client takes nothing for a minute."""

    async def stream_response(self, send: Send) -> None:
        """As Starlette's, with a limit to each part."""

        async def bounded(message: Message) -> None:
            async with asyncio.timeout(STALL_SECONDS):
                await send(message)

        try:
            await super().stream_response(bounded)
        except TimeoutError:
            _log.info("stream_stalled", seconds=STALL_SECONDS)


async def open_stream(request: Request, services: InServices) -> AsyncIterator[AsyncExitStack]:
    """A dependency: what a stream holds until its last byte is sent."""
    caller: Caller = request.state.caller
    async with AsyncExitStack() as stack:
        stack.enter_context(services.hub.admitted(caller.username))
        yield stack


Holding = Annotated[AsyncExitStack, Depends(open_stream)]


def still_may(
    request: Request, services: Services, verb: str, namespace: str, name: str = ""
) -> Callable[[], Awaitable[bool]]:
    """Asks whether the token of an open stream is still good, for the same caller, and he still has the right to it."""
    caller: Caller = request.state.caller
    token = request.headers["authorization"].partition(" ")[2].strip()

    async def allowed() -> bool:
        try:
            known = await services.identity.tokens.authenticate(token)
            return known == caller and await services.gate.allows(caller, verb, namespace, name)
        except Unavailable:
            # Then nothing is told either; asked again soon.
            return True

    return allowed


@router.get(
    "/v1/namespaces/{namespace}/events",
    operation_id="streamEvents",
    dependencies=[Depends(may("watch"))],
    summary="Changes of a namespace's Tasks, as they happen",
    response_class=Response,
    responses={200: _EVENT_STREAM},
)
async def stream_events(
    request: Request,
    services: InServices,
    namespace: Namespace,
    holding: Holding,
    phase: Phase | None = None,
    queue: Annotated[str | None, Query(max_length=63, pattern=f"^{LABEL}$")] = None,
    handler: Annotated[str | None, Query(max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]*$")] = None,
    label_selector: LabelSelector = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Begins with `event: ready`, whose id is a place to come back to: open the stream, then list.

    `event: reset` means that what happened since Last-Event-ID is no longer known; list again, and come back with its id.
    """
    wanted = _filter(phase, queue, handler, requirements(label_selector))
    channel = await holding.enter_async_context(services.hub.channel(namespace))
    listener = holding.enter_context(channel.listening())
    try:
        place = await channel.join(_place(last_event_id))
    except Gone:
        return _sent(sse.reset(await channel.join(None)))
    following = sse.Following(
        channel, listener, wanted, still_may(request, services, "watch", namespace), lambda: services.hub.closing
    )
    return _stream(sse.events(following, place, sse.frame(place, "ready", "{}")))


@router.get(
    ONE + "/events",
    operation_id="streamTaskEvents",
    dependencies=[Depends(may_on("watch"))],
    summary="Changes of one Task, as they happen",
    response_class=Response,
    responses={200: _EVENT_STREAM, 204: {"description": "It has ended, and Last-Event-ID says that this is known."}},
)
async def stream_task_events(
    request: Request,
    services: InServices,
    namespace: Namespace,
    name: TaskName,
    holding: Holding,
    last_event_id: LastEventId = None,
) -> Response:
    """Without Last-Event-ID, first the Task as it is. Ends after the Task has; 204 then ends an EventSource's tries."""
    channel = await holding.enter_async_context(services.hub.channel(namespace))
    listener = holding.enter_context(channel.listening(name))
    try:
        place = await channel.join(_place(last_event_id))
    except Gone:
        return _sent(sse.reset(await channel.join(None)))
    first, told = "", place
    body = await _live(services, namespace, name)
    if body is None:
        if last_event_id is None:
            raise NotFound(f"there is no Task {name} in namespace {namespace}; what was is in its history")
        # It was deleted, before that place or after.
        if not await _happened(channel, listener.woken, name, place):
            return Response(status_code=204)
    elif last_event_id is None or (int(body["metadata"]["resourceVersion"]) <= place and current(body).ended):
        now = current(body)
        if last_event_id is not None:
            return Response(status_code=204)
        told = place = max(place, now.version)
        first = sse.frame(now.version, "task", now.data)
        if now.ended:
            return _sent(first)
    following = sse.Following(
        channel,
        listener,
        lambda each: each.state.name == name and each.version > told,
        still_may(request, services, "watch", namespace, name),
        lambda: services.hub.closing,
        until_ended=True,
    )
    return _stream(sse.events(following, place, first))


async def _live(services: Services, namespace: str, name: str) -> dict[str, Any] | None:
    try:
        return await services.kube.request("GET", tasks_path(namespace, name))
    except NotFound:
        return None


async def _happened(channel: Channel, woken: asyncio.Event, name: str, place: int) -> bool:
    """Whether something of the Task is told after the place; a watch that was begun further back tells it within moments."""
    try:
        async with asyncio.timeout(LATE_SECONDS):
            while not any(each.state.name == name for each in channel.after(place)):
                woken.clear()
                await woken.wait()
    except TimeoutError:
        return False
    except Gone:
        return True
    return True


def _place(last_event_id: str | None) -> int | None:
    if last_event_id is None:
        return None
    if not (last_event_id.isascii() and last_event_id.isdecimal()):
        # None of ours, so nothing is known of what its holder has seen.
        found = FieldError(location="header", pointer="/last-event-id", detail="expected the id of an event")
        raise ProblemError(422, "Last-Event-ID is no id of an event", errors=[found])
    return int(last_event_id)


def _filter(
    phase: Phase | None, queue: str | None, handler: str | None, labels: tuple[selectors.Requirement, ...]
) -> Callable[[Change], bool]:
    def wanted(each: Change) -> bool:
        state = each.state
        return (
            (phase is None or state.phase == phase)
            and (queue is None or state.queue == queue)
            and (handler is None or state.handler == handler)
            and all(requirement.matches(state.labels) for requirement in labels)
        )

    return wanted


def _stream(content: AsyncIterator[str]) -> Response:
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Live(content, media_type="text/event-stream", headers=headers)


def _sent(text: str) -> Response:
    async def once() -> AsyncIterator[str]:
        yield f"retry: {sse.RETRY_MS}\n\n{text}"

    return _stream(once())
