"""`python -m taskflow_api`: runs the REST API. Exit codes: 0 stopped by a signal, 2 the settings are wrong.

The argument `notifier` runs the webhook notifier instead (`taskflow_api.webhooks.process`). Other arguments are
commands of `taskflow_api.identity.cli`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import sys

import uvicorn
import uvloop
from prometheus_client import start_http_server
from starlette.types import ASGIApp

from taskflow_api.app import create_app
from taskflow_api.files.links import warn_of_copies
from taskflow_api.files.multipart import sweep_forever
from taskflow_api.http.connections import ConnectionLimits, bounded
from taskflow_api.identity import cli
from taskflow_api.live.hub import Hub
from taskflow_api.metrics import REGISTRY
from taskflow_api.operations.runner import OperationRunner
from taskflow_api.settings import ApiSettings, LimitSettings, OidcSettings, RegisterSettings, WebhookSettings
from taskflow_api.webhooks import process
from taskflow_api.wiring import Settings, connected
from taskflow_core.errors import Invalid
from taskflow_core.settings import UNUSABLE, CacheSettings, DatabaseSettings, LogSettings, StorageSettings, explain
from taskflow_core.telemetry.logs import setup_logging

DRAIN_SECONDS = 20
NOTIFIER = "notifier"


class Server(uvicorn.Server):
    """A server that ends its open streams at shutdown, and then waits for all other requests."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called once, after the signal."""
        self._hub.close()
        await super().shutdown(sockets)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the running requests."""
    api = settings.api
    if api.metrics_port is not None:
        try:
            start_http_server(api.metrics_port, addr=api.metrics_host, registry=REGISTRY)
        except OSError as error:
            raise Invalid(f"TASKFLOW_API_METRICS_PORT: {error}") from error
    async with connected(settings) as components:
        config = server_config(create_app(components), api)
        services = components.services
        runner = OperationRunner(services.history, services.kube, services.auth, components.identity.is_valid)
        background = [
            asyncio.create_task(runner.run()),
            asyncio.create_task(sweep_forever(services.objects.multipart())),
            asyncio.create_task(warn_of_copies(services.objects)),
        ]
        try:
            await Server(config, components.hub).serve()
        finally:
            for each in background:
                each.cancel()
            await asyncio.gather(*background, return_exceptions=True)


def server_config(app: ASGIApp, api: ApiSettings) -> uvicorn.Config:
    """How the application is served: where, and whom it believes and bears with."""
    limits = ConnectionLimits(
        total=api.connections,
        per_address=api.connections_per_address,
        head_seconds=api.header_seconds,
        body_seconds=api.body_seconds,
        trusted=tuple(map(ipaddress.ip_network, api.trusted_proxies)),
    )
    return uvicorn.Config(
        app,
        host=api.host,
        port=api.port,
        http=bounded(limits),
        # There are no WebSockets, and a connection that became one would have no limits.
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Said explicitly: by default, uvicorn believes what this machine says, and reads a variable of its own.
        proxy_headers=bool(api.trusted_proxies),
        forwarded_allow_ips=list(api.trusted_proxies),
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def main() -> int:
    """Read the settings and run; returns the exit code."""
    notifier = sys.argv[1:] == [NOTIFIER]
    if sys.argv[1:] and not notifier:
        return cli.main(sys.argv[1:])
    # uvicorn raises the signal again at its end. The default action would kill the process before connections close.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        setup_logging(LogSettings(), NOTIFIER if notifier else "api")
        if notifier:
            asyncio.run(process.run(WebhookSettings(), DatabaseSettings()))
            return 0
        settings = Settings(
            ApiSettings(),
            OidcSettings(),
            RegisterSettings(),
            LimitSettings(),
            CacheSettings(),
            DatabaseSettings(),
            StorageSettings(),
            WebhookSettings(),
        )
        uvloop.run(serve(settings))
    except UNUSABLE as error:
        print(*(f"taskflow_api: {line}" for line in explain(error)), sep="\n", file=sys.stderr)
        return 2
    except Invalid as error:
        print(f"taskflow_api: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
