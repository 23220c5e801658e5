from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.product import Product, condition, task

pytestmark = pytest.mark.e2e

ONE_TRY = {"maxAttempts": 1}


@pytest.mark.parametrize(
    ("name", "handler", "spec", "reason", "words"),
    [
        (
            "wrong-type",
            "taskflow.sleep",
            {"kwargs": {"seconds": "3"}},
            "InvalidArguments",
            'seconds: Input should be a valid number, found "3"',
        ),
        (
            "wrong-name",
            "taskflow.sleep",
            {"kwargs": {"minutes": 3}},
            "InvalidArguments",
            "missing a required argument: 'seconds'",
        ),
        ("not-json", "e2e.not_json", {}, "ResultNotSerialisable", "returned object, which has no JSON form"),
        (
            "no-input",
            "e2e.upper",
            {"inputs": [{"name": "text.txt", "key": "no/such.txt"}], "outputs": [{"name": "upper.txt"}]},
            "InputMissing",
            "there is no object 'default/no/such.txt'",
        ),
        (
            "raising",
            "taskflow.fail",
            {"kwargs": {"message": "on purpose"}, "retryPolicy": ONE_TRY},
            "HandlerError",
            "RuntimeError: on purpose",
        ),
    ],
)
def test_bad_input_fails_the_task_with_a_reason_and_words(
    product: Product, name: str, handler: str, spec: dict[str, Any], reason: str, words: str
) -> None:
    found = product.run(name, handler, **spec)
    assert found["status"]["phase"] == "Failed"
    assert found["status"]["reason"] == reason
    assert found["status"]["attempt"] == 1
    for kind in ("Failed", "Finished"):
        assert condition(found, kind)["status"] == "True"
        assert condition(found, kind)["reason"] == reason
        assert words in condition(found, kind)["message"]
    told = product.history(name, "Failed")
    assert told["attempts"][0]["reason"] == reason


def test_a_payload_over_the_limit_is_refused_before_it_is_queued(product: Product) -> None:
    found = product.run("fat", "taskflow.echo", kwargs={"value": "x" * 9000})
    assert found["status"]["phase"] == "Failed"
    assert condition(found, "Accepted")["status"] == "False"
    assert condition(found, "Accepted")["reason"] == "PayloadTooLarge"
    assert "at most 8192 are allowed" in condition(found, "Accepted")["message"]
    assert condition(found, "Finished")["status"] == "True"
    told = product.history("fat", "Failed")
    assert [event["kind"] for event in told["timeline"]] == ["settled"]


def test_a_queue_that_no_pool_serves_is_named_and_a_new_pool_takes_the_task(product: Product) -> None:
    product.apply(task("lonely", "taskflow.echo", queue="rare"))
    pending = product.in_phase("lonely", "Pending")
    assert condition(pending, "Queued")["status"] == "False"
    assert condition(pending, "Queued")["reason"] == "NoWorkerPool"
    assert "serves queue 'rare'; queues served there: default" in condition(pending, "Queued")["message"]
    product.apply(
        {
            "apiVersion": "taskflow.dev/v1alpha1",
            "kind": "WorkerPool",
            "metadata": {"name": "rare"},
            "spec": {"queues": ["rare"]},
        }
    )
    assert product.finished("lonely")["status"]["phase"] == "Succeeded"
    product.kubectl("delete", "tfp", "rare")


def test_a_manifest_that_the_schema_refuses_creates_nothing(product: Product) -> None:
    said = product.kubectl(
        "apply",
        "-f",
        "-",
        stdin='{"apiVersion":"taskflow.dev/v1alpha1","kind":"Task","metadata":{"name":"bad"},"spec":{"handler":"a b"}}',
        check=False,
    )
    assert "spec.handler: Invalid value" in said
    assert "NotFound" in product.kubectl("get", "tft", "bad", check=False)


def test_a_payload_nested_too_deeply_is_refused_and_stops_no_other(product: Product) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    found = product.run("deep", "taskflow.echo", args=[deep])
    assert condition(found, "Accepted")["reason"] == "PayloadTooDeep"
    assert product.run("beside-deep", "taskflow.echo")["status"]["phase"] == "Succeeded"
