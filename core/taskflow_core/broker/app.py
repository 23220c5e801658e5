"""The Celery application, as producers and workers configure it."""

from __future__ import annotations

from functools import partial

from celery import Celery

from taskflow_core.domain import naming
from taskflow_core.redis_login import redis_login
from taskflow_core.redis_primary import primary_of
from taskflow_core.service_urls import of_one_server
from taskflow_core.settings import RedisSettings

VISIBILITY_TIMEOUT = 600
"""Seconds after which kombu delivers an unacknowledged message again: a second net, under the ledger's reconciler."""


def make_app(settings: RedisSettings, *, namespace: str = "", socket_timeout: float | None = None) -> Celery:
    """The Celery application of producers and workers alike.

    No result backend, events, ETA, retries or remote control: state travels on our stream, the operator decides
    retries. Only the anonymous exchange is used: with a named one, kombu drops messages silently after Redis lost its
    data.

    Args:
        settings: the broker.
        namespace: whose queues are served. A publisher serves none.
        socket_timeout: bound on each broker operation in seconds. For a publisher; a worker's blocking read must not
            have it.
    """
    unacked = naming.keys_of(namespace).unacked
    primary = primary_of(settings)
    app = Celery("taskflow", broker=of_one_server(settings.url.get_secret_value()), set_as_current=False)
    # Celery has no setting for it.
    app.amqp.Connection = partial(app.amqp.Connection, credential_provider=redis_login(settings.url))
    app.conf.update(
        broker_transport=None if primary is None else "taskflow_core.broker.transport:Transport",
        broker_use_ssl=settings.tls or None,
        accept_content=["json"],
        task_serializer="json",
        event_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_create_missing_queues=True,
        task_default_exchange="",
        task_default_exchange_type="direct",
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_proc_alive_timeout=30,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "priority_steps": list(naming.PRIORITY_STEPS),
            "sep": naming.PRIORITY_SEPARATOR,
            "visibility_timeout": VISIBILITY_TIMEOUT,
            "unacked_key": unacked.messages,
            "unacked_index_key": unacked.index,
            "unacked_mutex_key": unacked.mutex,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 30,
            "socket_connect_timeout": 5,
            "socket_timeout": socket_timeout,
            "socket_keepalive": True,
            "primary": primary,
        },
    )
    return app
