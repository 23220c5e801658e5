"""A recording way to the API server, one for each operator: who asked what and when, and trouble on demand."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

import aiohttp
from aiohttp import web

from taskflow_core.domain.phases import OPEN_SELECTOR

_HOP = {"connection", "transfer-encoding", "content-length", "host", "content-encoding"}


@dataclass(frozen=True)
class Asked:
    """One request that was let through."""

    at: float
    method: str
    path: str
    query: str
    code: int

    @property
    def writes_status(self) -> bool:
        return self.method == "PATCH" and self.path.endswith("/status") and self.code < 400

    @property
    def watches_tasks(self) -> bool:
        """Of the two watches, that of open Tasks."""
        return "watch=true" in self.query and self.path.endswith("/tasks") and OPEN_SELECTOR in unquote(self.query)


class Proxy:
    """Plain HTTP on a free loopback port, in a thread of its own; the caller's credentials are passed on."""

    def __init__(self, server: str, ca: str) -> None:
        self._server = server
        self._tls = ssl.create_default_context(cafile=ca)
        self._loop = asyncio.new_event_loop()
        self._watches: set[web.StreamResponse] = set()
        self.asked: list[Asked] = []
        self.refuse: Callable[[str, str], int | None] = lambda _method, _path: None
        """Answers requests by itself: the HTTP status for a method and path with query, or None to let them through."""
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def watched(self) -> set[str]:
        """Plurals of the resources that were watched so far."""
        return {asked.path.rpartition("/")[2] for asked in self.asked if "watch=true" in asked.query}

    def say_on_watches(self, code: int) -> None:
        """Send an ERROR event on every watch."""

        async def say() -> None:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "on purpose"}
            line = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
            for response in list(self._watches):
                await response.write(line)

        asyncio.run_coroutine_threadsafe(say(), self._loop).result(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self._listen())
        started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.run_until_complete(self._session.close())
        while left := asyncio.all_tasks(self._loop):
            for job in left:
                job.cancel()
            self._loop.run_until_complete(asyncio.wait(left))
        self._loop.close()

    async def _listen(self) -> web.AppRunner:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0), auto_decompress=False
        )
        app = web.Application(client_max_size=10_000_000)
        app.router.add_route("*", "/{tail:.*}", self._pass_on)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._port = int(runner.addresses[0][1])
        return runner

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        code = self.refuse(request.method, request.path_qs)
        if code is not None:
            return web.json_response({"kind": "Status", "code": code, "message": "on purpose"}, status=code)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        headers["Accept-Encoding"] = "identity"
        body = await request.read()
        url = self._server + request.raw_path
        async with self._session.request(request.method, url, headers=headers, data=body or None) as answer:
            query = request.query_string
            asked = Asked(time.monotonic(), request.method, request.path, query, answer.status)
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            try:
                await response.prepare(request)
                if "watch=true" in query:
                    self._watches.add(response)
                self.asked.append(asked)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
            except ConnectionResetError:
                # The operator went away.
                pass
            finally:
                self._watches.discard(response)
            return response
