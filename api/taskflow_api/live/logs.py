"""Logs of attempts, ranged and followed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from taskflow_api.access import InServices, Namespace, TaskName, may_on
from taskflow_api.documented import PROBLEMS, problem
from taskflow_api.live import pieces
from taskflow_api.live.following import Progressing
from taskflow_api.live.sse import RECHECK_SECONDS
from taskflow_api.live.streams import Holding, Live, still_may
from taskflow_api.problems import ProblemError
from taskflow_api.services import Objects, Services
from taskflow_api.tasks.routes import ONE, find_task
from taskflow_api.tasks.views import TaskView
from taskflow_core.blobs.store import ObjectInfo
from taskflow_core.domain import naming
from taskflow_core.domain.phases import Phase
from taskflow_core.errors import NotFound, TaskflowError
from taskflow_core.telemetry.logs import get_logger

POLL_SECONDS = 1.0
"""Between two looks for more of a followed log; workers store it twice a second."""
MAX_TAIL_LINES = 10_000
_PAGE = 1000
_TEXT = "text/plain; charset=utf-8"
_CONTENT = {"text/plain": {"schema": {"type": "string"}, "example": "2026-03-01T12:00:00.000Z stdout hello\n"}}
_log = get_logger(__name__)
router = APIRouter(tags=["live"], responses=PROBLEMS | problem(429))


@router.get(
    ONE + "/logs",
    operation_id="getLogs",
    dependencies=[Depends(may_on("get"))],
    summary="What an attempt printed and logged",
    response_class=Response,
    responses={
        200: {"description": "The log; followed, in chunks until the Task ends.", "content": _CONTENT},
        206: {"description": "The part that Range asks for.", "content": _CONTENT},
        **problem(416),
    },
)
async def get_logs(
    request: Request,
    namespace: Namespace,
    name: TaskName,
    services: InServices,
    holding: Holding,
    attempt: Annotated[
        int | None, Query(ge=1, le=1_000_000, description="Without it the latest that said anything, of the last two.")
    ] = None,
    follow: Annotated[bool, Query(description="Send what is said from now on too, retries included.")] = False,
    tail: Annotated[int | None, Query(ge=0, le=MAX_TAIL_LINES, description="Only so many of the last lines.")] = None,
    wanted_range: Annotated[
        str | None,
        Header(alias="Range", max_length=128, description="`bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-N`."),
    ] = None,
) -> Response:
    """Lines `TIME TAG TEXT`, as far as the worker has stored them (twice a second)."""
    if wanted_range is not None and (follow or tail is not None):
        raise ProblemError(422, "expected either Range, or follow and tail")
    _, view = await find_task(services, namespace, name)
    shown = attempt or view.attempt
    if shown > view.attempt:
        raise NotFound(f"Task {name} has had {view.attempt} attempts, none with the number {shown}")
    chunks = await _chunks(services.objects, _prefix(view, shown))
    if follow and view.live and not Phase(view.phase).terminal and shown == view.attempt:
        start = await _tail(services.objects, chunks, tail)
        allowed = still_may(request, services, "get", namespace, name)
        content = await _followed(services, holding, view, shown, start, allowed, to_the_end=attempt is None)
        return Live(content, media_type=_TEXT, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
    if not chunks and attempt is None and shown > 1:
        # A retry that waits, or has just begun, has said nothing yet; one asks for what went wrong before.
        shown -= 1
        chunks = await _chunks(services.objects, _prefix(view, shown))
    if not chunks:
        raise NotFound(
            f"there is no log of attempt {shown} of Task {name}: it has not said anything yet, or it was deleted"
        )
    return await _stored(services.objects, chunks, tail, wanted_range, {"Taskflow-Attempt": str(shown)})


async def _stored(
    objects: Objects, chunks: list[ObjectInfo], tail: int | None, wanted_range: str | None, headers: dict[str, str]
) -> Response:
    total = pieces.size(chunks)
    first, end, status = await _tail(objects, chunks, tail), total, 200
    headers |= {"Accept-Ranges": "bytes"}
    try:
        if (found := pieces.byte_range(wanted_range, total)) is not None:
            (first, end), status = found, 206
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{total}"
    except pieces.Unsatisfiable:
        detail = f"the log has {total} bytes"
        raise ProblemError(416, detail, content_range=f"bytes */{total}", accept_ranges="bytes") from None
    headers["Content-Length"] = str(end - first)
    return Live(_read(objects, chunks, first, end), status, headers, media_type=_TEXT)


async def _followed(
    services: Services,
    holding: AsyncExitStack,
    view: TaskView,
    attempt: int,
    start: int,
    allowed: Callable[[], Awaitable[bool]],
    *,
    to_the_end: bool,
) -> AsyncIterator[bytes]:
    channel = await holding.enter_async_context(services.hub.channel(view.namespace))
    listener = holding.enter_context(channel.listening(view.name))
    await channel.join(None)
    progressing = Progressing(services, channel, view)

    async def content(attempt: int, place: int) -> AsyncIterator[bytes]:
        checked = time.monotonic()
        while not services.hub.closing:
            try:
                # Before the look at the store: an end is told after all of the log is stored.
                now = await progressing.look()
                chunks = await _chunks(services.objects, _prefix(view, attempt))
                async for part in _read(services.objects, chunks, place, pieces.size(chunks)):
                    yield part
                    place += len(part)
            except TaskflowError as error:
                _log.warning("log_not_read", task=view.name, namespace=view.namespace, cause=str(error))
                await asyncio.sleep(POLL_SECONDS)
                continue
            if now.attempt > attempt and to_the_end:
                attempt, place = attempt + 1, 0
                continue
            if now.ended or now.attempt > attempt:
                return
            if time.monotonic() - checked >= RECHECK_SECONDS:
                checked = time.monotonic()
                if not await allowed():
                    return
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await listener.woken.wait()
            listener.woken.clear()

    return content(attempt, start)


async def _read(objects: Objects, chunks: list[ObjectInfo], first: int, end: int) -> AsyncIterator[bytes]:
    for piece in pieces.pieces(chunks, first, end):
        yield await asyncio.to_thread(objects.get_range, piece.key, piece.start, piece.length)


async def _tail(objects: Objects, chunks: list[ObjectInfo], lines: int | None) -> int:
    """Where the last lines begin; chunks end with their lines, so each may be looked at for itself."""
    if lines is None:
        return 0
    place = pieces.size(chunks)
    for chunk in reversed(chunks):
        if not lines:
            break
        content = await asyncio.to_thread(objects.get_range, chunk.key, 0, chunk.size)
        start, found = pieces.tail_start(content, lines)
        place -= chunk.size - start
        lines -= found
    return place


async def _chunks(objects: Objects, prefix: str) -> list[ObjectInfo]:
    found: list[ObjectInfo] = []
    while True:
        page = await asyncio.to_thread(objects.list, prefix, start_after=found[-1].key if found else "", limit=_PAGE)
        found += page
        if len(page) < _PAGE:
            return found


def _prefix(view: TaskView, attempt: int) -> str:
    return naming.log_prefix(view.namespace, view.uid, attempt)
