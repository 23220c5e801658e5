"""A thin client on aiohttp: 0.4-0.5 ms of CPU per write, where the generated clients need 1.2-5.7 ms.

Credentials are found and refreshed by the official client (`kubernetes.aio`): kubeconfig, or the pod's ServiceAccount.
"""

from __future__ import annotations

import io
import json
import os
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
from kubernetes.aio import client as official
from kubernetes.aio import config as credentials

from taskflow_core.domain import naming
from taskflow_core.errors import Conflict, Dependency, Forbidden, Invalid, Unavailable
from taskflow_core.kube.answers import refusal, watch_event
from taskflow_core.kube.deep_json import read_json
from taskflow_core.kube.pages import PageLimit, TooLarge, read_body
from taskflow_core.kube.scopes import Batch, merged, refused, scoped
from taskflow_core.kube.server_clock import ServerClock

JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
PAGE_SIZE = 500
MAX_NAMESPACE_CHARS, MAX_NAME_CHARS = 63, 253
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
WATCH_SECONDS = 300
"""The server ends a watch after this time, and it is started again where it was, in case the connection is dead."""
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_PIECE_BYTES = 1024 * 1024
NO_ANSWER = 0
# An API server answers within its own 60 s limit or never.
_TIMEOUT = aiohttp.ClientTimeout(total=65, connect=5)
# Bookmarks come once a minute, so a longer silence is a dead connection.
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=5, sock_read=90)


def tasks_path(namespace: str | None = None, name: str | None = None) -> str:
    """URL path of all Tasks, those of a namespace, or one."""
    return resource_path(f"apis/{naming.API_VERSION}", "tasks", namespace, name)


def resource_path(group: str, plural: str, namespace: str | None = None, name: str | None = None) -> str:
    """URL path of a resource, e.g. of group `apis/apps/v1`; without a name, of all of them.

    Raises:
        Invalid: the namespace or the name is none of Kubernetes, so it could lead the request elsewhere. An empty name
            is none either: it would turn a request for one object into one for all.
    """
    scope = "" if namespace is None else f"/namespaces/{_segment(namespace, MAX_NAMESPACE_CHARS)}"
    return f"/{group}{scope}/{plural}" + ("" if name is None else f"/{_segment(name, MAX_NAME_CHARS)}")


def _segment(name: str, longest: int) -> str:
    if len(name) > longest or _DNS_NAME.fullmatch(name) is None:
        raise Invalid(f"{name[:longest]!r} is no name of a Kubernetes object")
    # Changes nothing in such a name, and is still right when the pattern is widened.
    return quote(name, safe="")


def status_patch(uid: str, status: Mapping[str, Any], version: str = "") -> list[dict[str, Any]]:
    """JSON Patch that replaces the status of an object, only if it is still the one with that uid, and unchanged since
    that resourceVersion if one is given.
    """
    tests = {"uid": uid} | ({"resourceVersion": version} if version else {})
    return [
        *({"op": "test", "path": f"/metadata/{name}", "value": value} for name, value in tests.items()),
        {"op": "add", "path": "/status", "value": status},
    ]


def failed_test(error: Invalid) -> bool:
    """Whether a JSON Patch was refused for one of its `test`s. The API server (1.36) says no more of it than that its
    request was rejected; a refusal of the content has causes.
    """
    return not error.causes and "the server rejected our request" in str(error)


def delete_options(**preconditions: str) -> dict[str, Any]:
    """Body of a DELETE that is refused unless `uid`, or `resourceVersion`, is as given."""
    return {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions}


class Requests(Protocol):
    """The requests of a `KubeClient`."""

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """See `KubeClient.request`."""


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    items: list[dict[str, Any]]
    version: str
    """The resourceVersion that all pages of the list have in common; a watch may go on from it."""


@dataclass(frozen=True)
class Hooks:
    """What a process adds to the requests of its `KubeClient`."""

    may_write: Callable[[], bool] = lambda: True
    """Whether this process may change anything at the moment: a leader in doubt may not."""
    cares_for: Callable[[str], bool] = lambda _namespace: True
    """Whether this process is responsible for a namespace. Lists and watches show nothing of others."""
    namespaces: Sequence[str] = ()
    """The only namespaces that lists and watches of the whole cluster read, and may read; empty means all."""
    answered: Callable[[str, int], None] = lambda _verb, _code: None
    """Called after each request with the API verb and the HTTP status, or `NO_ANSWER`."""


class KubeClient:
    """JSON requests to the API server with this process's identity. Close it at the end.

    Args:
        session: the connections.
        configuration: the credentials.
        hooks: what the process that uses it adds to each request.
    """

    def __init__(
        self, session: aiohttp.ClientSession, configuration: official.Configuration, hooks: Hooks | None = None
    ) -> None:
        self._session = session
        self._configuration = configuration
        self._hooks = hooks or Hooks()
        self.answered_at = time.monotonic()
        """When the API server last answered other than by a 5xx (monotonic seconds)."""
        self.clock = ServerClock()

    @classmethod
    async def connect(cls, connections: int = 32, hooks: Hooks | None = None) -> KubeClient:
        """Find credentials ($KUBECONFIG or ~/.kube/config, else the pod's) and open a session.

        Raises:
            Invalid: there are no usable credentials.
        """
        configuration = official.Configuration()
        try:
            if os.environ.get("KUBERNETES_SERVICE_HOST") and not os.environ.get("KUBECONFIG"):
                credentials.load_incluster_config(client_configuration=configuration)
            else:
                # Named, because the library reads the variable when it is imported.
                await credentials.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=configuration)
        except credentials.ConfigException as error:
            raise Invalid(f"no Kubernetes credentials: {error}; set KUBECONFIG or run inside a cluster") from error
        tls: ssl.SSLContext | bool = True
        if configuration.host.startswith("https"):
            tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
            if configuration.cert_file:
                tls.load_cert_chain(configuration.cert_file, configuration.key_file)
        connector = aiohttp.TCPConnector(limit=connections, ssl=tls)
        session = aiohttp.ClientSession(
            configuration.host, connector=connector, timeout=_TIMEOUT, headers={"User-Agent": naming.FIELD_MANAGER}
        )
        return cls(session, configuration, hooks)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        params: Mapping[str, str] | None = None,
        most: int | None = None,
    ) -> dict[str, Any]:
        """One request; the answer's JSON.

        Raises:
            NotFound, Conflict, Forbidden, Invalid: as the API server says, with its message.
            Unavailable: no answer, or one that says to come again; or this process may not write now.
            TooLarge: the answer has more than `most` bytes.
        """
        if method != "GET" and not self._hooks.may_write():
            raise Unavailable("API server: leadership is not confirmed, so nothing is written", Dependency.API_SERVER)
        verb = "list" if params and "limit" in params else _VERBS.get(method, method.lower())
        headers = {"Content-Type": content_type, **await self._authorization()}
        asked = time.time()
        try:
            async with self._session.request(
                method, path, data=_content(body), params=params, headers=headers
            ) as response:
                try:
                    payload = await read_body(response, most)
                except TooLarge:
                    _abort(response)
                    raise
                self._note(verb, response.status)
                self.clock.note(asked, response.headers.get("Date", ""), time.time())
                if response.status < 400:  # noqa: PLR2004 - HTTP's own border
                    answer: dict[str, Any] = read_json(payload)
                    return answer
                raise refusal(response.status, payload)
        except ValueError as error:
            raise Unavailable(f"API server: {method} {path}: the answer is no JSON", Dependency.API_SERVER) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._hooks.answered(verb, NO_ANSWER)
            raise Unavailable(
                f"API server: {method} {path}: {str(error) or type(error).__name__}", Dependency.API_SERVER
            ) from error

    async def _authorization(self) -> dict[str, str]:
        # Also reads the pod's token again when it is about to expire.
        token = await self._configuration.get_api_key_with_prefix("BearerToken")
        return {"Authorization": token} if token else {}

    def _note(self, verb: str, code: int) -> None:
        if code < 500:  # noqa: PLR2004 - HTTP's own border
            self.answered_at = time.monotonic()
        self._hooks.answered(verb, code)

    async def list_pages(self, path: str, field_selector: str = "", label_selector: str = "") -> AsyncIterator[Page]:
        """All objects of the namespaces that this process handles, up to 500 or
        8 MiB a page.

        Where they are the only ones that it may read, each is listed for itself; one that is refused, as one is that
        was deleted with its Roles, is left out. Every page has the version of the first list: none of the others is
        older.

        Raises:
            Conflict: the list's snapshot expired between two pages (HTTP 410); start again.
            Forbidden: all of them are refused.
        """
        version, refusal = "", None
        for namespace, where in scoped(path, self._hooks.namespaces).items():
            try:
                async for page in self._list(where, field_selector, label_selector):
                    version = version or page.version
                    yield Page(page.items, version)
            except Forbidden as error:
                if not namespace:
                    raise
                refused(namespace, error)
                refusal = error
        if refusal is not None and not version:
            raise refusal

    async def _list(self, path: str, field_selector: str, label_selector: str) -> AsyncIterator[Page]:
        limit, params = PageLimit(PAGE_SIZE), dict[str, str]()
        if field_selector:
            params["fieldSelector"] = field_selector
        if label_selector:
            params["labelSelector"] = label_selector
        while True:
            params["limit"] = str(limit.value)
            try:
                page = await self.request("GET", path, params=params, most=limit.bytes)
            except TooLarge:
                limit.shrink()
                continue
            limit.fitted()
            items = [body for body in page["items"] if self._mine(body)]
            yield Page(items, page["metadata"].get("resourceVersion", ""))
            token = page["metadata"].get("continue")
            if not token:
                return
            params["continue"] = token

    def _mine(self, body: Mapping[str, Any]) -> bool:
        return self._hooks.cares_for(body.get("metadata", {}).get("namespace", ""))

    async def watch(
        self, path: str, version: str, field_selector: str = "", label_selector: str = ""
    ) -> AsyncIterator[Sequence[dict[str, Any]]]:
        """Events after that version as they arrive, `{"type", "object"}`, with bookmarks; ends when the
        server ends it.

        The first batch is empty: the server has begun. The version of a batch's last event is where a next watch may
        begin.

        Raises:
            Conflict: the server no longer knows that version (HTTP 410, or an event that says so); list again.
            Unavailable, Forbidden: no answer, or a refusal; the watch may be begun again where it was.
        """
        watches = {
            namespace: self._watch(where, version, field_selector, label_selector)
            for namespace, where in scoped(path, self._hooks.namespaces).items()
        }
        only = watches.get("")
        async for batch in merged(watches, version) if only is None else only:
            yield batch

    async def _watch(self, path: str, version: str, field_selector: str, label_selector: str) -> AsyncGenerator[Batch]:
        params = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        selectors = {"fieldSelector": field_selector, "labelSelector": label_selector}
        params |= {"resourceVersion": version} | {name: text for name, text in selectors.items() if text}
        headers = await self._authorization()
        try:
            async with self._session.request(
                "GET", path, params=params, headers=headers, timeout=_WATCH_TIMEOUT
            ) as response:
                self._note("watch", response.status)
                if response.status >= 400:  # noqa: PLR2004 - HTTP's own border
                    raise refusal(response.status, await response.read())
                try:
                    yield ()
                    rest = b""
                    async for chunk in response.content.iter_any():
                        *lines, rest = (rest + chunk).split(b"\n")
                        yield [self._event(line) for line in lines]
                finally:
                    _abort(response)
        except ValueError as error:
            raise Unavailable(
                f"API server: watch of {path}: what it sends is no JSON", Dependency.API_SERVER
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(
                f"API server: watch of {path}: {str(error) or type(error).__name__}", Dependency.API_SERVER
            ) from error

    def _event(self, line: bytes) -> dict[str, Any]:
        event = watch_event(line)
        if event["type"] == "BOOKMARK" or self._mine(event["object"]):
            return event
        # Only the progress of the watch matters to this process.
        version = event["object"]["metadata"]["resourceVersion"]
        return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}

    async def patch_status(self, plural: str, namespace: str, name: str, uid: str, status: dict[str, Any]) -> None:
        """Replace the status of a TaskFlow resource, only if it is still the same resource.

        A JSON Patch with a `test`: merge patch and server-side apply ignore a wrong uid on `/status` and would give a
        re-created resource of the same name its predecessor's state.

        Args:
            plural: of the kind, such as `tasks`.
            namespace: of the resource.
            name: of the resource.
            uid: of the resource.
            status: the whole status.

        Raises:
            NotFound: there is no such resource.
            Conflict: the name belongs to another resource now.
        """
        params = {"fieldManager": naming.FIELD_MANAGER}
        path = resource_path(f"apis/{naming.API_VERSION}", plural, namespace, name) + "/status"
        try:
            await self.request("PATCH", path, status_patch(uid, status), content_type=JSON_PATCH, params=params)
        except Conflict as error:
            # Another write came between the server's read and its write; ours does not depend on what was read.
            raise Unavailable(str(error), Dependency.API_SERVER) from error
        except Invalid as error:
            if failed_test(error):
                raise Conflict(f"{plural} {namespace}/{name} is no longer the one with uid {uid}") from error
            raise

    async def apply(self, path: str, body: dict[str, Any], *, manager: str = naming.FIELD_MANAGER) -> dict[str, Any]:
        """Server-side apply with force: the fields that we set are ours."""
        params = {"fieldManager": manager, "force": "true"}
        return await self.request("PATCH", path, body, content_type=APPLY_PATCH, params=params)


def _abort(response: aiohttp.ClientResponse) -> None:
    """Close the connection of a watch that is left before its end. A TLS shutdown would go on after the session is
    closed.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


def _content(body: Any) -> bytes | io.BytesIO | None:
    if body is None:
        return None
    content = json.dumps(body, separators=(",", ":")).encode()
    # aiohttp writes bytes in one go, a file piece by piece.
    return content if len(content) <= _PIECE_BYTES else io.BytesIO(content)
