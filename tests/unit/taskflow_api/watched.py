"""An in-memory API server that keeps changes, and a client of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI

from taskflow_core.errors import Conflict, NotFound, Unavailable
from tests.unit.taskflow_api.fakes import UID, FakeKube

PATH = "/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks"


def stored(name: str, version: int, phase: str = "Running", **fields: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "uid": fields.get("uid", UID),
            "namespace": "team-a",
            "name": name,
            "resourceVersion": str(version),
            "creationTimestamp": "2026-09-20T12:00:00Z",
            "labels": fields.get("labels", {}),
        },
        "spec": {"handler": "a.b", "queue": fields.get("queue", "default")},
        "status": {"phase": phase, "attempt": fields.get("attempt", 1)},
    }


class WatchedKube(FakeKube):
    """Its resourceVersion counts its changes. Compacted changes are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.version = 100
        self.compacted = 100
        self.past: list[dict[str, Any]] = []
        self.watches: list[int] = []
        self.away = False
        self._changed = asyncio.Condition()

    async def request(self, method: str, path: str, body: Any = None, **options: Any) -> dict[str, Any]:
        if self.away:
            raise Unavailable("away")
        if path == PATH and method == "GET":
            return {"metadata": {"resourceVersion": str(self.version)}, "items": []}
        if path.startswith(PATH) and method == "GET":
            name = path.rpartition("/")[2]
            latest = next((each for each in reversed(self.past) if each["object"]["metadata"]["name"] == name), None)
            if latest is None or latest["type"] == "DELETED":
                raise NotFound(name)
            found: dict[str, Any] = latest["object"]
            return found
        return await super().request(method, path, body, **options)

    async def happens(self, name: str, phase: str = "Running", kind: str = "MODIFIED", **fields: Any) -> int:
        self.version += 10
        self.past.append({"type": kind, "object": stored(name, self.version, phase, **fields)})
        await self._tell()
        return self.version

    async def bookmark(self) -> int:
        self.version += 10
        self.past.append({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.version)}}})
        await self._tell()
        return self.version

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
        for _ in range(20):
            await asyncio.sleep(0)

    def compact(self) -> None:
        self.compacted = self.version

    async def watch(
        self, path: str, version: str, field_selector: str = "", labels: str = ""
    ) -> AsyncIterator[Sequence[dict[str, Any]]]:
        place = int(version)
        if self.away:
            raise Unavailable("away")
        self.watches.append(place)
        yield ()
        if place < self.compacted:
            raise Conflict("410 too old resource version")
        while True:
            news = [each for each in self.past if int(each["object"]["metadata"]["resourceVersion"]) > place]
            if self.away:
                raise Unavailable("away")
            if news:
                place = int(news[-1]["object"]["metadata"]["resourceVersion"])
                yield news
                continue
            async with self._changed:
                await self._changed.wait()


class Stream:
    """A request whose answer is read while it is sent."""

    def __init__(self, app: FastAPI, url: str, **headers: str) -> None:
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._asked = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self.ended = False
        path, _, query = url.partition("?")
        sent = {"authorization": "Bearer alice-token"} | {
            key.replace("_", "-"): value for key, value in headers.items()
        }
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
            "server": ("test", 80),
            "client": ("test", 1),
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._messages.put))

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def until(self, text: str = "\0", seconds: float = 5) -> str:
        """All that came, once it has the text, or ended."""
        async with asyncio.timeout(seconds):
            while text not in self.text and not self.ended:
                message = await self._messages.get()
                if message["type"] == "http.response.start":
                    self.status = message["status"]
                    self.headers = {key.decode(): value.decode() for key, value in message["headers"]}
                else:
                    self.text += message.get("body", b"").decode()
                    self.ended = not message.get("more_body", False)
        return self.text

    async def leave(self) -> None:
        self._gone.set()
        await asyncio.wait_for(self.task, 5)
