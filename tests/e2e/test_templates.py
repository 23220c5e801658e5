"""TaskTemplates through the whole product: kubectl and REST say the same, and a filled Task runs."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from taskflow_client import Client, handlers
from tests.e2e.product import Product, eventually, task

pytestmark = pytest.mark.e2e
SCHEMA = {"type": "object", "required": ["value"], "properties": {"value": {"type": "integer", "maximum": 9}}}
TEMPLATE = {
    "apiVersion": "taskflow.dev/v1alpha1",
    "kind": "TaskTemplate",
    "metadata": {"name": "e2e", "namespace": "default"},
    "spec": {
        "handlers": [
            {"name": "templates.checked", "kwargs": SCHEMA},
            {"name": "taskflow.echo", "defaults": {"kwargs": {"value": 7}}},
        ]
    },
}


def refused(product: Product) -> str:
    manifest = json.dumps(task("refused", "templates.checked", kwargs={"value": 10}))
    return product.kubectl("create", "--dry-run=server", "-f", "-", stdin=manifest, check=False)


def post(product: Product, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    environment = product.stack.env()
    headers = {
        "Authorization": f"Bearer {environment['TASKFLOW_API_TOKEN']}",
        "Content-Type": "application/json",
    }
    url = environment["TASKFLOW_API_URL"] + "/v1/namespaces/default/tasks?dryRun=true"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def described(product: Product) -> list[str]:
    environment = product.stack.env()
    with Client(environment["TASKFLOW_API_URL"], environment["TASKFLOW_API_TOKEN"]) as client:
        return [each.name for page in client.pages(handlers.listed("default")) for each in page.items]


def test_a_template_refuses_fills_in_and_is_listed(product: Product) -> None:
    product.apply(TEMPLATE)
    try:
        words = "TaskTemplate e2e refuses handler templates.checked: spec.kwargs.value: must be at most 9, found 10"
        eventually(lambda: refused(product), lambda said: words in said)
        status, problem = post(
            product, {"name": "refused", "spec": {"handler": "templates.checked", "kwargs": {"value": 10}}}
        )
        assert status == 422
        assert words in json.dumps(problem)
        found = {each["name"]: each for each in product.get("/v1/namespaces/default/handlers")["items"]}
        assert found["templates.checked"]["kwargs"] == SCHEMA
        assert described(product) == ["templates.checked", "taskflow.echo"]
        status, _ = post(product, found["templates.checked"]["example"])
        assert status in (200, 201)
        assert product.run("filled", "taskflow.echo")["status"]["result"] == 7
    finally:
        product.kubectl("delete", "tasktemplates.taskflow.dev", "e2e")
        eventually(lambda: refused(product), lambda said: "refuses" not in said)
