from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.cluster.installation import NAMESPACE, RELEASE, WORK, Cluster

# Installs into the cluster that is named, so it runs only where one is named for it: `make e2e`.
collect_ignore_glob = [] if os.environ.get("KUBECONFIG_E2E") else ["test_*.py"]
RESTRICTED = ("pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/warn=restricted")


@pytest.fixture
def vacant() -> Iterator[Cluster]:
    """The cluster with nothing of ours in it, before and afterwards; pods of `default` are restricted too."""
    cluster = Cluster(os.environ["KUBECONFIG_E2E"])
    _clean(cluster)
    cluster.kubectl("label", "namespace", "default", "--overwrite", *RESTRICTED)
    yield cluster
    _clean(cluster)
    cluster.kubectl("delete", "secret", "taskflow-worker", "-n", "default", "--ignore-not-found")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster with two empty namespaces under Pod Security `restricted`; afterwards nothing of ours is left in it."""
    cluster = Cluster(os.environ["KUBECONFIG_E2E"])
    _clean(cluster)
    for name in (NAMESPACE, WORK):
        cluster.kubectl("create", "namespace", name)
        cluster.kubectl("label", "namespace", name, *RESTRICTED)
    yield cluster
    if "TASKFLOW_KEEP" not in os.environ:
        _clean(cluster)


def _clean(cluster: Cluster) -> None:
    cluster.helm("uninstall", RELEASE, "--ignore-not-found", "--wait", check=False)
    kinds = [f"{kind}.taskflow.dev" for kind in ("tasks", "taskschedules", "tasktemplates", "workerpools")]
    cluster.kubectl("delete", "crd", *kinds, "--ignore-not-found")
    cluster.kubectl("delete", "namespace", NAMESPACE, WORK, "--ignore-not-found", "--wait")


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Cluster:
    """The chart, installed from nothing; prints how long it took until the first Task had succeeded."""
    began = time.monotonic()
    cluster.install("install")
    up = time.monotonic()
    first = cluster.run("first", "taskflow.echo", kwargs={"value": "first"})
    assert first["status"]["phase"] == "Succeeded"
    print(f"\nhelm install: {up - began:.0f} s; first Task succeeded {time.monotonic() - began:.0f} s after its start")
    return cluster
