from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from taskflow_core.kube.client import KubeClient
from taskflow_local.stack import Stack
from tests.integration.taskflow_provisioner.site import Site


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API server, Redis and MinIO, and the identity of a provisioner, which does not run."""
    stack = Stack(
        tmp_path_factory.mktemp("stack"), ("etcd", "kube-apiserver", "redis", "minio", "versitygw", "provisioner")
    )
    try:
        stack.up(log=lambda _: None)
        stack.stop("provisioner")
        stack.apply_crds()
        yield stack
    finally:
        stack.down(log=lambda _: None)


@pytest.fixture
async def site(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """A labelled namespace of its own, and a provisioner with no more rights than in production."""
    monkeypatch.setenv("KUBECONFIG", str(stack.kubeconfig))
    admin = await KubeClient.connect(connections=4)
    monkeypatch.setenv("KUBECONFIG", str(Path(stack.folder.conf) / "provisioner.kubeconfig"))
    own = await KubeClient.connect(connections=4)
    site = Site(stack, admin, own, f"team-{uuid.uuid4().hex[:6]}")
    try:
        await site.open()
        yield site
    finally:
        await site.close()
        await admin.close()
        await own.close()
