"""The API server as the driver asks it: as administrator, by its own port, whatever happens to others' ways."""

from __future__ import annotations

import json
import time
from typing import Any

import urllib3

from taskflow_core.domain import naming
from taskflow_core.domain.phases import OPEN_SELECTOR
from taskflow_core.kube.client import tasks_path
from taskflow_local.kube import Access
from taskflow_local.stack import Stack
from tests.chaos.ground import eventually

PODS = "/api/v1/namespaces/default/pods"
POOLS = f"/apis/{naming.API_VERSION}/namespaces/default/workerpools"
ALREADY, ABSENT, EXPIRED = 409, 404, 410
NAMES = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Of a list, names and nothing else."""
MERGE = "application/merge-patch+json"


class ApiError(Exception):
    """A refusal, or no answer (code 0)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class ApiServer:
    """Blocking; may be shared by threads."""

    def __init__(self, stack: Stack) -> None:
        access = Access.read(stack.kubeconfig)
        self._server = access.server
        self._headers = {"Authorization": f"Bearer {access.token}"}
        self._pool = urllib3.PoolManager(
            maxsize=16, ca_certs=str(stack.folder.pki / "ca.crt"), retries=False, timeout=urllib3.Timeout(30, connect=3)
        )

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> dict[str, Any]:
        """One request. Raises ApiError."""
        data = None if body is None else json.dumps(body)
        headers = self._headers | {"Content-Type": content_type, "Accept": accept}
        try:
            answer = self._pool.request(method, self._server + path, body=data, headers=headers)
            found: dict[str, Any] = json.loads(answer.data)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise ApiError(0, str(error)) from error
        if answer.status >= 400:
            raise ApiError(answer.status, str(found.get("message")))
        return found

    def insist(self, method: str, path: str, body: Any = None, seconds: float = 150, **more: Any) -> dict[str, Any]:
        """The same, again and again while there is no answer or one that says to come again; for longer than a fault
        lasts.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.ask(method, path, body, **more)
            except ApiError as error:
                if error.code in (ALREADY, ABSENT, EXPIRED, 400, 422) or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def create_task(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create a Task; by its name it is the same Task, however often it takes."""
        path = tasks_path("default")
        try:
            return self.insist("POST", path, body)
        except ApiError as error:
            if error.code != ALREADY:
                raise
        return self.insist("GET", f"{path}/{body['metadata']['name']}")

    def open_tasks(self) -> set[str]:
        """Names of the Tasks that have not finished."""
        selector = OPEN_SELECTOR.replace("!", "%21").replace("=", "%3D").replace(",", "%2C")
        return {item["metadata"]["name"] for item in self._listed(f"&fieldSelector={selector}", accept=NAMES)}

    def delete_tasks(self) -> None:
        """All of them; returns when they are gone."""
        self.insist("DELETE", tasks_path("default"), seconds=120)
        eventually(lambda: self._listed("", accept=NAMES), lambda left: not left, 120, "all Tasks gone")

    def tasks(self) -> list[dict[str, Any]]:
        """All of them."""
        return self._listed("")

    def _listed(self, query: str, accept: str = "application/json") -> list[dict[str, Any]]:
        # In pages: a server that was just restarted needs longer than a request may last for all of them at once.
        while True:
            items: list[dict[str, Any]] = []
            more = ""
            try:
                while True:
                    path = f"{tasks_path('default')}?limit=1000{query}{more}"
                    page = self.insist("GET", path, accept=accept)
                    # A list of names that is empty is null.
                    items += page["items"] or []
                    if not page["metadata"].get("continue"):
                        return items
                    more = "&continue=" + page["metadata"]["continue"]
            except ApiError as error:
                if error.code != EXPIRED:
                    raise
