"""Serves `kubectl logs`: the only part of the kubelet's API that this node implements, for the API server alone."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from taskflow_local.node.pods import log_folder_prefix

_POLL_SECONDS = 0.2
_CHUNK = 64 * 1024
_UNKNOWN = ("previous", "sinceSeconds", "sinceTime", "timestamps", "stream")


class LogServer:
    """Serves the output of containers. An async context manager. Clients need the API server's certificate."""

    def __init__(self, pods: Path, is_running: Callable[[Path], bool], pki: Path, port: int) -> None:
        self._pods = pods
        self._is_running = is_running
        self._pki = pki
        self._port = port

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self._pki / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self._pki / "server.crt", self._pki / "server.key")
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=context).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = [name for name in _UNKNOWN if request.query.get(name, "false") not in ("false", "All")]
        if asked:
            text = f"local mode keeps the plain output of all runs of a container: {asked[0]} is not supported"
            return web.Response(status=400, text=text)
        info = request.match_info
        path = await asyncio.to_thread(self._find, info["namespace"], info["pod"], info["container"])
        if path is None:
            return web.Response(status=404, text=f"container {info['container']} of {info['pod']} has no output yet")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        lines = request.query.get("tailLines")
        position = await asyncio.to_thread(start_of_tail, path, None if lines is None else int(lines))
        limit = int(request.query.get("limitBytes", 0)) or None
        await self._send(response, path, position, limit, follow=request.query.get("follow") == "true")
        return response

    async def _send(
        self, response: web.StreamResponse, path: Path, position: int, limit: int | None, *, follow: bool
    ) -> None:
        while limit is None or limit > 0:
            # Checked before reading, so that the output just before the end is still read.
            more_may_come = follow and self._is_running(path.parent)
            content = await asyncio.to_thread(_read, path, position, min(_CHUNK, limit or _CHUNK))
            if content:
                await response.write(content)
                position += len(content)
                limit = None if limit is None else limit - len(content)
            elif more_may_come:
                await asyncio.sleep(_POLL_SECONDS)
            else:
                break

    def _find(self, namespace: str, pod: str, container: str) -> Path | None:
        """Find the newest log. A request cannot escape the folder: names are compared, never joined to a path."""
        prefix = log_folder_prefix(namespace, pod)
        folders = [folder for folder in self._pods.iterdir() if folder.name.rpartition("_")[0] == prefix]
        logs = [path for folder in folders for path in folder.glob("*.log") if path.stem == container]
        return max(logs, key=lambda path: path.stat().st_mtime, default=None)


def _read(path: Path, position: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(position)
        return file.read(size)


def start_of_tail(path: Path, lines: int | None) -> int:
    """The offset of the last lines of a file. 0 for the whole file."""
    if lines is None:
        return 0
    content = path.read_bytes()
    position = len(content)
    if lines and content.endswith(b"\n"):
        position -= 1
    for _ in range(lines):
        position = content.rfind(b"\n", 0, position)
        if position < 0:
            return 0
    return position + 1 if lines else len(content)
