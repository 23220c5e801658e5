"""The objects that the API server needs before TaskFlow starts: namespaces, RBAC, Secrets, kinds, policies."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from taskflow_core import resources
from taskflow_core.domain import naming
from taskflow_local.errors import LocalError
from taskflow_local.kube import Kube, KubeError, Object
from taskflow_provisioner import worker_secret

SYSTEM_NAMESPACE = "taskflow-system"
ACCOUNTS = {
    "operator": (SYSTEM_NAMESPACE, "taskflow-operator"),
    "api": (SYSTEM_NAMESPACE, "taskflow-api"),
    "provisioner": (SYSTEM_NAMESPACE, "taskflow-provisioner"),
    "node": (SYSTEM_NAMESPACE, "taskflow-node"),
    "client": ("default", "taskflow-client"),
}
"""Namespace and ServiceAccount of each component that has one, and of clients."""
TOKEN_SECONDS = 365 * 24 * 3600
_CRD_SECONDS = 30
_LOGIN_SECONDS = 30
_POLL_SECONDS = 0.1
_RBAC = Path(__file__).with_name("rbac.yaml")
_COLLECTIONS = {
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ValidatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
    "MutatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies",
    "MutatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "Secret": "/api/v1/namespaces/{namespace}/secrets",
    "Namespace": "/api/v1/namespaces",
}


def _path(body: Object) -> str:
    metadata = body["metadata"]
    return f"{_COLLECTIONS[body['kind']].format(namespace=metadata.get('namespace'))}/{metadata['name']}"


def _object(kind: str, name: str, namespace: str | None = None, **fields: object) -> Object:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}


async def prepare(kube: Kube, accounts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Apply RBAC and the ServiceAccounts (namespace, name). Returns a token for each name, valid for a year."""
    await kube.apply(*_with_path(_object("Namespace", SYSTEM_NAMESPACE)))
    documents = [document for document in yaml.safe_load_all(_RBAC.read_text()) if document]
    accounts = list(accounts)
    await asyncio.gather(
        *(kube.apply(*_with_path(document)) for document in documents),
        *(kube.apply(*_with_path(_object("ServiceAccount", name, namespace))) for namespace, name in accounts),
    )
    tokens = await asyncio.gather(*(_token(kube, namespace, name) for namespace, name in accounts))
    return {name: token for (_, name), token in zip(accounts, tokens, strict=True)}


def _with_path(body: Object) -> tuple[str, Object]:
    return _path(body), body


async def _token(kube: Kube, namespace: str, name: str) -> str:
    body: Object = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": TOKEN_SECONDS},
    }
    answer = await kube.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", body)
    return str(answer["status"]["token"])


async def add_namespace(kube: Kube, name: str, secret: Object | None) -> None:
    """Create a namespace if it does not exist, label it, and apply the workers' Secret if there is one to apply."""
    try:
        await kube.create("/api/v1/namespaces", _object("Namespace", name))
    except KubeError as error:
        if not error.is_conflict:
            raise
    label = {"metadata": {"labels": {naming.LABEL_WORKERS: naming.WORKERS_ENABLED}}}
    await kube.patch(f"/api/v1/namespaces/{name}", label)
    # Created here, so that Pods can be created at once: the controller manager creates it a moment later.
    await kube.apply(*_with_path(_object("ServiceAccount", "default", name)))
    if secret is not None:
        await kube.apply(*_with_path(secret), worker_secret.MANAGER)


async def wait_for_login(kube: Kube, namespace: str) -> None:
    """Wait until the provisioner has made the workers' Secret of a namespace."""
    deadline = time.monotonic() + _LOGIN_SECONDS
    while True:
        try:
            await kube.get(f"/api/v1/namespaces/{namespace}/secrets/{naming.WORKER_SECRET}")
        except KubeError as error:
            if not error.is_absent:
                raise
        else:
            return
        if time.monotonic() > deadline:
            raise LocalError(
                f"{namespace}: no Secret {naming.WORKER_SECRET} after {_LOGIN_SECONDS} s; see the provisioner's log"
            )
        await asyncio.sleep(_POLL_SECONDS)


async def existing_namespaces(kube: Kube, names: Iterable[str]) -> list[str]:
    """The namespaces that still exist. Includes `default`, which a new API server creates a moment later."""
    items = (await kube.get("/api/v1/namespaces"))["items"]
    active = {item["metadata"]["name"] for item in items if item["status"].get("phase") == "Active"}
    return [name for name in names if name in active or name == "default"]


def read_crds(folder: Path) -> list[Object]:
    """Read every CRD of a folder. Raises LocalError when there is none."""
    files = sorted(folder.glob("*.yaml"))
    documents = [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]
    crds = [document for document in documents if document.get("kind") == "CustomResourceDefinition"]
    if not crds:
        raise LocalError(f"{folder}: expected CustomResourceDefinitions in *.yaml, found none")
    return crds


async def define_kinds(kube: Kube) -> list[str]:
    """Apply TaskFlow's CRDs, wait until they are served, and apply the policies that need them.

    Returns the names of the CRDs.
    """
    names = await apply_crds(kube, read_crds(resources.path("crds")))
    files = resources.path("policies").glob("*.yaml")
    await asyncio.gather(*(_apply_policy(kube, list(yaml.safe_load_all(file.read_text()))) for file in files))
    return names


async def _apply_policy(kube: Kube, documents: Iterable[Object]) -> None:
    for document in documents:
        try:
            await kube.apply(*_with_path(document))
        except KubeError as error:
            # Before Kubernetes 1.36 there are no MutatingAdmissionPolicies of this version; TaskFlow works without.
            if not error.is_absent or not document["kind"].startswith("Mutating"):
                raise


async def apply_crds(kube: Kube, crds: Sequence[Object]) -> list[str]:
    """Apply CRDs and wait until the API server serves them; returns their names."""
    await asyncio.gather(*(kube.apply(*_with_path(crd)) for crd in crds))
    await asyncio.gather(*(_established(kube, crd) for crd in crds))
    return [str(crd["metadata"]["name"]) for crd in crds]


async def _established(kube: Kube, crd: Object) -> None:
    deadline = time.monotonic() + _CRD_SECONDS
    while True:
        conditions = (await kube.get(_path(crd))).get("status", {}).get("conditions") or []
        established = any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
        # The condition appears a moment before the API server serves the new resource.
        if established and await _is_served(kube, crd["spec"]):
            return
        if time.monotonic() > deadline:
            raise LocalError(f"{crd['metadata']['name']}: not served after {_CRD_SECONDS} s, found {conditions}")
        await asyncio.sleep(_POLL_SECONDS)


async def _is_served(kube: Kube, spec: Object) -> bool:
    try:
        for version in spec["versions"]:
            if version["served"]:
                await kube.get(f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}?limit=1")
    except KubeError as error:
        if error.is_absent:
            return False
        raise
    return True
