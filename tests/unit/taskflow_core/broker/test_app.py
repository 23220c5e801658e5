from __future__ import annotations

import pytest
from celery import Celery
from kombu.transport.redis import Transport as KombuTransport
from pydantic import SecretStr

from taskflow_core.broker.app import make_app
from taskflow_core.broker.transport import Transport
from taskflow_core.domain import naming
from taskflow_core.settings import RedisSettings


@pytest.fixture(scope="module")
def app() -> Celery:
    return make_app(RedisSettings(url=SecretStr("redis://127.0.0.1:1/0")))


def test_only_json_is_accepted(app: Celery) -> None:
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == "json"


def test_state_does_not_travel_through_celery(app: Celery) -> None:
    assert app.conf.result_backend is None
    assert app.conf.task_ignore_result is True
    assert app.conf.worker_send_task_events is False
    assert app.conf.worker_enable_remote_control is False


def test_a_message_is_acknowledged_after_its_attempt_and_never_requeued_by_celery(app: Celery) -> None:
    assert app.conf.task_acks_late is True
    assert app.conf.task_reject_on_worker_lost is False
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.worker_disable_prefetch is True


def test_a_lost_connection_ends_no_running_task_and_is_tried_again_for_ever(app: Celery) -> None:
    assert app.conf.worker_cancel_long_running_tasks_on_connection_loss is False
    assert app.conf.broker_connection_max_retries is None


def test_the_priority_lists_are_those_of_our_names(app: Celery) -> None:
    options = app.conf.broker_transport_options
    assert options["priority_steps"] == list(naming.PRIORITY_STEPS)
    assert options["sep"] == naming.PRIORITY_SEPARATOR


def test_it_does_not_become_the_current_app_of_the_process(app: Celery) -> None:
    from celery import current_app  # noqa: PLC0415 - a proxy that is resolved here

    assert current_app.main != app.main


@pytest.mark.parametrize(
    ("url", "name", "port"),
    [
        ("redis://:word@host:6379/3", "redis", 6379),
        ("rediss://:word@host:6380/3", "redis", 6380),
        ("redis+sentinel://:word@host:26379,other:26380/main/3", "sentinel", 26379),
        ("rediss+sentinel://:word@host:26379,other:26380/main/3", "sentinel", 26379),
    ],
)
def test_connections_have_database_and_login_whatever_leads_to_redis(url: str, name: str, port: int) -> None:
    made = make_app(RedisSettings(url=SecretStr(url)))
    with made.connection_for_write() as connection:
        assert connection.get_transport_cls() is {"redis": KombuTransport, "sentinel": Transport}[name]
        assert (connection.hostname, connection.port, connection.virtual_host) == ("host", port, "3")
        assert connection.password is None
        assert connection.credential_provider.get_credentials() == ("word",)
        assert bool(connection.ssl) is url.startswith("rediss")
        # There are no other URLs among which kombu would take turns.
        assert connection.alt == []


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_only_a_publisher_bounds_its_reads(timeout: float | None) -> None:
    made = make_app(RedisSettings(url=SecretStr("redis://127.0.0.1:1/0")), socket_timeout=timeout)
    assert made.conf.broker_transport_options["socket_timeout"] == timeout
