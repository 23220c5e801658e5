"""Settings of Kopf, and how its watches of WorkerPools and Deployments start and end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from typing import Any, cast

import kopf

# It has no public name (Kopf 1.45).
from kopf._cogs.structs.references import Insights

from taskflow_core.domain import naming
from taskflow_core.errors import Dependency, Unavailable
from taskflow_operator.kopf_handlers import pools
from taskflow_operator.kopf_handlers.runner import Watch
from taskflow_operator.pools.controller import PoolController
from taskflow_operator.settings import OperatorSettings

END_SECONDS = 3.0


def watch(controller: PoolController, operator: OperatorSettings) -> Watch:
    """What the runner runs in a thread of its own; make it on the event loop that everything else lives on."""
    home = asyncio.get_running_loop()
    quieten()

    async def run(stop: asyncio.Event) -> None:
        registry = kopf.OperatorRegistry()
        # Read again whenever the API server answers 401, so a rotated ServiceAccount token is picked up.
        kopf.on.login(registry=registry, id="kubeconfig")(kopf.login_with_kubeconfig)
        kopf.on.login(registry=registry, id="service-account")(kopf.login_with_service_account)
        pools.register(registry, controller, home, operator.cares_for)
        settings = kopf.OperatorSettings()
        configure(settings)
        # Where only these namespaces may be read, so may no list of CRDs or namespaces.
        settings.scanning.disabled = bool(operator.namespaces)
        insights = Insights()
        roots = await kopf.spawn_tasks(
            registry=registry,
            settings=settings,
            insights=insights,
            standalone=True,
            clusterwide=not operator.namespaces,
            namespaces=sorted(operator.namespaces),
            # Otherwise Kopf asks for the name of the user, and a container's user id often has none.
            identity=cast(Any, naming.FIELD_MANAGER),
            stop_flag=stop,
        )
        if operator.namespaces:
            roots = [*roots, asyncio.create_task(_check_kinds(insights))]
        await _end_with(roots)

    return run


async def _check_kinds(insights: Insights) -> None:
    """End Kopf, so that it is begun again, if the API server did not name our kind yet: it will not look for new
    kinds.
    """
    await insights.ready_resources.wait()
    if not any(each.group == naming.GROUP for each in insights.watched_resources):
        raise Unavailable(f"API server: it serves no workerpools.{naming.GROUP} yet", Dependency.API_SERVER)
    await asyncio.Event().wait()


async def _end_with(roots: Collection[asyncio.Task[Any]]) -> None:
    """What `kopf.operator` does with its tasks, but no longer than `END_SECONDS` after the first of them ended.

    When one of them fails, Kopf 1.45 may wait for ever for another, whose request it could not cancel
    (`request_cancel_callback`).
    """
    ours = {task for task in (asyncio.current_task(),) if task is not None}
    running = asyncio.create_task(kopf.run_tasks(roots, ignored=ours))
    ours.add(running)
    done, _ = await asyncio.wait(roots, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait([running], timeout=END_SECONDS)
    for task in (running, *done):
        if task.done() and not task.cancelled():
            task.result()


def quieten() -> None:
    """What Kopf should not say: each retry of each request, and what the runner says anyway. Errors of handlers
    remain.
    """
    for name in ("kopf._core.reactor.observation", "kopf._cogs.clients.watching", "kopf.objects"):
        logging.getLogger(name).addFilter(_no_retry)
    logging.getLogger("kopf._core.engines.activities").setLevel(logging.WARNING)
    # That it hears no signals is what we want of it, and why it ended is in `watch_ended`.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.CRITICAL)


def _no_retry(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Request attempt #")


class PoolsOnly(kopf.AnnotationsDiffBaseStorage):
    """Only WorkerPools have handlers of changes. Of any other object Kopf would make deep copies at each event, and
    fail on one that is nested deeper than Python's stack.
    """

    def build(self, *, body: kopf.Body, extra_fields: Iterable[kopf.FieldSpec] | None = None) -> kopf.BodyEssence:
        """What of an object is compared with its former state: of others than WorkerPools, nothing."""
        if body.get("kind") != "WorkerPool":
            return kopf.BodyEssence()
        return super().build(body=body, extra_fields=extra_fields)


def configure(settings: kopf.OperatorSettings) -> None:
    """Kopf's settings, and why: what is routine trouble of an API server must not end or silence the operator."""
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.queueing.idle_timeout = 0.5
    settings.queueing.error_delays = (1, 2, 5, 10, 30)
    settings.queueing.exit_timeout = 2
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 360
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1
    settings.watching.label_selectors["apps", "v1", "deployments"] = naming.LABEL_POOL
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 5
    # Short: when they are used up Kopf ends, and is started again with longer pauses than it would make itself.
    settings.networking.error_backoffs = (0.5, 1, 2, 5, 10)
    settings.networking.enforce_retry_after = True
    settings.persistence.finalizer = f"{naming.GROUP}/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=naming.GROUP)
    settings.persistence.diffbase_storage = PoolsOnly(prefix=naming.GROUP)
    # It would kill the whole process from within its thread.
    settings.process.ultimate_exiting_timeout = None
