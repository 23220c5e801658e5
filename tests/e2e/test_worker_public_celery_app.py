"""A Celery application that others wrote and published, unchanged: `celery-debug`, as it is installed from its
package.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from importlib.metadata import distribution

import pytest

from tests.e2e.product import Product

pytestmark = pytest.mark.e2e

QUEUE = "public"
AT_ONCE = {"maxAttempts": 5, "backoffSeconds": 0}
POOL = {
    "apiVersion": "taskflow.dev/v1alpha1",
    "kind": "WorkerPool",
    "metadata": {"name": "public"},
    "spec": {
        "queues": [QUEUE],
        "template": {
            "spec": {
                "containers": [
                    {"name": "worker", "env": [{"name": "TASKFLOW_WORKER_APP", "value": "celery_debug.app"}]}
                ]
            }
        },
    },
}


@pytest.fixture(scope="module")
def public(product: Product) -> Iterator[Product]:
    """The product with a worker that serves the application."""
    product.apply(POOL)
    product.kubectl("wait", "tfp/public", "--for=condition=Ready", "--timeout=60s")
    yield product
    product.kubectl("delete", "tfp", "public")


def test_the_application_is_the_published_one() -> None:
    installed = distribution("celery-debug")
    assert installed.version == "0.1.5"
    modules = [file for file in installed.files or () if file.suffix == ".py"]
    assert [file.name for file in modules] == ["__init__.py", "app.py", "tasks.py", "utils.py"]
    for file in modules:
        assert file.hash is not None
        digest = hashlib.new(file.hash.mode, file.read_binary()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value


def test_ping_answers(public: Product) -> None:
    assert public.run("public-ping", "debug.ping", queue=QUEUE)["status"]["result"] == "pong"


def test_echo_gives_back_what_it_got(public: Product) -> None:
    message = {"words": ["tea", 3, None], "more": {"ä": 1.5}}
    found = public.run("public-echo", "debug.echo", queue=QUEUE, args=[message])
    assert found["status"]["result"] == message


def test_sleep_lasts_as_long_as_it_says(public: Product) -> None:
    found = public.run("public-sleep", "debug.sleep", queue=QUEUE, kwargs={"seconds": 1.5})["status"]
    assert found["result"] is True
    assert float(found["duration"].removesuffix("s")) >= 1.5


def test_an_error_fails_each_attempt_with_its_type(public: Product) -> None:
    policy = {"maxAttempts": 2, "backoffSeconds": 0}
    found = public.run("public-error", "debug.raise_error", queue=QUEUE, retryPolicy=policy)["status"]
    assert (found["phase"], found["reason"], found["attempt"]) == ("Failed", "HandlerError", 2)
    assert found["lastError"]["type"] == "RuntimeError"
    assert found["lastError"]["message"] == "always raise a RuntimeError..."
    assert "celery_debug/tasks.py" in found["lastError"]["trace"]


def test_retries_are_counted_until_it_succeeds(public: Product) -> None:
    found = public.run("public-retry", "debug.retry_n", queue=QUEUE, args=[2], retryPolicy=AT_ONCE)["status"]
    assert (found["phase"], found["result"], found["attempt"]) == ("Succeeded", True, 3)
    assert found["lastError"]["attempt"] == 2
    assert found["lastError"]["message"] == "debug.retry_n[2] error."


def test_retries_end_where_the_task_says_so(public: Product) -> None:
    policy = {"maxAttempts": 2, "backoffSeconds": 0}
    found = public.run("public-retried-out", "debug.retry_n", queue=QUEUE, args=[5], retryPolicy=policy)["status"]
    assert (found["phase"], found["reason"], found["attempt"]) == ("Failed", "HandlerError", 2)
    assert found["lastError"]["type"] == "RuntimeError"


def test_arguments_that_it_does_not_take_are_refused(public: Product) -> None:
    found = public.run("public-wrong", "debug.echo", queue=QUEUE)["status"]
    assert found["reason"] == "InvalidArguments"
