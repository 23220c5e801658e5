"""Reading an API server again and again: over one connection, where a `kubectl` each time would cost a tenth of a
second of CPU.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3

from taskflow_core.domain import naming
from taskflow_local.kube import Access

TASKS = f"apis/{naming.API_VERSION}/tasks"
POOLS = f"apis/{naming.API_VERSION}/workerpools"
PODS = "api/v1/pods"
JOBS = "apis/batch/v1/jobs"
AUTOSCALERS = "apis/autoscaling/v2/horizontalpodautoscalers"
EVENTS = "apis/events.k8s.io/v1/events"


class ApiServer:
    """What a kubeconfig reaches, as the user in it."""

    def __init__(self, kubeconfig: Path) -> None:
        access = Access.read(kubeconfig)
        self._server = access.server
        self._http = urllib3.PoolManager(
            ssl_context=ssl.create_default_context(cadata=access.ca),
            headers={"Authorization": f"Bearer {access.token}"},
            retries=False,
            timeout=20,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.clear()

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """One object, as `kubectl get -o json` shows it; `kind` is the path of the group and the plural, as in
        `TASKS`.
        """
        return _shown(self._read(_path(kind, namespace, name)))

    def list(self, kind: str, labels: str = "", namespace: str = "default") -> list[dict[str, Any]]:
        """All objects that have these labels."""
        found = self._read(_path(kind, namespace), {"labelSelector": labels} if labels else {})
        return [_shown(item) for item in found["items"]]

    def _read(self, path: str, fields: dict[str, str] | None = None) -> dict[str, Any]:
        answer = self._http.request("GET", f"{self._server}/{path}", fields=fields)
        if answer.status != 200:
            raise AssertionError(f"GET {path}: {answer.status} {answer.data.decode()}")
        found: dict[str, Any] = json.loads(answer.data)
        return found


def _path(kind: str, namespace: str, name: str = "") -> str:
    group, _, plural = kind.rpartition("/")
    return f"{group}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    found["metadata"].pop("managedFields", None)
    return found
