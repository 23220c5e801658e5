"""Some namespaces instead of the whole cluster: a list of each, and a watch of each as if it were one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from taskflow_core.errors import Forbidden, TaskflowError
from taskflow_core.telemetry.logs import get_logger

_log = get_logger(__name__)
Batch = Sequence[dict[str, Any]]
_NAMESPACES = "/namespaces/"


def scoped(path: str, namespaces: Sequence[str]) -> dict[str, str]:
    """The paths by which a resource is read, by namespace; one for the whole cluster, by "", unless some namespaces are
    all there is.

    Args:
        path: of the resource in the whole cluster, or in one namespace, which stays as it is.
        namespaces: those that lists and watches of the whole cluster are about; none is all.
    """
    if not namespaces or _NAMESPACES in path:
        return {"": path}
    group, _, plural = path.rpartition("/")
    return {namespace: f"{group}{_NAMESPACES}{namespace}/{plural}" for namespace in namespaces}


async def merged(watches: Mapping[str, AsyncGenerator[Batch]], version: str) -> AsyncGenerator[Batch]:
    """What the watches of one resource in several namespaces bring, all begun at that version. Ends as soon as one of
    them does.

    The last event of a batch is a bookmark from which all of them may go on: the version that the slowest has reached.
    Versions of one resource are numbers that can be compared, whatever its namespace (KEP-5504); a watch in which
    nothing happens gets on by the server's bookmarks, each minute. What is after the slowest comes again after a new
    beginning.

    A namespace that is refused, as one is that was deleted with its Roles, is left out until then.

    Raises:
        Forbidden: every namespace is refused.
        TaskflowError: anything else that one of them raised.
    """
    reached = dict.fromkeys(watches, version)
    arrived: asyncio.Queue[tuple[str, Batch | TaskflowError | None]] = asyncio.Queue(maxsize=len(watches))

    async def follow(namespace: str, watch: AsyncGenerator[Batch]) -> None:
        end: TaskflowError | None = None
        try:
            async with aclosing(watch):
                async for batch in watch:
                    await arrived.put((namespace, batch))
        except TaskflowError as error:
            end = error
        await arrived.put((namespace, end))

    followers = [asyncio.create_task(follow(*each)) for each in watches.items()]
    try:
        while True:
            namespace, found = await arrived.get()
            if found is None:
                return
            if isinstance(found, TaskflowError):
                del reached[namespace]
                if not isinstance(found, Forbidden) or not reached:
                    raise found
                refused(namespace, found)
            elif found:
                reached[namespace] = found[-1]["object"]["metadata"]["resourceVersion"]
                slowest = min(reached.values(), key=int)
                yield [*found, {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": slowest}}}]
            else:
                yield found
    finally:
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)


def refused(namespace: str, error: Forbidden) -> None:
    """Say that a namespace is left out."""
    _log.warning("namespace_left_out", namespace=namespace, error=str(error))
