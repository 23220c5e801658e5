"""The notifier process (`python -m taskflow_api notifier`): runs until a signal, and serves health and metrics."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime, timedelta

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from taskflow_api.settings import WebhookSettings
from taskflow_api.webhooks.deliveries import PostgresDeliveries
from taskflow_api.webhooks.metrics import REGISTRY
from taskflow_api.webhooks.notifier import Notifier
from taskflow_api.webhooks.secrets import Vault
from taskflow_api.webhooks.sender import Sender
from taskflow_api.webhooks.wiring import policy_of
from taskflow_core.errors import Invalid
from taskflow_core.settings import DatabaseSettings
from taskflow_core.store.engine import create_engine
from taskflow_core.telemetry.logs import get_logger

READY_WITHIN = timedelta(seconds=30)
"""The notifier is ready if the database has answered within this time."""
_log = get_logger(__name__)


async def run(settings: WebhookSettings, database: DatabaseSettings) -> None:
    """Run until a signal, then finish the running attempts.

    Raises:
        Invalid: webhooks are off, or a setting is wrong.
    """
    if not settings.enabled:
        raise Invalid("TASKFLOW_WEBHOOKS_ENABLED must be true to run a notifier")
    vault = Vault(settings.keys())
    try:
        sender = Sender(policy_of(settings), ca_file=settings.ca_file)
    except OSError as error:
        raise Invalid(f"TASKFLOW_WEBHOOKS_CA_FILE: {error}") from error
    engine = create_engine(database, application_name="taskflow-notifier", pool_size=5)
    keep = timedelta(days=settings.keep_days)
    notifier = Notifier(PostgresDeliveries(engine), sender, vault, parallel=settings.parallel, keep=keep)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, notifier.stop)
    runner = web.AppRunner(_application(notifier), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.health_host, settings.health_port).start()
        _log.info("notifier_started")
        await notifier.run()
    finally:
        await runner.cleanup()
        await engine.dispose()
    _log.info("notifier_stopped")


def _application(notifier: Notifier) -> web.Application:
    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        ready = notifier.database_seen is not None and datetime.now(UTC) - notifier.database_seen < READY_WITHIN
        return web.Response(text="ok\n" if ready else "the database does not answer\n", status=200 if ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", metrics)
    return application
