"""A small client of the API server on aiohttp, and kubeconfig files.

Objects stay plain JSON: local mode reads only a few fields of the kinds that Kubernetes itself defines.
"""

import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from taskflow_local.errors import LocalError
from taskflow_local.state import write_private

Object = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_FIELD_MANAGER = "taskflow-local"
_REQUEST_SECONDS = 30
_LINE_LIMIT = 4 * 1024 * 1024


class KubeError(LocalError):
    """The API server refused a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status

    @property
    def is_absent(self) -> bool:
        """The object does not exist."""
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def is_conflict(self) -> bool:
        """The object already exists, or its uid is not the expected one."""
        return self.status == HTTPStatus.CONFLICT


@dataclass(frozen=True)
class Access:
    """The URL of the API server and the identity to use."""

    server: str
    ca: str
    token: str

    def write(self, path: Path, user: str) -> None:
        """Write a kubeconfig (JSON, which is valid YAML) that only its owner may read."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "taskflow", "cluster": {"server": self.server, "certificate-authority-data": _base64(self.ca)}}
            ],
            "users": [{"name": user, "user": {"token": self.token}}],
            "contexts": [
                {"name": "taskflow", "context": {"cluster": "taskflow", "user": user, "namespace": "default"}}
            ],
            "current-context": "taskflow",
        }
        write_private(path, json.dumps(content, indent=1))

    @staticmethod
    def read(path: Path) -> "Access":
        """Read a kubeconfig written by `write`."""
        content = json.loads(path.read_text())
        cluster = content["clusters"][0]["cluster"]
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        return Access(cluster["server"], ca, content["users"][0]["user"]["token"])


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Kube:
    """A client for one identity; an async context manager."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(cadata=self._access.ca)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=64),
            headers={"Authorization": f"Bearer {self._access.token}", "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
            read_bufsize=_LINE_LIMIT,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        """Send one request. Raises KubeError for an unsuccessful answer, and aiohttp's errors if there is none."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type}
        async with self._session.request(
            method, self._access.server + path, data=data, headers=headers, params=query
        ) as answer:
            text = await answer.text()
            if not answer.ok:
                raise KubeError(answer.status, _message(text))
            found: Object = json.loads(text) if text.startswith("{") else {"text": text}
            return found

    async def get(self, path: str) -> Object:
        """GET."""
        return await self.request("GET", path)

    async def create(self, path: str, body: Object) -> Object:
        """POST."""
        return await self.request("POST", path, body)

    async def patch(self, path: str, body: Object, content_type: str = MERGE) -> Object:
        """PATCH, by default with a merge patch."""
        return await self.request("PATCH", path, body, content_type=content_type)

    async def apply(self, path: str, body: Object, manager: str = _FIELD_MANAGER) -> Object:
        """Server-side apply. Takes over fields that others set."""
        query = {"fieldManager": manager, "force": "true"}
        return await self.request("PATCH", path, body, content_type=_APPLY, query=query)

    async def watch(self, path: str, resource_version: str, seconds: int = 300) -> AsyncIterator[Object]:
        """Yield watch events until the server closes the stream. Raises KubeError(410) when the version is too old."""
        query = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_REQUEST_SECONDS, sock_read=seconds + 30)
        async with self._session.get(self._access.server + path, params=query, timeout=timeout) as answer:
            if not answer.ok:
                raise KubeError(answer.status, _message(await answer.text()))
            async for line in answer.content:
                event: Object = json.loads(line)
                if event["type"] == "ERROR":
                    raise KubeError(event["object"].get("code", 500), event["object"].get("message", ""))
                yield event


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:300]
