"""Slow, half and many connections against a real server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest
import uvicorn
from pydantic import ValidationError

from taskflow_api.__main__ import server_config
from taskflow_api.http.connections import BODY_BYTES, MAX_HEAD_BYTES, ConnectionLimits, bounded
from taskflow_api.metrics import REGISTRY
from taskflow_api.settings import ApiSettings
from tests.unit.taskflow_api.fakes import Api

pytestmark = pytest.mark.integration
HEAD = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
AUTH = b"Authorization: Bearer alice-token\r\nContent-Type: application/json\r\n"
TASKS = b"/v1/namespaces/team-a/tasks"
LIMIT_SECONDS = 1.0


class Caller:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def rest(self, seconds: float = 20) -> bytes:
        """Everything until the server closes the connection."""
        async with asyncio.timeout(seconds):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def answer(self, seconds: float = 20) -> tuple[int, Any]:
        """One answer; the connection stays."""
        async with asyncio.timeout(seconds):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            return int(head.split()[1]), json.loads(await self.reader.readexactly(length) or b"null")


class Server:
    def __init__(self, port: int, api: Api) -> None:
        self.port, self.api = port, api
        self.opened: list[Caller] = []

    async def open(self, source: str = "127.0.0.1") -> Caller:
        found = Caller(*await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0)))
        self.opened.append(found)
        return found

    async def stream(self, source: str = "127.0.0.1") -> Caller:
        """An open stream of events."""
        listed = {"items": [], "metadata": {"resourceVersion": "1"}}
        self.api.kube.answers["/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks"] = listed
        caller = await self.open(source)
        await caller.send(b"GET /v1/namespaces/team-a/events HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n")
        async with asyncio.timeout(20):
            assert b"200 OK" in await caller.reader.readuntil(b"\r\n\r\n")
        return caller

    async def get(self, source: str = "127.0.0.1") -> int:
        """A normal request on a connection of its own."""
        caller = await self.open(source)
        await caller.send(HEAD + b"Connection: close\r\n\r\n")
        return int((await caller.rest()).split()[1])


@asynccontextmanager
async def serving(
    settings: ApiSettings | None = None, *, register: bool = False, **limits: Any
) -> AsyncIterator[Server]:
    """An application as it is served with these settings, or with these limits."""
    api = Api(register=register)
    config = server_config(api.app, settings or ApiSettings())
    config.port = 0
    if settings is None:
        values: dict[str, Any] = {"total": 100, "per_address": 60}
        values |= {"head_seconds": LIMIT_SECONDS, "body_seconds": LIMIT_SECONDS}
        config.http = bounded(ConnectionLimits(**values | limits))
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    made = Server(server.servers[0].sockets[0].getsockname()[1], api)
    try:
        yield made
    finally:
        for each in made.opened:
            each.writer.close()
        api.hub.close()
        server.should_exit = True
        await running


def closed(reason: str) -> float:
    return REGISTRY.get_sample_value("taskflow_connections_closed_total", {"reason": reason}) or 0.0


async def test_half_requests_are_closed_while_a_normal_caller_is_served() -> None:
    async with serving() as server:
        before = closed("slow_head")
        half = [await server.open() for _ in range(25)]
        for number, each in enumerate(half):
            await each.send((HEAD, HEAD[:7], b"\r\n", HEAD + b"X-Long: " + b"a" * 9000)[number % 4])
        dripping = asyncio.create_task(drip(half[::4], b"X-A: b\r\n"))
        assert await server.get() == 200
        answers = await asyncio.gather(*(each.rest() for each in half))
        dripping.cancel()
        for number, answer in enumerate(answers):
            # Who still sends then may see no more than that the connection is gone.
            assert answer.startswith(b"HTTP/1.1 408") or (number % 4 == 0 and answer == b""), answer
        assert b'"code":"too-slow"' in answers[1]
        assert closed("slow_head") - before == 25
        silent = await server.open()
        assert await silent.rest() == b""
        assert await server.get() == 200


async def drip(callers: list[Caller], content: bytes) -> None:
    """Send a little again and again, as who wants to keep a connection does."""
    while True:
        await asyncio.sleep(LIMIT_SECONDS / 10)
        for each in callers:
            each.writer.write(content)


async def test_a_connection_that_was_used_once_is_not_kept_by_half_a_request_or_empty_lines() -> None:
    async with serving() as server:
        used = [await server.open() for _ in range(2)]
        for each, more in zip(used, (b"GET /li", b"\r\n"), strict=True):
            await each.send(HEAD + b"\r\n")
            assert (await each.answer())[0] == 200
            await each.send(more)
        dripping = asyncio.create_task(drip(used[1:], b"\r\n"))
        assert (await used[0].rest()).startswith(b"HTTP/1.1 408")
        assert (await used[1].rest())[:12] in (b"HTTP/1.1 408", b"")
        dripping.cancel()


@pytest.mark.parametrize("path", [b"/v1/auth/token", TASKS, b"/nothing", b"/livez"])
@pytest.mark.parametrize("framing", [b"Content-Length: 900000\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_body_that_does_not_get_on_ends_the_connection(path: bytes, framing: bytes) -> None:
    async with serving() as server:
        caller = await server.open()
        await caller.send(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + AUTH + framing + b"\r\n")
        dripping = asyncio.create_task(drip([caller], b"1\r\n \r\n" if b"chunked" in framing else b" "))
        answer = await caller.rest()
        dripping.cancel()
        # What is answered without the body is answered at once; what waits for it is given up.
        assert answer[9:12] in (b"401", b"404", b"405", b"408", b"")
        assert path != TASKS or answer[9:12] in (b"408", b"")
        assert await server.get() == 200


async def test_a_slow_body_that_gets_on_is_accepted() -> None:
    async with serving() as server:
        body = json.dumps({"name": "x", "spec": {"handler": "a.b"}}).encode() + b" " * (4 * BODY_BYTES)
        caller = await server.open()
        head = b"POST " + TASKS + b" HTTP/1.1\r\nHost: x\r\n" + AUTH
        await caller.send(head + b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n")
        for start in range(0, len(body), BODY_BYTES + 1):
            await caller.send(body[start : start + BODY_BYTES + 1])
            await asyncio.sleep(LIMIT_SECONDS / 2)
        assert (await caller.answer())[0] == 201


async def test_a_stream_outlives_every_limit() -> None:
    async with serving() as server:
        caller = await server.stream()
        await asyncio.sleep(LIMIT_SECONDS * 3)
        assert not caller.reader.at_eof()
        assert await server.get() == 200


async def test_headers_are_bounded() -> None:
    async with serving() as server:
        before = closed("large_head")
        caller = await server.open()
        caller.writer.write(HEAD + b"X-Long: " + b"a" * MAX_HEAD_BYTES)
        assert (await caller.rest())[:12] in (b"HTTP/1.1 431", b"")
        # In advance of the answer to an earlier request, too, and without words within that answer.
        caller = await server.stream()
        caller.writer.write(HEAD + b"X-Long: " + b"a" * MAX_HEAD_BYTES)
        assert b"431" not in await caller.rest()
        assert closed("large_head") - before == 2


async def test_one_address_has_a_limit_that_others_do_not_feel() -> None:
    async with serving(per_address=5, trusted=(ip_network("127.0.0.3/32"),), head_seconds=20) as server:
        for _ in range(5):
            await server.open("127.0.0.2")
        refused = await server.open("127.0.0.2")
        answer = await refused.rest()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'"code":"unavailable"' in answer
        assert await server.get() == 200
        # A proxy's connections are those of many.
        for _ in range(10):
            await server.open("127.0.0.3")
        assert await server.get("127.0.0.3") == 200
        # What is closed counts no longer.
        server.opened[0].writer.close()
        await server.opened[0].writer.wait_closed()
        await until_served(server, "127.0.0.2")


async def until_served(server: Server, source: str) -> None:
    async with asyncio.timeout(20):
        while await server.get(source) != 200:  # noqa: ASYNC110 - the server says nothing of it
            await asyncio.sleep(0.05)


async def test_when_there_is_no_room_who_only_waits_gives_way() -> None:
    async with serving(total=10, per_address=10, head_seconds=20) as server:
        stream = await server.stream("127.0.0.4")
        half = [await server.open("127.0.0.2") for _ in range(9)]
        for each in half:
            await each.send(HEAD)
        for _ in range(3):
            assert await server.get() == 200
        assert not stream.reader.at_eof()
        ended = [await asyncio.wait_for(each.rest(), 5) for each in half[:1]]
        assert ended == [b""]


async def test_who_does_not_read_is_given_up() -> None:
    async with serving(write_seconds=LIMIT_SECONDS) as server:
        before = closed("slow_reader")
        caller = await server.open()
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(30):
            while closed("slow_reader") == before:
                if not caller.writer.is_closing():
                    caller.writer.write(asked)
                await asyncio.sleep(0.01)
        assert await server.get() == 200


def test_the_defaults_are_those_of_the_documents() -> None:
    settings = ApiSettings()
    assert (settings.header_seconds, settings.body_seconds) == (10, 10)
    assert (settings.connections, settings.connections_per_address, settings.trusted_proxies) == (5000, 500, ())
    for wrong in ("*", "proxy", "10.0.0.0/33", "10.0.0.1/8"):
        with pytest.raises(ValidationError):
            ApiSettings.model_validate({"trusted_proxies": wrong})


@pytest.mark.parametrize(
    ("trusted", "sent", "statuses"),
    [
        ((), "198.51.100.{n}", [401] * 5 + [429]),
        (("127.0.0.0/8",), "198.51.100.{n}", [401] * 6),
        # What the client wrote itself comes first and is not believed.
        (("127.0.0.0/8",), "203.0.113.{n}, 198.51.100.1", [401] * 5 + [429]),
        (("10.0.0.0/8",), "198.51.100.{n}", [401] * 5 + [429]),
    ],
)
async def test_an_address_in_a_header_is_believed_of_trusted_proxies_only(
    trusted: tuple[str, ...], sent: str, statuses: list[int]
) -> None:
    async with serving(ApiSettings(trusted_proxies=trusted), register=True) as server:
        body = json.dumps({"username": "ann", "password": "wrong horse battery"}).encode()
        found = []
        caller = await server.open()
        for number in range(6):
            head = f"POST /v1/auth/token HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {sent.format(n=number)}\r\n"
            await caller.send(head.encode() + b"Content-Type: application/json\r\n")
            await caller.send(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            found.append((await caller.answer())[0])
        assert found == statuses
