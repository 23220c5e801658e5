from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from tests.attack.site import EVIL, SECRET, SECRET_KEY, VICTIM, Site
from tests.e2e.own_stack import own_stack
from tests.e2e.product import eventually

CONCURRENCY = 2


BY_HAND = {
    "apiVersion": "taskflow.dev/v1alpha1",
    "kind": "WorkerPool",
    "metadata": {"name": "by-hand", "namespace": EVIL},
    "spec": {"queues": ["nobody", "by-hand"], "replicas": 0},
}
"""Queues of which the hostile tenant takes the messages itself."""


def pool(namespace: str) -> dict[str, Any]:
    """Two slots of warm workers."""
    container = {"name": "worker", "env": [{"name": "TASKFLOW_WORKER_HANDLERS", "value": "e2e_handlers"}]}
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": "main", "namespace": namespace},
        "spec": {"queues": ["default"], "concurrency": CONCURRENCY, "template": {"spec": {"containers": [container]}}},
    }


@contextmanager
def standing_site() -> Iterator[Site]:
    """A stack with two tenants, each with warm workers."""
    with own_stack(audited=False) as product:
        site = Site(product)
        try:
            for namespace in (VICTIM, EVIL):
                product.stack.add_namespace(namespace)
                site.product.apply(pool(namespace))
            site.product.apply(BY_HAND)
            for namespace in (VICTIM, EVIL):
                eventually(partial(site.pool, namespace), lambda status: status.get("slots") == CONCURRENCY, 90)
                # From its first Task on, the operator reads what the workers of a namespace say.
                site.finished(site.create(namespace, "taskflow.echo"))
            site.all_objects.put_object("taskflow", SECRET_KEY, io.BytesIO(SECRET), len(SECRET))
            yield site
        finally:
            site.close()


@pytest.fixture(scope="package")
def whole_site() -> Iterator[Site]:
    """Started once."""
    with standing_site() as site:
        yield site


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    """After each attack, the victim is unharmed."""
    whole_site.note_processes()
    yield whole_site
    whole_site.assert_unharmed()
