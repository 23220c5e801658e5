"""Routes that stream the changes of one Task or of all Tasks of a namespace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from taskflow_api.http.access import may, may_on
from taskflow_api.http.label_selectors import LabelSelector, requirements
from taskflow_api.http.names import HANDLER, LABEL, TASK, Name, Namespace
from taskflow_api.http.openapi import PROBLEMS, problem
from taskflow_api.http.problems import FieldError, ProblemError
from taskflow_api.http.services import InServices, Services
from taskflow_api.live import sse
from taskflow_api.live.changes import Change, current
from taskflow_api.live.channel import Channel, Gone
from taskflow_api.live.streaming import InHub, OpenStream, StallLimitedResponse, still_allowed
from taskflow_core.domain import selectors
from taskflow_core.domain.phases import Phase
from taskflow_core.errors import NotFound
from taskflow_core.kube.client import tasks_path

CATCH_UP_SECONDS = 2.0
"""How long to wait for a restarted watch to report the end of a deleted Task."""
_EVENT_STREAM: dict[str, Any] = {
    "description": "Server-sent events `ready`, `current`, `task`, `reset` and `problem`.",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": (
                'id: 4711\nevent: task\ndata: {"type": "changed", "task": {"name": "report", "phase": "Running"}}\n\n'
            ),
        }
    },
}
router = APIRouter(tags=["live"], responses=PROBLEMS | problem(429))

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        max_length=32,
        description="`id` of the last received event. The stream continues after it.",
    ),
]


@router.get(
    "/v1/namespaces/{namespace}/events",
    operation_id="streamEvents",
    dependencies=[Depends(may("watch"))],
    summary="Stream the changes of a namespace's Tasks",
    response_class=Response,
    responses={200: _EVENT_STREAM},
)
async def stream_events(
    request: Request,
    services: InServices,
    namespace: Namespace,
    hub: InHub,
    stream: OpenStream,
    phase: Phase | None = None,
    queue: Annotated[str | None, Query(max_length=63, pattern=f"^{LABEL}$")] = None,
    handler: Annotated[str | None, Query(max_length=253, pattern=HANDLER)] = None,
    label_selector: LabelSelector = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Starts with `event: ready`, whose id is the start position: open the stream first, then list.

    `event: reset` means that changes since Last-Event-ID are no longer available: list again and reconnect with its id.
    """
    matches = _filter(phase, queue, handler, requirements(label_selector))
    channel = await stream.enter_async_context(hub.channel(namespace))
    listener = stream.enter_context(channel.listening())
    try:
        position = await channel.join(_position(last_event_id))
    except Gone:
        return _single_event(sse.reset(await channel.join(None)))
    subscription = sse.Subscription(
        channel, listener, matches, still_allowed(request, services, "watch", namespace), lambda: hub.closing
    )
    return _streamed(sse.events(subscription, position, sse.frame(position, "ready", "{}")))


@router.get(
    TASK + "/events",
    operation_id="streamTaskEvents",
    dependencies=[Depends(may_on("watch"))],
    summary="Stream the changes of one Task",
    response_class=Response,
    responses={
        200: _EVENT_STREAM,
        204: {"description": "The Task has ended, and the client has received its last event."},
    },
)
async def stream_task_events(
    request: Request,
    services: InServices,
    namespace: Namespace,
    name: Name,
    hub: InHub,
    stream: OpenStream,
    last_event_id: LastEventId = None,
) -> Response:
    """Without Last-Event-ID, starts with the current state. Ends with the Task; 204 then stops an EventSource."""
    channel = await stream.enter_async_context(hub.channel(namespace))
    listener = stream.enter_context(channel.listening(name))
    try:
        position = await channel.join(_position(last_event_id))
    except Gone:
        return _single_event(sse.reset(await channel.join(None)))
    first, sent = "", position
    body = await _live(services, namespace, name)
    if body is None:
        if last_event_id is None:
            raise NotFound(f"there is no live Task {name} in namespace {namespace}; its history may have one")
        # The Task was deleted, before or after that position.
        if not await _has_changes(channel, listener.woken, name, position):
            return Response(status_code=204)
    elif last_event_id is None or (int(body["metadata"]["resourceVersion"]) <= position and current(body).ended):
        now = current(body)
        if last_event_id is not None:
            return Response(status_code=204)
        sent = position = max(position, now.version)
        first = sse.frame(now.version, "task", now.data)
        if now.ended:
            return _single_event(first)
    subscription = sse.Subscription(
        channel,
        listener,
        lambda each: each.state.name == name and each.version > sent,
        still_allowed(request, services, "watch", namespace, name),
        lambda: hub.closing,
        until_ended=True,
    )
    return _streamed(sse.events(subscription, position, first))


async def _live(services: Services, namespace: str, name: str) -> dict[str, Any] | None:
    try:
        return await services.kube.request("GET", tasks_path(namespace, name))
    except NotFound:
        return None


async def _has_changes(channel: Channel, woken: asyncio.Event, name: str, position: int) -> bool:
    """Whether there are changes of the Task after the position. A restarted watch needs a moment to report them."""
    try:
        async with asyncio.timeout(CATCH_UP_SECONDS):
            while not any(each.state.name == name for each in channel.after(position)):
                woken.clear()
                await woken.wait()
    except TimeoutError:
        return False
    except Gone:
        return True
    return True


def _position(last_event_id: str | None) -> int | None:
    if last_event_id is None:
        return None
    if not (last_event_id.isascii() and last_event_id.isdecimal()):
        # Not an id of ours, so it is unknown which events the client has received.
        found = FieldError(location="header", pointer="/last-event-id", detail="expected the id of an event")
        raise ProblemError(422, "Last-Event-ID is not the id of an event", errors=[found])
    return int(last_event_id)


def _filter(
    phase: Phase | None, queue: str | None, handler: str | None, labels: tuple[selectors.Requirement, ...]
) -> Callable[[Change], bool]:
    def matches(each: Change) -> bool:
        state = each.state
        return (
            (phase is None or state.phase == phase)
            and (queue is None or state.queue == queue)
            and (handler is None or state.handler == handler)
            and all(requirement.matches(state.labels) for requirement in labels)
        )

    return matches


def _streamed(content: AsyncIterator[str]) -> Response:
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StallLimitedResponse(content, media_type="text/event-stream", headers=headers)


def _single_event(text: str) -> Response:
    async def once() -> AsyncIterator[str]:
        yield f"retry: {sse.RETRY_MS}\n\n{text}"

    return _streamed(once())
