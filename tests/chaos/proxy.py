"""A way between two parts that can be cut, held, slowed or answered for.

Small on purpose: it needs no program to be built, runs in the driver's own process, and its faults are those of TCP. A
fault proxy such as toxiproxy would bring a second process, an HTTP API to it and a build, for the same four faults.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

HOST = "127.0.0.1"
_CHUNK = 64 * 1024
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Way(StrEnum):
    """What becomes of bytes."""

    OPEN = "open"
    CUT = "cut"
    """Connections are closed, new ones too, at once: a dead server on a living machine."""
    HELD = "held"
    """Nothing passes and nobody is told, until it is open again: a partition."""
    ANSWERED = "answered"
    """The server is not asked: every connection gets HTTP 503."""


class Proxy:
    """One loopback port that leads to another, in a thread of its own.

    Args:
        target: the port it leads to, asked for each connection: a server that starts again may have another.
    """

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._way = Way.OPEN
        self.delay = 0.0
        """Seconds that each piece of data is late, either direction."""
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._opened = asyncio.Event()
        self._opened.set()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        if not started.wait(10):
            raise RuntimeError("the proxy did not start within 10 s")

    def set(self, way: Way) -> None:
        """Change what becomes of bytes, for connections that exist as well."""

        async def change() -> None:
            self._way = way
            if way is Way.HELD:
                self._opened.clear()
            else:
                self._opened.set()
            if way in (Way.CUT, Way.ANSWERED):
                for writer in list(self._writers):
                    writer.transport.abort()

        asyncio.run_coroutine_threadsafe(change(), self._loop).result(10)

    def drop(self) -> None:
        """Close what is connected now; new connections are let through."""
        self.set(Way.CUT)
        self.set(Way.OPEN)

    def close(self) -> None:
        """Stop listening."""
        self.set(Way.CUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connect, HOST, 0))
        self.port = int(server.sockets[0].getsockname()[1])
        started.set()
        self._loop.run_forever()
        server.close()
        while left := asyncio.all_tasks(self._loop):
            for job in left:
                job.cancel()
            self._loop.run_until_complete(asyncio.wait(left))
        self._loop.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._way is Way.CUT:
            writer.transport.abort()
            return
        if self._way is Way.ANSWERED:
            await self._answer(reader, writer)
            return
        self.connections += 1
        self._writers.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            await self._opened.wait()
            back, onward = await asyncio.open_connection(HOST, self._target())
            self._writers.add(onward)
            await asyncio.gather(self._pump(reader, onward), self._pump(back, writer))
        except OSError:
            # The server does not listen: neither do we.
            pass
        finally:
            for each in (writer, onward):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                await self._opened.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        finally:
            # The end of one direction is passed on; what is under way in the other still arrives.
            with suppress(OSError, RuntimeError):
                writer.write_eof()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(reader.read(_CHUNK), 1)
            writer.write(UNAVAILABLE)
            await writer.drain()
        writer.close()
