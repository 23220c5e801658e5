"""Who may create WorkerPools and Tasks, and nothing else, gets no Pod that who may create Pods would not get."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.product import Product, eventually, task

pytestmark = pytest.mark.e2e

NAMESPACE = "guarded"
USER = "pool-maker"
RIGHTS: list[dict[str, Any]] = [
    {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": USER, "namespace": NAMESPACE},
        "rules": [{"apiGroups": ["taskflow.dev"], "resources": ["workerpools", "tasks"], "verbs": ["create"]}],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": USER, "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": USER},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    },
]
POD_SECURITY = 'violates PodSecurity "restricted:latest": '
ASKED: dict[str, tuple[dict[str, Any], str]] = {
    "host-path": ({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, POD_SECURITY + "restricted volume types"),
    "host-network": ({"hostNetwork": True}, POD_SECURITY + "host namespaces (hostNetwork=true)"),
    "host-pid": ({"hostPID": True}, POD_SECURITY + "host namespaces (hostPID=true)"),
    # The API server of local mode admits no privileged container at all (--allow-privileged).
    "privileged": ({"containers": [{"name": "worker", "securityContext": {"privileged": True}}]}, "privileged"),
    "sidecar": ({"containers": [{"name": "other", "image": "other"}]}, POD_SECURITY + "allowPrivilegeEscalation"),
    "init": ({"initContainers": [{"name": "first", "image": "other"}]}, POD_SECURITY + "allowPrivilegeEscalation"),
    "root": ({"securityContext": {"runAsNonRoot": False}}, POD_SECURITY + "runAsNonRoot != true"),
    "unconfined": ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, POD_SECURITY),
    "capabilities": (
        {"containers": [{"name": "worker", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]},
        POD_SECURITY,
    ),
}
"""What a template asks for, and what the refusal says."""


@pytest.fixture(scope="module")
def guarded(product: Product) -> Iterator[Product]:
    product.apply(*RIGHTS)
    yield product
    product.kubectl("delete", "tft,tfp", "--all", "-n", NAMESPACE)


def pool(name: str, template: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"queues": [name], "replicas": 1, "template": {"spec": template}, **spec},
    }


def create(product: Product, body: dict[str, Any]) -> None:
    """As the user."""
    product.kubectl("create", f"--as={USER}", "-f", "-", stdin=json.dumps(body))


def get(product: Product, kind: str, name: str) -> dict[str, Any]:
    return dict(json.loads(product.kubectl("get", kind, name, "-n", NAMESPACE, "-o", "json")))


def stalled(found: dict[str, Any]) -> str:
    """Why the pool gets no workers; empty before that is known."""
    conditions = found.get("status", {}).get("conditions", [])
    return next((each["message"] for each in conditions if each["type"] == "Stalled" and each["status"] == "True"), "")


def pods(product: Product) -> list[dict[str, Any]]:
    return list(json.loads(product.kubectl("get", "pods", "-n", NAMESPACE, "-o", "json"))["items"])


def test_the_user_may_create_neither_pods_nor_what_makes_them(guarded: Product) -> None:
    for kind in ("pods", "deployments.apps", "jobs.batch", "secrets"):
        said = guarded.kubectl("auth", "can-i", "create", kind, f"--as={USER}", "-n", NAMESPACE, check=False)
        assert said.strip().endswith("no")


@pytest.mark.parametrize("wish", ASKED)
def test_what_a_pod_may_not_have_a_pool_does_not_get_and_says_so(guarded: Product, wish: str) -> None:
    template, word = ASKED[wish]
    create(guarded, pool(wish, template))
    eventually(lambda: stalled(get(guarded, "tfp", wish)), lambda message: word in message)
    assert pods(guarded) == []


def test_the_same_holds_for_tasks_in_pods_of_their_own(guarded: Product) -> None:
    create(guarded, pool("alone", {"hostNetwork": True}, replicas=0))
    body = task("alone", "taskflow.echo", queue="alone", isolation="Pod")
    body["metadata"]["namespace"] = NAMESPACE
    create(guarded, body)
    eventually(
        lambda: get(guarded, "tft", "alone").get("status", {}).get("message", ""),
        lambda message: 'its pod is forbidden: violates PodSecurity "restricted:latest"' in message,
        60,
    )
    assert f"{POD_SECURITY}host namespaces" in guarded.kubectl("get", "events", "-n", NAMESPACE)
    assert pods(guarded) == []


def test_another_service_account_gives_a_pod_no_token_by_itself(guarded: Product) -> None:
    # As for Pods, the template may name any ServiceAccount of its namespace.
    guarded.kubectl("create", "serviceaccount", "other", "-n", NAMESPACE)
    create(guarded, pool("account", {"serviceAccountName": "other", "automountServiceAccountToken": True}))
    made = eventually(
        lambda: guarded.kubectl("get", "deployment", "account-workers", "-n", NAMESPACE, "-o", "json", check=False),
        lambda said: said.startswith("{"),
    )
    template = json.loads(made)["spec"]["template"]["spec"]
    assert (template["serviceAccountName"], template["automountServiceAccountToken"]) == ("other", False)
