from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from taskflow_core.domain import naming
from taskflow_core.domain.phases import OPEN_SELECTOR


def configure(settings: kopf.OperatorSettings) -> None:
    """Kopf's settings, and why: what is routine trouble of an API server must not end or silence the operator."""
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.queueing.idle_timeout = 0.5
    settings.queueing.error_delays = (1, 2, 5, 10, 30)
    settings.queueing.exit_timeout = 10
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 360
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1
    settings.watching.field_selectors[naming.GROUP, naming.VERSION, "tasks"] = OPEN_SELECTOR
    settings.watching.label_selectors["apps", "v1", "deployments"] = naming.LABEL_POOL
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = (0.5, 1, 2, 5, 10, 20, 30, 60, 120)
    settings.networking.enforce_retry_after = True
    settings.persistence.finalizer = f"{naming.GROUP}/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=naming.GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=naming.GROUP)
    settings.process.ultimate_exiting_timeout = 30


def register(
    registry: kopf.OperatorRegistry, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]
) -> None:
    """Start our own loops before Kopf watches, and stop them before Kopf cancels what is left on the event loop."""
    # Read again whenever the API server answers 401, so a rotated ServiceAccount token is picked up.
    kopf.on.login(registry=registry, id="kubeconfig")(kopf.login_with_kubeconfig)
    kopf.on.login(registry=registry, id="service-account")(kopf.login_with_service_account)

    @kopf.on.startup(registry=registry)
    async def start_loops(**_: Any) -> None:
        await start()

    @kopf.on.cleanup(registry=registry)
    async def stop_loops(**_: Any) -> None:
        await stop()
