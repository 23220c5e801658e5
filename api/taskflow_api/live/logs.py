"""The route that serves the log of an attempt: whole, a range, the last lines, or followed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from taskflow_api.http.access import may_on
from taskflow_api.http.names import TASK, Name, Namespace
from taskflow_api.http.openapi import PROBLEMS, problem
from taskflow_api.http.problems import ProblemError
from taskflow_api.http.services import InServices, Services
from taskflow_api.live import log_ranges
from taskflow_api.live.channel import Listener
from taskflow_api.live.hub import Hub
from taskflow_api.live.sse import RECHECK_SECONDS
from taskflow_api.live.streaming import InHub, OpenStream, StallLimitedResponse, still_allowed
from taskflow_api.live.task_progress import TaskProgress
from taskflow_api.ports import Objects
from taskflow_api.tasks.lookup import find_task
from taskflow_api.tasks.views import TaskView
from taskflow_core.blobs.store import ObjectInfo
from taskflow_core.domain import naming
from taskflow_core.domain.phases import Phase
from taskflow_core.errors import NotFound, TaskflowError
from taskflow_core.telemetry.logs import get_logger

POLL_SECONDS = 1.0
"""How often a followed log is read again. Workers upload it twice a second."""
MAX_TAIL_LINES = 10_000
_PAGE = 1000
_TEXT = "text/plain; charset=utf-8"
_CONTENT = {"text/plain": {"schema": {"type": "string"}, "example": "2026-03-01T12:00:00.000Z stdout hello\n"}}
_SAVED = {"Content-Disposition": 'attachment; filename="log.txt"'}
"""A handler wrote what is in it: a browser saves it and shows none of it."""
_log = get_logger(__name__)
router = APIRouter(tags=["live"], responses=PROBLEMS | problem(429))


@router.get(
    TASK + "/logs",
    operation_id="getLogs",
    dependencies=[Depends(may_on("get"))],
    summary="Get the log of an attempt",
    response_class=Response,
    responses={
        200: {"description": "The log. With follow=true, a stream until the Task ends.", "content": _CONTENT},
        206: {"description": "The range of the log.", "content": _CONTENT},
        **problem(416),
    },
)
async def get_logs(
    request: Request,
    namespace: Namespace,
    name: Name,
    services: InServices,
    hub: InHub,
    stream: OpenStream,
    attempt: Annotated[
        int | None,
        Query(ge=1, le=1_000_000, description="By default the last attempt, or the one before if that has no log yet."),
    ] = None,
    follow: Annotated[
        bool, Query(description="Also send new lines until the Task ends, including those of retries.")
    ] = False,
    tail: Annotated[int | None, Query(ge=0, le=MAX_TAIL_LINES, description="Only the last N lines.")] = None,
    range_header: Annotated[
        str | None,
        Header(alias="Range", max_length=128, description="`bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-N`."),
    ] = None,
) -> Response:
    """Lines in the form `TIME TAG TEXT`. Workers upload them twice a second."""
    if range_header is not None and (follow or tail is not None):
        raise ProblemError(422, "Range cannot be combined with follow or tail")
    _, view = await find_task(services, namespace, name)
    shown = attempt or view.attempt
    if shown > view.attempt:
        raise NotFound(f"Task {name} has had {view.attempt} attempts; there is no attempt {shown}")
    chunks = await _chunks(services.objects, _prefix(view, shown))
    if follow and view.live and not Phase(view.phase).terminal and shown == view.attempt:
        start = await _tail(services.objects, chunks, tail)
        allowed = still_allowed(request, services, "get", namespace, name)
        followed = _Followed(services, hub, view, allowed, all_attempts=attempt is None)
        content = await followed.start(stream, shown, start)
        return StallLimitedResponse(
            content, media_type=_TEXT, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **_SAVED}
        )
    if not chunks and attempt is None and shown > 1:
        # The retry has not logged anything yet, so the log of the failed attempt is more useful.
        shown -= 1
        chunks = await _chunks(services.objects, _prefix(view, shown))
    if not chunks:
        raise NotFound(
            f"attempt {shown} of Task {name} has no log: it has not printed anything yet, or the log was deleted"
        )
    return await _stored(services.objects, chunks, tail, range_header, {"Taskflow-Attempt": str(shown), **_SAVED})


async def _stored(
    objects: Objects, chunks: list[ObjectInfo], tail: int | None, range_header: str | None, headers: dict[str, str]
) -> Response:
    total = log_ranges.size(chunks)
    first, end, status = await _tail(objects, chunks, tail), total, 200
    headers |= {"Accept-Ranges": "bytes"}
    try:
        if (found := log_ranges.byte_range(range_header, total)) is not None:
            (first, end), status = found, 206
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{total}"
    except log_ranges.Unsatisfiable:
        detail = f"the log has {total} bytes"
        raise ProblemError(416, detail, content_range=f"bytes */{total}", accept_ranges="bytes") from None
    headers["Content-Length"] = str(end - first)
    return StallLimitedResponse(_read(objects, chunks, first, end), status, headers, media_type=_TEXT)


@dataclass(frozen=True)
class _Followed:
    """A log that is sent while it grows."""

    services: Services
    hub: Hub
    view: TaskView
    allowed: Callable[[], Awaitable[bool]]
    all_attempts: bool
    """Whether to continue with the next attempt; otherwise the stream ends with this one."""

    async def start(self, stream: AsyncExitStack, attempt: int, offset: int) -> AsyncIterator[bytes]:
        """Join the channel of the namespace; returns the content from this offset on."""
        channel = await stream.enter_async_context(self.hub.channel(self.view.namespace))
        listener = stream.enter_context(channel.listening(self.view.name))
        await channel.join(None)
        return self._content(TaskProgress(self.services, channel, self.view), listener, attempt, offset)

    async def _content(
        self, progress: TaskProgress, listener: Listener, attempt: int, offset: int
    ) -> AsyncIterator[bytes]:
        objects, view = self.services.objects, self.view
        checked = time.monotonic()
        while not self.hub.closing:
            try:
                # Before the log is read: a worker reports the end of an attempt after it has uploaded the whole log.
                now = await progress.current()
                chunks = await _chunks(objects, _prefix(view, attempt))
                async for part in _read(objects, chunks, offset, log_ranges.size(chunks)):
                    yield part
                    offset += len(part)
            except TaskflowError as error:
                _log.warning("log_not_read", task=view.name, namespace=view.namespace, cause=str(error))
                await asyncio.sleep(POLL_SECONDS)
                continue
            if now.attempt > attempt and self.all_attempts:
                attempt, offset = attempt + 1, 0
                continue
            if now.ended or now.attempt > attempt:
                return
            if time.monotonic() - checked >= RECHECK_SECONDS:
                checked = time.monotonic()
                if not await self.allowed():
                    return
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await listener.woken.wait()
            listener.woken.clear()


async def _read(objects: Objects, chunks: list[ObjectInfo], first: int, end: int) -> AsyncIterator[bytes]:
    for piece in log_ranges.pieces(chunks, first, end):
        yield await asyncio.to_thread(objects.get_range, piece.key, piece.start, piece.length)


async def _tail(objects: Objects, chunks: list[ObjectInfo], lines: int | None) -> int:
    """The offset of the last lines. No line spans two chunks, so each chunk can be searched on its own."""
    if lines is None:
        return 0
    offset = log_ranges.size(chunks)
    for chunk in reversed(chunks):
        if not lines:
            break
        content = await asyncio.to_thread(objects.get_range, chunk.key, 0, chunk.size)
        start, found = log_ranges.tail_start(content, lines)
        offset -= chunk.size - start
        lines -= found
    return offset


async def _chunks(objects: Objects, prefix: str) -> list[ObjectInfo]:
    found: list[ObjectInfo] = []
    while True:
        page = await asyncio.to_thread(objects.list, prefix, start_after=found[-1].key if found else "", limit=_PAGE)
        found += page
        if len(page) < _PAGE:
            return found


def _prefix(view: TaskView, attempt: int) -> str:
    return naming.log_prefix(view.namespace, view.uid, attempt)
