"""HTTP endpoints for probes and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


class Level(StrEnum):
    """What a check means for readiness."""

    OK = "ok"
    DEGRADED = "degraded"
    """Worth knowing, but restarting or avoiding this process would not help."""
    FAILED = "failed"
    """Not ready."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check."""

    name: str
    level: Level
    message: str


class HealthServer:
    """Serves /livez (the event loop runs), /readyz (failed checks, one a line; with `?verbose` all) and /metrics.

    Args:
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        checks: runs all checks; must be cheap.
    """

    def __init__(self, host: str, port: int, checks: Callable[[], Sequence[CheckResult]]) -> None:
        self._host = host
        self.port = port
        self._checks = checks
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        app = web.Application()
        app.router.add_get("/livez", self._live)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self.port).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _live(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        results = self._checks()
        ready = all(result.level is not Level.FAILED for result in results)
        if "verbose" not in request.query:
            results = [result for result in results if result.level is Level.FAILED]
        lines = [f"{result.name}: {result.level}: {result.message}" for result in results]
        return web.Response(status=200 if ready else 503, text="\n".join(lines or ["ok"]) + "\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
